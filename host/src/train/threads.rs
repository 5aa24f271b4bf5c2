//! How many threads libtorch's operators use.

use crate::model::NamedTensor;

/// The least floating-point operations of a training step per thread.
///
/// Waking the threads and waiting for the last costs some microseconds for every parallel operator, and a step
/// has dozens of them. Measured on two cores (steps of batch 64 with AdamW, one thread and two, least of 25 runs):
///
/// | model | MFLOP a step | one thread | two threads |
/// |---|---|---|---|
/// | linear 64-128-10 | 3.7 | 132 µs | 143 µs |
/// | linear 64-96-96-10 | 6.3 | 203 µs | 216 µs |
/// | linear 64-128-128-10 | 10.0 | 265 µs | 260 µs |
/// | linear 64-256-256-10 | 32.6 | 601 µs | 527 µs |
/// | conv 32, batch norm, pool, linear 10 on 1×8×8 | 12.0 | 2189 µs | 1618 µs |
/// | conv 32, conv 64, pool, linear 128, linear 10 on 1×8×8 | 514 | 9432 µs | 5652 µs |
const FLOPS_PER_THREAD: u64 = 5_000_000;

/// A training step is a forward pass, and a backward pass with two products for each of the forward pass.
const PASSES: u64 = 3;

/// `threads = "auto"`: the number of intra-op threads for a model of `flops_per_sample` (forward) trained with
/// batches of `batch_size` on `cores` cores. A function of its arguments, kept in checkpoints, because the number of
/// threads is part of what makes a run repeatable.
pub fn automatic(flops_per_sample: u64, batch_size: usize, cores: usize) -> usize {
    let step = flops_per_sample.saturating_mul(batch_size as u64).saturating_mul(PASSES);
    let worthwhile = usize::try_from(step / FLOPS_PER_THREAD).unwrap_or(usize::MAX);
    worthwhile.clamp(1, cores.max(1))
}

/// Floating-point operations of a forward pass over one sample, estimated from the weights: for models without a graph.
///
/// Each weight is multiplied and added once, a weight of a convolution (three dimensions or more) at each position of a
/// sample of `shape`, whose first dimension is the channels. Strides and pools reduce the count, sequences increase it.
pub fn estimated_flops(parameters: &[NamedTensor], shape: &[i64]) -> u64 {
    let positions = shape.iter().skip(1).map(|length| length.unsigned_abs()).product::<u64>().max(1);
    let flops = |named: &NamedTensor| {
        let positions = if named.tensor.dim() > 2 { positions } else { 1 };
        (named.tensor.numel() as u64).saturating_mul(2).saturating_mul(positions)
    };
    parameters.iter().map(flops).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Dtype, ModelOptions, Network};

    fn threads(layers: &str, cores: usize) -> usize {
        let options: ModelOptions = toml::from_str(&format!("layers = [{layers}]")).unwrap();
        let graph = options.lower(&[1, 8, 8], Dtype::F32).unwrap();
        automatic(graph.flops_per_sample(), 64, cores)
    }

    const MLP: &str = r#"
        { type = "flatten" },
        { type = "linear", out_features = 128 }, { type = "relu" },
        { type = "linear", out_features = 10 }
    "#;

    const CNN: &str = r#"
        { type = "conv2d", out_channels = 32, kernel_size = 3, padding = 1 }, { type = "relu" },
        { type = "conv2d", out_channels = 64, kernel_size = 3, padding = 1 }, { type = "relu" },
        { type = "max_pool2d", kernel_size = 2 }, { type = "flatten" },
        { type = "linear", out_features = 128 }, { type = "relu" },
        { type = "linear", out_features = 10 }
    "#;

    #[test]
    fn a_small_step_stays_on_one_thread_and_a_large_one_is_shared() {
        assert_eq!(threads(MLP, 2), 1);
        assert_eq!(threads(CNN, 2), 2);
        assert_eq!(threads(CNN, 16), 16);
    }

    #[test]
    fn a_models_weights_tell_its_cost_nearly() {
        for (layers, tolerance) in [(MLP, 1.1), (CNN, 1.3)] {
            let options: ModelOptions = toml::from_str(&format!("layers = [{layers}]")).unwrap();
            let graph = Arc::new(options.lower(&[1, 8, 8], Dtype::F32).unwrap());
            let flops = graph.flops_per_sample() as f64;
            let network = Network::new(graph, 0, tch::Device::Cpu).unwrap();
            let estimated = estimated_flops(network.parameters(), &[1, 8, 8]) as f64;
            assert!((1.0 / tolerance..tolerance).contains(&(estimated / flops)), "{estimated} {flops}");
        }
    }

    #[test]
    fn there_is_always_a_thread_and_never_more_than_cores() {
        assert_eq!(automatic(0, 0, 0), 1);
        assert_eq!(automatic(u64::MAX, usize::MAX, 4), 4);
    }
}
