//! `gradient-stats`: the norm and the distribution of each gradient, as records for monitors (Lightning's
//! `log_grad_norm`, tensorpack's `SummaryGradient`).
//!
//! They are those of the last step before the trigger, as the optimizer used them: after clipping. They are records and not
//! metrics: rows of metrics are written before triggers come, and would have the values of the epoch before.

use plugin_api::event::Trigger;
use plugin_api::protocol::TensorSet;
use plugin_api::{Callback, Creation, Error, EventKind, Need, Result, Run, plugin};

use super::tensor_stats::{Selection, put_records};

/// Options of `gradient-stats`.
#[plugin]
pub(crate) struct Options {
    /// The parameters whose gradients are measured; `*` stands for any characters.
    include: Vec<String>,
    /// Parameters that are not measured, of those; `*` stands for any characters.
    exclude: Vec<String>,
    /// Also record the distribution of each gradient.
    histograms: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { include: vec!["*".to_owned()], exclude: Vec::new(), histograms: true }
    }
}

pub(crate) struct GradientStats {
    options: Options,
}

#[plugin]
impl Callback for GradientStats {
    const KIND: &'static str = "gradient-stats";
    const SUMMARY: &'static str = "Records the norm and the distribution of each gradient";
    const BY_DEFAULT: bool = false;
    const NEEDS: &'static [Need] = &[Need::gradients(EventKind::TRIGGER)];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        if options.include.is_empty() {
            return Err(Error::new("`include` must have at least one pattern; `*` stands for all parameters"));
        }
        Ok(Self { options })
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, _: &Trigger<'_>) -> Result<()> {
        let Options { include, exclude, histograms } = &self.options;
        let selection = Selection { include, exclude, histograms: *histograms };
        put_records(run, TensorSet::Gradients, "gradient", &selection)
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::Tensor;
    use plugin_api::protocol::RecordValue;
    use plugin_api::testing::{FakeHost, Value, json};

    use super::*;

    fn host(options: Value) -> FakeHost {
        let mut host = FakeHost::new::<GradientStats>(options).unwrap();
        for (name, values) in [("conv.weight", [3.0f32, 0.0]), ("conv.bias", [0.0, 4.0])] {
            host.put_tensor(TensorSet::Gradients, Tensor::new(name, &[2], &values).unwrap());
        }
        host.set_position(1, 10);
        host
    }

    /// The norms that were recorded, by name.
    fn norms(host: &FakeHost) -> Vec<(&str, f64)> {
        let scalar =
            |record: &RecordValue| if let RecordValue::Scalar { value } = record { Some(*value) } else { None };
        host.records().iter().filter_map(|record| Some((record.name.as_str(), scalar(&record.value)?))).collect()
    }

    #[test]
    fn each_gradient_has_a_norm_and_a_histogram() {
        let mut host = host(json!({}));
        host.trigger("epoch").unwrap();
        let of_each = [("gradient_norm/conv.weight", 3.0), ("gradient_norm/conv.bias", 4.0)];
        assert_eq!(norms(&host), [of_each[0], of_each[1], ("total_gradient_norm", 5.0)]);
        let is_histogram = |name| {
            host.records()
                .iter()
                .any(|record| record.name == name && matches!(record.value, RecordValue::Histogram { .. }))
        };
        assert!(is_histogram("gradient_histogram/conv.weight") && is_histogram("gradient_histogram/conv.bias"));
    }

    #[test]
    fn what_is_not_selected_is_not_measured() {
        let mut host = host(json!({ "include": ["conv.*"], "exclude": ["*.bias"], "histograms": false }));
        host.trigger("epoch").unwrap();
        assert_eq!(norms(&host), [("gradient_norm/conv.weight", 3.0), ("total_gradient_norm", 3.0)]);
        assert_eq!(host.records().len(), 2, "there is no histogram");
        let mut none = self::host(json!({ "include": ["fc.*"] }));
        none.trigger("epoch").unwrap();
        assert_eq!(none.records(), []);
    }

    #[test]
    fn it_measures_in_the_background_too() {
        let mut host = host(json!({})).in_background();
        host.trigger("epoch").unwrap();
        assert_eq!((host.records().len(), norms(&host).len()), (5, 3));
    }

    #[test]
    fn a_selection_of_nothing_is_refused() {
        assert!(FakeHost::new::<GradientStats>(json!({ "include": [] })).is_err());
    }
}
