//! `lr-finder`: a range test of the learning rate before training (Smith 2017, "Cyclical Learning Rates for Training Neural
//! Networks"; fastai's `lr_find`, Lightning's `LearningRateFinder`).
//!
//! It trains some updates with a learning rate that grows from one to the next, and then gives the run back everything
//! that these have changed, so that the training is that of a run without it. The suggestion is the rate at which the
//! smoothed loss falls fastest over the logarithm of the rate.

use plugin_api::event::At;
use plugin_api::protocol::{CopyAction, ParameterGroup, RecordValue};
use plugin_api::{Callback, Creation, Error, Need, Ranks, Result, Run, plugin, tracing};

use crate::display;

const LEARNING_RATE: &str = "learning_rate";

/// The share of the updates at the beginning that suggest nothing: their average is still of few losses, and nothing has
/// been learned yet (Lightning leaves out 10 of 100).
const LEFT_OUT: f64 = 0.1;

/// Updates of a run that is only tried.
const TRIED: u64 = 2;

/// Options of `lr-finder`.
#[plugin]
pub(crate) struct Options {
    /// The learning rate of the first update.
    #[schemars(extend("exclusiveMinimum" = 0))]
    min: f64,
    /// The learning rate of the last one.
    #[schemars(extend("exclusiveMinimum" = 0))]
    max: f64,
    /// How many updates; each multiplies the rate by the same factor.
    #[schemars(range(min = 10))]
    steps: u64,
    /// End early when the smoothed loss is so many times its least value so far.
    #[schemars(extend("exclusiveMinimum" = 1))]
    stop_at: f64,
    /// The share of the average that stays at each loss; 0 does not smooth.
    #[schemars(range(min = 0.0, max = 1.0))]
    smoothing: f64,
    /// Train with the suggested rate; `[train] schedule` then no longer changes it. Without it, the rate is only told.
    apply: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { min: 1e-6, max: 1.0, steps: 100, stop_at: 4.0, smoothing: 0.9, apply: false }
    }
}

pub(crate) struct LrFinder {
    options: Options,
    /// The host's copy of everything that the updates change.
    copy: String,
}

#[plugin]
impl Callback for LrFinder {
    const KIND: &'static str = "lr-finder";
    const SUMMARY: &'static str = "Suggests a learning rate before training, by a range test";
    const BY_DEFAULT: bool = false;
    const RANKS: Ranks = Ranks::All;
    const NEEDS: &'static [Need] = &[Need::WRITES_WEIGHTS, Need::TRAINING_STATE];
    type Options = Options;

    fn new(options: Options, creation: &Creation<'_>) -> Result<Self> {
        options.check()?;
        Ok(Self { options, copy: creation.instance.to_owned() })
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let info = run.info()?;
        // Its weights have learned: the test would tell of others than those that the rate is for.
        if info.resumed_from.is_some() {
            return Ok(());
        }
        let groups = rates_of(&run.hyper_parameters()?);
        run.copy_training_state(&self.copy, CopyAction::Take)?;
        let steps = if info.trial { TRIED } else { self.options.steps };
        let swept = self.sweep(run, &groups, steps);
        // The run goes on as if nothing had been, even after an error.
        run.copy_training_state(&self.copy, CopyAction::Restore)?;
        run.copy_training_state(&self.copy, CopyAction::Drop)?;
        let sweep = swept?;
        run.put_record(&info.instance, sweep.curve())?;
        self.tell(run, &info.instance, &groups, &sweep, steps)
    }
}

impl Options {
    fn check(&self) -> Result<()> {
        let Self { min, max, steps, stop_at, smoothing, apply: _ } = *self;
        let refused = |message: String| Err(Error::new(message));
        if !(min > 0.0 && max > min && max.is_finite()) {
            return refused(format!(
                "`min` is {min} and `max` is {max}: the rates go up from `min`, which is more than 0, to `max`"
            ));
        }
        if steps < 10 {
            return refused(format!("`steps` is {steps}: a curve needs 10 or more"));
        }
        if stop_at.is_nan() || stop_at <= 1.0 {
            return refused(format!(
                "`stop_at` is {stop_at}: it must be more than 1, such as 4 for four times the least loss"
            ));
        }
        if !(0.0..1.0).contains(&smoothing) {
            return refused(format!("`smoothing` is {smoothing}: it must be 0 or more and less than 1"));
        }
        Ok(())
    }

    /// The rate of the update at `index`.
    fn rate(&self, index: u64) -> f64 {
        let share = index as f64 / (self.steps - 1) as f64;
        self.min * (self.max / self.min).powf(share)
    }
}

/// The losses of the updates, and their rates.
#[derive(Default)]
struct Sweep {
    rates: Vec<f64>,
    smoothed: Vec<f64>,
    /// Why it ended before its last update.
    ended: Option<String>,
}

