//! `shell`: a prompt into a run that waits for it, opened by a file in the run folder, as tensorpack's `InjectShell` does.

#[cfg(unix)]
mod commands;
#[cfg(unix)]
mod prompt;
#[cfg(unix)]
mod tensors;

use std::path::Path;
#[cfg(unix)]
use std::time::Duration;

use plugin_api::event::{At, Trigger};
use plugin_api::{Callback, Creation, Error, Result, Run, When, plugin};

use super::control_files::RequestFile;
use super::duration;

/// Options of `shell`.
#[plugin]
pub(crate) struct Options {
    /// The file that opens the prompt, relative to the run folder. It must be empty and belong to the user who trains, and is
    /// removed when the run goes on.
    file: String,
    /// The run goes on when nobody has written a line for so long: `30 s`, `10 min`, `2 h`.
    timeout: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { file: "INJECT_SHELL.tmp".to_owned(), timeout: "10 min".to_owned() }
    }
}

pub(crate) struct Shell {
    name: String,
    #[cfg(unix)]
    timeout: Duration,
    /// From `setup` on; none in a trial, which nobody can reach.
    file: Option<RequestFile>,
}

#[plugin]
impl Callback for Shell {
    const KIND: &'static str = "shell";
    const SUMMARY: &'static str = "Opens a prompt into the waiting run when a file appears in the run folder";
    const WHEN: When = When { every: Some("1 s"), at: &[] };
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        if cfg!(not(unix)) {
            return Err(Error::new(
                "`shell` needs Unix sockets, which this system lacks: use `remote-control` and `human-hyperparams`",
            ));
        }
        if Path::new(&options.file).file_name().is_none() {
            return Err(Error::new(format!(
                "`file` = `{}` names no file: write a name, such as `INJECT_SHELL.tmp`",
                options.file
            )));
        }
        #[cfg_attr(not(unix), expect(unused_variables))]
        let timeout = duration::parse("timeout", &options.timeout)?;
        Ok(Self {
            name: options.file,
            #[cfg(unix)]
            timeout,
            file: None,
        })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let info = run.info()?;
        self.file = (!info.trial).then(|| RequestFile::new(Path::new(&info.folder), &self.name));
        #[cfg(unix)]
        if let Some(file) = &self.file {
            // Of a process that was killed while somebody was there.
            prompt::forget_socket(file);
        }
        Ok(())
    }

    #[cfg_attr(not(unix), expect(unused_variables))]
    fn on_trigger(&mut self, run: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        #[cfg(unix)]
        if let Some(file) = self.file.as_ref().filter(|file| prompt::asks(file)) {
            prompt::serve(run, event, file, self.timeout)?;
        }
        Ok(())
    }
}

#[cfg(all(test, unix))]
mod tests;
