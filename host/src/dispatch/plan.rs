//! Which instances run, and in which order: from the run file, the command line and what the
//! folders offer, and checked before an instance is created.

use std::time::Duration;

use plugin_api::abi::kinds::EventKind;
use plugin_api::services::{Presence, fits};

use crate::config::{self, Condition, Document, PluginOptions, ProcessLimits, Ranks, When, check, fill_defaults};
use crate::plugins::process::messages::Limits;
use crate::plugins::{Catalogue, Isolation, Kind};
use crate::report::{Problem, Report, did_you_mean};

pub use crate::config::{Dispatch, OnError};

/// An instance to be created.
#[derive(Clone)]
pub struct Planned {
    /// Its kind.
    pub kind: Kind,
    /// Its options as in the resolved run file, with defaults.
    pub options: PluginOptions,
    /// When to trigger it.
    pub when: When,
    /// Where its hooks run.
    pub dispatch: Dispatch,
    /// How it runs in a process of its own, if it does.
    pub isolation: Option<Isolation>,
}

/// Which instances run in processes of their own, where their entries do not say it.
#[derive(Clone, Debug, Default)]
pub struct Isolated {
    /// Whether all of them do, by the run file.
    pub all: bool,
    /// Whether all of them do, whatever their entries say: by the command line.
    pub all_named: bool,
    /// Otherwise, those of these kinds.
    pub kinds: Vec<String>,
    /// How long their hooks may take.
    pub timeout: Option<Duration>,
}

impl Isolated {
    /// Whether nothing of any library may run in this process: then a library describes itself in another one, too.
    pub fn any(&self, declared: &[PluginOptions]) -> bool {
        let is_declared = |options: &PluginOptions| options.isolation == Some(config::Isolation::Process);
        self.all || self.all_named || !self.kinds.is_empty() || declared.iter().any(is_declared)
    }

    /// How an instance runs in a process of its own, if it does: always, where it `must`.
    fn of(&self, options: &PluginOptions, must: bool) -> Option<Isolation> {
        // The command line counts more than the run file.
        let is_named = self.all_named || self.kinds.contains(&options.kind);
        match options.isolation {
            _ if must => {}
            Some(config::Isolation::Process) => {}
            None if self.all => {}
            _ if is_named => {}
            _ => return None,
        }
        let limits = options.limits;
        let limits = Limits {
            memory: limits.memory_mb.map(|megabytes| megabytes.saturating_mul(1_000_000)),
            open_files: limits.open_files,
            niceness: limits.niceness,
        };
        let spin = Duration::from_micros(options.limits.spin_us.into());
        Some(Isolation { limits, timeout: self.timeout, spin })
    }
}

impl Planned {
    /// Whether it handles an event.
    pub fn handles(&self, event: EventKind) -> bool {
        self.kind.descriptor().hooks.iter().any(|hook| hook == event.name())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// On which ranks it runs: as its entry says or, without a word there, as its kind does.
    pub fn ranks(&self) -> Ranks {
        self.options.ranks.unwrap_or(if self.is_for_every_rank() { Ranks::All } else { Ranks::Zero })
    }

    /// Whether its kind says that it works on every rank.
    pub fn is_for_every_rank(&self) -> bool {
        self.kind.descriptor().ranks == "all"
    }

    /// Whether its kind says that it changes the training: weights, gradients, batches, or whatever else makes it work on
    /// every rank.
    pub fn changes_training(&self) -> bool {
        self.is_for_every_rank() || self.kind.descriptor().needs.iter().any(|need| need.write)
    }

    /// On which ranks it is, in a run of one or `several`.
    pub(super) fn presence(&self, several: bool) -> Presence {
        match (several, self.ranks()) {
            (false, _) => Presence::Single,
            (true, Ranks::Zero) => Presence::Zero,
            (true, Ranks::All) => Presence::All,
        }
    }

    /// Its condition.
    pub fn condition(&self) -> Option<&Condition> {
        self.options.condition.as_ref()
    }

    /// The events that it wants, as bits by [`EventKind`].
    pub(super) fn hooks(&self) -> u64 {
        self.kind
            .descriptor()
            .hooks
            .iter()
            .filter_map(|name| EventKind::from_name(name))
            .fold(0, |set, event| set | 1 << event.0)
    }
}

/// The instances of a run, in the order in which their hooks are called.
#[derive(Clone, Default)]
pub struct Order {
    /// The instances.
    pub planned: Vec<Planned>,
    /// Kinds that were found but do not run.
    pub available: Vec<String>,
    /// Warnings: a reader before its producer.
    pub warnings: Vec<String>,
    /// How many ranks the run has; 0 and 1 are one.
    pub world_size: usize,
}

/// Why an instance cannot be planned, without a place in the run file.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// No library offers the kind.
    #[error("no library offers the plugin kind `{kind}`")]
    UnknownKind {
        /// What was asked for.
        kind: String,
        /// What to do.
        hint: String,
    },
}

impl Report for PlanError {
    fn hint(&self) -> Option<String> {
        let Self::UnknownKind { hint, .. } = self;
        Some(hint.clone())
    }
}

