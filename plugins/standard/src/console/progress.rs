//! `progress`: a status line with the progress, the speed and the time left.

use std::time::{Duration, Instant};

use plugin_api::event::{At, Evaluation, Position, TrainEnd};
use plugin_api::{Callback, Creation, Result, Run, plugin};

use crate::display;

/// The name of the status line.
const LINE: &str = "progress";
/// The shortest time between two changes of the line: eyes are not faster.
const SHOW_EVERY: Duration = Duration::from_millis(100);
/// The time between two reads of the clock: reading it at every step would cost too much in fast steps.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The most steps between two reads, so that a run that slows down is noticed.
const LONGEST_STRIDE: u64 = 1 << 14;

/// Options of `progress`.
#[plugin]
pub(crate) struct Options {
    /// The metrics to show; those without a value yet are omitted.
    #[schemars(extend("items" = { "type": "string", "format": "metric" }))]
    metrics: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { metrics: ["train_loss", "val_loss"].map(str::to_owned).to_vec() }
    }
}

pub(crate) struct Progress {
    metrics: Vec<String>,
    epochs: u64,
    total_steps: u64,
    /// The first step of this process: a resumed run did not take the steps before it.
    first_step: u64,
    started: Instant,
    /// The global step of the next read of the clock.
    next_look: u64,
    stride: u64,
    looked: (Instant, u64),
    shown: (Instant, u64),
    /// Steps per second, smoothed; `None` before the first read.
    rate: Option<f64>,
}

#[plugin]
impl Callback for Progress {
    const KIND: &'static str = "progress";
    const SUMMARY: &'static str = "Shows epoch, step, losses, speed and the time left on the console";
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        let now = Instant::now();
        Ok(Self {
            metrics: options.metrics,
            epochs: 0,
            total_steps: 0,
            first_step: 0,
            started: now,
            next_look: 0,
            stride: 1,
            looked: (now, 0),
            shown: (now, 0),
            rate: None,
        })
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let info = run.info()?;
        (self.epochs, self.total_steps) = (info.epochs, info.total_steps);
        self.first_step = event.global_step;
        self.started = Instant::now();
        (self.looked, self.shown) = ((self.started, event.global_step), (self.started, event.global_step));
        self.next_look = event.global_step + 1;
        self.show(run, event, "")
    }

    #[inline]
    fn on_step_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        if event.global_step < self.next_look {
            return Ok(());
        }
        if self.look(Instant::now(), event.global_step) { self.show(run, event, "") } else { Ok(()) }
    }

    fn on_eval_step_end(&mut self, run: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        let now = Instant::now();
        if now.duration_since(self.shown.0) < SHOW_EVERY {
            return Ok(());
        }
        self.shown.0 = now;
        self.show(run, event, &format!("evaluating {} {}/{}", event.split, event.batch, event.batches))
    }

    fn on_train_end(&mut self, run: &mut Run<'_>, _: &TrainEnd<'_>) -> Result<()> {
        run.console_status(LINE, "", None)
    }
}

impl Progress {
    /// Records the time after `step` steps, chooses the next read, and returns whether it is time to update the line.
    fn look(&mut self, now: Instant, step: u64) -> bool {
        let (then, last) = self.looked;
        self.looked = (now, step);
        let each = now.duration_since(then).as_secs_f64() / step.saturating_sub(last).max(1) as f64;
        // At most twice as far as before: one fast step says little.
        let far = (LOOK_EVERY.as_secs_f64() / each.max(1e-9)) as u64;
        self.stride = far.clamp(1, (self.stride * 2).min(LONGEST_STRIDE));
        self.next_look = step + self.stride;
        let (then, last) = self.shown;
        let since = now.duration_since(then);
        if since < SHOW_EVERY {
            return false;
        }
        let rate = step.saturating_sub(last) as f64 / since.as_secs_f64();
        self.rate = Some(self.rate.map_or(rate, |before| 0.7 * before + 0.3 * rate));
        self.shown = (now, step);
        true
    }

