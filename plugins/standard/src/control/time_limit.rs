//! `time-limit`: ends a run after a time of training, which all processes of the run share, as Lightning's `Timer` does.

use std::time::{Duration, Instant};

use plugin_api::event::At;
use plugin_api::{Callback, Creation, Error, Result, Run, decode_state, encode_state, plugin};
use serde::{Deserialize, Serialize};

use super::duration;
use crate::display;

/// Options of `time-limit`.
#[plugin]
#[derive(Default)]
pub(crate) struct Options {
    /// Stop when training has taken this long: `2 h`, `30 min`, `90 s`. A resumed run counts on from its checkpoint. A pause
    /// counts, too.
    duration: String,
    /// Stop this much earlier, so that what comes at the end, such as the last checkpoint and the evaluation of `test`, also
    /// ends within `duration`.
    reserve: Option<String>,
}

/// The time since any moment; it never goes back.
pub(crate) trait Clock: Default + Send + 'static {
    fn now(&self) -> Duration;
}

/// The clock of the machine.
pub(crate) struct Monotonic(Instant);

impl Default for Monotonic {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for Monotonic {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The state in checkpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct State {
    /// How long all processes of the run have trained.
    seconds: f64,
}

pub(crate) struct TimeLimit<C = Monotonic> {
    options: Options,
    /// How long training may take before it ends.
    limit: Duration,
    clock: C,
    /// How long the processes before this one have trained.
    before: Duration,
    /// When the training of this process began.
    started: Option<Duration>,
    /// Whether a stop was requested; the loop may still finish its current work.
    asked: bool,
}

#[plugin]
impl<C: Clock> Callback for TimeLimit<C> {
    const KIND: &'static str = "time-limit";
    const SUMMARY: &'static str = "Ends the run when training has taken a given time";
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        if options.duration.is_empty() {
            return Err(Error::new("`duration` must say how long training may take, such as `2 h`"));
        }
        let duration = duration::parse("duration", &options.duration)?;
        let reserve = options.reserve.as_deref().map(|reserve| duration::parse("reserve", reserve)).transpose()?;
        let limit = duration.checked_sub(reserve.unwrap_or_default()).filter(|limit| !limit.is_zero());
        let Some(limit) = limit else {
            let reserve = options.reserve.unwrap_or_default();
            return Err(Error::new(format!(
                "`reserve` = `{reserve}` must be less than `duration` = `{}`",
                options.duration
            )));
        };
        Ok(Self { options, limit, clock: C::default(), before: Duration::ZERO, started: None, asked: false })
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        let State { seconds } = decode_state(state)?;
        self.before = Duration::try_from_secs_f64(seconds)
            .map_err(|error| Error::new(format!("the saved state has {seconds} seconds of training: {error}")))?;
        Ok(())
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
        encode_state(&State { seconds: self.elapsed().as_secs_f64() })
    }

    fn on_train_start(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.started = Some(self.clock.now());
        Ok(())
    }

