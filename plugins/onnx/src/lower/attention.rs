//! Attention, built from products and a softmax.

use plugin_api::Result;
use plugin_api::graph::{Node, Op};

use super::Lowering;
use crate::proto::Attribute;

impl<'a> Lowering<'a, '_> {
    pub(super) fn attention(&mut self, node: &'a Node) -> Result<String> {
        let input = self.input(node)?;
        let (Op::MultiHeadAttention { embed_dim, num_heads, causal, bias, .. }, &[length, _]) =
            (&node.op, self.input_shape(node)?)
        else {
            return Ok(input);
        };
        let part = |part: &str| format!("{}/{part}", node.name);
        let width = embed_dim / num_heads;
        let joined = self.affine(node, &part("joined"), &input, "in_proj_weight", bias.then_some("in_proj_bias"))?;
        let parts = ["query", "key", "value"].map(part);
        // Without lengths, there are as many parts as outputs, all of one length, in every opset from 18 on.
        self.builder.node_with(
            "Split",
            &part("split"),
            &[&joined],
            &parts,
            vec![Attribute::int("axis", -1), Attribute::int("num_outputs", 3)],
        );
        let by_head = self.builder.integers(&part("by_head"), &[0, length, *num_heads, width]);
        let mut heads = Vec::new();
        for (value, order) in parts.iter().zip([[0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]]) {
            let split = self.builder.node("Reshape", &format!("{value}/by_head"), &[value, &by_head], Vec::new());
            let attributes = vec![Attribute::ints("perm", order)];
            heads.push(self.builder.node("Transpose", &format!("{value}/heads"), &[split], attributes));
        }
        let scale = self.builder.constant(&part("scale"), &[], vec![(1.0 / (width as f64).sqrt()) as f32]);
        let query = self.builder.node("Mul", &part("scaled"), &[&heads[0], &scale], Vec::new());
        let mut scores = self.builder.node("MatMul", &part("scores"), &[&query, &heads[1]], Vec::new());
        if *causal {
            let later = (0..length)
                .flat_map(|row| (0..length).map(move |column| if column > row { f32::NEG_INFINITY } else { 0.0 }));
            let mask = self.builder.constant(&part("mask"), &[length, length], later.collect());
            scores = self.builder.node("Add", &part("masked"), &[scores, mask], Vec::new());
        }
        let weights = self.builder.node("Softmax", &part("weights"), &[scores], vec![Attribute::int("axis", -1)]);
        let mixed = self.builder.node("MatMul", &part("mixed"), &[&weights, &heads[2]], Vec::new());
        let attributes = vec![Attribute::ints("perm", [0, 2, 1, 3])];
        let mixed = self.builder.node("Transpose", &part("together"), &[mixed], attributes);
        let whole = self.builder.integers(&part("whole"), &[0, length, *embed_dim]);
        let mixed = self.builder.node("Reshape", &part("heads_joined"), &[mixed, whole], Vec::new());
        self.affine(node, &node.name, &mixed, "out_proj.weight", bias.then_some("out_proj.bias"))
    }
}
