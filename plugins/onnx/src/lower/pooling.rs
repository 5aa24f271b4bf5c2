//! Pools.

use plugin_api::Result;
use plugin_api::graph::{Node, Op};

use super::Lowering;
use crate::proto::Attribute;

impl<'a> Lowering<'a, '_> {
    pub(super) fn pool(&mut self, node: &'a Node) -> Result<String> {
        let input = self.input(node)?;
        let window = |kernel: &[i64; 2], stride: &[i64; 2], padding: &[i64; 2]| {
            vec![
                Attribute::ints("kernel_shape", *kernel),
                Attribute::ints("strides", *stride),
                Attribute::ints("pads", padding.iter().chain(padding).copied()),
            ]
        };
        match &node.op {
            Op::MaxPool2d { kernel_size, stride, padding } => {
                Ok(self.builder.node("MaxPool", &node.name, &[input], window(kernel_size, stride, padding)))
            }
            Op::AvgPool2d { kernel_size, stride, padding, count_include_pad } => {
                let mut attributes = window(kernel_size, stride, padding);
                attributes.push(Attribute::int("count_include_pad", i64::from(*count_include_pad)));
                Ok(self.builder.node("AveragePool", &node.name, &[input], attributes))
            }
            Op::AdaptiveAvgPool2d { output_size } => self.adaptive_pool(node, input, output_size),
            _ => Ok(input),
        }
    }

    fn adaptive_pool(&mut self, node: &'a Node, input: String, output: &[i64; 2]) -> Result<String> {
        let &[.., height, width] = self.input_shape(node)? else { return Ok(input) };
        if *output == [1, 1] {
            return Ok(self.builder.node("GlobalAveragePool", &node.name, &[input], Vec::new()));
        }
        if height % output[0] == 0 && width % output[1] == 0 {
            let window = [height / output[0], width / output[1]];
            let attributes = vec![Attribute::ints("kernel_shape", window), Attribute::ints("strides", window)];
            return Ok(self.builder.node("AveragePool", &node.name, &[input], attributes));
        }
        // Windows of different sizes: a product with a matrix of shares on each side.
        let part = |part: &str| format!("{}/{part}", node.name);
        let rows = shares(height, output[0]);
        let columns = transposed(&shares(width, output[1]), width as usize);
        let rows = self.builder.constant(&part("rows"), &[output[0], height], rows);
        let columns = self.builder.constant(&part("columns"), &[width, output[1]], columns);
        let pooled = self.builder.node("MatMul", &part("pooled_rows"), &[rows, input], Vec::new());
        Ok(self.builder.node("MatMul", &node.name, &[pooled, columns], Vec::new()))
    }
}

/// The share of each of `length` values in each of `parts` means, `[parts, length]`: part `i` goes from
/// `⌊i·length/parts⌋` up to `⌈(i+1)·length/parts⌉`, as in PyTorch's adaptive pooling.
fn shares(length: i64, parts: i64) -> Vec<f32> {
    (0..parts)
        .flat_map(|part| {
            let (start, end) = (part * length / parts, ((part + 1) * length + parts - 1) / parts);
            (0..length).map(move |index| if (start..end).contains(&index) { 1.0 / (end - start) as f32 } else { 0.0 })
        })
        .collect()
}

fn transposed(matrix: &[f32], columns: usize) -> Vec<f32> {
    let rows = matrix.len() / columns.max(1);
    (0..matrix.len()).map(|index| matrix[index % rows * columns + index / rows]).collect()
}
