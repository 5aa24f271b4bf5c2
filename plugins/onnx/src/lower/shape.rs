//! Operators that move values: shapes, concatenation, upsampling, embeddings.

use plugin_api::Result;
use plugin_api::graph::{Node, Op, UpsampleMode};

use super::Lowering;
use crate::proto::Attribute;

impl<'a> Lowering<'a, '_> {
    pub(super) fn reshaped(&mut self, node: &'a Node) -> Result<String> {
        let input = self.input(node)?;
        let part = |part: &str| format!("{}/{part}", node.name);
        match &node.op {
            Op::Flatten => Ok(self.builder.node("Flatten", &node.name, &[input], vec![Attribute::int("axis", 1)])),
            Op::Reshape { .. } => {
                // A zero keeps the batch's length.
                let shape: Vec<i64> = std::iter::once(0).chain(node.shape.iter().copied()).collect();
                let shape = self.builder.integers(&part("shape"), &shape);
                Ok(self.builder.node("Reshape", &node.name, &[input, shape], Vec::new()))
            }
            Op::Permute { dims } => {
                let order = std::iter::once(0).chain(dims.iter().map(|dim| *dim as i64 + 1));
                Ok(self.builder.node("Transpose", &node.name, &[input], vec![Attribute::ints("perm", order)]))
            }
            Op::Concat { dim } => {
                let mut inputs = self.inputs(node)?;
                let is_same = |name: &String| self.same.contains(name.as_str());
                if !node.inputs.iter().all(is_same) {
                    for place in (0..inputs.len()).filter(|place| is_same(&node.inputs[*place])).collect::<Vec<_>>() {
                        let name = format!("{}/{place}", node.name);
                        inputs[place] = self.for_each(&name, &inputs[place], node.shape.len() + 1)?;
                    }
                }
                Ok(self.builder.node("Concat", &node.name, &inputs, vec![Attribute::int("axis", *dim as i64 + 1)]))
            }
            Op::Slice { dim, start, end, step } => {
                let parts = [("start", *start), ("end", *end), ("axis", *dim as i64 + 1), ("step", *step)];
                let parts = parts.map(|(name, value)| self.builder.integers(&part(name), &[value]));
                let inputs: Vec<String> = std::iter::once(input).chain(parts).collect();
                Ok(self.builder.node("Slice", &node.name, &inputs, Vec::new()))
            }
            Op::Select { dim, index } => {
                let index = self.builder.index(&part("index"), *index);
                let axis = vec![Attribute::int("axis", *dim as i64 + 1)];
                Ok(self.builder.node("Gather", &node.name, &[input, index], axis))
            }
            Op::Upsample { scale_factor, mode } => {
                let scales = [1.0, 1.0, scale_factor[0] as f32, scale_factor[1] as f32];
                let scales = self.builder.constant(&part("scales"), &[4], scales.to_vec());
                let attributes = match mode {
                    UpsampleMode::Nearest => vec![
                        Attribute::text("mode", "nearest"),
                        Attribute::text("coordinate_transformation_mode", "asymmetric"),
                        Attribute::text("nearest_mode", "floor"),
                    ],
                    UpsampleMode::Bilinear => vec![
                        Attribute::text("mode", "linear"),
                        Attribute::text("coordinate_transformation_mode", "half_pixel"),
                    ],
                };
                // The empty input is a region of interest, which only another mode needs.
                Ok(self.builder.node("Resize", &node.name, &[input.as_str(), "", &scales], attributes))
            }
            _ => Ok(input),
        }
    }

    pub(super) fn embedding(&mut self, node: &'a Node) -> Result<String> {
        let input = self.input(node)?;
        let weight = self.weight(node, "weight", None)?;
        let Op::PositionalEmbedding { max_length, .. } = node.op else {
            return Ok(self.builder.node("Gather", &node.name, &[weight, input], vec![Attribute::int("axis", 0)]));
        };
        let length = self.input_shape(node)?.first().copied().unwrap_or(0);
        if length == max_length {
            return Ok(self.builder.node("Add", &node.name, &[input, weight], Vec::new()));
        }
        let part = |part: &str| format!("{}/{part}", node.name);
        let (start, end) =
            (self.builder.integers(&part("start"), &[0]), self.builder.integers(&part("end"), &[length]));
        let axes = self.builder.integers(&part("axes"), &[0]);
        let rows = self.builder.node("Slice", &part("rows"), &[weight, start, end, axes], Vec::new());
        Ok(self.builder.node("Add", &node.name, &[input, rows], Vec::new()))
    }
}
