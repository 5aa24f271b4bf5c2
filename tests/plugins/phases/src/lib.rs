//! Well-behaved: writes a line whenever the run begins another phase, so that a test can end the process within it.
//!
//! A line has the phase, the global step, and the microseconds since 1970. Two instances share the file: the first of all
//! callbacks tells the beginnings, the last one the ends, after which the phase is `between`.

use std::fs::File;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use plugin_api::event::{At, Checkpoint, Evaluation, Position, Trigger};
use plugin_api::{Callback, Creation, Kind, Result, Run, plugin};

/// Where it writes, and which half.
#[plugin]
#[derive(Default)]
struct Options {
    /// The file to append to.
    path: String,
    /// Whether it is the last callback.
    last: bool,
}

struct Phases {
    file: File,
    last: bool,
}

impl Phases {
    fn begin(&mut self, phase: &str, position: Position) -> Result<()> {
        if self.last { Ok(()) } else { self.write(phase, position) }
    }

    fn end(&mut self, position: Position) -> Result<()> {
        if self.last { self.write("between", position) } else { Ok(()) }
    }

    /// What begins for the first callback ends for the last one.
    fn pass(&mut self, phase: &str, position: Position) -> Result<()> {
        self.begin(phase, position)?;
        self.end(position)
    }

    /// One write, so that a process that is ended leaves no half of a line.
    fn write(&mut self, phase: &str, position: Position) -> Result<()> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
        Ok(self.file.write_all(format!("{phase} {} {time}\n", position.global_step).as_bytes())?)
    }
}

#[plugin]
impl Callback for Phases {
    const KIND: &'static str = "phases";
    const SUMMARY: &'static str = "Writes a line whenever another phase begins";
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        let file = File::options().append(true).create(true).open(options.path)?;
        Ok(Self { file, last: options.last })
    }

    fn on_step_start(&mut self, _: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.begin("stepping", event.position)
    }

    fn on_epoch_trained(&mut self, _: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.end(event.position)
    }

    fn on_eval_start(&mut self, _: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        self.begin("evaluating", event.position)
    }

    fn on_eval_end(&mut self, _: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        self.end(event.position)
    }

    fn on_trigger(&mut self, _: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        self.pass("exporting", event.position)
    }

    fn on_checkpoint(&mut self, _: &mut Run<'_>, event: &Checkpoint<'_>) -> Result<()> {
        self.pass("saving", event.position)
    }
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Phases>()];
