//! The checks of one kind.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use plugin_api::abi::kinds::{EventKind, ServiceKind};
use plugin_api::protocol::{Descriptor, Need, TensorSet};
use serde_json::{Map, Value, json};

use host_command::arguments::Check;

use super::findings::{Finding, Verdict};
use super::progress::Observer;
use super::simulation::{Shown, Simulation};
use super::world::{Task, World};
use crate::config::{PluginOptions, When, fill_defaults};
use crate::dispatch::{Dispatch, Failure, OnError, Planned, create_instance, stale_calls};
use crate::plugins::{Entry, Isolation, Kind, Library};
use crate::report::Problem;

/// The hooks that the loop waits for in each step, and the one that counts as training time.
const FAST: [EventKind; 6] = [
    EventKind::STEP_START,
    EventKind::GRADIENTS,
    EventKind::STEP_END,
    EventKind::EVAL_STEP_START,
    EventKind::EVAL_STEP_END,
    EventKind::EPOCH_TRAINED,
];

/// Runs every check of `kind`, with the options `given` over its defaults.
pub(super) fn check(kind: &Kind, given: &Map<String, Value>, budget: Duration, observer: &mut dyn Observer) {
    let name = kind.descriptor().kind.as_str();
    observer.begin(Check::Descriptor);
    let mut descriptor = Finding::failed_if_any(name, Check::Descriptor, faults_of(kind.descriptor()));
    if let Some(warning) = on_one_rank(kind.descriptor()).filter(|_| descriptor.details.is_empty()) {
        descriptor.verdict = Verdict::Warning;
        descriptor.details.push(warning);
    }
    observer.found(descriptor);

    observer.begin(Check::Schema);
    let schema = faults_of_schema(kind.descriptor());
    observer.found(Finding::failed_if_any(name, Check::Schema, schema));

    let mut options = given.clone();
    if let Some(schema) = &kind.descriptor().options {
        fill_defaults(&mut options, schema, None);
    }
    observer.begin(Check::DefaultOptions);
    let refused = faults_of_options(kind, &options);
    let usable = refused.is_empty();
    observer.found(Finding::failed_if_any(name, Check::DefaultOptions, refused));

    observer.begin(Check::GarbageOptions);
    observer.found(match kind.library().map(Library::entry) {
        Ok(Entry::Rust) | Err(_) => {
            Finding::failed_if_any(name, Check::GarbageOptions, faults_of_garbage(kind, &options))
        }
        // It reads the options that it wants one by one, after the host has held them all to the schema.
        Ok(Entry::C) => Finding::skipped(name, Check::GarbageOptions, "a plugin in C leaves its options to the schema"),
    });

    if !usable {
        for check in [Check::Hooks, Check::Budget, Check::StaleHandle, Check::State, Check::TwoInstances] {
            observer.found(Finding::skipped(name, check, "no instance can be made"));
        }
        return;
    }
    let mut runs = Runs { kind, options, task: Task::Classes };
    let told = runs.check_hooks(budget, observer);
    runs.check_two_instances(&told, observer);
}

/// Errors of a descriptor that loading does not refuse.
fn faults_of(descriptor: &Descriptor) -> Vec<String> {
    let mut faults = Vec::new();
    for (what, text) in
        [("version", &descriptor.version), ("summary", &descriptor.summary), ("license", &descriptor.license)]
    {
        if text.trim().is_empty() {
            faults.push(format!("it has no {what}"));
        }
    }
    if descriptor.summary.contains('\n') {
        faults.push("its summary is longer than a line".to_owned());
    }
    if descriptor.hooks.is_empty() {
        faults.push("it has no hooks: the host would never call it".to_owned());
    }
    let unknown = |hook: &&String| EventKind::from_name(hook).is_none();
    faults.extend(descriptor.hooks.iter().filter(unknown).map(|hook| format!("there is no event `{hook}`")));
    for need in &descriptor.needs {
        if !need.hook.is_empty() && EventKind::from_name(&need.hook).is_none() {
            faults.push(format!("it needs `{}` in `{}`, which is no event", need.what, need.hook));
        }
        let known = need.what == Need::TRAINING_STATE
            || need.what.parse::<TensorSet>().is_ok()
            || ServiceKind::from_name(&need.what).is_some();
        if !known {
            faults.push(format!("it needs `{}`, which is neither a set of tensors nor a service", need.what));
        }
    }
    if !["inline", "background"].contains(&descriptor.dispatch.as_str()) {
        faults.push(format!("its dispatch is `{}`: use `inline` or `background`", descriptor.dispatch));
    }
    if descriptor.dispatch == "background" && descriptor.needs.iter().any(|need| need.write) {
        faults.push("it writes weights, gradients or batches, which it cannot do in the background".to_owned());
    }
    if !["zero", "all"].contains(&descriptor.ranks.as_str()) {
        faults.push(format!("its ranks are `{}`: use `zero` or `all`", descriptor.ranks));
    }
    if let Some(when) = &descriptor.when
        && let Err(error) = serde_json::from_value::<When>(when.clone())
    {
        faults.push(format!("its `when` is invalid: {error}"));
    }
    faults
}

