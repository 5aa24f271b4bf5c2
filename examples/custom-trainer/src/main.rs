//! Trains handwritten digits with its own network, loss and batch step.
//!
//! Everything else is the host's: data, optimizer, schedule, evaluation, checkpoints, the command line of `host run`,
//! and the plugins, whose hooks run as usual after the code here.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host::data::Target;
use host::history::Position;
use host::job::ModelContext;
use host::model::{BoxError, Mode, Network, variables};
use host::train::{BatchStep, Computed};
use serde_json::json;
use tch::nn::{self, ModuleT};
use tch::{Kind, Tensor};

/// The shares since the last event, which the step shares with the checkpoints.
type Shares = Arc<Mutex<Vec<f64>>>;

fn main() -> ExitCode {
    let shares = Shares::default();
    let (saved, restored) = (Arc::clone(&shares), Arc::clone(&shares));
    let save = move || in_use(&saved).iter().flat_map(|share| share.to_le_bytes()).collect();
    let load = move |state: &[u8]| {
        *in_use(&restored) = state.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
        Ok::<(), BoxError>(())
    };
    host::cli::run_with(|job| {
        job.model(network).loss(focal_loss).batch_step(mixup(shares)).batch_step_state(save, load)
    })
}

/// The shares for this thread; they are whole even after a panic elsewhere.
fn in_use(shares: &Shares) -> MutexGuard<'_, Vec<f64>> {
    shares.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Two convolutions with batch norm, written in tch. The running statistics are variables that need no gradient, so
/// they are the network's buffers.
fn network(context: &ModelContext) -> Result<Network, BoxError> {
    let Target::Classes { count, .. } = &context.target else {
        return Err("this network needs classes as targets".into());
    };
    let store = nn::VarStore::new(context.device);
    let root = store.root();
    let padded = nn::ConvConfig { padding: 1, ..Default::default() };
    let layers = nn::seq_t()
        .add(nn::conv2d(&root / "conv1", context.sample_shape[0], 16, 3, padded))
        .add(nn::batch_norm2d(&root / "bn1", 16, Default::default()))
        .add_fn(Tensor::relu)
        .add_fn(|images| images.max_pool2d_default(2))
        .add(nn::conv2d(&root / "conv2", 16, 32, 3, padded))
        .add(nn::batch_norm2d(&root / "bn2", 32, Default::default()))
        .add_fn(Tensor::relu)
        .add_fn(|images| images.adaptive_avg_pool2d([2, 2]).flatten(1, -1))
        .add(nn::linear(&root / "head", 4 * 32, *count as i64, Default::default()));
    let forward = move |images: &Tensor, mode| Ok(layers.forward_t(images, mode == Mode::Train));
    Ok(Network::custom(variables(&store), context.device, forward)?)
}

/// Cross-entropy with less weight on samples that the network is sure of (Lin et al. 2017, γ = 2).
fn focal_loss(outputs: &Tensor, targets: &Tensor) -> Result<Tensor, BoxError> {
    let log_likelihood = outputs.f_log_softmax(-1, Kind::Float)?.f_gather(1, &targets.f_unsqueeze(1)?, false)?;
    let likelihood = log_likelihood.f_exp()?;
    let weight = (likelihood - 1.0).f_square()?;
    Ok(-(weight * log_likelihood).f_mean(Kind::Float)?)
}

/// Trains on mixtures of two samples, in random shares for each batch (Zhang et al. 2018, α = 1). The random numbers
/// come from libtorch's generator, so they follow from the run's seed, and a resumed run continues them.
///
/// At each tenth step of an epoch the callbacks get the event `mixup` with the mixture, and with the mean share since the
/// last one, whichever process they were in.
fn mixup(shares: Shares) -> impl FnMut(&mut BatchStep<'_>) -> Result<Computed, BoxError> {
    move |step| {
        let (inputs, targets) = (step.inputs(), step.targets());
        let share = Tensor::f_rand([1], (Kind::Float, inputs.device()))?;
        let order = Tensor::f_randperm(targets.size()[0], (Kind::Int64, inputs.device()))?;
        let mixed = inputs.f_lerp_tensor(&inputs.f_index_select(0, &order)?, &share)?;

        let share = share.double_value(&[0]);
        if let Some(mean) = mean_share(&shares, share, step.position()) {
            // Callbacks see what is trained on before it is: one of them may refuse it.
            let payload = json!({ "mean_share": mean }).to_string();
            step.emit_with("mixup", payload, &[("inputs", &mixed), ("targets", targets)])?;
        }

        let outputs = step.forward(&mixed)?;
        let own = step.loss(&outputs, targets)?;
        let other = step.loss(&outputs, &targets.f_index_select(0, &order)?)?;
        Ok(Computed { outputs, loss: own * (1.0 - share) + other * share })
    }
}

/// Notes a share; at each tenth step of an epoch, their mean since the last one.
fn mean_share(shares: &Shares, share: f64, position: Position) -> Option<f64> {
    const EVERY: u64 = 10;
    let mut shares = in_use(shares);
    shares.push(share);
    if !position.step.is_multiple_of(EVERY) {
        return None;
    }
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    shares.clear();
    Some(mean)
}
