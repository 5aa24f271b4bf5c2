//! The callback. None of its hooks fails: a run that nobody watches is still a run.

use std::time::{Duration, Instant};

use plugin_api::event::{At, Outcome, Position, TrainEnd};
use plugin_api::{Callback, Creation, Error, Result, Run, plugin, tracing};

use crate::client::Client;
use crate::options::{Environment, Options, Plan, Target};
use crate::reporter::{EVERY, Reporter};
use crate::status::{Planned, Status};

/// Reports the run to Kubeflow Trainer.
pub struct Kubeflow {
    options: Options,
    timeout: Duration,
    /// Held here until `setup`, which moves the target to the reporter.
    plan: Option<Plan>,
    /// `None` if nothing is sent.
    reporter: Option<Reporter>,
    planned: Planned,
    started: Instant,
    /// When the last status was handed over.
    told: Instant,
}

#[plugin]
impl Callback for Kubeflow {
    const KIND: &'static str = "kubeflow";
    const SUMMARY: &'static str = "Reports progress and metrics to Kubeflow Trainer, in a pod of a TrainJob";
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        let plan = options.plan(&Environment::read())?;
        let seconds = options.timeout_seconds;
        if !(0.1..=60.0).contains(&seconds) {
            return Err(Error::new(format!("`timeout_seconds` is {seconds}, which is not from 0.1 to 60")));
        }
        let timeout = Duration::from_secs_f64(seconds);
        let now = Instant::now();
        let planned = Planned::default();
        Ok(Self { options, timeout, plan: Some(plan), reporter: None, planned, started: now, told: now })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        // A trial sends nothing.
        let (trial, total_steps) = match run.info() {
            Ok(info) => (info.trial, info.total_steps),
            Err(error) => {
                tracing::warn!(
                    "nothing is sent to Kubeflow Trainer, since the host does not describe the run: {error}"
                );
                return Ok(());
            }
        };
        self.planned.total_steps = total_steps;
        match self.plan.take().filter(|_| !trial) {
            Some(Plan::Send(target)) => self.reporter = self.start(target),
            Some(Plan::Warn(why)) => tracing::warn!("nothing is sent to Kubeflow Trainer: {why}"),
            Some(Plan::Nothing) => tracing::info!(
                "nothing is sent to Kubeflow Trainer: `KUBEFLOW_TRAINER_SERVER_URL` is not set, so this is not a pod of a \
                 TrainJob, or its controller accepts no status"
            ),
            None => {}
        }
        Ok(())
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.planned.first_step = event.global_step;
        self.started = Instant::now();
        self.tell(run, event);
        Ok(())
    }

    #[inline]
    fn on_step_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        if self.reporter.is_some() && self.told.elapsed() >= EVERY {
            self.tell(run, event);
        }
        Ok(())
    }

    fn on_train_end(&mut self, run: &mut Run<'_>, event: &TrainEnd<'_>) -> Result<()> {
        if let Some(mut reporter) = self.reporter.take() {
            reporter.last(self.status(run, event, Some(event.outcome)));
            self.reporter = Some(reporter);
        }
        Ok(())
    }

    fn on_teardown(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        // Only here: meanwhile, the other callbacks end.
        if let Some(reporter) = self.reporter.take() {
            reporter.wait();
        }
        Ok(())
    }
}

impl Kubeflow {
    fn start(&self, target: Target) -> Option<Reporter> {
        let started = Reporter::start(Client::new(target, self.timeout), EVERY, self.timeout);
        started.inspect_err(|error| tracing::warn!("nothing is sent to Kubeflow Trainer: {error}")).ok()
    }

    fn tell(&mut self, run: &Run<'_>, position: &Position) {
        if let Some(reporter) = &self.reporter {
            reporter.status(self.status(run, position, None));
            self.told = Instant::now();
        }
    }

    fn status(&self, run: &Run<'_>, position: &Position, outcome: Option<Outcome>) -> Status {
        // A host that does not answer still has a position.
        let mut metrics = run.metrics().unwrap_or_default();
        metrics.retain(|name, _| monitor::selected(&self.options.include, &self.options.exclude, name));
        Status::new(self.planned, position, self.started.elapsed(), outcome, &metrics)
    }
}
