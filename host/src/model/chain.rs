//! Networks that are linear layers and activations one after another: what `torch::chain` trains without an autograd graph.

use tch::{Device, Kind};

use super::network::Network;
use super::op::{GeluApproximation, Op, TensorSpec};
use crate::torch::chain::Layer;

impl Network {
    /// Its layers, if it is such a network on the CPU; they take inputs of `[batch, width]`.
    pub fn chain(&self) -> Option<Vec<Layer<'_>>> {
        let graph = self.executed_graph()?;
        let [input] = graph.inputs() else { return None };
        // Adapters are added to weights within the step.
        if self.device() != Device::Cpu || self.lora().is_some() || graph.nodes().last()?.name != graph.output() {
            return None;
        }
        let mut before = &input.name;
        let mut layers = Vec::new();
        for node in graph.nodes() {
            if node.inputs.len() != 1 || node.inputs[0] != *before || node.shape.len() != 1 {
                return None;
            }
            before = &node.name;
            layers.push(match &node.op {
                // Before the first layer it is the inputs' own shape, and after that there is nothing to flatten.
                Op::Flatten => continue,
                Op::Linear { transposed: false, .. } => {
                    let tensor =
                        |spec: &TensorSpec| self.tensor(&spec.name).ok().filter(|tensor| tensor.kind() == Kind::Float);
                    let mut parameters = node.parameters.iter();
                    let weight = tensor(parameters.next()?)?;
                    let bias = match parameters.next() {
                        Some(spec) => Some(tensor(spec)?),
                        None => None,
                    };
                    Layer::Linear { weight, bias }
                }
                Op::Relu => Layer::Relu,
                Op::Gelu { approximate: GeluApproximation::None } => Layer::Gelu,
                Op::Gelu { approximate: GeluApproximation::Tanh } => Layer::GeluTanh,
                Op::Tanh => Layer::Tanh,
                Op::Sigmoid => Layer::Sigmoid,
                Op::Silu => Layer::Silu,
                _ => return None,
            });
        }
        layers.iter().any(|layer| matches!(layer, Layer::Linear { .. })).then_some(layers)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Dtype, ModelOptions};

    fn layers_of(layers: &str) -> Option<usize> {
        let options: ModelOptions = toml::from_str(&format!("layers = [{layers}]")).unwrap();
        let graph = options.lower(&[1, 4, 4], Dtype::F32).unwrap();
        let network = Network::new(Arc::new(graph), 1, Device::Cpu).unwrap();
        network.chain().map(|layers| layers.len())
    }

    #[test]
    fn only_linear_layers_and_activations_in_a_row_are_a_chain() {
        let linear = r#"{ type = "linear", out_features = 4 }"#;
        let flatten = r#"{ type = "flatten" }"#;
        assert_eq!(layers_of(&format!(r#"{flatten}, {linear}, {{ type = "relu" }}, {linear}"#)), Some(3));
        assert_eq!(layers_of(&format!(r#"{flatten}, {{ type = "gelu" }}, {linear}"#)), Some(2));
        // Linear over the last dimension of an image, a layer that draws, no layer that learns, and a sum.
        assert_eq!(layers_of(linear), None);
        assert_eq!(layers_of(&format!(r#"{flatten}, {linear}, {{ type = "dropout", p = 0.5 }}, {linear}"#)), None);
        assert_eq!(layers_of(flatten), None);
        let residual = format!(r#"{{ type = "residual", layers = [{linear}] }}"#);
        assert_eq!(layers_of(&format!("{flatten}, {linear}, {residual}")), None);
    }
}
