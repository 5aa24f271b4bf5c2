//! What a job tells on the console: how it starts, its problems, how it ended.

use std::sync::Arc;

use host_command::runs::folder::RunFolder;
use host_command::runs::status::Status;

use super::events::Events;
use super::plan::JobPlan;
use super::run::EndedJob;
use crate::console::Console;
use crate::report::{Problem, Style, render};
use crate::services::Screen;
use crate::torch::{self, products::Products};
use crate::train::{Precision, Resume};

/// Tells what starts: device, model, data, callbacks, and what is resumed.
pub(super) fn announce(
    console: &Console,
    plan: &JobPlan,
    folder: &RunFolder,
    resume: Option<&Resume>,
    products: Products,
) {
    let device = torch::device_name(plan.device);
    let threads = match resume {
        Some(resume) if resume.threads() != plan.threads => format!("{} (from the checkpoint)", resume.threads()),
        _ => format!("{} ({})", plan.threads, plan.threads_reason),
    };
    let run = &plan.run_file.run;
    console.line(&format!("run `{}`: {device}, threads {threads}, seed {}", run.name, run.seed));
    if matches!(plan.device, tch::Device::Cpu) {
        let from = if products == plan.products { "" } else { " (from the checkpoint)" };
        console.line(&format!("kernels: {}{from}", products.description()));
    }
    if let (tch::Device::Cpu, Some(remark)) = (plan.device, on_cpu(plan.plan.precision)) {
        console.line(remark);
    }
    let splits: Vec<String> = plan.data.splits.iter().map(|(name, split)| format!("{name} {}", split.len())).collect();
    console.line(&format!("model: {}; data: {}", plan.model.description(), splits.join(", ")));
    if let Some(lora) = plan.model.lora() {
        console.line(&lora);
    }
    if !plan.data.others.is_empty() {
        console.line(&format!("inputs of a sample: {}", plan.data.inputs_text()));
    }
    for note in &plan.data.notes {
        console.line(&format!("data: {note}"));
    }
    let names: Vec<&str> = plan.order.planned.iter().map(|planned| planned.name()).collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    console.line(&format!("callbacks, in order: {names}"));
    let isolated = plan.order.planned.iter().filter(|planned| planned.isolation.is_some());
    let isolated: Vec<&str> = isolated.map(|planned| planned.name()).collect();
    if !isolated.is_empty() {
        console.line(&format!("in processes of their own: {}", isolated.join(", ")));
    }
    if !plan.order.available.is_empty() {
        tracing::info!("also available: {}", plan.order.available.join(", "));
    }
    if let Some(resume) = resume {
        console.line(&format!(
            "resuming after epoch {}, step {} from {}",
            resume.position().epoch,
            resume.position().global_step,
            resume.path().display()
        ));
    }
    for planned in &plan.order.planned {
        let descriptor = planned.kind.descriptor();
        tracing::info!(
            plugin = planned.name(),
            kind = descriptor.kind,
            version = descriptor.version,
            library = %planned.kind.path().display(),
            hooks = descriptor.hooks.join(" "),
            "callback"
        );
    }
    tracing::info!(folder = %folder.path().display(), "run folder");
}

/// What a precision for GPUs comes to without one.
fn on_cpu(precision: Precision) -> Option<&'static str> {
    match precision {
        Precision::F32 | Precision::Bf16 => None,
        Precision::Tf32 => Some("precision: tf32, which is f32 on a CPU"),
        Precision::Fp16 => Some("precision: fp16, which most CPUs compute slower than f32"),
    }
}

/// Tells how it ended, what its callbacks cost, and where the results are.
pub(super) fn conclude(
    console: &Console,
    status: &Status,
    folder: &RunFolder,
    ended: &EndedJob,
    warnings: &[Problem],
    trial: bool,
) {
    let reason = match &status.reason {
        Some(reason) if ended.ended.error.is_none() => format!(" ({reason})"),
        _ => String::new(),
    };
    let steps = status.position.in_words();
    console.line(&format!("{}{reason}: {steps} in {:.1} s", ended.ended.outcome.name(), ended.seconds));
    // The loop did not wait for what ran in the background.
    let held: Vec<_> = ended.times.iter().filter(|time| !time.background).collect();
    if let Some(slowest) = held.first() {
        let all: f64 = held.iter().map(|time| time.total.as_secs_f64()).sum();
        console.line(&format!(
            "callbacks took {all:.2} s in all, most of it `{}` in `{}`: {:.2} s over {} calls",
            slowest.instance,
            slowest.hook,
            slowest.total.as_secs_f64(),
            slowest.calls
        ));
    }
    if trial {
        console.line("this was a trial: nothing is kept");
    } else {
        console.line(&format!("results: {}", folder.path().display()));
    }
    // Last, where they are seen.
    for warning in warnings {
        warn(console, warning);
    }
}

/// Tells problems of a run: people on the console, programs by an event.
#[derive(Clone)]
pub(super) struct Reporter {
    pub(super) console: Arc<Console>,
    pub(super) events: Events,
}

impl Reporter {
    /// A problem that the run survives.
    pub(super) fn warn(&self, problem: &Problem) {
        warn(&self.console, problem);
        self.events.warning(problem);
    }

    /// A problem that ends the run.
    pub(super) fn fail(&self, problem: &Problem) {
        fail(&self.console, problem);
        self.events.error(problem);
    }
}

/// Tells a problem that ends the run, to a quiet console too.
pub(super) fn fail(console: &Console, problem: &Problem) {
    console.write(&rendered("error", problem));
}

/// Tells a problem that the run survives.
pub(super) fn warn(console: &Console, problem: &Problem) {
    console.line(rendered("warning", problem).trim_end());
}

fn rendered(severity: &str, problem: &Problem) -> String {
    format!("{severity}: {}", render(std::slice::from_ref(problem), Style::of_stderr()).trim_start())
}