impl Sweep {
    fn curve(&self) -> RecordValue {
        RecordValue::Curve {
            x_label: LEARNING_RATE.to_owned(),
            y_label: "smoothed loss".to_owned(),
            x: self.rates.clone(),
            y: self.smoothed.clone(),
        }
    }

    /// The rate at which the smoothed loss falls fastest over the logarithm of the rate; `None` if it falls nowhere.
    ///
    /// Rates are equally far apart there, so that differences take the place of slopes.
    fn steepest(&self) -> Option<f64> {
        let left_out = ((self.smoothed.len() as f64 * LEFT_OUT).ceil() as usize).max(1);
        let slopes = self.smoothed.windows(3).enumerate().map(|(index, three)| (index + 1, three[2] - three[0]));
        let later = slopes.filter(|(index, slope)| *index >= left_out && *slope < 0.0);
        let (index, _) = later.min_by(|(_, one), (_, other)| one.total_cmp(other))?;
        self.rates.get(index).copied()
    }
}

impl LrFinder {
    /// Trains with growing rates until the loss has grown too much, or is not a number any more.
    fn sweep(&self, run: &mut Run<'_>, groups: &[(String, f64)], steps: u64) -> Result<Sweep> {
        let options = &self.options;
        let (mut sweep, mut average) = (Sweep::default(), 0.0);
        let mut least = f64::INFINITY;
        for index in 0..steps {
            let rate = options.rate(index);
            set(run, groups, rate)?;
            let losses = run.train_steps_from(index, 1)?;
            let loss = *losses.last().ok_or_else(|| Error::new("the host trained no step"))?;
            if !loss.is_finite() {
                sweep.ended = Some(format!("the loss is {loss} at {}", display::number(rate)));
                break;
            }
            average = options.smoothing * average + (1.0 - options.smoothing) * loss;
            // An average that begins at 0 is too small at first (Kingma and Ba 2015, section 3).
            let smoothed = average / (1.0 - options.smoothing.powf(index as f64 + 1.0));
            sweep.rates.push(rate);
            sweep.smoothed.push(smoothed);
            // A loss may be negative, and then no multiple of it is worse.
            if least > 0.0 && smoothed > options.stop_at * least {
                let times = options.stop_at;
                sweep.ended = Some(format!("the loss is {times} times its least at {}", display::number(rate)));
                break;
            }
            least = least.min(smoothed);
        }
        Ok(sweep)
    }

    fn tell(
        &self,
        run: &mut Run<'_>,
        instance: &str,
        groups: &[(String, f64)],
        sweep: &Sweep,
        steps: u64,
    ) -> Result<()> {
        // Too few losses for a curve.
        if steps < self.options.steps {
            return Ok(());
        }
        let ended = sweep.ended.as_ref().map_or_else(String::new, |ended| format!("; it ended early: {ended}"));
        let Some(rate) = sweep.steepest() else {
            tracing::warn!(
                "`{instance}` suggests no learning rate: the loss falls nowhere between {} and {}{ended}; try other `min` and `max`",
                self.options.min,
                self.options.max
            );
            return Ok(());
        };
        let verb = if self.options.apply { "sets" } else { "suggests" };
        let shown = display::number(rate);
        run.console_line(&format!(
            "`{instance}` {verb} the learning rate {shown}, where the smoothed loss falls fastest ({} updates{ended})",
            sweep.rates.len()
        ))?;
        if self.options.apply { set(run, groups, rate) } else { Ok(()) }
    }
}

/// Each parameter group, and its share of the largest learning rate.
fn rates_of(groups: &[ParameterGroup]) -> Vec<(String, f64)> {
    let rates = groups.iter().filter_map(|group| Some((group.name.clone(), *group.values.get(LEARNING_RATE)?)));
    let rates: Vec<_> = rates.collect();
    let largest = rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    let share = |rate: f64| if largest > 0.0 { rate / largest } else { 1.0 };
    rates.into_iter().map(|(name, rate)| (name, share(rate))).collect()
}

