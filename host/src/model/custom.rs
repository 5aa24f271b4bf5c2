//! Models without a graph: any forward pass over tensors from elsewhere.

use std::collections::HashSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::{Kind, Tensor, nn::VarStore};

use super::batch::{Forwarded, ModelBatch};
use super::{error::ModelError, execute::Mode, named_tensor::NamedTensor, network::Network};
use crate::torch::without_backtrace;

/// An error of a program's own code.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The output for a batch of inputs, in training or in use.
pub(super) type ForwardFunction = dyn Fn(&Tensor, Mode) -> Result<Tensor, BoxError>;

/// A forward pass without a graph.
pub(super) struct Forward(pub(super) Box<ForwardFunction>);

impl Forward {
    pub(super) fn run(&self, input: &Tensor, mode: Mode) -> Result<Tensor, ModelError> {
        contained(|| (self.0)(input, mode)).map_err(|message| ModelError::Forward { message })
    }
}

impl fmt::Debug for Forward {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Forward")
    }
}

/// The variables of a `VarStore` in the order of their names, sharing its memory: what [`Network::custom`] takes.
pub fn variables(store: &VarStore) -> Vec<NamedTensor> {
    let mut tensors: Vec<NamedTensor> =
        store.variables().into_iter().map(|(name, tensor)| NamedTensor { name, tensor }).collect();
    // The order of the store differs between processes.
    tensors.sort_by(|one, other| one.name.cmp(&other.name));
    tensors
}

/// Rejects duplicate names of tensors, and tensors of which none is trained.
pub(super) fn check_tensors(tensors: &[NamedTensor]) -> Result<(), ModelError> {
    let mut names = HashSet::new();
    for NamedTensor { name, .. } in tensors {
        // A slash separates the name of a copy of the weights from that of the tensor.
        if name.is_empty() || name.contains('/') {
            return Err(ModelError::TensorName { name: name.clone() });
        }
        if !names.insert(name.as_str()) {
            return Err(ModelError::DuplicateTensor { name: name.clone() });
        }
    }
    if !tensors.iter().any(|named| named.tensor.requires_grad()) {
        return Err(ModelError::NothingToTrain);
    }
    Ok(())
}

/// Runs a program's code. Returns its error, or the message of its panic, as text: most of tch panics where libtorch
/// fails, and the end hooks of callbacks must run after a failure in a step.
pub(crate) fn contained<T>(body: impl FnOnce() -> Result<T, BoxError>) -> Result<T, String> {
    // The values that the code captured are not used again: the training ends.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(outcome) => outcome.map_err(|error| {
            let mut message = without_backtrace(&error.to_string()).to_owned();
            let mut cause = error.source();
            while let Some(error) = cause {
                let text = error.to_string();
                // Many errors repeat their cause in their own message.
                if !message.contains(&text) {
                    message = format!("{message}: {text}");
                }
                cause = error.source();
            }
            message
        }),
        Err(panic) => {
            let text = match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
                (Some(text), _) => text.as_str(),
                (None, Some(text)) => text,
                (None, None) => "without a message",
            };
            Err(format!("it panicked: {}", without_backtrace(text)))
        }
    }
}

impl Network {
    /// Computes the output for two samples of zeros, and stores its shape. Where an exported program has a graph, compares the
    /// outputs of both.
    ///
    /// # Errors
    ///
    /// When the model cannot compute it, or the output's first dimension is not that of the batch.
    pub fn try_on(&mut self, sample: (&[i64], tch::Kind)) -> Result<(), ModelError> {
        self.try_on_all(sample, &[], None)
    }

