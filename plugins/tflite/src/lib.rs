//! `tflite`: exports the model being trained as TFLite, for LiteRT and the devices that run it.
//!
//! It reads the model's graph and borrows its weights; it contains nothing of libtorch. The graph is lowered once,
//! before training starts, which is also when a model that cannot be exported is rejected; an export then writes the
//! tables and streams the weights. The run's `when` decides when: by default at the end.

mod builtin;
mod half_weights;
mod layout;
mod lower;
mod options;
mod program;
mod quantize;
mod verification;
mod write;

use std::borrow::Cow;
use std::io::Write as _;
use std::path::Path;

use export::{Ending, Include, Normalization, Origin, PartialFile, Publication, Ranges, Template, Weights};
use plugin_api::event::{At, Position, Trigger};
use plugin_api::protocol::RunInfo;
use plugin_api::{Callback, Creation, Error, EventKind, Kind, Need, Result, Run, When, plugin};

use verify::Policy;

pub use crate::options::{ImageLayout, Options, Quantize};

use crate::program::Program;
use crate::write::Description;

/// The file that is verified in place of one with operators that the reader does not have. It is never published.
const INSIDE: &str = "inside";

/// Exports the model as TFLite.
pub struct Tflite {
    options: Options,
    name: Template,
    /// Known from `setup` on.
    lowered: Option<Lowered>,
}

struct Lowered {
    program: Program,
    inputs: Vec<String>,
    output: String,
    ending: Ending,
    /// The normalization that the file includes.
    normalization: Option<Normalization>,
}

/// A program that is verified in place of the published one.
struct Inside<'l> {
    program: Cow<'l, Program>,
    ending: Ending,
    normalization: Option<&'l Normalization>,
}

#[plugin]
impl Callback for Tflite {
    const KIND: &'static str = "tflite";
    const SUMMARY: &'static str = "Exports the model as TFLite";
    const BY_DEFAULT: bool = false;
    const WHEN: When = When { every: None, at: &["end"] };
    const PRODUCES: &'static [&'static str] = &["*_accuracy_before", "*_accuracy_after"];
    const NEEDS: &'static [Need] = &[
        Need::parameters(EventKind::TRIGGER),
        Need::buffers(EventKind::TRIGGER),
        Need::parameters(EventKind::EXPORT),
        Need::buffers(EventKind::EXPORT),
    ];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        let name = options.check()?;
        Ok(Self { options, name, lowered: None })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let graph = export::graph(run, "TFLite")?;
        let info = run.info()?;
        export::remove_unfinished(&info.folder, &self.options.log_dir);
        let ending = Ending::new(&self.options.include, &info, graph.shape(&graph.output).unwrap_or_default())?;
        let includes_normalization = self.options.include.contains(&Include::Normalize);
        let normalization = Normalization::of(&info.data).filter(|_| includes_normalization);
        let request = lower::Request { images: self.options.layout, normalization: normalization.as_ref(), ending };
        let mut program =
            lower::lower(&graph, &request).map_err(|error| error.context("the model cannot be exported as TFLite"))?;
        match self.options.quantize {
            Quantize::None => {}
            Quantize::Fp16 => half_weights::halve(&mut program),
            Quantize::Int8 => quantize::check(&program)?,
        }
        let inputs = graph.inputs.into_iter().map(|input| input.name).collect();
        let output = lower::output_name(ending.added).map_or(graph.output, str::to_owned);
        self.lowered = Some(Lowered { program, inputs, output, ending, normalization });
        Ok(())
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        self.export(run, event)
    }

    fn on_export(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.export(run, event)
    }
}

