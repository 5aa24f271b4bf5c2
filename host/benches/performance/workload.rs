//! The models to train, by the host's loop and by a bare one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use host::data::{Loader, LoaderOptions, Order, TRAIN};
use host::dispatch::Dispatcher;
use host::distributed::{ProcessGroup, Share};
use host::job::{JobPlan, Request};
use host::model::{Mode, Network};
use host::services::Screen;
use host::torch::buckets::BucketSizes;
use host::train::optimizer::Optimizer;
use host::train::{Fingerprints, Interrupt, Parts, Purpose, Requests, RunOutputs, Session, Trainer};
use plugin_api::event::Outcome;
use plugin_api::protocol::RunInfo;

use crate::Result;

const SEED: u64 = 42;

/// A model and how it is trained.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    pub name: &'static str,
    pub layers: &'static str,
    pub batch_size: usize,
    /// Steps of one round: about a tenth of a second, so that some rounds are undisturbed on a busy machine, and that
    /// the startup cost of a run does not count.
    pub steps: u64,
}

/// 64-128-10.
pub const MLP: Workload = Workload {
    name: "MLP",
    layers: r#"
  { type = "flatten" },
  { type = "linear", out_features = 128 }, { type = "relu" },
  { type = "linear", out_features = 10 },"#,
    batch_size: 64,
    steps: 800,
};

/// conv 32, conv 64, linear 128, linear 10.
pub const CNN: Workload = Workload {
    name: "CNN",
    layers: r#"
  { type = "conv2d", out_channels = 32, kernel_size = 3, padding = 1 }, { type = "relu" },
  { type = "conv2d", out_channels = 64, kernel_size = 3, padding = 1 }, { type = "relu" },
  { type = "max_pool2d", kernel_size = 2 }, { type = "flatten" },
  { type = "linear", out_features = 128 }, { type = "relu" },
  { type = "linear", out_features = 10 },"#,
    batch_size: 64,
    steps: 30,
};

/// 101 million parameters: 1.2 GB with AdamW's state.
pub const LARGE: Workload = Workload {
    name: "100 M parameters",
    layers: r#"
  { type = "flatten" },
  { type = "linear", out_features = 4096 }, { type = "relu" },
  { type = "repeat", times = 6, layers = [{ type = "linear", out_features = 4096 }, { type = "relu" }] },
  { type = "linear", out_features = 10 },"#,
    batch_size: 8,
    steps: 28,
};

impl Workload {
    /// The run file, with callbacks of these kinds.
    pub fn run_file(&self, kinds: &[String]) -> String {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/digits/digits.csv.gz");
        // A TOML basic string is written as JSON's.
        let data = serde_json::Value::from(data.display().to_string());
        let plugins: String = kinds
            .iter()
            .map(|kind| format!("\n[[plugins]]\nkind = \"{kind}\"\noptions = {{ {} }}\n", options_of(kind)))
            .collect();
        let Self { layers, batch_size, steps, .. } = self;
        format!(
            r#"
[run]
name = "bench"
seed = {SEED}
device = "cpu"
by_default = false

[data]
format = "csv"
path = {data}
target = 64
shape = [1, 8, 8]
classes = 10
normalize = "standard"

[data.splits]
val = {{ fraction = 0.2, stratified = true }}

[model]
layers = [{layers}
]

[train]
steps = {steps}
batch_size = {batch_size}
loss = {{ type = "cross_entropy" }}
optimizer = {{ type = "adamw", learning_rate = 1e-3, weight_decay = 0.01 }}
{plugins}"#
        )
    }

    /// Everything that a run needs, as `host run` makes it; `libraries` are those of `kinds`. Its run file is in
    /// `folder`.
    pub fn plan(&self, folder: &Path, libraries: Vec<PathBuf>, kinds: &[String]) -> Result<JobPlan> {
        let path = folder.join("bench.toml");
        std::fs::write(&path, self.run_file(kinds))?;
        let request = Request { run_file: Some(path), plugins: libraries, ..Request::default() };
        Ok(JobPlan::make(&request).map_err(|problems| format!("{problems:?}"))?)
    }
}

/// The options of kinds that need some here: nothing is evaluated, and nothing is to end the run.
fn options_of(kind: &str) -> &'static str {
    match kind {
        "early-stopping" | "reduce-on-plateau" => r#"metric = "train_loss", patience = 1_000_000"#,
        "lr-schedule" => "points = [[0, 1e-3], [1_000_000, 1e-4]]",
        "time-limit" => r#"duration = "24 h""#,
        _ => "",
    }
}

/// Sets libtorch up as a job does.
pub fn prepare(plan: &JobPlan) -> Result<()> {
    set_threads(plan.threads)?;
    host::torch::keep_freed_memory();
    host::torch::set_deterministic_algorithms(true)?;
    host::torch::manual_seed(SEED);
    Ok(())
}

