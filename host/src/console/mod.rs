//! The terminal and the standard streams: the host alone writes to them.
//!
//! Data goes to stdout, everything else to stderr. Status lines are drawn on a terminal only, below everything else;
//! whatever is written goes above them.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::train::Screen;

/// The console of a run. Shared by all threads.
pub struct Console {
    bars: MultiProgress,
    lines: Mutex<BTreeMap<String, ProgressBar>>,
    quiet: bool,
    on_terminal: bool,
}

/// Steps of a bar: progress comes as a number from 0 to 1.
const STEPS: u64 = 1000;

impl Console {
    /// A console on stderr; a quiet one shows neither lines nor status.
    pub fn new(quiet: bool) -> Self {
        let on_terminal = std::io::stderr().is_terminal() && !quiet;
        let target = if on_terminal { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
        Self { bars: MultiProgress::with_draw_target(target), lines: Mutex::default(), quiet, on_terminal }
    }

    /// Writes bytes to stderr, above the status lines. A stderr that is closed is no reason to end a run.
    pub fn write(&self, bytes: &[u8]) {
        let write = || {
            let _ = std::io::stderr().lock().write_all(bytes);
        };
        if self.on_terminal { self.bars.suspend(write) } else { write() }
    }

    /// Takes all status lines away.
    pub fn clear(&self) {
        for bar in std::mem::take(&mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner)).into_values() {
            bar.finish_and_clear();
        }
    }
}

impl Screen for Console {
    fn line(&self, text: &str) {
        if !self.quiet {
            self.write(format!("{text}\n").as_bytes());
        }
    }

    fn status(&self, name: &str, text: &str, progress: Option<f64>) {
        if !self.on_terminal {
            return;
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if text.is_empty() {
            if let Some(bar) = lines.remove(name) {
                bar.finish_and_clear();
            }
            return;
        }
        let bar = lines.entry(name.to_owned()).or_insert_with(|| {
            let bar = self.bars.add(ProgressBar::new(STEPS));
            // A template without a bar where there is no progress; both are constants that parse.
            let template = if progress.is_some() { "{bar:24} {wide_msg}" } else { "{wide_msg}" };
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("━╸ "));
            bar
        });
        if let Some(progress) = progress {
            bar.set_position((progress.clamp(0.0, 1.0) * STEPS as f64) as u64);
        }
        bar.set_message(text.to_owned());
    }
}
