//! The model's graph as a `GraphDef`, for TensorBoard's Graphs page. Names of blocks become its scopes.

use std::collections::BTreeMap;

use plugin_api::graph::{Dtype, Graph, Node};
use prost::Message;
use serde_json::Value as Json;

use crate::proto::{Attr, AttrList, AttrValue, GraphDef, NodeDef, Shape, VersionDef, element};

/// The producer version has no meaning here, but TensorBoard needs one.
const PRODUCER: i32 = 22;

/// The graph's `GraphDef`, encoded.
pub(crate) fn graph_def(graph: &Graph) -> Vec<u8> {
    let inputs = graph.inputs.iter().map(|input| {
        let dtype = match input.dtype {
            Dtype::F32 => element::FLOAT,
            Dtype::I64 => element::INT64,
        };
        let attr = BTreeMap::from([
            ("dtype".to_owned(), AttrValue { value: Some(Attr::Type(dtype)) }),
            ("shape".to_owned(), AttrValue { value: Some(Attr::Shape(batched(&input.shape))) }),
            output_shapes(&input.shape),
        ]);
        NodeDef { name: scoped(&input.name), op: "Placeholder".to_owned(), input: Vec::new(), attr }
    });
    let node = inputs.chain(graph.nodes.iter().map(node)).collect();
    GraphDef { node, versions: Some(VersionDef { producer: PRODUCER }) }.encode_to_vec()
}

fn node(node: &Node) -> NodeDef {
    let mut attr = BTreeMap::from([output_shapes(&node.shape)]);
    if let Ok(Json::Object(attributes)) = serde_json::to_value(&node.op) {
        let attributes = attributes.into_iter().filter(|(name, _)| name != "type");
        attr.extend(attributes.map(|(name, value)| (name, text(&value.to_string()))));
    }
    let tensors = node.parameters.iter().chain(&node.buffers);
    attr.extend(tensors.map(|tensor| (tensor.name.clone(), text(&format!("{:?}", tensor.shape)))));
    NodeDef {
        name: scoped(&node.name),
        op: node.op.name().to_owned(),
        input: node.inputs.iter().map(|input| scoped(input)).collect(),
        attr,
    }
}

/// What TensorBoard shows next to an edge.
fn output_shapes(shape: &[i64]) -> (String, AttrValue) {
    let list = AttrList { shape: vec![batched(shape)] };
    ("_output_shapes".to_owned(), AttrValue { value: Some(Attr::List(list)) })
}

fn batched(sample: &[i64]) -> Shape {
    Shape::of(std::iter::once(-1).chain(sample.iter().copied()))
}

fn text(text: &str) -> AttrValue {
    AttrValue { value: Some(Attr::Text(text.as_bytes().to_vec())) }
}

/// `residual1.bn2` as `residual1/bn2`. In a `GraphDef`, a colon would start the number of an output, and a leading
/// caret means a control edge.
fn scoped(name: &str) -> String {
    name.replace('.', "/").replace([':', '^'], "_")
}
