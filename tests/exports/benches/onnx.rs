//! How fast `onnx` exports.

fn main() -> plugin_api::Result<()> {
    exports::measure_speed::<onnx::Onnx>()
}
