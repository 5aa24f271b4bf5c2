//! `weight-stats`: the norm and the distribution of each parameter, and how much a step changes it, as records for
//! monitors (Keras' `TensorBoard(histogram_freq)`, tensorpack's `add_param_summary`).
//!
//! The update ratio of a parameter is the norm of what a step adds to it over its norm before the step. About 0.001 is
//! usual (the notes of Stanford's CS231n, "Ratio of weights:updates"); much more means a learning rate that is too high,
//! much less one that is too low.

use plugin_api::event::{At, Trigger};
use plugin_api::protocol::{RecordValue, TensorSet};
use plugin_api::{Callback, Creation, Error, EventKind, Need, Result, Run, plugin};

use super::tensor_stats::{Selection, put_records};
use super::values::{f32_values, is_f32, norm};

/// Options of `weight-stats`.
#[plugin]
pub(crate) struct Options {
    /// The parameters that are measured; `*` stands for any characters.
    include: Vec<String>,
    /// Parameters that are not measured, of those; `*` stands for any characters.
    exclude: Vec<String>,
    /// Also record the distribution of each parameter.
    histograms: bool,
    /// The number of steps between two update ratios, each of which copies the parameters before the step; 0 for none.
    every_steps: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { include: vec!["*".to_owned()], exclude: Vec::new(), histograms: true, every_steps: 100 }
    }
}

pub(crate) struct WeightStats {
    options: Options,
    /// The selected parameters before the step in progress, if its update is measured.
    before: Vec<(String, Vec<f32>)>,
}

#[plugin]
impl Callback for WeightStats {
    const KIND: &'static str = "weight-stats";
    const SUMMARY: &'static str = "Records the norm, the distribution and the update ratio of each parameter";
    const BY_DEFAULT: bool = false;
    const NEEDS: &'static [Need] = &[
        Need::parameters(EventKind::STEP_START),
        Need::parameters(EventKind::STEP_END),
        Need::parameters(EventKind::TRIGGER),
    ];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        if options.include.is_empty() {
            return Err(Error::new("`include` must have at least one pattern; `*` stands for all parameters"));
        }
        Ok(Self { options, before: Vec::new() })
    }

    fn on_step_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.before.clear();
        let every = self.options.every_steps;
        if every == 0 || !event.global_step.is_multiple_of(every) {
            return Ok(());
        }
        for view in run.tensors(TensorSet::Parameters)?.iter().filter(|view| is_f32(view)) {
            if monitor::selected(&self.options.include, &self.options.exclude, view.name()) {
                self.before.push((view.name().to_owned(), f32_values(run, view)?.into_owned()));
            }
        }
        Ok(())
    }

    fn on_step_end(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        for (name, before) in std::mem::take(&mut self.before) {
            let view = run.tensor(TensorSet::Parameters, &name)?;
            let after = f32_values(run, &view)?;
            let change: Vec<f32> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
            let norm_before = norm(&before);
            // Parameters that begin as zero have no ratio.
            if norm_before != 0.0 {
                let value = norm(&change) / norm_before;
                run.put_record(&format!("update_ratio/{name}"), RecordValue::Scalar { value })?;
            }
        }
        Ok(())
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, _: &Trigger<'_>) -> Result<()> {
        let Options { include, exclude, histograms, .. } = &self.options;
        let selection = Selection { include, exclude, histograms: *histograms };
        put_records(run, TensorSet::Parameters, "weight", &selection)
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::Tensor;
    use plugin_api::testing::{FakeHost, Value, json};

    use super::*;

    fn put(host: &mut FakeHost, weight: [f32; 2], bias: [f32; 2]) {
        for (name, values) in [("fc.weight", weight), ("fc.bias", bias)] {
            host.put_tensor(TensorSet::Parameters, Tensor::new(name, &[2], &values).unwrap());
        }
    }

    fn host(options: Value) -> FakeHost {
        let mut host = FakeHost::new::<WeightStats>(options).unwrap();
        put(&mut host, [3.0, 4.0], [0.0, 0.0]);
        host
    }

    /// A step that changes the weights.
    fn step(host: &mut FakeHost, step: u64, weight: [f32; 2], bias: [f32; 2]) {
        host.step_start(step).unwrap();
        put(host, weight, bias);
        host.step_end(step).unwrap();
    }

    fn scalars(host: &FakeHost) -> Vec<(&str, f64)> {
        let scalar = |value: &RecordValue| if let RecordValue::Scalar { value } = value { Some(*value) } else { None };
        host.records().iter().filter_map(|record| Some((record.name.as_str(), scalar(&record.value)?))).collect()
    }

    #[test]
    fn each_parameter_has_a_norm_and_a_histogram() {
        let mut host = host(json!({}));
        put(&mut host, [3.0, 4.0], [0.0, 12.0]);
        host.trigger("epoch").unwrap();
        let of_each = [("weight_norm/fc.weight", 5.0), ("weight_norm/fc.bias", 12.0)];
        assert_eq!(scalars(&host), [of_each[0], of_each[1], ("total_weight_norm", 13.0)]);
        assert_eq!(host.records().len(), 5);
    }

    #[test]
    fn the_update_ratio_is_of_one_step() {
        let mut host = host(json!({ "every_steps": 2, "exclude": [] }));
        step(&mut host, 1, [30.0, 40.0], [1.0, 0.0]);
        assert_eq!(scalars(&host), []);
        step(&mut host, 2, [30.0, 45.0], [1.0, 0.5]);
        assert_eq!(scalars(&host), [("update_ratio/fc.weight", 0.1), ("update_ratio/fc.bias", 0.5)]);
        step(&mut host, 3, [0.0, 0.0], [0.0, 0.0]);
        step(&mut host, 4, [1.0, 1.0], [1.0, 1.0]);
        assert_eq!(scalars(&host).len(), 2, "nothing is a ratio to zero");
    }

    #[test]
    fn what_is_not_selected_is_not_measured() {
        let mut host = host(json!({ "every_steps": 1, "exclude": ["*.weight"], "histograms": false }));
        put(&mut host, [3.0, 4.0], [2.0, 0.0]);
        step(&mut host, 1, [3.0, 4.0], [3.0, 0.0]);
        host.trigger("epoch").unwrap();
        let expected = [("update_ratio/fc.bias", 0.5), ("weight_norm/fc.bias", 3.0), ("total_weight_norm", 3.0)];
        assert_eq!(scalars(&host), expected);
    }

    #[test]
    fn no_ratio_is_measured_where_none_is_wanted() {
        let mut host = host(json!({ "every_steps": 0 }));
        step(&mut host, 100, [1.0, 1.0], [1.0, 1.0]);
        assert_eq!(scalars(&host), []);
    }

    #[test]
    fn a_selection_of_nothing_is_refused() {
        assert!(FakeHost::new::<WeightStats>(json!({ "include": [] })).is_err());
    }
}
