//! The host's end of a library's log.

use plugin_api::abi::{LogTable, read_table};

/// Takes one record of a library: any thread, also after the run.
pub(crate) unsafe extern "C" fn take_record(record: *const LogTable) {
    // SAFETY: the library passes a table that begins with its size and outlives the call.
    let Some(record) = (unsafe { read_table(record) }) else {
        return;
    };
    // SAFETY: the texts are borrowed until this function returns.
    let (module, message) = unsafe { (record.target.read(), record.message.read()) };
    self::record(record.level, &module, &message);
}

/// Writes one record to the log.
pub(crate) fn record(level: u32, module: &str, message: &str) {
    // The target is one word for all libraries, since a target must be known at compile time.
    match level {
        1 => tracing::error!(target: "plugin", module = %module, "{message}"),
        2 => tracing::warn!(target: "plugin", module = %module, "{message}"),
        3 => tracing::info!(target: "plugin", module = %module, "{message}"),
        4 => tracing::debug!(target: "plugin", module = %module, "{message}"),
        _ => tracing::trace!(target: "plugin", module = %module, "{message}"),
    }
}
