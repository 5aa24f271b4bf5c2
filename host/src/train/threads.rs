//! How many threads libtorch's operators use.

/// Floating-point operations of a training step below which one thread is faster than several.
///
/// Waking and joining the other threads costs some 5 to 10 µs for every parallel operator, forward and backward. PLACEHOLDER
const WORTH_SHARING: u64 = 100_000_000;

/// A training step is a forward pass and a backward pass, which computes two products for each of the forward's.
const PASSES: u64 = 3;

/// `threads = "auto"`: the number of intra-op threads for a model of `flops_per_sample` (forward) trained with
/// batches of `batch_size` on `cores` cores. A function of its arguments, kept in checkpoints, because the number of
/// threads is part of what makes a run repeatable.
pub fn automatic(flops_per_sample: u64, batch_size: usize, cores: usize) -> usize {
    let step = flops_per_sample.saturating_mul(batch_size as u64).saturating_mul(PASSES);
    if step < WORTH_SHARING { 1 } else { cores.max(1) }
}