/// What is said of a kind that writes, and does not say that it works on every rank of a run.
fn on_one_rank(descriptor: &Descriptor) -> Option<String> {
    let written = descriptor.needs.iter().find(|need| need.write).filter(|_| descriptor.ranks == "zero")?;
    Some(format!(
        "it writes `{}`, and its ranks are `zero`: a run of several ranks refuses it without `ranks = \"all\"` in the run file; if \
         it does the same on every rank, say `all`",
        written.what
    ))
}

fn faults_of_schema(descriptor: &Descriptor) -> Vec<String> {
    let Some(schema) = &descriptor.options else {
        return vec!["the descriptor has no schema of the options".to_owned()];
    };
    match jsonschema::validator_for(schema) {
        Err(error) => vec![format!("the schema is not valid: {error}")],
        Ok(validator) if validator.is_valid(&json!("text")) => {
            vec!["the schema takes text where options are a table: say `\"type\": \"object\"`".to_owned()]
        }
        Ok(_) => Vec::new(),
    }
}

/// Why no instance can be created with the default options.
fn faults_of_options(kind: &Kind, options: &Map<String, Value>) -> Vec<String> {
    let options = Value::Object(options.clone());
    let name = &kind.descriptor().kind;
    let validator = kind.descriptor().options.as_ref().and_then(|schema| jsonschema::validator_for(schema).ok());
    if let Some(validator) = validator {
        let mut faults: Vec<String> = validator
            .iter_errors(&options)
            .map(|error| format!("the options do not satisfy the schema: {error}"))
            .collect();
        if !faults.is_empty() {
            faults.push(format!("if an option is required, set it: `--set {name}.OPTION=VALUE`"));
            return faults;
        }
    }
    match create_instance(kind, name, &options) {
        Ok(_) => Vec::new(),
        Err(fault) if fault.panicked => vec![format!("it panicked in `new`: {}", fault.message)],
        Err(fault) => {
            vec![
                format!("it refuses the options: {}", fault.message),
                format!("if it needs other values than the defaults, set them: `--set {name}.OPTION=VALUE`"),
            ]
        }
    }
}

/// How an instance handles invalid options. To refuse them is the host's part, which holds them to the schema; a plugin must
/// only not panic.
fn faults_of_garbage(kind: &Kind, options: &Map<String, Value>) -> Vec<String> {
    let mut faults = Vec::new();
    for garbage in garbage(kind.descriptor().options.as_ref(), options) {
        if let Err(fault) = create_instance(kind, "garbage", &garbage)
            && fault.panicked
        {
            faults.push(format!("it panics for `{garbage}`: {}", fault.message));
        }
    }
    faults
}

/// Options that are not a table, have an unknown key, or one value of a type that its schema refuses.
fn garbage(schema: Option<&Value>, options: &Map<String, Value>) -> Vec<Value> {
    let mut garbage = vec![json!("garbage"), json!(7)];
    let Some(validator) = schema.and_then(|schema| jsonschema::validator_for(schema).ok()) else {
        return garbage;
    };
    let with = |key: &str, value: Value| {
        let mut options = options.clone();
        options.insert(key.to_owned(), value);
        Value::Object(options)
    };
    let unknown_key = with("no-such-option", json!(1));
    let wrong_types = options.keys().map(|key| with(key, json!({ "no-such-key": [] })));
    garbage.extend(std::iter::once(unknown_key).chain(wrong_types).filter(|value| !validator.is_valid(value)));
    garbage
}