    #[inline]
    fn on_step_end(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        if self.asked || self.elapsed() < self.limit {
            return Ok(());
        }
        self.asked = true;
        let Options { duration, reserve } = &self.options;
        let reserved =
            reserve.as_ref().map_or_else(String::new, |reserve| format!(", of which `{reserve}` is reserved"));
        let elapsed = display::duration(self.elapsed());
        run.stop(&format!("time_limit_reached: training has taken {elapsed}, the limit is `{duration}`{reserved}"))
    }
}

impl<C: Clock> TimeLimit<C> {
    /// How long all processes of the run have trained.
    fn elapsed(&self) -> Duration {
        let of_this = self.started.map_or(Duration::ZERO, |started| self.clock.now().saturating_sub(started));
        self.before.saturating_add(of_this)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use plugin_api::testing::{FakeHost, json};
    use proptest::prelude::*;

    use super::*;

    thread_local! {
        static SECONDS: Cell<u64> = const { Cell::new(0) };
    }

    /// A clock that the test sets.
    #[derive(Default)]
    struct FakeClock;

    impl Clock for FakeClock {
        fn now(&self) -> Duration {
            Duration::from_secs(SECONDS.get())
        }
    }

    fn host(options: serde_json::Value) -> FakeHost {
        FakeHost::new::<TimeLimit<FakeClock>>(options).unwrap()
    }

    /// A step that ends at this time.
    fn step_end(host: &mut FakeHost, step: u64, seconds: u64) {
        SECONDS.set(seconds);
        host.step_end(step).unwrap();
    }

    #[test]
    fn the_run_ends_once_when_the_time_has_passed_since_training_began() {
        SECONDS.set(500);
        let mut host = host(json!({ "duration": "2 min" }));
        host.setup().unwrap();
        // Loading data is not training.
        SECONDS.set(1000);
        host.train_start().unwrap();
        step_end(&mut host, 1, 1119);
        assert_eq!(host.stopped(), None);
        step_end(&mut host, 2, 1120);
        step_end(&mut host, 3, 1121);
        let reason = "time_limit_reached: training has taken 2:00, the limit is `2 min`";
        assert_eq!((host.stopped(), host.requests().len()), (Some(reason), 1));
    }

    #[test]
    fn a_reserve_ends_it_earlier() {
        SECONDS.set(0);
        let mut host = host(json!({ "duration": "1 h", "reserve": "10 min" }));
        host.train_start().unwrap();
        step_end(&mut host, 1, 2999);
        assert_eq!(host.stopped(), None);
        step_end(&mut host, 2, 3000);
        let reason = "time_limit_reached: training has taken 50:00, the limit is `1 h`, of which `10 min` is reserved";
        assert_eq!(host.stopped(), Some(reason));
    }

    #[test]
    fn the_time_of_all_processes_counts_and_that_between_them_does_not() {
        SECONDS.set(0);
        let options = json!({ "duration": "100 s" });
        let mut first = host(options.clone());
        first.train_start().unwrap();
        step_end(&mut first, 1, 40);
        let state = first.save_state().unwrap();
        SECONDS.set(10_000);
        let mut second = host(options.clone());
        second.load_state(&state).unwrap();
        second.train_start().unwrap();
        step_end(&mut second, 2, 10_030);
        let state = second.save_state().unwrap();
        SECONDS.set(0);
        let mut third = host(options);
        third.load_state(&state).unwrap();
        // What is saved before training goes on loses nothing.
        assert_eq!(third.save_state().unwrap(), state);
        third.train_start().unwrap();
        step_end(&mut third, 3, 29);
        assert_eq!(third.stopped(), None);
        step_end(&mut third, 4, 30);
        assert!(third.stopped().unwrap().contains("has taken 1:40,"), "{:?}", third.stopped());
    }

    #[test]
    fn options_that_make_no_sense_are_refused_with_the_reason() {
        for (options, message) in [
            (json!({}), "`duration` must say how long training may take, such as `2 h`"),
            (json!({ "duration": "soon" }), "`duration` = `soon` is not a duration: "),
            (json!({ "duration": "1 h", "reserve": "" }), "`reserve` = `` is not a duration: "),
            (
                json!({ "duration": "1 h", "reserve": "60 min" }),
                "`reserve` = `60 min` must be less than `duration` = `1 h`",
            ),
        ] {
            let error = FakeHost::new::<TimeLimit>(options).err().unwrap();
            assert!(error.message().starts_with(message), "{error}");
        }
    }

    #[test]
    fn the_clock_of_the_machine_goes_on() {
        let mut host = FakeHost::new::<TimeLimit>(json!({ "duration": "1 s" })).unwrap();
        host.train_start().unwrap();
        host.step_end(1).unwrap();
        assert_eq!(host.stopped(), None);
        std::thread::sleep(Duration::from_millis(1100));
        host.step_end(2).unwrap();
        assert!(host.stopped().is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_state_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..32), seconds: f64) {
            for state in [bytes, encode_state(&State { seconds }).unwrap()] {
                let mut host = host(json!({ "duration": "1 h" }));
                if host.load_state(&state).is_ok() {
                    host.train_start().unwrap();
                    host.step_end(1).unwrap();
                }
            }
        }
    }
}
