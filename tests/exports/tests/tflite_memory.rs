//! An export does not copy the weights.

use exports::{Counting, extra_memory};
use tflite::Tflite;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn an_export_takes_less_than_the_weights() {
    // One weight at a time is reordered, with a table of indices.
    let share = extra_memory::<Tflite>();
    assert!(share < 1.0, "{share} of the weights");
}
