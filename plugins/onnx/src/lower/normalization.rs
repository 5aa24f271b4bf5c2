//! Norms.

use plugin_api::Result;
use plugin_api::graph::{Node, Op};

use super::Lowering;
use crate::options::Opset;
use crate::proto::Attribute;

impl<'a> Lowering<'a, '_> {
    pub(super) fn norm(&mut self, node: &'a Node) -> Result<String> {
        let input = self.input(node)?;
        match &node.op {
            // The convolution before it includes it.
            Op::BatchNorm { .. } if self.is_folded(node) => Ok(input),
            Op::BatchNorm { eps, .. } => {
                let mut inputs = vec![input];
                for tensor in ["weight", "bias", "running_mean", "running_var"] {
                    inputs.push(self.weight(node, tensor, None)?);
                }
                let attributes = vec![Attribute::float("epsilon", *eps)];
                Ok(self.builder.node("BatchNormalization", &node.name, &inputs, attributes))
            }
            Op::LayerNorm { normalized_shape, eps } => {
                let inputs = [input, self.weight(node, "weight", None)?, self.weight(node, "bias", None)?];
                let axis = Attribute::int("axis", -(normalized_shape.len() as i64));
                Ok(self.builder.node(
                    "LayerNormalization",
                    &node.name,
                    &inputs,
                    vec![axis, Attribute::float("epsilon", *eps)],
                ))
            }
            Op::RmsNorm { normalized_shape, eps } => {
                let rank = normalized_shape.len() as i64;
                let weight = self.weight(node, "weight", None)?;
                if self.opset >= Opset::V23 {
                    let attributes = vec![Attribute::int("axis", -rank), Attribute::float("epsilon", *eps)];
                    return Ok(self.builder.node("RMSNormalization", &node.name, &[input, weight], attributes));
                }
                let part = |part: &str| format!("{}/{part}", node.name);
                let axes: Vec<i64> = (-rank..0).collect();
                let axes = self.builder.integers(&part("axes"), &axes);
                let epsilon = self.builder.constant(&part("epsilon"), &[1], vec![*eps as f32]);
                let squares = self.builder.node("Mul", &part("squares"), &[&input, &input], Vec::new());
                let mean = self.builder.node(
                    "ReduceMean",
                    &part("mean"),
                    &[squares, axes],
                    vec![Attribute::int("keepdims", 1)],
                );
                let shifted = self.builder.node("Add", &part("shifted"), &[mean, epsilon], Vec::new());
                let root = self.builder.node("Sqrt", &part("root"), &[shifted], Vec::new());
                let scaled = self.builder.node("Div", &part("scaled"), &[input, root], Vec::new());
                Ok(self.builder.node("Mul", &node.name, &[scaled, weight], Vec::new()))
            }
            Op::GroupNorm { num_groups, eps, .. } => self.group_norm(node, input, *num_groups, *eps),
            _ => Ok(input),
        }
    }

    /// An instance norm over groups, then a scale for each channel. Before opset 21 `GroupNormalization` had one scale per
    /// group, and onnxruntime computes today's from the mean of squares, which loses all digits where the mean is large.
    fn group_norm(&mut self, node: &'a Node, input: String, groups: i64, eps: f64) -> Result<String> {
        let part = |part: &str| format!("{}/{part}", node.name);
        let shape: Vec<i64> = std::iter::once(0).chain(node.shape.iter().copied()).collect();
        let mut channels = vec![1; node.shape.len()];
        channels[0] = node.shape.first().copied().unwrap_or(1);
        let grouped = self.builder.integers(&part("grouped_shape"), &[0, groups, -1]);
        let original = self.builder.integers(&part("original_shape"), &shape);
        let ones = self.builder.constant(&part("ones"), &[groups], vec![1.0; groups as usize]);
        let zeros = self.builder.constant(&part("zeros"), &[groups], vec![0.0; groups as usize]);
        let grouped = self.builder.node("Reshape", &part("grouped"), &[input, grouped], Vec::new());
        let attributes = vec![Attribute::float("epsilon", eps)];
        let normal = self.builder.node("InstanceNormalization", &part("normal"), &[grouped, ones, zeros], attributes);
        let normal = self.builder.node("Reshape", &part("ungrouped"), &[normal, original], Vec::new());
        let weight = self.weight(node, "weight", Some(&channels))?;
        let bias = self.weight(node, "bias", Some(&channels))?;
        let scaled = self.builder.node("Mul", &part("scaled"), &[normal, weight], Vec::new());
        Ok(self.builder.node("Add", &node.name, &[scaled, bias], Vec::new()))
    }
}
