//! `weights`: the model's parameters and buffers as files for other programs: safetensors, a state dict of PyTorch,
//! npz; of adapters, also the files of PEFT.
//!
//! Names and layouts are PyTorch's, so that an equal `torch.nn.Module` loads them with `load_state_dict(strict=True)`.
//! The files are written directly from the host's memory: no weight is copied.

mod archive;
mod format;
mod npz;
mod peft;
mod pickle;
mod state_dict;

use std::path::Path;

use export::{Origin, PartialFile, Publication, Template, Weights, write_safetensors};
use plugin_api::event::{At, Position, Trigger};
use plugin_api::protocol::RunInfo;
use plugin_api::{Callback, Creation, Error, EventKind, Kind, Need, Result, Run, When, plugin};

use crate::format::Format;

#[cfg(target_endian = "big")]
compile_error!("the files have little-endian numbers, and weights are written as they are in memory");

/// Options of `weights`.
#[plugin]
pub struct Options {
    /// The folder of the files, relative to the run folder or absolute. It is created if it is missing.
    log_dir: String,
    /// The file name, without its extension; `{epoch}` and `{step}` stand for the position.
    #[schemars(extend("format" = "output-name"))]
    name: String,
    /// The formats to write, each to its own file.
    formats: Vec<Format>,
    /// Whether an export may replace an existing file.
    overwrite: bool,
    /// Whether the files are on the disk before they are published, so that a power failure leaves no partial file.
    sync: bool,
    /// Whether weights that are NaN or infinite are exported anyway.
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

/// The callback: writes the weights at each trigger and when an export is requested.
pub struct WeightsExport {
    options: Options,
    name: Template,
}

/// The files of a format that are being written, under hidden names.
struct Begun {
    format: Format,
    /// Their final names.
    names: Vec<String>,
    publication: Publication,
    files: Vec<PartialFile>,
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
            return Err(Error::new(format!("`formats` names `{}` twice", options.formats[twice].name())));
        }
        Ok(Self { options, name })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let RunInfo { folder, lora, .. } = run.info()?;
        if self.options.formats.contains(&Format::Peft) {
            peft::adapters(lora)?;
        }
        export::remove_unfinished(&folder, &self.options.log_dir);
        // Obstacles are reported before the training, not after it; the empty files are removed at once.
        self.begin(&folder, event).map(drop)
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
        let origin = Origin::read(run, &info)?;
        // Open all files first, so that obstacles are found before anything is written.
        let begun = self.begin(&info.folder, position)?;
        let mut published = Vec::new();
        let written = self.write(run, &info, &origin, begun, &mut published);
        // Announce complete files, even if a later one fails.
        for name in published {
            run.publish("export", &format!("{}/{name}", self.options.log_dir.trim_end_matches('/')))?;
        }
        written
    }

    /// Empty files for each format.
    fn begin(&self, run_folder: &str, position: &Position) -> Result<Vec<Begun>> {
        let folder = Path::new(run_folder).join(&self.options.log_dir);
        let stem = self.name.at(position.epoch, position.global_step);
        let begin = |&format: &Format| {
            let names = format.files(&stem);
            let mut publication = Publication::begin(&folder, self.options.sync)?;
            let files = names.iter().map(|name| publication.create(name, self.options.overwrite));
            let files = files.collect::<Result<_>>()?;
            Ok(Begun { format, names, publication, files })
        };
        self.options.formats.iter().map(begin).collect()
    }

    /// Writes the files, each of which is published once it is complete; `published` gets their names.
    fn write(
        &self,
        run: &Run<'_>,
        info: &RunInfo,
        origin: &Origin,
        begun: Vec<Begun>,
        published: &mut Vec<String>,
    ) -> Result<()> {
        let weights = Weights::read(run, self.options.allow_non_finite)?;
        for Begun { format, names, publication, mut files } in begun {
            match (format, &mut files[..]) {
                (Format::Safetensors, [file]) => write_safetensors(file, &weights, origin)?,
                (Format::Pt, [file]) => state_dict::write(file, &weights, origin)?,
                (Format::Npz, [file]) => npz::write(file, &weights, origin)?,
                (Format::Peft, [tensors, config]) => {
                    let lora = peft::adapters(info.lora.clone())?;
                    peft::write([tensors, config], run, &lora, &weights, origin, self.options.allow_non_finite)?;
                }
                (_, files) => {
                    return Err(Error::new(format!("`{}` does not have {} files", format.name(), files.len())));
                }
            }
            for file in files {
                file.finish(publication.syncs())?;
            }
            if !info.trial {
                publication.publish()?;
                published.extend(names);
            }
        }
        Ok(())
    }
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<WeightsExport>()];

#[cfg(test)]
mod tests;