/// Sets the largest learning rate; the other groups keep their share of it.
fn set(run: &mut Run<'_>, groups: &[(String, f64)], rate: f64) -> Result<()> {
    groups.iter().try_for_each(|(group, share)| run.set_hyper_parameter(Some(group), LEARNING_RATE, rate * share))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use plugin_api::testing::{FakeHost, json};

    use super::*;

    /// A run whose losses are those that `loss` gives for each update.
    fn host(options: serde_json::Value, loss: impl Fn(u64) -> f64 + 'static) -> FakeHost {
        let mut host = FakeHost::new::<LrFinder>(options).unwrap();
        host.put_hyper_parameter("body", LEARNING_RATE, 0.01);
        host.put_hyper_parameter("head", LEARNING_RATE, 0.1);
        let next = Rc::new(RefCell::new(0));
        host.answer_train_steps(move |_| Ok(vec![loss(next.replace_with(|next| *next + 1))]));
        host
    }

    /// From 0.0001 to 1 in ten times of ten, so that the update `10 n` has the rate `10^(n - 4)`.
    fn options(apply: bool) -> serde_json::Value {
        json!({ "min": 1e-4, "max": 1.0, "steps": 41, "smoothing": 0.0, "apply": apply })
    }

    /// Flat, then down around the update 20, then up.
    fn valley(update: u64) -> f64 {
        let fall = 1.0 / (1.0 + (-(update as f64 - 20.0)).exp());
        3.0 - 2.0 * fall + if update > 35 { (update as f64 - 35.0) * 3.0 } else { 0.0 }
    }

    fn rates(host: &FakeHost) -> [f64; 2] {
        ["body", "head"].map(|group| host.hyper_parameter_of(group, LEARNING_RATE).unwrap())
    }

    #[test]
    fn the_rate_of_the_steepest_descent_is_suggested_and_the_run_keeps_its_own() {
        let mut host = host(options(false), valley);
        host.train_start().unwrap();
        let said = "`lr-finder` suggests the learning rate 0.0100, where the smoothed loss falls fastest \
                    (38 updates; it ended early: the loss is 4 times its least at 0.5012)";
        assert_eq!(host.lines(), [said]);
        assert_eq!(rates(&host), [0.01, 0.1]);
        let [record] = host.records() else { panic!("{:?}", host.records()) };
        let RecordValue::Curve { x, y, .. } = &record.value else { panic!("{record:?}") };
        assert_eq!((x.len(), y[0]), (38, valley(0)));
        assert!((x[0] - 1e-4).abs() < 1e-12 && (x[20] - 1e-2).abs() < 1e-9, "{x:?}");
    }

    #[test]
    fn it_is_set_where_that_is_asked_for_and_groups_keep_their_share() {
        let mut host = host(options(true), valley);
        host.train_start().unwrap();
        assert!(host.lines()[0].starts_with("`lr-finder` sets the learning rate 0.0100"), "{:?}", host.lines());
        let [body, head] = rates(&host);
        assert!((head - 0.01).abs() < 1e-9 && (body - 0.001).abs() < 1e-9, "{body} {head}");
    }

    #[test]
    fn a_loss_that_falls_nowhere_suggests_nothing() {
        let mut host = host(options(true), |update| 1.0 + update as f64 * 0.01);
        host.train_start().unwrap();
        let said = "`lr-finder` suggests no learning rate: the loss falls nowhere between 0.0001 and 1";
        assert!(host.logs()[0].contains(said), "{:?}", host.logs());
        assert_eq!((rates(&host), host.lines().len()), ([0.01, 0.1], 0));
    }

    #[test]
    fn a_loss_that_is_not_a_number_ends_it() {
        let mut host = host(options(false), |update| if update < 30 { valley(update) } else { f64::NAN });
        host.train_start().unwrap();
        assert!(
            host.lines()[0].ends_with("(30 updates; it ended early: the loss is NaN at 0.1000)"),
            "{:?}",
            host.lines()
        );
    }

    #[test]
    fn smoothing_forgets_its_beginning() {
        let mut host = host(json!({ "min": 1e-4, "max": 1.0, "steps": 10, "smoothing": 0.9 }), |_| 2.0);
        host.train_start().unwrap();
        let RecordValue::Curve { y, .. } = &host.records()[0].value else { panic!("{:?}", host.records()) };
        assert!(y.iter().all(|loss| (loss - 2.0).abs() < 1e-12), "{y:?}");
    }

    #[test]
    fn a_failure_gives_the_rates_back() {
        let mut host = host(options(false), valley);
        host.fail(plugin_api::ServiceKind::TRAIN_STEPS, "the device is gone");
        assert_eq!(host.train_start().unwrap_err().message(), "the device is gone");
        assert_eq!(rates(&host), [0.01, 0.1]);
    }

    #[test]
    fn a_resumed_run_is_left_alone() {
        let mut host = host(options(true), valley).with_info(|info| info.resumed_from = Some("checkpoint".to_owned()));
        host.train_start().unwrap();
        assert_eq!((host.records().len(), rates(&host)), (0, [0.01, 0.1]));
    }

    #[test]
    fn options_without_a_curve_are_refused() {
        let refused = |options| FakeHost::new::<LrFinder>(options).err().unwrap().message().to_owned();
        for (options, word) in [
            (json!({ "min": 1.0, "max": 0.1 }), "`min` is 1 and `max` is 0.1"),
            (json!({ "min": 0.0 }), "`min` is 0"),
            (json!({ "steps": 9 }), "`steps` is 9"),
            (json!({ "stop_at": 1.0 }), "`stop_at` is 1"),
            (json!({ "smoothing": 1.0 }), "`smoothing` is 1"),
        ] {
            assert!(refused(options).starts_with(word), "{word}");
        }
    }
}
