//! A training step of linear layers and activations one after another, without an autograd graph.
//!
//! For a small model, autograd's graph and the dispatch of operators take longer than their kernels. A chain calls the same
//! kernels on the same values in the same order, so that outputs, loss and gradients have the bits that autograd gives.

use std::ffi::c_int;
use std::ptr::{self, NonNull};

use tch::Tensor;

use super::{TorchError, error::check, shim};

/// A layer: what it computes from the value before it, `[batch, width]`.
#[derive(Clone, Copy, Debug)]
pub enum Layer<'t> {
    /// `x Wᵀ + b` (`torch.nn.Linear`).
    Linear {
        /// `[out_features, in_features]`.
        weight: &'t Tensor,
        /// `[out_features]`.
        bias: Option<&'t Tensor>,
    },
    /// `torch.nn.ReLU`.
    Relu,
    /// `torch.nn.GELU()`.
    Gelu,
    /// `torch.nn.GELU(approximate="tanh")`.
    GeluTanh,
    /// `torch.nn.Tanh`.
    Tanh,
    /// `torch.nn.Sigmoid`.
    Sigmoid,
    /// `torch.nn.SiLU`.
    Silu,
}

/// The mean loss of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// `torch.nn.CrossEntropyLoss()` for classes, i64 `[batch]`.
    CrossEntropy,
    /// `torch.nn.MSELoss()` for numbers of the shape of the outputs.
    Mse,
}

/// Layers and a loss, with the memory of what lies between them. Belongs to the training thread.
#[derive(Debug)]
pub struct Chain {
    chain: NonNull<shim::Chain>,
}

impl Chain {
    /// A chain over parameters on the CPU, f32, which it shares: they stay the same objects, and their values may change. There
    /// is at least one linear layer.
    ///
    /// # Errors
    ///
    /// When memory is short.
    pub fn new(layers: &[Layer<'_>], loss: Loss) -> Result<Chain, TorchError> {
        let kind = |layer: &Layer<'_>| -> c_int {
            match layer {
                Layer::Linear { .. } => 0,
                Layer::Relu => 1,
                Layer::Gelu => 2,
                Layer::GeluTanh => 3,
                Layer::Tanh => 4,
                Layer::Sigmoid => 5,
                Layer::Silu => 6,
            }
        };
        let kinds: Vec<c_int> = layers.iter().map(kind).collect();
        let parameters = layers.iter().map(|layer| match layer {
            Layer::Linear { weight, bias } => (weight.as_ptr(), bias.map_or(ptr::null(), Tensor::as_ptr)),
            _ => (ptr::null(), ptr::null()),
        });
        let (weights, biases): (Vec<_>, Vec<_>) = parameters.unzip();
        let mut chain = ptr::null_mut();
        // SAFETY: three lists of the same length, of live tensors or null, borrowed for the call.
        let status = unsafe {
            shim::host_torch_chain_new(
                kinds.as_ptr(),
                weights.as_ptr(),
                biases.as_ptr(),
                layers.len(),
                loss as c_int,
                &mut chain,
            )
        };
        check(status, "Chain::new")?;
        let chain = NonNull::new(chain)
            .ok_or(TorchError::Operation { operation: "Chain::new", message: "no chain was made".to_owned() })?;
        Ok(Chain { chain })
    }