pub fn set_threads(threads: usize) -> Result<()> {
    tch::set_num_threads(i32::try_from(threads)?);
    Ok(())
}

/// The host's loop over a fresh model, with the plan's callbacks: the time from `train_start` to `train_end`.
pub fn train_in_host(plan: &JobPlan, screen: &Arc<dyn Screen>) -> Result<Duration> {
    Ok(run_in_host(plan, screen)?.0)
}

/// The same until the end of the last epoch: without what comes at the end of a run.
pub fn train_epochs_in_host(plan: &JobPlan, screen: &Arc<dyn Screen>) -> Result<Duration> {
    Ok(run_in_host(plan, screen)?.1)
}

/// The time until `train_end`, and until the end of the last epoch.
fn run_in_host(plan: &JobPlan, screen: &Arc<dyn Screen>) -> Result<(Duration, Duration)> {
    let folder = tempfile::tempdir()?;
    let info = RunInfo { folder: folder.path().display().to_string(), ..RunInfo::default() };
    let last_epoch = Arc::new(Mutex::new(Instant::now()));
    let (network, optimizer) = model(plan)?;
    let session = Session::new(Parts {
        plan: plan.plan.clone(),
        network,
        optimizer,
        data: plan.data.clone(),
        fingerprints: Fingerprints { data: String::new(), module: None },
        data_text: Arc::from(""),
        info,
        outputs: Box::new(OnlyScreen { screen: Arc::clone(screen), last_epoch: Arc::clone(&last_epoch) }),
        interrupt: Interrupt::default(),
        requests: Requests::default(),
        group: ProcessGroup::single(),
        bucket_sizes: BucketSizes::default(),
        run_file: Arc::from(""),
        model_files: Vec::new(),
        resume: None,
        purpose: Purpose::Train,
        products: plan.products,
    })?;
    let (dispatcher, created) = Dispatcher::create(plan.order.clone());
    created?;
    let mut trainer = Trainer { session, dispatcher };
    trainer.set_up(&BTreeMap::new(), &BTreeMap::new())?;
    let start = Instant::now();
    let ended = trainer.run();
    let time = start.elapsed();
    let ended = trainer.tear_down(ended);
    match ended.outcome {
        Outcome::Finished => {
            let last_epoch = *last_epoch.lock().unwrap_or_else(PoisonError::into_inner);
            Ok((time, last_epoch.saturating_duration_since(start)))
        }
        _ => Err(format!("the training ended otherwise: {}", ended.reason).into()),
    }
}

/// A loop without the host: the same model, loss and fused optimizer on the same batches from the same loader, and
/// nothing else; it does not even read the loss.
pub fn train_bare(plan: &JobPlan, steps: u64) -> Result<Duration> {
    let (network, mut optimizer) = model(plan)?;
    let options = LoaderOptions {
        batch_size: plan.plan.batches.size,
        drop_last: false,
        most_batches: None,
        order: Order::Shuffled { seed: SEED },
        first_epoch: 1,
        first_batch: 0,
        last_epoch: None,
        share: Share::whole(),
        augmentation: None,
    };
    let mut loader = Loader::start(Arc::clone(plan.data.split(TRAIN)?), options)?;
    let start = Instant::now();
    for _ in 0..steps {
        let batch = loader.next_batch()?.batch;
        optimizer.clear_gradients()?;
        let outputs = network.forward(&batch.inputs, Mode::Train)?;
        plan.plan.loss.compute(&outputs, &batch.targets)?.f_backward()?;
        optimizer.step()?;
    }
    Ok(start.elapsed())
}

fn model(plan: &JobPlan) -> Result<(Network, Optimizer)> {
    let graph = plan.model.graph()?;
    let network = Network::new(Arc::clone(graph), SEED, plan.device)?;
    let optimizer = Optimizer::new(&plan.run_file.train.optimizer, network.parameters())?;
    Ok((network, optimizer))
}

/// Outputs of a run of which only the screen and the time of the last epoch are kept.
struct OnlyScreen {
    screen: Arc<dyn Screen>,
    last_epoch: Arc<Mutex<Instant>>,
}

impl RunOutputs for OnlyScreen {
    fn screen(&self) -> Arc<dyn Screen> {
        Arc::clone(&self.screen)
    }

    fn artifact(&self, _: &str, _: &str) {}

    fn measured(&self, split: &str, _: &Session) {
        if split == TRAIN {
            *self.last_epoch.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
    }

    fn progress(&self, _: &Session) {}
}

/// A screen that shows nothing.
pub struct Dark;

impl Screen for Dark {
    fn line(&self, _: &str) {}

    fn status(&self, _: &str, _: &str, _: Option<f64>) {}
}
