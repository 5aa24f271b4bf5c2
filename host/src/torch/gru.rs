//! Gated recurrent units (`torch.nn.GRU`) whose products are computed by a kernel of ours; see `gru.cpp`.

use std::ptr;

use tch::Tensor;

use super::{TorchError, error::check, shim};

/// Layers on top of each other, from states of zero.
#[derive(Clone, Copy, Debug)]
pub struct Layers {
    /// Whether each reads the sequence in both directions.
    pub bidirectional: bool,
    /// Probability with which a value between two layers is zeroed, drawn from the default generator; 0 in evaluation.
    pub dropout: f64,
}

impl Layers {
    /// The states of the last layer, `[batch, length, features]`, for an input of that form. `parameters` are PyTorch's: for
    /// each layer, and each of its directions, the weights of the input and the state and their two biases.
    ///
    /// `None` where libtorch computes the products of this thread, or in another precision than f32.
    ///
    /// # Errors
    ///
    /// Those of libtorch, for shapes that do not fit.
    pub fn run(&self, input: &Tensor, parameters: &[&Tensor]) -> Result<Option<Tensor>, TorchError> {
        // SAFETY: two live tensors.
        let is_ours = |weight: &&Tensor| unsafe { shim::host_torch_gru_is_ours(input.as_ptr(), weight.as_ptr()) };
        if !parameters.first().is_some_and(is_ours) {
            return Ok(None);
        }
        let directions = if self.bidirectional { 2 } else { 1 };
        let layers: Vec<_> = parameters.chunks_exact(4 * directions).collect();
        let mut value = input.f_transpose(0, 1)?.f_contiguous()?;
        for (index, layer) in layers.iter().enumerate() {
            let mut states = Vec::with_capacity(directions);
            for (direction, weights) in layer.chunks_exact(4).enumerate() {
                states.push(Self::direction(&value, weights, direction == 1)?);
            }
            value = if states.len() == 1 { states.remove(0) } else { Tensor::f_cat(&states, 2)? };
            if self.dropout > 0.0 && index + 1 < layers.len() {
                value = value.f_dropout(self.dropout, true)?;
            }
        }
        Ok(Some(value.f_transpose(0, 1)?))
    }

    fn direction(input: &Tensor, weights: &[&Tensor], reverse: bool) -> Result<Tensor, TorchError> {
        let weights: Vec<_> = weights.iter().map(|weight| weight.as_ptr()).collect();
        let mut output = ptr::null_mut();
        // SAFETY: a live input, four live weights, and a place to write to.
        let status = unsafe { shim::host_torch_gru_layer(input.as_ptr(), weights.as_ptr(), reverse, &mut output) };
        check(status, "gru")?;
        // SAFETY: the tensor was made for this call and belongs to its caller.
        Ok(unsafe { Tensor::from_ptr(output) })
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::torch::products::{self, Products};

    fn numbers(shape: &[i64], seed: f64, scale: f64) -> Tensor {
        let count = shape.iter().product::<i64>();
        ((Tensor::arange(count, (Kind::Float, Device::Cpu)) * 0.7 + seed).sin() * scale).reshape(shape)
    }

    /// Outputs, and the gradients of the input and all parameters, by ours and by libtorch.
    fn both([batch, length, features, hidden]: [i64; 4], layers: i64, bidirectional: bool) -> [Vec<Tensor>; 2] {
        let directions = if bidirectional { 2 } else { 1 };
        let leaf = |shape: &[i64], seed| numbers(shape, seed, 0.4).set_requires_grad(true);
        let mut parameters = Vec::new();
        for layer in 0..layers {
            for _ in 0..directions {
                let width = if layer == 0 { features } else { hidden * directions };
                let shapes: [&[i64]; 4] = [&[3 * hidden, width], &[3 * hidden, hidden], &[3 * hidden], &[3 * hidden]];
                for shape in shapes {
                    parameters.push(leaf(shape, parameters.len() as f64));
                }
            }
        }
        let parameters: Vec<&Tensor> = parameters.iter().collect();
        let input = numbers(&[batch, length, features], 0.3, 1.0).set_requires_grad(true);
        let finish = |output: Tensor| {
            let loss = (&output * numbers(&output.size(), 0.9, 1.0)).sum(Kind::Float);
            let leaves: Vec<&Tensor> = std::iter::once(&input).chain(parameters.iter().copied()).collect();
            let gradients = Tensor::run_backward(&[loss], &leaves, false, false);
            std::iter::once(output.detach()).chain(gradients).collect::<Vec<_>>()
        };
        let ours = {
            let _gemm = products::enter(Products::Gemm).unwrap();
            finish(Layers { bidirectional, dropout: 0.0 }.run(&input, &parameters).unwrap().unwrap())
        };
        let state = Tensor::zeros([layers * directions, batch, hidden], (Kind::Float, Device::Cpu));
        let theirs = input.gru(&state, &parameters, true, layers, 0.0, true, bidirectional, true).0;
        [ours, finish(theirs)]
    }

    #[test]
    fn outputs_and_gradients_are_those_of_libtorch() {
        for (sizes, layers, bidirectional) in
            [([3, 5, 4, 6], 1, false), ([2, 7, 3, 5], 2, true), ([1, 1, 1, 1], 1, true), ([4, 20, 30, 33], 3, false)]
        {
            let [ours, theirs] = both(sizes, layers, bidirectional);
            assert_eq!(ours.len(), theirs.len());
            for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
                assert_eq!(ours.size(), theirs.size());
                assert!(ours.allclose(theirs, 1e-4, 1e-5, false), "{sizes:?} {layers} {bidirectional} {index}");
            }
        }
    }

    #[test]
    fn a_second_derivative_is_refused_and_libtorch_has_its_own_layers() {
        let weights = [[6, 3], [6, 2]].map(|shape| numbers(&shape, 0.1, 0.4).set_requires_grad(true));
        let biases = [0.2, 0.3].map(|seed| numbers(&[6], seed, 0.4));
        let parameters = [&weights[0], &weights[1], &biases[0], &biases[1]];
        let input = numbers(&[2, 4, 3], 0.3, 1.0);
        let layers = Layers { bidirectional: false, dropout: 0.0 };
        assert!(layers.run(&input, &parameters).unwrap().is_none());
        let _gemm = products::enter(Products::Gemm).unwrap();
        assert!(layers.run(&input.to_kind(Kind::Double), &parameters).unwrap().is_none());
        let loss = layers.run(&input, &parameters).unwrap().unwrap().sum(Kind::Float);
        let error = Tensor::f_run_backward(&[&loss], &[&weights[0]], true, true).unwrap_err();
        assert!(error.to_string().contains("no second derivative"), "{error}");
    }
}
