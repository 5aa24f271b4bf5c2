//! How fast `tflite` exports.

fn main() -> plugin_api::Result<()> {
    exports::measure_speed::<tflite::Tflite>()
}
