//! Trains a workload of the comparison with candle:
//!
//!     candle-peer FILE WARM_UP
//!
//! `FILE` is what `samples.py` wrote. candle takes the number of threads from `RAYON_NUM_THREADS`.

mod models;

use candle_core::{DType, Device, Tensor};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, VarBuilder, VarMap, loss};
use workload::{EPSILON, Inputs, LEARNING_RATE, Result, WEIGHT_DECAY, Workload};

use crate::models::Model;

fn main() -> Result<()> {
    let workload = Workload::from_arguments()?;
    let device = Device::Cpu;
    let shape = workload.input_shape.as_slice();
    let inputs = match &workload.inputs {
        Inputs::Digits(values) => Tensor::from_slice(values, shape, &device)?,
        Inputs::Tokens(tokens) => Tensor::from_slice(tokens, shape, &device)?,
    };
    let targets = Tensor::from_slice(&workload.targets, &workload.target_shape(), &device)?;

    let weights = VarMap::new();
    let model = Model::new(&workload, VarBuilder::from_varmap(&weights, DType::F32, &device))?;
    let settings =
        ParamsAdamW { lr: LEARNING_RATE, weight_decay: WEIGHT_DECAY, eps: EPSILON, ..ParamsAdamW::default() };
    let mut optimizer = AdamW::new(weights.all_vars(), settings)?;
    let mut steps = workload.steps();
    while let Some(samples) = steps.next_samples() {
        let samples = Tensor::new(samples, &device)?;
        let classes = targets.index_select(&samples, 0)?.flatten_all()?;
        let loss = loss::cross_entropy(&model.forward(&inputs.index_select(&samples, 0)?)?, &classes)?;
        optimizer.backward_step(&loss)?;
        steps.end_step(loss.to_scalar::<f32>()?.into());
    }
    steps.report(weights.all_vars().iter().map(|weight| weight.elem_count()).sum());
    Ok(())
}
