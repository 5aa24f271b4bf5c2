//! `report`: one self-contained HTML page about the run: its curves, the best values, what each plugin cost,
//! checkpoints and exports, the model, and every setting.
//!
//! It is written when training starts, so that a file that cannot be written is reported then; whenever it is
//! triggered, by default at the end (`when = { every = "5 epochs" }` changes that); and when training is over, whatever
//! its outcome. Each time it is written to a temporary file and renamed, so that a browser never sees a partial one.

use std::io::Write;
use std::path::{Component, Path, PathBuf};
use std::time::Instant;

use chart::{Artifacts, Curves, Facts, Page, PluginTime, Progress, json_for_script};
use monitor::ConfusionMatrix;
use plugin_api::event::{ArtifactPublished, At, Failed, Position, RecordPut, TrainEnd, Trigger};
use plugin_api::{Callback, Creation, Error, Kind, Result, Run, When, decode_state, encode_state, plugin};
use serde::{Deserialize, Serialize};

/// Options of `report`.
#[plugin]
pub struct Options {
    /// The file, relative to the run folder.
    #[schemars(extend("format" = "output-file"))]
    pub file: String,
    /// Metrics to show; `*` stands for any characters.
    pub include: Vec<String>,
    /// Metrics not to show, of those; `*` stands for any characters.
    pub exclude: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            file: "report.html".to_owned(),
            include: vec!["*".to_owned()],
            exclude: vec!["step_seconds".to_owned(), "data_wait_seconds".to_owned()],
        }
    }
}

/// The state in checkpoints: what is only known from events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct State {
    /// Scalars from records; metrics are in the host's history.
    records: Curves,
    artifacts: Artifacts,
    /// Seconds of training before this process.
    seconds: f64,
}

/// Writes a page about the run.
pub struct Report {
    options: Options,
    state: State,
    facts: Facts,
    progress: Progress,
    started: Instant,
    /// The path of the page; `None` in a trial, which publishes nothing.
    path: Option<PathBuf>,
}

/// The data of the page's script.
#[derive(Serialize)]
struct Content<'r, C: Serialize> {
    facts: &'r Facts,
    progress: &'r Progress,
    curves: C,
    matrices: &'r [ConfusionMatrix],
    times: &'r [PluginTime],
    artifacts: &'r Artifacts,
}

#[plugin]
impl Callback for Report {
    const KIND: &'static str = "report";
    const SUMMARY: &'static str = "Writes a page about the run, in one file";
    const WHEN: When = When { every: None, at: &["end"] };
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        let path = Path::new(&options.file);
        let stays = path.components().all(|part| matches!(part, Component::Normal(_)));
        if !stays || path.file_name().is_none() {
            let message = format!("`file` is `{}`, which is not a file in the run folder", options.file);
            return Err(Error::new(format!("{message}; use `report.html` or `pages/report.html`")));
        }
        Ok(Self {
            options,
            state: State::default(),
            facts: Facts::default(),
            progress: Progress::default(),
            started: Instant::now(),
            path: None,
        })
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        self.state = decode_state(state)?;
        Ok(())
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
        encode_state(&State { seconds: self.seconds(), ..self.state.clone() })
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let info = run.info()?;
        self.facts = Facts::read(run)?;
        self.progress = Progress::running(event);
        self.started = Instant::now();
        self.path = (!info.trial).then(|| Path::new(&info.folder).join(&self.options.file));
        self.write(run, event)?;
        if info.trial { Ok(()) } else { run.publish(PUBLISHED, &self.options.file) }
    }

    fn on_record(&mut self, _: &mut Run<'_>, event: &RecordPut<'_>) -> Result<()> {
        if let Some(value) = event.scalar
            && self.shows(&event.name)
        {
            self.state.records.push(&event.name, event.global_step, value);
        }
        Ok(())
    }

    fn on_artifact(&mut self, _: &mut Run<'_>, event: &ArtifactPublished<'_>) -> Result<()> {
        if event.kind != PUBLISHED {
            self.state.artifacts.add(event);
        }
        Ok(())
    }

    fn on_error(&mut self, _: &mut Run<'_>, event: &Failed<'_>) -> Result<()> {
        self.progress.failed(event);
        Ok(())
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        // At the end it is written once more anyway, with the outcome.
        if event.cause == "end" { Ok(()) } else { self.write(run, event) }
    }

    fn on_train_end(&mut self, run: &mut Run<'_>, event: &TrainEnd<'_>) -> Result<()> {
        self.progress.state = event.outcome.name().to_owned();
        self.progress.because(&event.reason);
        self.write(run, event)
    }
}

impl Report {
    fn shows(&self, name: &str) -> bool {
        monitor::selected(&self.options.include, &self.options.exclude, name)
    }

    /// Seconds of training, including those of earlier processes.
    fn seconds(&self) -> f64 {
        self.state.seconds + self.started.elapsed().as_secs_f64()
    }

    fn write(&mut self, run: &Run<'_>, position: &Position) -> Result<()> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        self.progress.at(position);
        self.progress.elapsed = self.seconds();
        self.progress.estimate(0, self.facts.total_steps, self.started.elapsed());
        let html = self.page(run)?;
        replace(&path, &html).map_err(|error| Error::from(error).context(format!("cannot write `{}`", path.display())))
    }

    fn page(&self, run: &Run<'_>) -> Result<String> {
        let mut curves = self.state.records.clone();
        for name in run.history_names()?.iter().filter(|name| self.shows(name)) {
            // A series of arrays has no curve.
            let Ok(points) = run.history(name) else { continue };
            for point in points {
                curves.push(name, point.global_step, point.value);
            }
        }
        let mut matrices = ConfusionMatrix::latest(run)?;
        matrices.retain(|matrix| self.shows(&matrix.name));
        let times = chart::times(run)?;
        let content = Content {
            facts: &self.facts,
            progress: &self.progress,
            curves: curves.whole(),
            matrices: &matrices,
            times: &times,
            artifacts: &self.state.artifacts,
        };
        let data = json_for_script(&content)?;
        let left_out = match curves.left_out() {
            0 => String::new(),
            values => format!(" {values} values beyond the limit of {} metrics are not shown.", chart::MOST_CURVES),
        };
        let footer = format!("Written by the callback <code>report</code>; this file loads nothing.{left_out}");
        let page =
            Page { title: "Report", policy: POLICY, data: &data, script: SCRIPT, footer: &footer, ..Page::default() };
        Ok(page.html())
    }
}

const SCRIPT: &str = include_str!("report.js");

/// The kind of the published page.
const PUBLISHED: &str = "report";

/// The page may run only its own script, so that a report can be sent to anyone.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:";

/// Replaces a file, completely or not at all.
fn replace(path: &Path, content: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut partial = tempfile::Builder::new().prefix(".report-").tempfile_in(folder)?;
    partial.write_all(content.as_bytes())?;
    partial.as_file().sync_all()?;
    readable(partial.as_file())?;
    partial.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// A temporary file is private to its owner; a report is for everyone who may read the run folder.
#[cfg(unix)]
fn readable(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable(_: &std::fs::File) -> std::io::Result<()> {
    Ok(())
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Report>()];

#[cfg(test)]
mod tests;