impl Tflite {
    fn export(&self, run: &mut Run<'_>, position: &Position) -> Result<()> {
        let info = run.info()?;
        let folder = Path::new(&info.folder).join(&self.options.log_dir);
        let file = format!("{}.tflite", self.name.at(position.epoch, position.global_step));
        let lowered = self.lowered.as_ref().ok_or_else(|| Error::new("`setup` did not run"))?;
        let ranges = match self.options.quantize {
            Quantize::Int8 => Some(self.calibrate(run, &info, &lowered.program)?),
            _ => None,
        };
        let program = self.program(run, &lowered.program, ranges.as_ref(), self.options.integer_boundary)?;
        let mut publication = Publication::begin(&folder, self.options.sync)?;
        if info.data.classes > 0 && !info.data.target_names.is_empty() {
            let name = format!("{}.labels.txt", self.name.at(position.epoch, position.global_step));
            let mut labels = publication.create(&name, self.options.overwrite)?;
            labels.write_all(labels_of(&info.data.target_names).as_bytes())?;
            labels.finish(self.options.sync)?;
        }
        self.write(run, &info, &program, publication.create(&file, self.options.overwrite)?)?;
        let unverified = match self.options.verify {
            Policy::Off => false,
            policy => {
                let inside = self.inside(run, lowered, ranges.as_ref())?;
                let path = publication.partial(INSIDE);
                self.write(run, &info, &inside.program, PartialFile::create(&path)?)?;
                let verdict = self.verify(run, &info, &path, &inside, ranges.as_ref())?;
                policy.marks_unverified(&verdict, &folder.join(&file))?
            }
        };
        if info.trial {
            return Ok(());
        }
        publication.publish()?;
        let path = Path::new(&self.options.log_dir).join(&file).display().to_string();
        run.publish("export", &path)?;
        if unverified { run.publish("unverified_export", &path) } else { Ok(()) }
    }

    /// The ranges of the nodes whose values are in the program.
    fn calibrate(&self, run: &mut Run<'_>, info: &RunInfo, program: &Program) -> Result<Ranges> {
        let Options { calibration_batches, allow_non_finite, .. } = self.options;
        Ranges::calibrate(run, info, calibration_batches, &quantize::nodes(program), allow_non_finite)
    }

    /// The program to write: in integers if there are `ranges`.
    fn program<'p>(
        &self,
        run: &Run<'_>,
        program: &'p Program,
        ranges: Option<&Ranges>,
        integer_boundary: bool,
    ) -> Result<Cow<'p, Program>> {
        let Some(ranges) = ranges else { return Ok(Cow::Borrowed(program)) };
        let weights = Weights::read(run, self.options.allow_non_finite)?;
        quantize::quantize(program, ranges, &weights, integer_boundary).map(Cow::Owned)
    }

    /// The part of a file that the reader in this library can run: it has no operators that quantize floats or choose a
    /// class.
    fn inside<'l>(&self, run: &Run<'_>, lowered: &'l Lowered, ranges: Option<&Ranges>) -> Result<Inside<'l>> {
        let Lowered { program, ending, normalization, .. } = lowered;
        Ok(match ranges {
            Some(ranges) => Inside {
                program: Cow::Owned(self.program(run, program, Some(ranges), true)?.into_owned().model_only()),
                ending: ending.without_addition(),
                normalization: None,
            },
            None if ending.is_class() => Inside {
                program: Cow::Owned(program.clone().without_ending()),
                ending: ending.without_addition(),
                normalization: normalization.as_ref(),
            },
            None => Inside { program: Cow::Borrowed(program), ending: *ending, normalization: normalization.as_ref() },
        })
    }

    /// Writes a file without publishing it.
    fn write(&self, run: &Run<'_>, info: &RunInfo, program: &Program, mut file: PartialFile) -> Result<()> {
        let lowered = self.lowered.as_ref().ok_or_else(|| Error::new("`setup` did not run"))?;
        let weights = Weights::read(run, self.options.allow_non_finite)?;
        let origin = Origin::read(run, info)?;
        let description = Description {
            text: &format!("{} {}: {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), info.name),
            inputs: lowered.inputs.iter().map(String::as_str).collect(),
            output: &lowered.output,
            metadata: vec![("training_run", origin.json().into_bytes())],
        };
        write::write(program, &description, &weights, &mut file)?;
        file.finish(self.options.sync)
    }
}

/// The content of a labels file, as TFLite's tools read it: the name of a class a line, in their order.
fn labels_of(names: &[String]) -> String {
    names.iter().map(|name| format!("{}\n", name.replace(['\n', '\r'], " "))).collect()
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Tflite>()];

#[cfg(test)]
mod tests;
