//! `profiler`: where the time of some steps goes, by phase and by operator, and what each callback costs; as a table at the end
//! and as a trace that Chrome (`chrome://tracing`) and Perfetto open (the Trace Event Format).

mod operators;
mod trace;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use plugin_api::event::{At, TrainEnd};
use plugin_api::protocol::{HookTime, RecordValue, Recording, Span, SpanKind};
use plugin_api::{Callback, Creation, Error, Result, Run, plugin};

/// The phases in the order of a step.
const PHASES: [&str; 5] = ["data", "forward", "backward", "optimizer", "callbacks"];

/// The most rows of operators and of callbacks in the table.
const ROWS: usize = 10;

/// Options of `profiler`.
#[plugin]
pub(crate) struct Options {
    /// Steps of this process that are not measured, since the first ones are slower than the others.
    skip: u64,
    /// How many steps are measured then.
    #[schemars(range(min = 1, max = 10000))]
    steps: u64,
    /// Measure libtorch's operators, too: the table and the trace have those of the slowest step. The steps that are measured
    /// take a little longer for it.
    operators: bool,
    /// The file of the trace, relative to the run folder.
    #[schemars(extend("format" = "output-file"))]
    file: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { skip: 10, steps: 50, operators: true, file: "trace.json".to_owned() }
    }
}

pub(crate) struct Profiler {
    options: Options,
    /// Steps of this process.
    seen: u64,
    phases: Vec<Span>,
    slowest: Option<Slowest>,
}

/// The step that took the longest.
struct Slowest {
    step: u64,
    nanoseconds: u64,
    operators: Vec<Span>,
}

#[plugin]
impl Callback for Profiler {
    const KIND: &'static str = "profiler";
    const SUMMARY: &'static str = "Measures phases, operators and callbacks of some steps: a table and a trace";
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        if options.steps == 0 {
            return Err(Error::new("`steps` must be at least 1"));
        }
        if options.file.is_empty() {
            return Err(Error::new("`file` must not be empty"));
        }
        Ok(Self { options, seen: 0, phases: Vec::new(), slowest: None })
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        if self.options.skip == 0 { run.profile(self.recording()).map(drop) } else { Ok(()) }
    }

    fn on_step_end(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.seen += 1;
        let (first, last) = (self.options.skip, self.options.skip.saturating_add(self.options.steps));
        if self.seen < first || self.seen > last {
            return Ok(());
        }
        let is_last = self.seen == last;
        let spans = run.profile(if is_last { Recording::Off } else { self.recording() })?;
        if self.seen > first {
            self.collect(spans);
        }
        if is_last { self.write_trace(run) } else { Ok(()) }
    }

    fn on_train_end(&mut self, run: &mut Run<'_>, _: &TrainEnd<'_>) -> Result<()> {
        if self.seen > self.options.skip && self.seen < self.options.skip.saturating_add(self.options.steps) {
            // The run was over before.
            let spans = run.profile(Recording::Off)?;
            self.collect(spans);
            self.write_trace(run)?;
        }
        if self.phases.is_empty() {
            plugin_api::tracing::warn!(
                "no step was measured: the run had {} steps, and the first {} are skipped (`skip`)",
                self.seen,
                self.options.skip
            );
            return Ok(());
        }
        let hooks = run.hook_times()?;
        for line in self.table(&hooks).lines() {
            run.console_line(line)?;
        }
        run.put_record("profile", self.record(&hooks))
    }
}

impl Profiler {
    fn recording(&self) -> Recording {
        if self.options.operators { Recording::Operators } else { Recording::Phases }
    }

    /// Keeps the phases, and the operators of the slowest step so far. They are read at the end of each step.
    fn collect(&mut self, spans: Vec<Span>) {
        let (operators, phases): (Vec<Span>, Vec<Span>) =
            spans.into_iter().partition(|span| span.kind == SpanKind::Operator);
        if let Some(step) = phases.iter().map(|phase| phase.step).max() {
            let of_step = || phases.iter().filter(|phase| phase.step == step);
            let nanoseconds = of_step().map(|phase| phase.nanoseconds).sum();
            let began = of_step().map(|phase| phase.began).min();
            if self.slowest.as_ref().is_none_or(|slowest| slowest.nanoseconds < nanoseconds) {
                // Those of an evaluation between two steps are read with the next one.
                let is_within = |operator: &Span| Some(operator.began) >= began;
                let operators = operators.into_iter().filter(is_within).collect();
                self.slowest = Some(Slowest { step, nanoseconds, operators });
            }
        }
        self.phases.extend(phases);
    }