    /// The outputs and the mean loss of a batch, `inputs` being f32 `[batch, width]`; and the gradients of the parameters that
    /// require one, as `Tensor.grad`. They had none.
    ///
    /// # Errors
    ///
    /// When shapes or dtypes do not fit, or a class is out of range.
    pub fn step(&mut self, inputs: &Tensor, targets: &Tensor) -> Result<(Tensor, Tensor), TorchError> {
        let (mut outputs, mut loss) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: a live chain, live tensors, and two places to write to.
        let status = unsafe {
            shim::host_torch_chain_step(self.chain.as_ptr(), inputs.as_ptr(), targets.as_ptr(), &mut outputs, &mut loss)
        };
        check(status, "Chain::step")?;
        // SAFETY: both tensors were made for this call and belong to its caller.
        Ok(unsafe { (Tensor::from_ptr(outputs), Tensor::from_ptr(loss)) })
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // SAFETY: made by `host_torch_chain_new`, freed once.
        unsafe { shim::host_torch_chain_free(self.chain.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tch::{Device, Kind};

    use super::*;
    use crate::torch::products::{self, Products};
    use crate::torch::{TensorList, fused, gradients};

    fn numbers(shape: &[i64], seed: f64) -> Tensor {
        let count = shape.iter().product::<i64>();
        (Tensor::arange(count, (Kind::Float, Device::Cpu)) * 0.7 + seed).sin().reshape(shape)
    }

    /// The same by autograd.
    fn by_autograd(layers: &[Layer<'_>], loss: Loss, inputs: &Tensor, targets: &Tensor) -> (Tensor, Tensor) {
        let outputs = layers.iter().fold(inputs.shallow_clone(), |value, layer| match layer {
            Layer::Linear { weight, bias } => value.linear(weight, *bias),
            Layer::Relu => value.relu(),
            Layer::Gelu => fused::gelu(&value).unwrap().unwrap_or_else(|| value.gelu("none")),
            Layer::GeluTanh => value.gelu("tanh"),
            Layer::Tanh => value.tanh(),
            Layer::Sigmoid => value.sigmoid(),
            Layer::Silu => value.silu(),
        });
        let loss = match loss {
            Loss::CrossEntropy => fused::cross_entropy(&outputs, targets).unwrap().unwrap_or_else(|| {
                outputs.cross_entropy_loss(targets, None::<&Tensor>, tch::Reduction::Mean, -100, 0.0)
            }),
            Loss::Mse => outputs.mse_loss(targets, tch::Reduction::Mean),
        };
        loss.backward();
        (outputs.detach(), loss.detach())
    }

    fn activation(index: usize) -> Layer<'static> {
        [Layer::Relu, Layer::Gelu, Layer::GeluTanh, Layer::Tanh, Layer::Sigmoid, Layer::Silu][index % 6]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn a_chain_has_the_bits_of_autograd(
            widths in prop::collection::vec(1i64..70, 2..5),
            activations in prop::collection::vec(prop::collection::vec(0usize..6, 0..3), 5),
            biases in prop::collection::vec(any::<bool>(), 5),
            frozen in prop::collection::vec(0usize..6, 5),
            is_regression: bool,
            is_gemm: bool,
        ) {
            let products = if is_gemm { Products::Gemm } else { Products::Libtorch };
            let _products = products::enter(products).unwrap();
            let parameters: Vec<(Tensor, Option<Tensor>)> = widths.windows(2).enumerate().map(|(index, pair)| {
                let leaf = |shape: &[i64], seed, learns| numbers(shape, seed).set_requires_grad(learns);
                let weight = leaf(&[pair[1], pair[0]], 0.1, frozen[index] != 0);
                (weight, biases[index].then(|| leaf(&[pair[1]], 0.3, frozen[index] != 1)))
            }).collect();
            let all: Vec<&Tensor> =
                parameters.iter().flat_map(|(weight, bias)| std::iter::once(weight).chain(bias)).collect();
            prop_assume!(all.iter().any(|tensor| tensor.requires_grad()));
            let mut layers: Vec<Layer<'_>> = activations[4].iter().map(|index| activation(*index)).collect();
            for (index, (weight, bias)) in parameters.iter().enumerate() {
                layers.push(Layer::Linear { weight, bias: bias.as_ref() });
                layers.extend(activations[index].iter().map(|index| activation(*index)));
            }
            let loss = if is_regression { Loss::Mse } else { Loss::CrossEntropy };
            let last = widths[widths.len() - 1];
            let list = TensorList::new(all.iter().copied()).unwrap();
            let mut chain = Chain::new(&layers, loss).unwrap();
            let mut held: Vec<(Tensor, Tensor)> = Vec::new();
            // Whole batches, smaller ones, and a whole one again.
            for batch in [7, 7, 3, 1, 7] {
                let inputs = numbers(&[batch, widths[0]], 0.2);
                let targets = if is_regression {
                    numbers(&[batch, last], 0.4)
                } else {
                    Tensor::arange(batch, (Kind::Int64, Device::Cpu)).remainder(last)
                };
                let expected = by_autograd(&layers, loss, &inputs, &targets);
                let gradients_of = || all.iter().map(|tensor| tensor.grad()).collect::<Vec<_>>();
                let expected_gradients = gradients_of();
                gradients::clear(&list).unwrap();
                prop_assert_eq!(chain.step(&inputs, &targets).unwrap(), expected);
                for (found, expected) in gradients_of().into_iter().zip(expected_gradients) {
                    prop_assert_eq!(found.defined(), expected.defined());
                    if found.defined() {
                        prop_assert_eq!(&found, &expected);
                        held.push((found, expected));
                    }
                }
                gradients::clear(&list).unwrap();
            }
            // Whoever held a gradient still has it.
            for (held, expected) in held {
                prop_assert_eq!(held, expected);
            }
        }
    }

    #[test]
    fn memory_is_used_again_and_a_class_out_of_range_is_an_error() {
        let weight = numbers(&[5, 4], 0.1).set_requires_grad(true);
        let list = TensorList::new([&weight]).unwrap();
        let mut chain = Chain::new(&[Layer::Linear { weight: &weight, bias: None }], Loss::CrossEntropy).unwrap();
        let inputs = numbers(&[3, 4], 0.2);
        let places: Vec<_> = (0..3)
            .map(|_| {
                let _ = chain.step(&inputs, &Tensor::from_slice(&[0i64, 4, 2])).unwrap();
                let place = weight.grad().data_ptr();
                gradients::clear(&list).unwrap();
                place
            })
            .collect();
        assert!(places.iter().all(|place| *place == places[0]));
        let error = chain.step(&inputs, &Tensor::from_slice(&[0i64, 5, 2])).unwrap_err();
        assert!(error.to_string().contains("Target 5 is out of bounds"), "{error}");
        assert!(chain.step(&numbers(&[3, 6], 0.2), &Tensor::from_slice(&[0i64, 4, 2])).is_err());
    }
}
