//! What a host and the process of a plugin say to each other: the protocol, version 1.
//!
//! # Channels
//!
//! The child starts with the *control* socket, a Unix stream socket, as its standard input. It moves it to another
//! descriptor and puts `/dev/null` there. Over control come [`Order`]s and go [`Report`]s, from any thread of the child.
//!
//! Hooks have a channel of their own, on which exactly one side has the word: the host sends an [`Event`](Order::Event),
//! the child answers with calls of services, each of which the host answers with a [`Reply`], and ends with
//! [`Answer::Returned`]. With the order `create` come three descriptors (`SCM_RIGHTS`):
//!
//! 1. hooks: the memory of a ring (`ring.rs`), or, as `create` says, a Unix stream socket
//! 2. tensors of the host: shared memory that the child can only read
//! 3. tensors of the child: shared memory that the child can write and make longer, never shorter
//!
//! # Frames
//!
//! A frame is the length of its body in bytes, a little-endian `u32` of at most [`LONGEST`], and the body: a MessagePack
//! map with one key, the name of the message, and its fields as a map. A reader ignores fields that it does not know.
//! What a service takes and returns is what crosses the ABI, as bytes: see `plugin_api::services`.
//!
//! # Tensors
//!
//! A tensor lies in the shared memory of its sender, row-major, at an offset that is a multiple of 64 bytes. Those of the
//! host stay until the child has returned from the hook; those of the child until the host has replied to the call.

use plugin_api::protocol::{Blob, Descriptor};
use serde::{Deserialize, Serialize};

use crate::checksum::Checksum;
use crate::neighbors::Neighbor;

/// The version of the protocol. A child of another version is refused when it starts.
pub const PROTOCOL: u32 = 1;

/// The longest body of a frame, in bytes. Tensors are not part of it; the longest texts are states that callbacks save.
pub const LONGEST: u32 = 1 << 30;

/// What the host says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Over control, first: opens a plugin. The child answers with [`Report::Opened`] or [`Report::Refused`].
    Open(Open),
    /// Over control, with three descriptors: makes an instance. The child answers over hooks, like to an event.
    Create(Create),
    /// Over hooks: calls a hook.
    Event(Event),
    /// Over hooks: the answer to a call there.
    Reply(Reply),
    /// Over control: the answer to [`Report::Call`].
    Answered {
        /// The number of the call.
        id: u64,
        /// What it answers.
        reply: Reply,
    },
    /// Over hooks: the instance is not needed any more. The child drops it, returns, and ends.
    Destroy {},
}

/// What is opened, and how the process is limited before.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Open {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The file: a library or, for a child in Python, a source file.
    pub path: String,
    /// The SHA-256 that the file must have, in hexadecimal digits.
    #[serde(default)]
    pub sha256: Option<Checksum>,
    /// With a SHA-256: the libraries beside it that it may use; no others are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<Neighbor>,
    /// What the process may use.
    #[serde(default)]
    pub limits: Limits,
}

/// What the process of a plugin may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of address space.
    #[serde(default)]
    pub memory: Option<u64>,
    /// Open files.
    #[serde(default)]
    pub open_files: Option<u64>,
    /// From 0, as the host, to 19, only when nothing else wants the processor.
    #[serde(default)]
    pub niceness: Option<u8>,
}

/// Which instance is made, and with what.
#[derive(Debug, Serialize, Deserialize)]
pub struct Create {
    /// The kind, by its place among those that the child described.
    pub kind: u32,
    /// The instance's name.
    pub name: String,
    /// Its options, a JSON object that satisfies the kind's schema.
    pub options: String,
    /// The minor version of the host's ABI.
    pub minor: u32,
    /// For calls of services while the instance is made.
    pub ticket: u64,
    /// Whether the descriptor of hooks is a socket; else it is a ring.
    pub socket: bool,
    /// How long the child looks at the ring before it sleeps, in microseconds.
    #[serde(default)]
    pub spin_us: u32,
}

/// One event, as [`EventTable`](plugin_api::abi::EventTable) and the table of its data have it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The number of the event.
    pub kind: u32,
    /// For calls of services in this hook.
    pub ticket: u64,
    /// The epoch in progress, from 1.
    pub epoch: u64,
    /// The step within the epoch, from 1.
    pub step: u64,
    /// Optimizer updates since the run began.
    pub global_step: u64,
    /// Training samples seen since the run began.
    pub samples: u64,
    /// What else the event has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
}

/// What events have beside the position.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Data {
    /// Of an evaluation.
    Evaluation {
        /// The split.
        split: String,
        /// Whether it interrupts an epoch.
        mid_epoch: bool,
        /// The batch within the evaluation, from 1; 0 at its start and end.
        batch: u64,
        /// How many batches it has.
        batches: u64,
    },
    /// Texts, bytes and numbers, whose meaning depends on the event.
    Texts {
        /// A number that goes with the texts.
        number: u32,
        /// The first text.
        first: String,
        /// The second text.
        second: String,
        /// The third text.
        third: String,
        /// Bytes.
        bytes: Blob,
        /// A value; NaN if there is none.
        value: f64,
    },
}

/// The answer to a call.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The number of a [`Status`](plugin_api::abi::kinds::Status). If it is not 0, the bytes are a
    /// [`Failure`](plugin_api::protocol::requests::Failure).
    pub status: u32,
    /// The reply of the service.
    #[serde(default)]
    pub bytes: Blob,
    /// The tensors of the reply, in the host's memory, which only the child's hook may read, and until it returns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<Tensor>,
}

