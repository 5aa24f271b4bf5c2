//! Pooling: images in the layout of convolutions.

use plugin_api::graph::Node;

use super::convolution::{Window, padding};
use super::{Lowering, Value};
use crate::builtin::{Builtin, Padding, Scalar};
use crate::layout::Layout;
use crate::program::TensorId;

fn windows(node: &Node, input: &Value, kernel: [i64; 2], stride: [i64; 2], before: [i64; 2]) -> [Window; 2] {
    [0, 1].map(|axis| Window {
        input: input.shape.get(axis + 1).copied().unwrap_or(1),
        output: node.shape.get(axis + 1).copied().unwrap_or(1),
        kernel: kernel[axis],
        stride: stride[axis],
        dilation: 1,
        before: before[axis],
    })
}

/// For each place of the output, how many of the window's values belong to the input.
fn counts(window: Window) -> Vec<i64> {
    let count = |place: i64| {
        let first = place * window.stride - window.before;
        (first + window.kernel).min(window.input) - first.max(0)
    };
    (0..window.output).map(count).collect()
}

impl Lowering<'_> {
    fn pool(&mut self, builtin: Builtin, image: TensorId, windows: [Window; 2], padding: Padding) -> TensorId {
        let size = |value: i64| Scalar::I32(value as i32);
        let options = [
            (0, padding.scalar()),
            (1, size(windows[1].stride)),
            (2, size(windows[0].stride)),
            (3, size(windows[1].kernel)),
            (4, size(windows[0].kernel)),
        ];
        let channels = self.program.shape(image).last().copied().unwrap_or(1);
        let shape = [1, windows[0].output as i32, windows[1].output as i32, channels];
        self.program.apply(builtin, &options, &[image], &shape)
    }

    pub(super) fn max_pool(
        &mut self,
        node: &Node,
        input: &Value,
        kernel: [i64; 2],
        stride: [i64; 2],
        before: [i64; 2],
    ) -> (TensorId, Layout) {
        let windows = windows(node, input, kernel, stride, before);
        let image = self.image(input);
        let (image, padding) = match padding(windows) {
            Some(padding) => (image, padding),
            None => (self.padded(image, windows, Some(f32::NEG_INFINITY)), Padding::Valid),
        };
        (self.pool(Builtin::MaxPool2d, image, windows, padding), Layout::channels_last(3))
    }

    /// The runtime's mean ignores the padding of `SAME`, and counts explicit padding as values.
    pub(super) fn average_pool(
        &mut self,
        node: &Node,
        input: &Value,
        kernel: [i64; 2],
        stride: [i64; 2],
        before: [i64; 2],
        counts_padding: bool,
    ) -> (TensorId, Layout) {
        let windows = windows(node, input, kernel, stride, before);
        let image = self.image(input);
        let layout = Layout::channels_last(3);
        let is_padded = windows.iter().any(|window| window.before > 0 || window.after() > 0);
        if let Some(padding) = padding(windows).filter(|_| !is_padded || !counts_padding) {
            return (self.pool(Builtin::AveragePool2d, image, windows, padding), layout);
        }
        let padded = self.padded(image, windows, None);
        let mean = self.pool(Builtin::AveragePool2d, padded, windows, Padding::Valid);
        if counts_padding {
            return (mean, layout);
        }
        let whole = (kernel[0] * kernel[1]) as f32;
        let [rows, columns] = windows.map(counts);
        let factors: Vec<f32> =
            rows.iter().flat_map(|row| columns.iter().map(move |column| whole / (row * column) as f32)).collect();
        let factors = self.program.numbers(&[1, rows.len() as i32, columns.len() as i32, 1], factors);
        (self.program.binary(Builtin::Mul, mean, factors), layout)
    }

    pub(super) fn adaptive_pool(&mut self, input: &Value, output_size: [i64; 2]) -> (TensorId, Layout) {
        let image = self.image(input);
        let size = |axis: usize| input.shape.get(axis + 1).copied().unwrap_or(1);
        let layout = Layout::channels_last(3);
        if [0, 1].iter().all(|axis| size(*axis) % output_size[*axis] == 0) {
            let windows = [0, 1].map(|axis| {
                let kernel = size(axis) / output_size[axis];
                Window { input: size(axis), output: output_size[axis], kernel, stride: kernel, dilation: 1, before: 0 }
            });
            return (self.pool(Builtin::AveragePool2d, image, windows, Padding::Valid), layout);
        }
        // Windows of different sizes: a product with a matrix of weights for each dimension.
        let channels = input.shape.first().copied().unwrap_or(1) as i32;
        let [[height, width], [rows, columns]] = [[size(0), size(1)], output_size].map(|pair| pair.map(|n| n as i32));
        let across = self.program.numbers(&[1, 1, columns, width], means(size(1), output_size[1]));
        let across = {
            let shape = [1, height, columns, channels];
            self.program.apply(Builtin::BatchMatmul, &[], &[across, image], &shape)
        };
        let flat = self.program.reshape(across, &[1, height, columns * channels]);
        let down = self.program.numbers(&[1, rows, height], means(size(0), output_size[0]));
        let down = self.program.apply(Builtin::BatchMatmul, &[], &[down, flat], &[1, rows, columns * channels]);
        (self.program.reshape(down, &[1, rows, columns, channels]), layout)
    }
}

/// The means of windows that divide `size` values into `output`, as a matrix (`torch.nn.AdaptiveAvgPool2d`).
fn means(size: i64, output: i64) -> Vec<f32> {
    let window = |place: i64| (place * size / output, ((place + 1) * size + output - 1) / output);
    let row = |place: i64| {
        let (first, end) = window(place);
        (0..size).map(move |at| if (first..end).contains(&at) { 1.0 / (end - first) as f32 } else { 0.0 })
    };
    (0..output).flat_map(row).collect()
}
