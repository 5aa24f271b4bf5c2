//! The terminal and the standard streams: only the host writes to them.
//!
//! Data goes to stdout, everything else to stderr. Status lines are drawn only on a terminal, below everything else;
//! other output is written above them.

#[cfg(unix)]
mod printed;

use std::collections::{BTreeMap, VecDeque};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use plugin_api::protocol::ConsoleLine;

use crate::report::{Colors, printable, printable_line, terminal};
use crate::services::Screen;

#[cfg(unix)]
pub use printed::{log_what_is_printed, settle_what_is_printed};

/// The console of a run. Shared by all threads.
pub struct Console {
    bars: MultiProgress,
    lines: Mutex<BTreeMap<String, ProgressBar>>,
    /// The newest lines, for callbacks that show them.
    kept: Mutex<VecDeque<ConsoleLine>>,
    /// What is shown, for other terminals.
    file: Mutex<Option<std::fs::File>>,
    quiet: bool,
    on_terminal: bool,
    colors: bool,
}

/// Steps of a bar: progress comes as a number from 0 to 1.
const STEPS: u64 = 1000;

/// The columns of a bar and the space after it.
const BAR: usize = 24 + 1;

/// The columns that a status line leaves free: for the `^C` that a terminal prints where the cursor is. In a full line it
/// would begin a new one, and the line above it would stay.
const FREE: usize = 4;

/// The columns of a terminal that does not tell how many it has.
const USUAL_WIDTH: usize = 80;

/// How many lines are kept, and the most bytes of each.
const KEPT: usize = 500;
const KEPT_BYTES: usize = 4096;

impl Console {
    /// A console on stderr; a quiet one shows neither lines nor status.
    pub fn new(quiet: bool) -> Self {
        let on_terminal = std::io::stderr().is_terminal() && !quiet;
        let target = if on_terminal { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
        let bars = MultiProgress::with_draw_target(target);
        let colors = on_terminal && terminal::shows_colors(&std::io::stderr());
        Self {
            bars,
            lines: Mutex::default(),
            kept: Mutex::default(),
            file: Mutex::default(),
            quiet,
            on_terminal,
            colors,
        }
    }

    /// Writes text to stderr as it is [`printable`], above the status lines, to a quiet console too. A closed stderr does not
    /// end the run.
    pub fn write(&self, text: &str) {
        self.keep(text);
        let colors = if terminal::shows_colors(&std::io::stderr()) { Colors::Keep } else { Colors::Drop };
        self.show(printable(text, colors).as_bytes());
    }

    /// From now on, appends all lines to a file; what was shown before comes first. Without the file the run goes on.
    pub fn keep_in(&self, path: &Path) {
        let file = std::fs::File::options().create(true).append(true).open(path);
        match file {
            Err(error) => tracing::warn!(path = %path.display(), %error, "cannot keep what the console shows"),
            Ok(mut file) => {
                let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
                let text: String = kept.iter().map(|line| format!("{}\n", line.text)).collect();
                let _ = file.write_all(text.as_bytes());
                *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
            }
        }
    }

    fn keep(&self, text: &str) {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let plain = printable(text, Colors::Drop);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &mut *self.file.lock().unwrap_or_else(PoisonError::into_inner) {
            // A full disk does not end the run; the terminal has the line.
            let _ = file.write_all(format!("{}\n", plain.trim_end_matches('\n')).as_bytes());
        }
        for line in plain.lines().filter(|line| !line.trim().is_empty()) {
            let number = kept.back().map_or(1, |last| last.number + 1);
            if kept.len() == KEPT {
                kept.pop_front();
            }
            let text = line[..line.floor_char_boundary(KEPT_BYTES)].to_owned();
            kept.push_back(ConsoleLine { number, time, text });
        }
    }

    fn show(&self, bytes: &[u8]) {
        let write = || {
            let _ = std::io::stderr().lock().write_all(bytes);
        };
        if self.on_terminal { self.bars.suspend(write) } else { write() }
    }

    /// Removes all status lines.
    pub fn clear(&self) {
        for bar in std::mem::take(&mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner)).into_values() {
            bar.finish_and_clear();
        }
    }
}

impl Screen for Console {
    fn line(&self, text: &str) {
        self.keep(text);
        if !self.quiet {
            let text = printable(text, if self.colors { Colors::Keep } else { Colors::Drop });
            self.show(format!("{text}\n").as_bytes());
        }
    }

    fn width(&self) -> u64 {
        if !self.on_terminal {
            return 0;
        }
        terminal::stderr_width().unwrap_or(USUAL_WIDTH) as u64
    }

    fn has_colors(&self) -> bool {
        self.colors
    }

    fn lines_after(&self, number: u64) -> Vec<ConsoleLine> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().filter(|line| line.number > number).cloned().collect()
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
            // A template without a bar if there is no progress; both are constants that parse.
            let template = if progress.is_some() { "{bar:24} {msg}" } else { "{msg}" };
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("━╸ "));
            bar
        });
        if let Some(progress) = progress {
            bar.set_position((progress.clamp(0.0, 1.0) * STEPS as f64) as u64);
        }
        let taken = FREE + if progress.is_some() { BAR } else { 0 };
        let left = (self.width() as usize).saturating_sub(taken);
        bar.set_message(printable_line(text).chars().take(left).collect::<String>());
    }
}