/// A tensor in shared memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// DLPack's type code, bits of an element, and lanes.
    pub dtype: (u8, u8, u16),
    /// Its shape.
    pub shape: Vec<i64>,
    /// Bytes from the start of its sender's memory.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// A call of a service.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// That of the hook or, over control, of a remote.
    pub ticket: u64,
    /// The number of the service.
    pub service: u32,
    /// The request.
    #[serde(default)]
    pub payload: Blob,
    /// The tensors of the request, in the child's memory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<Tensor>,
}

/// What the child says over hooks.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Calls a service; the host replies.
    Call(Call),
    /// The hook, or the making or the end of the instance, is over.
    Returned {
        /// The number of a [`Status`](plugin_api::abi::kinds::Status). The words of a failed hook come before, by the service
        /// `fault`.
        status: u32,
        /// Why no instance was made.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        message: String,
    },
}

/// What the child says over control.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The plugin is open.
    Opened(Opened),
    /// It cannot be opened.
    Refused {
        /// Why, in a sentence with the path.
        message: String,
        /// What to do.
        #[serde(default)]
        hint: Option<String>,
    },
    /// A record for the log, as [`LogTable`](plugin_api::abi::LogTable) has it.
    Log {
        /// 1 error, 2 warning, 3 information, 4 debug, 5 trace.
        level: u32,
        /// The module that logs.
        target: String,
        /// The message.
        message: String,
    },
    /// Calls a service by a remote, from any thread; the host answers with [`Order::Answered`].
    Call {
        /// Names the call; the child chooses it.
        id: u64,
        /// The call, without tensors.
        call: Call,
    },
}

/// What a plugin says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct Opened {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Its kinds, each as JSON.
    pub descriptors: Vec<String>,
    /// What built it: SDK, compiler and target.
    pub build: String,
}

impl Opened {
    /// What it says of its kinds.
    ///
    /// # Errors
    ///
    /// When one is no descriptor.
    pub fn descriptors(&self) -> Result<Vec<Descriptor>, serde_json::Error> {
        self.descriptors.iter().map(|text| serde_json::from_str(text)).collect()
    }
}

#[cfg(test)]
mod tests {
    use fuzzing::{Counting, fuzz};
    use serde::de::DeserializeOwned;

    use super::*;

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    fn seeds<M: Serialize>(messages: &[M]) -> Vec<Vec<u8>> {
        messages.iter().map(|message| rmp_serde::to_vec_named(message).unwrap()).collect()
    }

    fn is<M: DeserializeOwned>(bytes: &[u8]) -> bool {
        rmp_serde::from_slice::<M>(bytes).is_ok()
    }

    fn tensor() -> Tensor {
        Tensor { name: "weight".to_owned(), dtype: (2, 32, 1), shape: vec![2, 3], offset: 64, length: 24 }
    }

    fn call() -> Call {
        Call { ticket: 7, service: 3, payload: Blob(vec![1, 2, 3]), tensors: vec![tensor()] }
    }

    #[test]
    fn what_a_child_says() {
        let answers = [Answer::Call(call()), Answer::Returned { status: 1, message: "no".to_owned() }];
        fuzz("answers", &seeds(&answers), is::<Answer>);
    }

    #[test]
    fn what_a_child_reports() {
        let opened = Opened {
            protocol: PROTOCOL,
            descriptors: vec![r#"{"kind":"a","hooks":["setup"],"options":{"type":"object"},"needs":[]}"#.to_owned()],
            build: "rustc".to_owned(),
        };
        let reports = [
            Report::Opened(opened),
            Report::Refused { message: "no".to_owned(), hint: Some("yes".to_owned()) },
            Report::Log { level: 2, target: "a".to_owned(), message: "b".to_owned() },
            Report::Call { id: 1, call: call() },
        ];
        fuzz("reports", &seeds(&reports), |bytes| match rmp_serde::from_slice(bytes) {
            Ok(Report::Opened(opened)) => opened.descriptors().is_ok(),
            report => report.is_ok(),
        });
    }

    #[test]
    fn what_a_host_says() {
        let data = Data::Texts {
            number: 1,
            first: "a".to_owned(),
            second: String::new(),
            third: "c".to_owned(),
            bytes: Blob(vec![7; 9]),
            value: f64::NAN,
        };
        let event = Event { kind: 3, ticket: 9, epoch: 1, step: 2, global_step: 3, samples: 4, data: Some(data) };
        let reply = Reply { status: 0, bytes: Blob(vec![1]), tensors: vec![tensor()] };
        let open = Open { protocol: PROTOCOL, path: "a.so".to_owned(), ..Open::default() };
        let orders = [Order::Open(open), Order::Event(event), Order::Answered { id: 4, reply }, Order::Destroy {}];
        fuzz("orders", &seeds(&orders), is::<Order>);
    }

    #[test]
    fn descriptors() {
        let full = serde_json::json!({
            "kind": "a", "version": "1.0", "summary": "b", "license": "MIT", "hooks": ["setup", "step_end"],
            "needs": [{ "hook": "step_end", "what": "gradients", "write": false }], "requires_minor": 1,
            "options": { "type": "object", "properties": { "x": { "type": "number", "default": 1 } } },
            "when": { "every": "1 epoch" }, "dispatch": "background", "by_default": false, "produces": ["a_*"],
        });
        let is_descriptor = |bytes: &[u8]| serde_json::from_slice::<Descriptor>(bytes).is_ok();
        fuzz("descriptor", &[full.to_string().into_bytes(), br#"{"kind":"a"}"#.to_vec()], is_descriptor);
    }
}
