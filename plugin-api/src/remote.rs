//! The handle for threads other than the hook's.

use std::collections::BTreeMap;

use crate::abi::HostHandle;
use crate::call;
use crate::error::Result;
use crate::protocol::requests::{ControlRequest, Name};
use crate::protocol::{Control, Record, RecordValue};
use crate::services::{Nothing, ServiceKind, typed};

/// Control, records and read-only metrics from any thread, until `train_end`; after that every call
/// returns an error and does no harm. For example, a dashboard's HTTP thread needs one.
///
/// Its requests take effect at the next event of the run.
#[derive(Clone, Debug)]
pub struct Remote {
    host: HostHandle,
}

// SAFETY: the handle is a pointer to a static table and a number; the host's side of a remote
// ticket may be called from any thread.
unsafe impl Send for Remote {}
// SAFETY: as above.
unsafe impl Sync for Remote {}

impl Remote {
    pub(crate) fn new(host: HostHandle) -> Self {
        Self { host }
    }

    /// Calls a service with bytes as they are: for tests of hosts.
    #[doc(hidden)]
    pub fn call_raw(&self, service: ServiceKind, payload: &[u8]) -> Result<Vec<u8>> {
        Ok(call::call_raw(self.host, service, payload, &[])?.bytes)
    }

    /// Asks the loop for something, at its next safe point.
    ///
    /// # Errors
    ///
    /// After `train_end`, and for [`Control::SkipUpdate`].
    #[doc = service_rule!(CONTROL)]
    pub fn request(&self, action: Control, reason: &str) -> Result<()> {
        let reason = reason.to_owned();
        call::call(self.host, typed::CONTROL, &ControlRequest { action, reason }).map(drop)
    }

    /// Puts a record for the monitors.
    ///
    /// # Errors
    ///
    /// After `train_end`.
    #[doc = service_rule!(RECORD_PUT)]
    pub fn put_record(&self, name: &str, value: RecordValue) -> Result<()> {
        let name = name.to_owned();
        call::call(self.host, typed::RECORD_PUT, &Record { name, value }).map(drop)
    }

    /// The latest value of each metric.
    ///
    /// # Errors
    ///
    /// After `train_end`.
    #[doc = service_rule!(METRICS)]
    pub fn metrics(&self) -> Result<BTreeMap<String, f64>> {
        call::call(self.host, typed::METRICS, &Nothing)
    }

    /// The latest value of a metric.
    ///
    /// # Errors
    ///
    /// After `train_end`, or when there is no such metric or it has no value yet.
    #[doc = service_rule!(METRIC)]
    pub fn metric(&self, name: &str) -> Result<f64> {
        call::call(self.host, typed::METRIC, &Name { name: name.to_owned() })
    }
}