    fn write_trace(&self, run: &mut Run<'_>) -> Result<()> {
        let operators = self.slowest.as_ref().map_or(&[] as &[Span], |slowest| &slowest.operators);
        let path = Path::new(&run.info()?.folder).join(&self.options.file);
        trace::write(&path, self.phases.iter().chain(operators))
            .map_err(|error| Error::from(error).context(path.display()))?;
        run.publish("trace", &self.options.file)
    }

    /// The time of each phase, in the order of a step, and of how many steps.
    fn of_phases(&self) -> (Vec<(&str, u64)>, u64) {
        let mut times: BTreeMap<&str, u64> = BTreeMap::new();
        for phase in &self.phases {
            *times.entry(&phase.name).or_default() += phase.nanoseconds;
        }
        let steps = self.phases.iter().filter(|phase| phase.name == PHASES[0]).count() as u64;
        (PHASES.iter().filter_map(|name| Some((*name, *times.get(name)?))).collect(), steps.max(1))
    }

    /// The table, in at most 80 columns.
    fn table(&self, hooks: &[HookTime]) -> String {
        let (phases, steps) = self.of_phases();
        let total = phases.iter().map(|(_, time)| time).sum::<u64>().max(1);
        let mut text = String::new();
        // Writing into a text does not fail.
        let mut line = |arguments: std::fmt::Arguments<'_>| {
            let _ = text.write_fmt(arguments);
            text.push('\n');
        };
        let first = self.phases.first().map_or(0, |phase| phase.step);
        line(format_args!("profile of {steps} steps from step {first} on, {} a step", milliseconds(total / steps)));
        for (name, time) in &phases {
            let share = 100.0 * *time as f64 / total as f64;
            line(format_args!("  {name:<44}{:>14}{share:>8.1} %", milliseconds(time / steps)));
        }
        if let Some(Slowest { step, nanoseconds, operators }) = &self.slowest {
            line(format_args!("the slowest was step {step}, {}", milliseconds(*nanoseconds)));
            for (name, calls, time) in operators::by_self_time(operators).into_iter().take(ROWS) {
                line(format_args!("  {:<44}{:>14}{calls:>8} calls", shortened(name), milliseconds(time)));
            }
        }
        let of_run = hooks.iter().filter(|hook| hook.calls > 0).take(ROWS);
        for (index, hook) in of_run.enumerate() {
            if index == 0 {
                line(format_args!("callbacks in the whole run"));
            }
            let name = format!("{} {}", hook.instance, hook.hook);
            let (time, calls) = ((hook.seconds * 1e9) as u64, hook.calls);
            line(format_args!("  {:<44}{:>14}{calls:>8} calls", shortened(&name), milliseconds(time)));
        }
        text
    }

    /// The same for monitors.
    fn record(&self, hooks: &[HookTime]) -> RecordValue {
        let (phases, steps) = self.of_phases();
        let row = |what: &str, name: &str, calls: u64, seconds: f64| {
            vec![what.to_owned(), name.to_owned(), calls.to_string(), seconds.to_string()]
        };
        let mut rows: Vec<_> =
            phases.iter().map(|(name, time)| row("phase", name, steps, *time as f64 * 1e-9)).collect();
        if let Some(slowest) = &self.slowest {
            let operators = operators::by_self_time(&slowest.operators);
            rows.extend(operators.iter().map(|(name, calls, time)| row("operator", name, *calls, *time as f64 * 1e-9)));
        }
        rows.extend(
            hooks.iter().map(|hook| row("hook", &format!("{} {}", hook.instance, hook.hook), hook.calls, hook.seconds)),
        );
        let columns = ["what", "name", "calls", "seconds"].map(str::to_owned).to_vec();
        RecordValue::Table { columns, rows }
    }
}

fn milliseconds(nanoseconds: u64) -> String {
    format!("{:.3} ms", nanoseconds as f64 * 1e-6)
}

/// A name that fits into its column.
fn shortened(name: &str) -> String {
    const MOST: usize = 43;
    match name.char_indices().nth(MOST) {
        Some(_) => name.chars().take(MOST - 1).chain(['…']).collect(),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests;
