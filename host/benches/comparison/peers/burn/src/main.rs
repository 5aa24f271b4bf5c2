//! Trains a workload of the comparison with Burn:
//!
//!     burn-peer FILE WARM_UP
//!
//! `FILE` is what `samples.py` wrote. The backend takes the number of threads from `RAYON_NUM_THREADS`.

mod models;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Int, Tensor, TensorData};
use workload::{EPSILON, Inputs, LEARNING_RATE, Result, WEIGHT_DECAY, Workload};

use crate::models::{Cnn, Mlp, Transformer};

fn main() -> Result<()> {
    let workload = Workload::from_arguments()?;
    let device = Device::flex().autodiff();
    let shape = workload.input_shape.clone();
    match (workload.name.as_str(), &workload.inputs) {
        ("mlp", Inputs::Digits(values)) => {
            let digits = Tensor::<4>::from_data(TensorData::new(values.clone(), shape), &device);
            let forward = |model: &Mlp, samples| model.forward(digits.clone().select(0, samples));
            train(&workload, &device, Mlp::new(workload.classes, &device), forward)
        }
        ("cnn", Inputs::Digits(values)) => {
            let digits = Tensor::<4>::from_data(TensorData::new(values.clone(), shape), &device);
            let forward = |model: &Cnn, samples| model.forward(digits.clone().select(0, samples));
            train(&workload, &device, Cnn::new(workload.classes, &device), forward)
        }
        ("transformer", Inputs::Tokens(tokens)) => {
            let tokens = Tensor::<2, Int>::from_data(TensorData::new(tokens.clone(), shape), &device);
            let [_, context] = tokens.dims();
            let forward = |model: &Transformer, samples| model.forward(tokens.clone().select(0, samples));
            train(&workload, &device, Transformer::new(workload.classes, context, &device), forward)
        }
        (name, _) => Err(format!("there is no model for the workload `{name}`").into()),
    }
}

/// Trains a model; `forward` computes the logits of the samples with these indices.
fn train<M: Module>(
    workload: &Workload,
    device: &Device,
    mut model: M,
    forward: impl Fn(&M, Tensor<1, Int>) -> Tensor<2>,
) -> Result<()> {
    let targets = TensorData::new(workload.targets.clone(), workload.target_shape());
    let targets = Tensor::<2, Int>::from_data(targets, device);
    let cross_entropy = CrossEntropyLossConfig::new().init(device);
    let settings = AdamWConfig::new().with_weight_decay(WEIGHT_DECAY as f32).with_epsilon(EPSILON as f32);
    let mut optimizer = settings.init();
    let mut steps = workload.steps();
    while let Some(samples) = steps.next_samples() {
        let count = samples.len();
        let samples = Tensor::<1, Int>::from_data(TensorData::new(samples, [count]), device);
        let classes = targets.clone().select(0, samples.clone()).flatten(0, 1);
        let loss = cross_entropy.forward(forward(&model, samples), classes);
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(LEARNING_RATE, model, gradients);
        steps.end_step(loss.into_scalar::<f32>().into());
    }
    steps.report(model.num_params());
    Ok(())
}
