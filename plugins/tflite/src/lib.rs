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
use std::path::Path;

use export::{PartialFile, Publication, Ranges, Template, Weights};
use plugin_api::event::{At, Position, Trigger};
use plugin_api::protocol::RunInfo;
use plugin_api::{Callback, Creation, Error, EventKind, Kind, Need, Result, Run, When, plugin};

use verify::Policy;

pub use crate::options::{ImageLayout, Options, Quantize};

use crate::program::Program;
use crate::write::Description;

/// The file that is verified in place of an integer model with float inputs and outputs. It is never published.
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
}

#[plugin]
impl Callback for Tflite {
    const KIND: &'static str = "tflite";
    const SUMMARY: &'static str = "Exports the model as TFLite";
    const BY_DEFAULT: bool = false;
    const WHEN: When = When { every: None, at: &["end"] };
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
        let graph = run.graph()?;
        let mut program = lower::lower(&graph, self.options.layout)
            .map_err(|error| error.context("the model cannot be exported as TFLite"))?;
        match self.options.quantize {
            Quantize::None => {}
            Quantize::Fp16 => half_weights::halve(&mut program),
            Quantize::Int8 => quantize::check(&program)?,
        }
        let inputs = graph.inputs.into_iter().map(|input| input.name).collect();
        self.lowered = Some(Lowered { program, inputs, output: graph.output });
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
        self.write(run, &info, position, &program, publication.create(&file, self.options.overwrite)?)?;
        let unverified = match self.options.verify {
            Policy::Off => false,
            policy => {
                // The reader has no operator that quantizes floats: verify the part between the conversions.
                let inside = self.program(run, &lowered.program, ranges.as_ref(), true)?;
                let path = publication.partial(INSIDE);
                self.write(run, &info, position, &inside, PartialFile::create(&path)?)?;
                let verdict = self.verify(run, &info, &path, &inside)?;
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
        Ranges::calibrate(run, info, self.options.calibration_batches, &quantize::nodes(program))
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

    /// Writes a file without publishing it.
    fn write(
        &self,
        run: &Run<'_>,
        info: &RunInfo,
        position: &Position,
        program: &Program,
        mut file: PartialFile,
    ) -> Result<()> {
        let lowered = self.lowered.as_ref().ok_or_else(|| Error::new("`setup` did not run"))?;
        let weights = Weights::read(run, self.options.allow_non_finite)?;
        let origin = serde_json::json!({
            "run": info.name,
            "epoch": position.epoch,
            "step": position.global_step,
            "metrics": run.metrics()?,
        });
        let description = Description {
            text: &format!("{} {}: {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), info.name),
            inputs: lowered.inputs.iter().map(String::as_str).collect(),
            output: &lowered.output,
            metadata: vec![("training_run", serde_json::to_vec(&origin)?)],
        };
        write::write(program, &description, &weights, &mut file)?;
        file.finish(self.options.sync)
    }
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Tflite>()];

#[cfg(test)]
mod tests;
