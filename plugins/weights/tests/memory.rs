//! The memory that an export needs: almost none in addition to the weights, which it does not copy.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use plugin_api::Tensor;
use plugin_api::protocol::TensorSet;
use plugin_api::testing::{FakeHost, json};
use weights::WeightsExport;

/// The system's allocator, with a counter.
struct Counting;

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

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Elements of a tensor: 16 MiB.
const ELEMENTS: usize = 1 << 22;
const TENSORS: usize = 4;

#[test]
fn no_format_copies_the_weights() {
    for format in ["safetensors", "pt", "npz"] {
        let mut host = FakeHost::new::<WeightsExport>(json!({ "formats": [format], "sync": false })).unwrap();
        let values = vec![1f32; ELEMENTS];
        for index in 0..TENSORS {
            let tensor = Tensor::new(format!("fc{index}.weight"), &[ELEMENTS as i64], &values).unwrap();
            host.put_tensor(TensorSet::Parameters, tensor);
        }
        host.put_tensor(TensorSet::Buffers, Tensor::new("bn1.num_batches_tracked", &[], &[1i64]).unwrap());
        host.setup().unwrap();
        let before = NOW.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        host.trigger("end").unwrap();
        let taken = PEAK.load(Ordering::Relaxed) - before;
        // The fake host copies the tensors that it lends; a real one does not.
        let lent = TENSORS * ELEMENTS * size_of::<f32>();
        assert!(taken >= lent, "{format}: {taken} bytes, less than the host lends");
        let own = taken - lent;
        assert!(own < 4 << 20, "{format}: {own} bytes in addition to {lent} of weights");
        eprintln!("{format}: {own} bytes");
    }
}