    /// The same for a batch that also has `others`, and `targets` for a program that takes them: the shape of a sample, and the
    /// dtype.
    ///
    /// # Errors
    ///
    /// As of [`Network::try_on`], and a loss of its own that is no single number.
    pub fn try_on_all(
        &mut self,
        sample: (&[i64], Kind),
        others: &[(&[i64], Kind)],
        targets: Option<(&[i64], Kind)>,
    ) -> Result<(), ModelError> {
        const SAMPLES: i64 = 2;
        let device = self.device();
        let zeros = |(shape, kind): (&[i64], Kind)| {
            let shape: Vec<i64> = std::iter::once(SAMPLES).chain(shape.iter().copied()).collect();
            Tensor::f_zeros(&shape, (kind, device))
        };
        let inputs = zeros(sample)?;
        let others = others.iter().map(|&other| zeros(other)).collect::<Result<Vec<_>, _>>()?;
        let targets = targets.map(zeros).transpose()?;
        let batch = ModelBatch { inputs: &inputs, others: &others, targets: targets.as_ref() };
        if let Some(program) = self.program_mut() {
            program.check(&batch).map_err(|refusal| ModelError::Forward { message: refusal.to_string() })?;
        }
        let Forwarded { output, loss, .. } = tch::no_grad(|| self.compute(batch, Mode::Evaluate, &[]))?;
        if let Some(found) = loss.map(|loss| loss.size()).filter(|size| !size.is_empty()) {
            return Err(ModelError::Loss { found });
        }
        let size = output.size();
        let Some((&SAMPLES, shape)) = size.split_first() else {
            return Err(ModelError::Output { samples: SAMPLES, found: size });
        };
        self.set_output_shape(shape.to_vec());
        self.check_graph();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, nn, nn::Module};

    use super::*;

    fn linear() -> (VarStore, nn::Linear) {
        let store = VarStore::new(Device::Cpu);
        let layer = nn::linear(store.root() / "head", 3, 2, nn::LinearConfig::default());
        let _ = store.root().zeros_no_train("scale", &[1]);
        (store, layer)
    }

    #[test]
    fn variables_that_require_gradients_are_parameters_and_the_others_buffers() {
        let (store, layer) = linear();
        let forward = move |input: &Tensor, _: Mode| Ok(layer.forward(input));
        let mut network = Network::custom(variables(&store), Device::Cpu, forward).unwrap();
        let names = |tensors: &[NamedTensor]| tensors.iter().map(|named| named.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(network.parameters()), ["head.bias", "head.weight"]);
        assert_eq!(names(network.buffers()), ["scale"]);
        assert!(network.graph().is_err());
        assert_eq!(network.output_shape(), None);
        network.try_on((&[3], Kind::Float)).unwrap();
        assert_eq!(network.output_shape(), Some(&[2i64][..]));
        let nodes = network.forward_with(&Tensor::zeros([1, 3], (Kind::Float, Device::Cpu)), Mode::Evaluate, &[0]);
        assert_eq!(nodes.unwrap_err(), network.graph().unwrap_err());

        let weight = Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
        network.write("head.weight", &weight).unwrap();
        assert_eq!(store.variables()["head.weight"], weight, "the store and the network share their memory");
    }

    #[test]
    fn what_a_program_does_wrong_is_an_error_with_its_words() {
        let failing = |forward: fn(&Tensor, Mode) -> Result<Tensor, BoxError>| {
            let (store, _) = linear();
            let mut network = Network::custom(variables(&store), Device::Cpu, forward).unwrap();
            network.try_on((&[3], Kind::Float)).unwrap_err().to_string()
        };
        assert_eq!(failing(|_, _| Err("no idea".into())), "the model's forward pass failed: no idea");
        assert_eq!(failing(|_, _| panic!("oh")), "the model's forward pass failed: it panicked: oh");
        let shapes = failing(|input, _| Ok(input.matmul(input)));
        assert!(shapes.contains("cannot be multiplied") && !shapes.contains("Exception raised"), "{shapes}");
        assert_eq!(
            failing(|input, _| Ok(input.flatten(0, -1))),
            "the model returns shape [6] for a batch of 2 samples; the first dimension must be the batch"
        );
    }

    #[test]
    fn tensors_that_cannot_be_told_apart_or_trained_are_refused() {
        let refused = |names: &[&str], trained| {
            let tensor = |name: &&str| NamedTensor {
                name: (*name).to_owned(),
                tensor: Tensor::zeros([1], (Kind::Float, Device::Cpu)).set_requires_grad(trained),
            };
            let tensors = names.iter().map(tensor).collect();
            Network::custom(tensors, Device::Cpu, |input, _| Ok(input.shallow_clone())).unwrap_err()
        };
        assert_eq!(refused(&["a", "a"], true), ModelError::DuplicateTensor { name: "a".to_owned() });
        assert_eq!(refused(&["a/b"], true), ModelError::TensorName { name: "a/b".to_owned() });
        assert_eq!(refused(&["a"], false), ModelError::NothingToTrain);
    }
}
