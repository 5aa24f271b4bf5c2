//! The memory that an export needs.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use plugin_api::Callback;
use serde_json::json;

use crate::{Model, Subject};

/// The system's allocator, with a counter. libtorch has its own.
pub struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is left to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Eight convolutions of 2.4 MB, whose weights TFLite needs in another order.
const LAYERS: &str = r#"{ type = "repeat", times = 8, layers = [{ type = "conv2d", out_channels = 256, kernel_size = 3, padding = 1 }] }"#;

/// The most memory that `T` needs for an export, in addition to what the fake host copies to lend it, as a share of the
/// weights. The test program's allocator must be [`Counting`].
///
/// # Panics
///
/// When the model is not exported, or nothing counts.
pub fn extra_memory<T: Callback>() -> f64 {
    let subject = Subject::new(Model::new("large", LAYERS, &[256, 3, 3]));
    let mut host = subject.run::<T>(json!({ "verify": false, "sync": false }), 0).expect("the options are right");
    host.setup().expect("it can be exported");
    let graph = subject.graph();
    let elements = |shape: &[i64]| shape.iter().product::<i64>() as usize;
    let lent: usize = graph.nodes.iter().flat_map(|node| &node.parameters).map(|tensor| elements(&tensor.shape)).sum();
    let lent = lent * size_of::<f32>();
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    host.trigger("end").expect("it is exported");
    let taken = PEAK.load(Ordering::Relaxed) - before;
    assert!(taken >= lent, "{taken} bytes, less than the host lends");
    (taken - lent) as f64 / lent as f64
}
