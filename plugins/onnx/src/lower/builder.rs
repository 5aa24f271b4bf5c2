//! Nodes and initializers as they are added.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::proto::{Attribute, Node};

/// The elements of an initializer.
#[derive(Clone, Debug)]
pub enum Elements<'a> {
    F32(Cow<'a, [f32]>),
    I8(Vec<i8>),
    I64(Vec<i64>),
}

/// A constant tensor.
#[derive(Clone, Debug)]
pub struct Initializer<'a> {
    pub name: String,
    pub dims: Vec<i64>,
    pub elements: Elements<'a>,
    /// Whether it is a weight of the model, not a constant of a decomposition.
    pub is_weight: bool,
}

/// The nodes and initializers of a graph.
#[derive(Debug, Default)]
pub struct Builder<'a> {
    pub nodes: Vec<Node>,
    pub initializers: Vec<Initializer<'a>>,
    /// Names of initializers: each is written once, however many nodes read it.
    known: HashSet<String>,
}

impl<'a> Builder<'a> {
    /// Adds a node with one output, which has the node's name. Node names double as value names, so they must be
    /// unique.
    pub fn node<I: AsRef<str>>(
        &mut self,
        op_type: &str,
        name: &str,
        inputs: &[I],
        attributes: Vec<Attribute>,
    ) -> String {
        self.nodes.push(Node {
            input: inputs.iter().map(|input| input.as_ref().to_owned()).collect(),
            output: vec![name.to_owned()],
            name: name.to_owned(),
            op_type: op_type.to_owned(),
            attribute: attributes,
        });
        name.to_owned()
    }

    /// Adds a node with several outputs.
    pub fn node_with(
        &mut self,
        op_type: &str,
        name: &str,
        inputs: &[&str],
        outputs: &[String],
        attributes: Vec<Attribute>,
    ) {
        self.nodes.push(Node {
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            output: outputs.to_vec(),
            name: name.to_owned(),
            op_type: op_type.to_owned(),
            attribute: attributes,
        });
    }

    /// Adds a weight of the model.
    pub fn weight(&mut self, name: &str, dims: &[i64], values: impl Into<Cow<'a, [f32]>>) -> String {
        self.add(name, dims, Elements::F32(values.into()), true)
    }

    /// Adds a constant of numbers.
    pub fn constant(&mut self, name: &str, dims: &[i64], values: Vec<f32>) -> String {
        self.add(name, dims, Elements::F32(values.into()), false)
    }

    /// Adds a constant of whole numbers: a shape, axes, indices.
    pub fn integers(&mut self, name: &str, values: &[i64]) -> String {
        self.add(name, &[values.len() as i64], Elements::I64(values.to_vec()), false)
    }

    /// Adds an index, which has no dimension.
    pub fn index(&mut self, name: &str, value: i64) -> String {
        self.add(name, &[], Elements::I64(vec![value]), false)
    }

    /// Adds an initializer unless there is one of its name.
    pub fn add(&mut self, name: &str, dims: &[i64], elements: Elements<'a>, is_weight: bool) -> String {
        if self.known.insert(name.to_owned()) {
            self.initializers.push(Initializer { name: name.to_owned(), dims: dims.to_vec(), elements, is_weight });
        }
        name.to_owned()
    }
}