/// The simulated runs of one kind with one set of options.
struct Runs<'a> {
    kind: &'a Kind,
    options: Map<String, Value>,
    /// What the runs predict.
    task: Task,
}

impl Runs<'_> {
    fn name(&self) -> &str {
        &self.kind.descriptor().kind
    }

    fn planned(&self, instance: &str) -> Planned {
        let descriptor = self.kind.descriptor();
        let dispatch = if descriptor.dispatch == "background" { Dispatch::Background } else { Dispatch::Inline };
        let options = PluginOptions {
            // An error of one hook must not hide those of the next.
            on_error: OnError::Ignore,
            options: self.options.clone(),
            name: instance.to_owned(),
            ..PluginOptions::new(self.name())
        };
        let isolation = self.kind.is_apart().then(Isolation::default);
        Planned { kind: self.kind.clone(), options, when: When::default(), dispatch, isolation }
    }

    /// Hooks, budget, stale handles and state come from the same runs. Returns the hooks' failures.
    fn check_hooks(&mut self, budget: Duration, observer: &mut dyn Observer) -> Vec<String> {
        observer.begin(Check::Hooks);
        let stale_before = stale_calls();
        let (shown, skipped, mut details) = match self.in_a_run_that_it_is_for(observer) {
            Ok(found) => found,
            Err(problem) => {
                observer.found(Finding::failed_if_any(self.name(), Check::Hooks, vec![problem.to_string()]));
                return Vec::new();
            }
        };
        details.extend(
            told(&shown.failures).into_iter().filter(|sentence| !details.contains(sentence)).collect::<Vec<_>>(),
        );
        observer.found(Finding::failed_if_any(self.name(), Check::Hooks, details.clone()));
        observer.found(self.budget(&shown, budget));

        observer.begin(Check::State);
        let state = self.state(&shown, &skipped, observer);
        let stale = stale_calls() - stale_before;
        let stale = match stale {
            0 => Vec::new(),
            calls => {
                vec![format!("{calls} calls used a handle whose hook had returned; other threads need `Run::remote`")]
            }
        };
        observer.found(Finding::failed_if_any(self.name(), Check::StaleHandle, stale));
        observer.found(state);
        details
    }

    /// The run in which its hooks succeed: one that predicts classes or, if it fails there, one that predicts a number,
    /// if it is for that. The rest of the checks are in the same run.
    fn in_a_run_that_it_is_for(
        &mut self,
        observer: &mut dyn Observer,
    ) -> Result<(Shown, BTreeSet<EventKind>, Vec<String>), Problem> {
        let first = self.until_no_panic(observer)?;
        if first.0.failures.is_empty() && first.2.is_empty() {
            return Ok(first);
        }
        // Once a plugin panics there is no doubt.
        if first.2.is_empty() {
            self.task = Task::Number;
            let second = self.until_no_panic(observer)?;
            if second.0.failures.is_empty() && second.2.is_empty() {
                return Ok(second);
            }
            self.task = Task::Classes;
        }
        Ok(first)
    }

    /// A panic disables an instance and so hides the hooks after it: the run is repeated without the event, until
    /// none panics. Returns the last run, the events that were left out, and the details about them.
    fn until_no_panic(
        &self,
        observer: &mut dyn Observer,
    ) -> Result<(Shown, BTreeSet<EventKind>, Vec<String>), Problem> {
        let mut skipped = BTreeSet::new();
        let mut details = Vec::new();
        loop {
            let shown = self.simulate(&[self.name()], None, &skipped, observer)?;
            let before = skipped.len();
            for panic in shown.failures.iter().filter(|failure| failure.fault.panicked) {
                details.push(sentence(panic));
                skipped.extend(EventKind::from_name(panic.hook));
            }
            if skipped.len() == before {
                return Ok((shown, skipped, details));
            }
        }
    }

    fn budget(&self, shown: &Shown, budget: Duration) -> Finding {
        if self.kind.descriptor().dispatch == "background" {
            return Finding::skipped(self.name(), Check::Budget, "its hooks do not run on the training thread");
        }
        let mut finding = Finding::failed_if_any(self.name(), Check::Budget, Vec::new());
        for time in &shown.times {
            // The mean, so that neither a busy machine nor a slow first call is a finding.
            let mean = time.total / u32::try_from(time.calls.max(1)).unwrap_or(u32::MAX);
            if mean <= budget {
                continue;
            }
            let fast = EventKind::from_name(time.hook).is_some_and(|hook| FAST.contains(&hook));
            let verdict = if fast { Verdict::Failed } else { Verdict::Warning };
            finding.verdict = if finding.verdict == Verdict::Failed { Verdict::Failed } else { verdict };
            finding.details.push(format!(
                "`{}` takes {} ms, the budget is {} ms",
                time.hook,
                mean.as_millis(),
                budget.as_millis()
            ));
        }
        finding
    }

    /// Saves, loads into a new instance, and saves again.
    fn state(&self, shown: &Shown, skipped: &BTreeSet<EventKind>, observer: &mut dyn Observer) -> Finding {
        let (name, hooks) = (self.name(), &self.kind.descriptor().hooks);
        let has = |event: EventKind| hooks.iter().any(|hook| hook == event.name());
        let failed = |detail: &str| Finding::failed_if_any(name, Check::State, vec![detail.to_owned()]);
        match (has(EventKind::SAVE_STATE), has(EventKind::LOAD_STATE)) {
            (false, false) => return Finding::skipped(name, Check::State, "it saves no state"),
            (true, false) => return failed("it saves state in `save_state`, and has no `load_state` to load it"),
            (false, true) => return failed("it loads state in `load_state`, and has no `save_state` to save it"),
            (true, true) => {}
        }
        let Some(saved) = shown.states.get(name) else {
            return failed("`save_state` returned no state");
        };
        let resumed = match self.simulate(&[name], Some(shown), skipped, observer) {
            Ok(resumed) => resumed,
            Err(problem) => return failed(&problem.to_string()),
        };
        let mut details = told(&resumed.failures);
        match resumed.states.get(name) {
            Some(again) if again == saved => {}
            Some(again) => details.push(difference(&saved.bytes, &again.bytes)),
            None => details.push("after `load_state`, `save_state` returned no state".to_owned()),
        }
        Finding::failed_if_any(name, Check::State, details)
    }

    /// Failures that a single instance has too are in `already`.
    fn check_two_instances(&self, already: &[String], observer: &mut dyn Observer) {
        observer.begin(Check::TwoInstances);
        let names = [format!("{}-first", self.name()), format!("{}-second", self.name())];
        let names = names.each_ref().map(String::as_str);
        let mut details = match self.simulate(&names, None, &BTreeSet::new(), observer) {
            Ok(shown) => told(&shown.failures),
            Err(problem) => vec![problem.to_string()],
        };
        details.retain(|detail| !already.contains(detail));
        observer.found(Finding::failed_if_any(self.name(), Check::TwoInstances, details));
    }

    /// One run of instances called `names`, in a run folder of its own.
    fn simulate(
        &self,
        names: &[&str],
        states: Option<&Shown>,
        skipped: &BTreeSet<EventKind>,
        observer: &mut dyn Observer,
    ) -> Result<Shown, Problem> {
        let folder = tempfile::tempdir()
            .map_err(|error| Problem::new("cannot make a folder for the simulated run").with_cause(&error))?;
        let mut world = World::new(Path::new(folder.path()), self.task)?;
        if let Some(shown) = states {
            (world.history, world.metrics) = shown.known.clone();
        }
        let planned = names.iter().map(|name| self.planned(name)).collect();
        Simulation::run(planned, world, states.map(|shown| &shown.states), skipped, observer)
    }
}

/// The failures as sentences, each once: a hook that fails in every step is listed once.
fn told(failures: &[Failure]) -> Vec<String> {
    let mut sentences: Vec<String> = Vec::new();
    for failure in failures {
        let sentence = sentence(failure);
        if !sentences.contains(&sentence) {
            sentences.push(sentence);
        }
    }
    sentences
}

fn sentence(failure: &Failure) -> String {
    let what = if failure.fault.panicked { "panics" } else { "fails" };
    let place = &failure.fault.place;
    let place = if place.is_empty() { String::new() } else { format!(" (at {place})") };
    format!("`{}` {what}: {}{place}", failure.hook, failure.fault.message)
}

fn difference(saved: &[u8], again: &[u8]) -> String {
    let first = saved.iter().zip(again).position(|(saved, again)| saved != again);
    match first {
        Some(byte) => format!("the state saved after loading differs from byte {byte} on"),
        None => format!("the state saved after loading has {} bytes instead of {}", again.len(), saved.len()),
    }
}
