//! An export does not copy the weights.

use exports::{Counting, extra_memory};
use onnx::Onnx;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn an_export_takes_less_than_the_weights() {
    let share = extra_memory::<Onnx>();
    assert!(share < 0.2, "{share} of the weights");
}
