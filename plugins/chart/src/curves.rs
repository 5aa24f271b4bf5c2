//! Curves that stay small enough for a page, however long the run is.

use std::collections::BTreeMap;

use plugin_api::Direction;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

/// A curve has at most one point more than this, which is more than a screen has pixels in a row.
const MOST_POINTS: usize = 2000;

/// The most curves that are kept; nobody reads a page with more. As many more are kept of metrics with a direction, so
/// that 100,000 recorded scalars do not hide the loss.
pub const MOST_CURVES: usize = 200;

/// The values of a metric over the run, thinned out evenly if there are many.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Global steps and values, in ascending order of steps.
    points: Vec<(u64, f64)>,
    /// One of this many values is kept. The last one is always there, and is replaced by the next unless it is one of
    /// those.
    every: u64,
    /// The number of values so far.
    pushed: u64,
}

impl Default for Curve {
    fn default() -> Self {
        Self { points: Vec::new(), every: 1, pushed: 0 }
    }
}

impl Curve {
    /// Adds a value. One before the last step, as after a resume, is ignored; one at the same step replaces it.
    pub fn push(&mut self, step: u64, value: f64) {
        if let Some(last) = self.points.last_mut() {
            if step < last.0 {
                return;
            }
            let makes_room = !self.pushed.saturating_sub(1).is_multiple_of(self.every);
            if step == last.0 {
                last.1 = value;
                return;
            }
            if makes_room {
                *last = (step, value);
                self.pushed += 1;
                return;
            }
        }
        self.points.push((step, value));
        self.pushed += 1;
        if self.points.len() > MOST_POINTS {
            let mut index = 0;
            self.points.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.every = self.every.saturating_mul(2);
        }
    }

    /// The points that are kept: global steps and values.
    pub fn points(&self) -> &[(u64, f64)] {
        &self.points
    }

    /// One of this many values is kept: if the number has changed, all points may have.
    pub fn every(&self) -> u64 {
        self.every
    }

    /// The points from `from` on, in the script's format.
    pub fn points_from(&self, from: usize) -> Vec<(u64, Number)> {
        self.points.iter().skip(from).map(|&(step, value)| (step, Number(value))).collect()
    }
}

/// A number in the script's format: JSON cannot write NaN and the infinities, so they are strings.
#[derive(Clone, Copy, Debug)]
pub struct Number(pub f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            value if value.is_nan() => serializer.serialize_str("NaN"),
            f64::INFINITY => serializer.serialize_str("Infinity"),
            f64::NEG_INFINITY => serializer.serialize_str("-Infinity"),
            value => serializer.serialize_f64(value),
        }
    }
}

/// Curves by name; see [`MOST_CURVES`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curves {
    curves: BTreeMap<String, Curve>,
    /// The number of values of curves that were dropped.
    left_out: u64,
}

impl Curves {
    /// Adds a value to the curve of that name.
    pub fn push(&mut self, name: &str, step: u64, value: f64) {
        if let Some(curve) = self.curves.get_mut(name) {
            curve.push(step, value);
        } else if self.curves.len() < if Direction::of_metric(name).is_some() { 2 * MOST_CURVES } else { MOST_CURVES } {
            self.curves.entry(name.to_owned()).or_default().push(step, value);
        } else {
            self.left_out += 1;
        }
    }

    /// The curves, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Curve)> {
        self.curves.iter().map(|(name, curve)| (name.as_str(), curve))
    }

    /// The last value of a curve.
    pub fn last(&self, name: &str) -> Option<(u64, f64)> {
        self.curves.get(name)?.points.last().copied()
    }

    /// The number of values of curves that were dropped.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// All of them in the script's format.
    pub fn whole(&self) -> impl Serialize + '_ {
        Whole(self)
    }
}

/// A curve, or a part of it, in the script's format.
#[derive(Serialize)]
pub struct Drawn {
    /// Which way it improves, if its name tells.
    pub better: Option<Direction>,
    /// Whether it is the noisy background of other curves.
    pub faint: bool,
    /// Its chart, if its name does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chart: Option<&'static str>,
    /// Its points.
    pub points: Vec<(u64, Number)>,
}

