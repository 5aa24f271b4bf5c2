//! The messages of a `.wandb` file that this plugin writes. Names and numbers of fields are from W&B's
//! `wandb_internal.proto`; values are JSON in text, in which NaN and the infinities are words.

use prost::{Message, Oneof};

/// One record of a file.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Record {
    /// Its place in the file, from 1.
    #[prost(int64, tag = "1")]
    pub(crate) num: i64,
    #[prost(oneof = "What", tags = "2, 3, 5, 17, 18, 21")]
    pub(crate) what: Option<What>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum What {
    #[prost(message, tag = "2")]
    History(History),
    #[prost(message, tag = "3")]
    Summary(Items),
    #[prost(message, tag = "5")]
    Config(Items),
    #[prost(message, tag = "17")]
    Run(Run),
    #[prost(message, tag = "18")]
    Exit(Exit),
    #[prost(message, tag = "21")]
    Header(Header),
}

/// The values of one step: `HistoryRecord`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct History {
    #[prost(message, repeated, tag = "1")]
    pub(crate) item: Vec<Item>,
    #[prost(message, optional, tag = "2")]
    pub(crate) step: Option<Step>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Step {
    #[prost(int64, tag = "1")]
    pub(crate) num: i64,
}

/// What changes: `ConfigRecord` and `SummaryRecord`, which have the same fields.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Items {
    #[prost(message, repeated, tag = "1")]
    pub(crate) update: Vec<Item>,
}

/// A value by its name: `HistoryItem`, `ConfigItem` and `SummaryItem`, which have the same fields.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Item {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "16")]
    pub(crate) value_json: String,
}

/// `RunRecord`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Run {
    #[prost(string, tag = "1")]
    pub(crate) run_id: String,
    #[prost(string, tag = "2")]
    pub(crate) entity: String,
    #[prost(string, tag = "3")]
    pub(crate) project: String,
    #[prost(message, optional, tag = "4")]
    pub(crate) config: Option<Items>,
    #[prost(string, tag = "6")]
    pub(crate) run_group: String,
    #[prost(string, tag = "8")]
    pub(crate) display_name: String,
    #[prost(string, tag = "9")]
    pub(crate) notes: String,
    #[prost(string, repeated, tag = "10")]
    pub(crate) tags: Vec<String>,
    #[prost(message, optional, tag = "17")]
    pub(crate) start_time: Option<Timestamp>,
    /// Whether a run of this id goes on where the server has it.
    #[prost(bool, tag = "24")]
    pub(crate) resume: bool,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Timestamp {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(crate) nanos: i32,
}

/// `RunExitRecord`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Exit {
    #[prost(int32, tag = "1")]
    pub(crate) exit_code: i32,
    /// Seconds.
    #[prost(int32, tag = "2")]
    pub(crate) runtime: i32,
}

/// `HeaderRecord`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Header {
    #[prost(message, optional, tag = "1")]
    pub(crate) version: Option<Version>,
}

/// `VersionInfo`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Version {
    /// Who wrote the file.
    #[prost(string, tag = "1")]
    pub(crate) producer: String,
}