    fn show(&self, run: &mut Run<'_>, position: &Position, doing: &str) -> Result<()> {
        // A narrow terminal cuts off the end, so what matters most comes first.
        let mut parts = Vec::new();
        match self.epochs {
            0 => parts.push(format!("epoch {}", position.epoch)),
            epochs => parts.push(format!("epoch {}/{epochs}", position.epoch)),
        }
        let progress = (self.total_steps > 0).then(|| position.global_step as f64 / self.total_steps as f64);
        if let Some(progress) = progress {
            parts.push(format!("{:.0} %", progress * 100.0));
        }
        if let Some(left) = self.time_left(self.started.elapsed(), position.global_step) {
            parts.push(format!("{} left", display::duration(left)));
        }
        match progress {
            Some(_) => parts.push(format!("step {}/{}", position.global_step, self.total_steps)),
            None => parts.push(format!("step {}", position.global_step)),
        }
        if !doing.is_empty() {
            parts.push(doing.to_owned());
        }
        let metrics = run.metrics()?;
        for name in &self.metrics {
            if let Some(value) = metrics.get(name) {
                parts.push(format!("{name} {}", display::number(*value)));
            }
        }
        if let Some(rate) = self.rate {
            parts.push(format!("{rate:.0} steps/s"));
        }
        run.console_status(LINE, &parts.join("  "), progress)
    }

    /// From the average since the start, including evaluations, since they happen again.
    fn time_left(&self, elapsed: Duration, step: u64) -> Option<Duration> {
        let done = step.checked_sub(self.first_step).filter(|&done| done > 0)?;
        let left = self.total_steps.checked_sub(step)?;
        Duration::try_from_secs_f64(elapsed.as_secs_f64() / done as f64 * left as f64).ok()
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::event::Outcome;
    use plugin_api::testing::{FakeHost, json};

    use super::*;

    fn progress() -> Progress {
        let now = Instant::now();
        Progress {
            metrics: Vec::new(),
            epochs: 3,
            total_steps: 1000,
            first_step: 0,
            started: now,
            next_look: 1,
            stride: 1,
            looked: (now, 0),
            shown: (now, 0),
            rate: None,
        }
    }

    #[test]
    fn the_line_comes_and_goes() {
        let mut host = FakeHost::new::<Progress>(json!({})).unwrap();
        host.put_metric("train_loss", 0.25);
        host.set_position(1, 6);
        host.train_start().unwrap();
        let status = host.status("progress").unwrap();
        assert_eq!(status.text, "epoch 1/3  20 %  step 6/30  train_loss 0.2500");
        assert_eq!(status.progress, Some(0.2));
        host.train_end(Outcome::Failed).unwrap();
        assert!(host.status("progress").is_none());
    }

    #[test]
    fn a_run_without_a_known_end_has_no_bar() {
        let mut host = FakeHost::new::<Progress>(json!({ "metrics": [] })).unwrap().with_info(|info| {
            (info.epochs, info.total_steps) = (0, 0);
        });
        host.set_position(2, 15);
        host.train_start().unwrap();
        let status = host.status("progress").unwrap();
        assert_eq!((status.text.as_str(), status.progress), ("epoch 2  step 15", None));
    }

    #[test]
    fn the_clock_is_looked_at_more_seldom_the_faster_the_steps() {
        let mut progress = progress();
        let (mut now, mut step, mut looks) = (progress.started, 0, 0);
        // One second of steps of 10 µs.
        while now < progress.started + Duration::from_secs(1) {
            step = progress.next_look;
            now = progress.started + Duration::from_micros(10) * step as u32;
            progress.look(now, step);
            looks += 1;
        }
        assert!((50..80).contains(&looks), "{looks} looks in {step} steps");
        // Then a step takes a second: the clock is read at each.
        progress.look(now + Duration::from_secs(2000), step + 2000);
        assert_eq!(progress.stride, 1);
    }

    #[test]
    fn the_line_is_shown_at_most_ten_times_a_second() {
        let mut progress = progress();
        let shown = (1..=1000u64).filter(|&step| {
            let now = progress.started + Duration::from_millis(1) * step as u32;
            step >= progress.next_look && progress.look(now, step)
        });
        assert!((5..=10).contains(&shown.count()));
        assert!((progress.rate.unwrap() - 1000.0).abs() < 1.0);
    }

    #[test]
    fn the_time_left_counts_what_this_process_did() {
        let progress = Progress { first_step: 500, ..progress() };
        assert_eq!(progress.time_left(Duration::from_secs(10), 600), Some(Duration::from_secs(40)));
        assert_eq!(progress.time_left(Duration::from_secs(10), 500), None);
        assert_eq!(progress.time_left(Duration::from_secs(10), 1001), None);
    }
}