/// The loss of single steps, a curve that only the live page has.
pub const STEP_LOSS: &str = "step_loss";

impl Drawn {
    /// The points of `curve` from `from` on.
    pub fn of(name: &str, curve: &Curve, from: usize) -> Self {
        let faint = name == STEP_LOSS;
        let better = if faint { None } else { Direction::of_metric(name) };
        Self { better, faint, chart: faint.then_some("loss"), points: curve.points_from(from) }
    }
}

struct Whole<'c>(&'c Curves);

impl Serialize for Whole<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.curves.len()))?;
        for (name, curve) in self.0.iter() {
            map.serialize_entry(name, &Drawn::of(name, curve, 0))?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_run_is_thinned_out_evenly_and_keeps_its_ends() {
        let mut curve = Curve::default();
        for step in 0..1_000_000 {
            curve.push(step, step as f64);
        }
        let points = curve.points();
        assert!((MOST_POINTS / 2..=MOST_POINTS).contains(&points.len()), "{}", points.len());
        assert_eq!((points[0], points[points.len() - 1]), ((0, 0.0), (999_999, 999_999.0)));
        let distances: Vec<u64> = points.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        let (last, even) = distances.split_last().unwrap();
        assert!(even.iter().all(|&distance| distance == curve.every()), "{even:?}");
        assert!(*last <= curve.every());
    }

    #[test]
    fn a_value_of_before_is_left_out_and_one_of_the_same_step_counts() {
        let mut curve = Curve::default();
        for (step, value) in [(10, 1.0), (20, 2.0), (20, 3.0), (15, 9.0), (30, f64::NAN)] {
            curve.push(step, value);
        }
        assert_eq!(curve.points()[..2], [(10, 1.0), (20, 3.0)]);
        assert_eq!(
            serde_json::to_string(&curve.points_from(1)).unwrap(),
            r#"[[20,3.0],[30,"NaN"]]"#,
            "JSON cannot write it"
        );
    }

    #[test]
    fn a_hundred_thousand_names_are_not_a_hundred_thousand_charts() {
        let mut curves = Curves::default();
        for index in 0..100_000 {
            curves.push(&format!("metric {index}"), 1, 1.0);
        }
        assert_eq!((curves.iter().count(), curves.left_out()), (MOST_CURVES, 100_000 - MOST_CURVES as u64));
        curves.push("val_loss", 1, 0.5);
        assert_eq!(curves.last("val_loss"), Some((1, 0.5)));
        for index in 0..100_000 {
            curves.push(&format!("val_loss_{index}"), 1, 1.0);
        }
        assert_eq!(curves.iter().count(), 2 * MOST_CURVES);
    }

    #[test]
    fn curves_know_which_way_they_improve() {
        let mut curves = Curves::default();
        for name in ["val_loss", "val_accuracy", "learning_rate", STEP_LOSS] {
            curves.push(name, 1, 0.5);
        }
        let whole = serde_json::to_value(curves.whole()).unwrap();
        let better: Vec<_> = ["val_loss", "val_accuracy", "learning_rate", STEP_LOSS]
            .into_iter()
            .map(|name| whole[name]["better"].as_str())
            .collect();
        assert_eq!(better, [Some("min"), Some("max"), None, None]);
        assert_eq!((&whole[STEP_LOSS]["faint"], &whole[STEP_LOSS]["chart"]), (&true.into(), &"loss".into()));
    }

    proptest! {
        #[test]
        fn steps_ascend_whatever_is_pushed(pushed in prop::collection::vec((0u64..9000, any::<f64>()), 0..6000)) {
            let mut curve = Curve::default();
            for &(step, value) in &pushed {
                curve.push(step, value);
            }
            prop_assert!(curve.points().windows(2).all(|pair| pair[0].0 < pair[1].0));
            prop_assert!(curve.points().len() <= MOST_POINTS);
            prop_assert_eq!(curve.points().last().map(|point| point.0), pushed.iter().map(|pushed| pushed.0).max());
        }
    }
}
