//! `weights`: the model's parameters and buffers as files that others load: safetensors, a state dict of PyTorch, npz.
//!
//! Names and layouts are PyTorch's, so that an equal `torch.nn.Module` takes them with `load_state_dict(strict=True)`.
//! The files are written from the host's memory as it lies there: no weight is copied.

mod archive;
mod format;
mod metadata;
mod npz;
mod pickle;
mod safetensors;
mod state_dict;

use std::path::Path;

use export::{PartialFile, Publication, Template, Weights};
use plugin_api::event::{At, Position, Trigger};
use plugin_api::{Callback, Creation, Error, EventKind, Kind, Need, Result, Run, When, plugin};

use crate::format::Format;
use crate::metadata::Metadata;

#[cfg(target_endian = "big")]
compile_error!("the files hold little-endian numbers, and weights are written as they lie in memory");

/// Options of `weights`.
#[plugin]
pub struct Options {
    /// Where to write, relative to the run folder or absolute. It is made where it is missing.
    log_dir: String,
    /// What the files are called, without their ending; `{epoch}` and `{step}` are the position.
    name: String,
    /// The formats to write, each a file of its own.
    formats: Vec<Format>,
    /// Replace files that are there already.
    overwrite: bool,
    /// Have the files on the disk before they get their names, so that a loss of power leaves no half of one.
    sync: bool,
    /// Write weights that are NaN or infinite instead of refusing them.
    allow_non_finite: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            log_dir: "exports".to_owned(),
            name: "model".to_owned(),
            formats: vec![Format::Safetensors],
            overwrite: true,
            sync: true,
            allow_non_finite: false,
        }
    }
}

/// The callback: writes the weights on each trigger and where an export is asked for.
pub struct WeightsExport {
    options: Options,
    name: Template,
}

/// A file of a format that is being written, under a name that no reader looks for.
struct Begun {
    format: Format,
    /// Its final name.
    name: String,
    publication: Publication,
    file: PartialFile,
}

#[plugin]
impl Callback for WeightsExport {
    const KIND: &'static str = "weights";
    const SUMMARY: &'static str = "Exports the weights as safetensors, a PyTorch state dict or npz";
    const WHEN: When = When { every: None, at: &["end"] };
    const BY_DEFAULT: bool = false;
    const NEEDS: &'static [Need] = &[
        Need::parameters(EventKind::TRIGGER),
        Need::buffers(EventKind::TRIGGER),
        Need::parameters(EventKind::EXPORT),
        Need::buffers(EventKind::EXPORT),
    ];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        let name = Template::new(&options.name)?;
        if options.log_dir.is_empty() {
            return Err(Error::new("`log_dir` must not be empty; `.` is the run folder itself"));
        }
        if options.formats.is_empty() {
            return Err(Error::new("`formats` must name at least one format"));
        }
        if let Some(twice) = (1..options.formats.len()).find(|&at| options.formats[..at].contains(&options.formats[at]))
        {
            return Err(Error::new(format!("`formats` names `{}` twice", options.formats[twice].ending())));
        }
        Ok(Self { options, name })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        // What stands in the way is told before the training, not after it; the empty files go away at once.
        self.begin(&run.info()?.folder, event).map(drop)
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        self.export(run, event)
    }

    fn on_export(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.export(run, event)
    }
}

impl WeightsExport {
    fn export(&self, run: &mut Run<'_>, position: &Position) -> Result<()> {
        let info = run.info()?;
        let metadata = Metadata::read(run, &info.name, position)?;
        // All are begun first: what is refused is refused before anything is written.
        let begun = self.begin(&info.folder, position)?;
        let mut published = Vec::new();
        let written = self.write(run, &metadata, begun, !info.trial, &mut published);
        // What is there whole is announced, whatever became of the rest.
        for name in published {
            run.publish("export", &format!("{}/{name}", self.options.log_dir.trim_end_matches('/')))?;
        }
        written
    }

    /// An empty file for each format.
    fn begin(&self, run_folder: &str, position: &Position) -> Result<Vec<Begun>> {
        let folder = Path::new(run_folder).join(&self.options.log_dir);
        let stem = self.name.at(position.epoch, position.global_step);
        let begin = |&format: &Format| {
            let name = format!("{stem}.{}", format.ending());
            let mut publication = Publication::begin(&folder, self.options.sync)?;
            let file = publication.create(&name, self.options.overwrite)?;
            Ok(Begun { format, name, publication, file })
        };
        self.options.formats.iter().map(begin).collect()
    }

    /// Writes the files, each of which is published as soon as it is whole; `published` gets their names.
    fn write(
        &self,
        run: &Run<'_>,
        metadata: &Metadata,
        begun: Vec<Begun>,
        publish: bool,
        published: &mut Vec<String>,
    ) -> Result<()> {
        let weights = Weights::read(run, self.options.allow_non_finite)?;
        for Begun { format, name, publication, mut file } in begun {
            format.write(&mut file, &weights, metadata)?;
            file.finish(publication.syncs())?;
            if publish {
                publication.publish()?;
                published.push(name);
            }
        }
        Ok(())
    }
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<WeightsExport>()];

#[cfg(test)]
mod tests;
