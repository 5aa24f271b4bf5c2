//! What the loop offers to dispatch, and dispatch to callbacks: one call, whose request and reply
//! are those of `plugin_api::protocol`.

use std::any::Any;
use std::sync::Arc;

use plugin_api::abi::kinds::{EventKind, ServiceKind, Status};
use plugin_api::abi::{Bytes, DataType, Device, DlTensor, ReplyTable, TensorTable, Text};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::record::Position;
use crate::report::did_you_mean;

/// The services of the loop, on the training thread.
pub trait Services {
    /// Answers a service.
    ///
    /// # Errors
    ///
    /// See [`ServiceError`]; the caller's hook goes on with it.
    fn call(
        &mut self,
        caller: &Caller<'_>,
        service: ServiceKind,
        request: &Request<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<(), ServiceError>;

    /// What callbacks in the background are answered from for this event: metrics and history as
    /// they are now, and copies of the tensors in `needs`.
    ///
    /// # Errors
    ///
    /// When a copy cannot be made.
    fn snapshot(&mut self, event: EventKind, needs: &SnapshotNeeds) -> Result<Arc<dyn Snapshot>, ServiceError>;

    /// What remotes are answered from: always the latest.
    fn reader(&self) -> Arc<dyn Snapshot>;

    /// The latest value of a metric, for `if` and `best`.
    fn metric(&self, name: &str) -> Option<f64>;
}

/// Answers services from what was copied when the event fired; any thread.
pub trait Snapshot: Send + Sync {
    /// Answers a service that only reads.
    ///
    /// # Errors
    ///
    /// See [`ServiceError`].
    fn call(
        &self,
        caller: &Caller<'_>,
        service: ServiceKind,
        request: &Request<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<(), ServiceError>;
}

/// Which tensors a snapshot must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotNeeds {
    /// Names of tensor sets, as `plugin_api::protocol::TensorSet` writes them.
    pub sets: std::collections::BTreeSet<String>,
    /// Whether checkpoints are written from it: then it holds the whole training state.
    pub training_state: bool,
}

impl SnapshotNeeds {
    /// Whether it holds no tensor.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty() && !self.training_state
    }
}

/// Who calls a service.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The instance's name.
    pub instance: &'a str,
    /// The hook that it is in.
    pub hook: EventKind,
    /// Where the run is.
    pub position: Position,
}

/// A service's request.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// A MessagePack map, or nothing.
    pub payload: &'a [u8],
    /// Tensors of the plugin, valid until the call returns.
    pub tensors: &'a [TensorTable],
}

impl Request<'_> {
    /// The request's MessagePack map.
    ///
    /// # Errors
    ///
    /// When it is not understood.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, ServiceError> {
        rmp_serde::from_slice(self.payload)
            .map_err(|error| ServiceError::Failed(format!("the request is not understood: {error}")))
    }
}

/// Where a service puts its answer.
pub struct Reply<'a> {
    table: &'a ReplyTable,
    kept: &'a mut Vec<Box<dyn Any>>,
}

/// A tensor lent to a callback until its hook returns.
pub struct Lent {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<i64>,
    /// Its strides, in elements.
    pub strides: Vec<i64>,
    /// Its first element; null when it has none.
    pub data: *mut std::ffi::c_void,
    /// Its element type.
    pub dtype: DataType,
    /// Where it lies.
    pub device: Device,
    /// Keeps the memory alive.
    pub owner: Box<dyn Any>,
}

impl<'a> Reply<'a> {
    /// A reply into `table`; what is lent is kept in `kept`.
    pub(super) fn new(table: &'a ReplyTable, kept: &'a mut Vec<Box<dyn Any>>) -> Self {
        Self { table, kept }
    }

    /// Answers with a MessagePack map or value.
    ///
    /// # Errors
    ///
    /// When the value cannot be written.
    pub fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ServiceError> {
        let bytes = rmp_serde::to_vec_named(value).map_err(|error| ServiceError::Failed(error.to_string()))?;
        self.bytes(&bytes);
        Ok(())
    }

    /// Answers with bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        // SAFETY: the plugin's function, with its own context; the bytes outlive the call.
        unsafe { (self.table.bytes)(self.table.context, Bytes::new(bytes)) };
    }

    /// Lends a tensor until the hook returns.
    pub fn lend(&mut self, lent: Lent) {
        let lent = Box::new(lent);
        let table = TensorTable {
            size: size_of::<TensorTable>() as u32,
            flags: 1,
            name: Text::new(&lent.name),
            tensor: DlTensor {
                data: lent.data,
                device: lent.device,
                dimensions: lent.shape.len() as i32,
                dtype: lent.dtype,
                shape: lent.shape.as_ptr(),
                strides: lent.strides.as_ptr(),
                byte_offset: 0,
            },
        };
        // The box keeps the addresses that the table holds.
        self.kept.push(lent);
        // SAFETY: the plugin's function, with its own context; the table outlives the call.
        unsafe { (self.table.tensor)(self.table.context, &raw const table) };
    }
}

/// Why a service was refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// The handle is spent.
    #[error("the handle was used after its hook had returned")]
    Stale,
    /// The remote is used after the training.
    #[error("the remote was used after the end of the training")]
    Closed,
    /// This host does not know the service.
    #[error("this host has no service {0}; use a newer host")]
    Unknown(u32),
    /// There is nothing of that name.
    #[error("{0}")]
    NoSuchName(String),
    /// The model is no graph.
    #[error("{}", crate::model::ModelError::NoGraph)]
    NoGraph,
    /// Not here, or not now.
    #[error("{0}")]
    NotAllowed(String),
    /// It was tried and failed.
    #[error("{0}")]
    Failed(String),
}

impl ServiceError {
    /// There is no `what` called `name`, with the nearest of `names`.
    pub fn no_such_name<'n>(what: &str, name: &str, names: impl IntoIterator<Item = &'n str>) -> Self {
        let nearest = did_you_mean(name, names).map_or_else(String::new, |hint| format!("; {hint}"));
        Self::NoSuchName(format!("there is no {what} `{name}`{nearest}"))
    }

    pub(super) fn status(&self) -> Status {
        match self {
            Self::Stale | Self::Closed => Status::STALE,
            Self::Unknown(_) => Status::UNKNOWN,
            Self::NoSuchName(_) | Self::NoGraph => Status::NO_SUCH_NAME,
            Self::NotAllowed(_) => Status::NOT_ALLOWED,
            Self::Failed(_) => Status::ERROR,
        }
    }
}