/// The order: the `declared` instances, first those of the run file and then those of `--plugin`, then the kinds
/// that say `by_default`, by file and then descriptor, unless they are declared.
///
/// # Errors
///
/// Everything wrong, each with its place in `document`: unknown kinds, options that their schema refuses, kinds that
/// write weights in the background.
pub fn order(
    document: &Document,
    declared: &[PluginOptions],
    by_default: bool,
    catalogue: &Catalogue,
    isolated: &Isolated,
) -> Result<Order, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut order = Order::default();
    for (index, options) in declared.iter().enumerate() {
        let place = format!("/plugins/{index}");
        match catalogue.kind_of(index, &options.kind) {
            None => {
                let label = document.label_value(&format!("{place}/kind"), "no library offers it");
                problems.push(Problem::from(&unknown_kind(&options.kind, catalogue)).with_label(label));
            }
            Some(kind) => match plan(kind, options.clone(), isolated, document, &place) {
                Ok(planned) => order.planned.push(planned),
                Err(found) => problems.extend(found),
            },
        }
    }
    for kind in catalogue.kinds() {
        let name = &kind.descriptor().kind;
        if order.planned.iter().any(|planned| &planned.kind.descriptor().kind == name)
            || declared.iter().any(|options| &options.kind == name)
        {
            continue;
        }
        // A declared instance of another kind may already have the name of this one.
        let is_taken = order.planned.iter().any(|planned| planned.name() == name);
        if by_default && kind.descriptor().by_default && !is_taken {
            match plan(kind, PluginOptions::new(name), isolated, document, BY_DEFAULT) {
                Ok(planned) => order.planned.push(planned),
                Err(found) => problems.extend(found),
            }
        } else {
            order.available.push(name.clone());
        }
    }
    order.available.extend(catalogue.unopened().map(str::to_owned));
    if !problems.is_empty() {
        return Err(problems);
    }
    order.warnings = readers_before_producers(&order.planned);
    Ok(order)
}

/// The place of what no entry of the run file declares.
const BY_DEFAULT: &str = "/plugins/-";

fn plan(
    kind: &Kind,
    mut options: PluginOptions,
    isolated: &Isolated,
    document: &Document,
    place: &str,
) -> Result<Planned, Vec<Problem>> {
    let descriptor = kind.descriptor();
    let mut problems = Vec::new();
    let isolation = isolated.of(&options, kind.is_apart());
    if isolation.is_none() && (options.restart > 0 || options.limits != ProcessLimits::default()) {
        let (key, what) = if options.restart > 0 { ("restart", "is started anew") } else { ("limits", "has limits") };
        problems.push(
            Problem::new(format!("`{}` runs in the host: only what runs in a process of its own {what}", options.name))
                .with_label(document.label_key(&format!("{place}/{key}"), ""))
                .with_hint("add `isolation = \"process\"`".to_owned()),
        );
    }
    // What is wrong with its library is told now, not when its instance is made.
    if isolation.is_none()
        && let Err(error) = kind.library()
    {
        let label = (place != BY_DEFAULT).then(|| document.label_value(&format!("{place}/kind"), "")).flatten();
        problems.push(Problem::from(&error).with_label(label));
    }
    if let Some(schema) = &descriptor.options {
        problems.extend(check(document, &format!("{place}/options"), schema));
        let instance = Some(&*options.name).filter(|name| *name != descriptor.kind);
        fill_defaults(&mut options.options, schema, instance);
    }
    let when = match (&options.when, &descriptor.when) {
        (Some(when), _) => when.clone(),
        (None, Some(value)) => serde_json::from_value(value.clone()).map_err(|error| {
            vec![
                Problem::new(format!("the kind `{}` has an invalid `when`", descriptor.kind))
                    .with_cause(&error)
                    .with_hint("give it a `when` in the run file, and tell the plugin's author".to_owned()),
            ]
        })?,
        (None, None) => When::default(),
    };
    let dispatch = options.dispatch.unwrap_or(match descriptor.dispatch.as_str() {
        "background" => Dispatch::Background,
        _ => Dispatch::Inline,
    });
    if dispatch == Dispatch::Background && descriptor.needs.iter().any(|need| need.write) {
        problems.push(
            Problem::new(format!(
                "`{}` writes weights, gradients or batches: it cannot run in the background",
                options.name
            ))
            .with_label(document.label_value(&format!("{place}/dispatch"), "not for this kind"))
            .with_hint("leave out `dispatch`, or say `dispatch = \"inline\"`".to_owned()),
        );
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    options.when = Some(when.clone());
    options.dispatch = Some(dispatch);
    options.isolation = isolation.is_some().then_some(config::Isolation::Process);
    Ok(Planned { kind: kind.clone(), options, when, dispatch, isolation })
}

fn unknown_kind(kind: &str, catalogue: &Catalogue) -> PlanError {
    let opened = catalogue.kinds().iter().map(|kind| kind.descriptor().kind.as_str());
    let names: Vec<&str> = opened.chain(catalogue.unopened()).collect();
    let hint = did_you_mean(kind, names.iter().copied()).unwrap_or_else(|| {
        if names.is_empty() {
            "give the folder that holds its library: `--plugins DIR`".to_owned()
        } else {
            format!("the folders offer {}", names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))
        }
    });
    let broken = catalogue.rejected();
    let hint = if broken.is_empty() {
        hint
    } else {
        let files: Vec<String> = broken.iter().map(|rejected| format!("`{}`", rejected.path.display())).collect();
        format!("{hint}; not loaded: {}", files.join(", "))
    };
    PlanError::UnknownKind { kind: kind.to_owned(), hint }
}

fn readers_before_producers(planned: &[Planned]) -> Vec<String> {
    let mut warnings = Vec::new();
    for (index, reader) in planned.iter().enumerate() {
        for metric in &reader.kind.descriptor().reads {
            let produces =
                |planned: &&Planned| planned.kind.descriptor().produces.iter().any(|produced| fits(produced, metric));
            let earlier = planned[..index].iter().any(|planned| produces(&planned));
            if let Some(producer) = planned[index + 1..].iter().find(produces)
                && !earlier
            {
                warnings.push(format!(
                    "`{}` reads `{metric}` before `{}` puts it: it sees the value of the event before",
                    reader.name(),
                    producer.name()
                ));
            }
        }
    }
    warnings
}
