//! The model and the callbacks of a job on a checkpoint, from `setup` to `teardown`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use host_command::runs::folder::write_whole;
use plugin_api::event::Outcome;
use plugin_api::protocol::RunInfo;

use super::super::events::Events;
use super::super::handle::Link;
use super::super::interrupt;
use super::super::log::{Log, Verbosity};
use super::super::messages;
use super::super::progress::BatchProgress;
use super::outputs::{JobOutputs, Published, Work};
use super::plan::{self, CheckpointPlan};
use crate::console::Console;
use crate::dispatch::Dispatcher;
use crate::distributed::ProcessGroup;
use crate::report::{Problem, Problems};
use crate::run_file::CheckpointSignal;
use crate::torch;
use crate::torch::buckets::BucketSizes;
use crate::train::kernels::Kernels;
use crate::train::optimizer::Optimizer;
use crate::train::{Ended, Fingerprints, Interrupt, Parts, Precision, Purpose, Requests, Session, TrainError, Trainer};

/// The console and the log of a job.
pub(super) fn console(verbosity: Verbosity) -> Arc<Console> {
    let console = Arc::new(Console::new(verbosity == Verbosity::Quiet));
    // Warnings go to the console; a job has no log of its own.
    let _ = Log::start(&console, Events::Off, verbosity);
    console
}

/// A job that is set up.
pub(super) struct Prepared {
    pub(super) trainer: Trainer,
    pub(super) published: Arc<Published>,
    pub(super) progress: Arc<BatchProgress>,
    console: Arc<Console>,
    ready: Result<(), TrainError>,
}

impl Prepared {
    /// Makes the model and the callbacks. Results of callbacks go into `folder`.
    pub(super) fn new(
        plan: CheckpointPlan,
        folder: &Path,
        console: &Arc<Console>,
        link: &Link,
        work: Work,
    ) -> Result<Self, Problems> {
        for problem in &plan.rejected {
            messages::warn(console, problem);
        }
        plan::announce(&plan, console);
        let published = Arc::new(Published::default());
        let order = plan.order.clone();
        let progress = Arc::new(BatchProgress::new());
        let outputs = JobOutputs {
            console: Arc::clone(console),
            progress: Arc::clone(&progress),
            work,
            published: Arc::clone(&published),
        };
        let session = session(plan, folder, outputs, &link.requests).map_err(|error| Problem::from(&error))?;
        link.show(Arc::clone(&progress) as _);
        let (dispatcher, created) = Dispatcher::create(order);
        let mut trainer = Trainer { session, dispatcher };
        let nothing = (BTreeMap::new(), BTreeMap::new());
        let ready = created.map_err(TrainError::from).and_then(|()| trainer.set_up(&nothing.0, &nothing.1));
        Ok(Self { trainer, published, progress, console: Arc::clone(console), ready })
    }

    /// Does the job, unless the set-up failed, and ends the callbacks. Tells an error.
    pub(super) fn run(&mut self, work: impl FnOnce(&mut Trainer) -> Ended) -> Outcome {
        let ended = match std::mem::replace(&mut self.ready, Ok(())) {
            Ok(()) => work(&mut self.trainer),
            Err(error) => Ended { outcome: Outcome::Failed, reason: error.to_string(), error: Some(error) },
        };
        let ended = self.trainer.tear_down(ended);
        #[cfg(unix)]
        crate::console::settle_what_is_printed();
        self.console.clear();
        match &ended.error {
            Some(error) => messages::fail(&self.console, &Problem::from(error)),
            None if ended.outcome != Outcome::Finished => {
                let message = format!("{}: {}; nothing is written", ended.outcome.name(), ended.reason);
                messages::fail(&self.console, &Problem::new(message));
            }
            None => self.progress.note(1, 1),
        }
        ended.outcome
    }
}

fn session(
    plan: CheckpointPlan,
    folder: &Path,
    outputs: JobOutputs,
    requests: &Requests,
) -> Result<Session, TrainError> {
    let interrupt = interrupt::watch(&outputs.console, CheckpointSignal::None, requests)
        .map_err(|source| TrainError::System { action: "cannot watch for signals", source })
        .unwrap_or_else(|error| {
            tracing::warn!("{error}");
            Interrupt::default()
        });
    tch::set_num_threads(plan.resume.threads() as i32);
    torch::set_deterministic_algorithms(matches!(plan.device, tch::Device::Cpu))?;
    torch::set_tf32(plan.plan.precision == Precision::Tf32)?;
    torch::manual_seed(plan.plan.seed);
    let run_file = plan::run_file_text(&plan);
    let network = plan.model.into_network(plan.plan.seed, plan.device)?;
    let optimizer = Optimizer::new(&plan.run_file.train.optimizer, &network.trained())?;
    let info = RunInfo {
        world_size: 1,
        name: plan.run_file.run.name.clone(),
        folder: folder.display().to_string(),
        run_file: serde_json::to_string(&plan.run_file).unwrap_or_default(),
        host_version: env!("CARGO_PKG_VERSION").to_owned(),
        device: torch::device_name(plan.device),
        resumed_from: Some(plan.resume.path().display().to_string()),
        job: outputs.work.job.to_owned(),
        ..RunInfo::default()
    };
    let kernels = Kernels::new(plan.run_file.run.kernels.products()).of_run(Some(&plan.resume)).kernels;
    Session::new(Parts {
        plan: plan.plan,
        network,
        optimizer,
        data: plan.data,
        fingerprints: Fingerprints { data: String::new(), module: None },
        data_text: plan.description.text().unwrap_or_default().into(),
        info,
        outputs: Box::new(outputs),
        interrupt,
        requests: requests.clone(),
        group: ProcessGroup::single(),
        bucket_sizes: BucketSizes::default(),
        run_file,
        model_files: Vec::new(),
        resume: Some(plan.resume),
        purpose: Purpose::Infer,
        products: kernels.products,
    })
}

/// Makes the folder of the results.
pub(super) fn make_folder(folder: &Path) -> Result<(), Problems> {
    std::fs::create_dir_all(folder).map_err(|error| cannot(&format!("make the folder `{}`", folder.display()), &error))
}

/// Writes a result whole.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), Problems> {
    write_whole(path, bytes).map_err(|error| cannot(&format!("write `{}`", path.display()), &error))
}

pub(super) fn cannot(action: &str, error: &(dyn std::error::Error + 'static)) -> Problems {
    Problem::new(format!("cannot {action}")).with_cause(error).into()
}
