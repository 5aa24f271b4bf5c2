//! `weight-watch`: after each epoch, records how large each weight is, for the monitors, and puts the
//! largest as a metric, which other callbacks and the run's conditions can use. It logs a norm that
//! jumps, and can answer it with a smaller learning rate.

use std::collections::BTreeMap;

use plugin_api::event::{At, Trigger};
use plugin_api::protocol::{RecordValue, TensorSet};
use plugin_api::{decode_state, encode_state, plugin, Callback, Creation, Error, EventKind, Kind, Need, Result, Run};

/// Options of `weight-watch`.
#[plugin]
struct Options {
    /// A norm that grows by more than this factor between two checks is a jump.
    #[schemars(range(min = 1.0))]
    jump: f64,
    /// The factor of the learning rate after a jump; 1 keeps it.
    #[schemars(range(min = 0.0, max = 1.0))]
    slow_down: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { jump: 2.0, slow_down: 1.0 }
    }
}

struct WeightWatch {
    options: Options,
    /// The norms of the last check, by the parameters' names.
    norms: BTreeMap<String, f64>,
}

#[plugin]
impl Callback for WeightWatch {
    const KIND: &'static str = "weight-watch";
    const SUMMARY: &'static str = "Records the norms of the weights, and logs when one jumps";
    const NEEDS: &'static [Need] = &[Need::parameters(EventKind::TRIGGER)];
    const PRODUCES: &'static [&'static str] = &["weight_norm"];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        if options.jump <= 1.0 || options.slow_down <= 0.0 || options.slow_down > 1.0 {
            return Err(Error::new("`jump` must be more than 1, and `slow_down` from 0 to 1"));
        }
        Ok(Self { options, norms: BTreeMap::new() })
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        self.norms = decode_state(state)?;
        Ok(())
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
        encode_state(&self.norms)
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        let norms = norms(run)?;
        for (name, &norm) in &norms {
            run.put_record(&format!("weight_norm/{name}"), RecordValue::Scalar { value: norm })?;
            let before = self.norms.get(name).copied().unwrap_or(norm);
            if norm > before * self.options.jump {
                let line = format!("epoch {}: the norm of {name} jumped from {before:.3} to {norm:.3}", event.epoch);
                run.console_line(&line)?;
                self.slow_down(run)?;
            }
        }
        run.put_metric("weight_norm", norms.values().copied().fold(0.0, f64::max))?;
        self.norms = norms;
        Ok(())
    }
}

impl WeightWatch {
    fn slow_down(&self, run: &mut Run<'_>) -> Result<()> {
        if self.options.slow_down == 1.0 {
            return Ok(());
        }
        for group in run.hyper_parameters()? {
            if let Some(rate) = group.values.get("learning_rate") {
                let rate = rate * self.options.slow_down;
                run.set_hyper_parameter(Some(&group.name), "learning_rate", rate)?;
            }
        }
        Ok(())
    }
}

/// The L2 norm of each parameter. The views are borrowed: nothing is copied if the model is on the CPU.
fn norms(run: &Run<'_>) -> Result<BTreeMap<String, f64>> {
    let mut norms = BTreeMap::new();
    for view in run.tensors(TensorSet::Parameters)? {
        let squares: f64 = run.to_host(&view)?.as_slice::<f32>()?.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        norms.insert(view.name().to_owned(), squares.sqrt());
    }
    Ok(norms)
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<WeightWatch>()];

#[cfg(test)]
mod tests {
    use plugin_api::testing::{json, FakeHost};
    use plugin_api::Tensor;

    use super::*;

    fn with_weight(host: &mut FakeHost, values: [f32; 2]) {
        host.put_tensor(TensorSet::Parameters, Tensor::new("linear.weight", &[2], &values).unwrap());
    }

    #[test]
    fn norms_are_recorded_and_a_jump_slows_the_run_down() {
        let mut host = FakeHost::new::<WeightWatch>(json!({ "slow_down": 0.5 })).unwrap();
        host.put_hyper_parameter("default", "learning_rate", 0.1);
        with_weight(&mut host, [3.0, 4.0]);

        host.trigger("epoch").unwrap();
        assert_eq!(host.metric("weight_norm"), Some(5.0));
        assert_eq!(host.records()[0].name, "weight_norm/linear.weight");
        assert_eq!(host.hyper_parameter("learning_rate"), Some(0.1));

        with_weight(&mut host, [30.0, 40.0]);
        host.set_position(2, 20);
        host.trigger("epoch").unwrap();
        assert_eq!(host.lines()[0], "epoch 2: the norm of linear.weight jumped from 5.000 to 50.000");
        assert_eq!(host.hyper_parameter("learning_rate"), Some(0.05));
    }

    #[test]
    fn a_resumed_run_remembers_the_norms() {
        let mut host = FakeHost::new::<WeightWatch>(json!({})).unwrap();
        with_weight(&mut host, [3.0, 4.0]);
        host.trigger("epoch").unwrap();
        let state = host.save_state().unwrap();

        let mut resumed = FakeHost::new::<WeightWatch>(json!({})).unwrap();
        resumed.load_state(&state).unwrap();
        with_weight(&mut resumed, [30.0, 40.0]);
        resumed.trigger("epoch").unwrap();
        assert_eq!(resumed.lines().len(), 1);
        assert!(resumed.load_state(b"damaged").is_err());
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        assert!(FakeHost::new::<WeightWatch>(json!({ "jump": 0.5 })).is_err());
        assert!(FakeHost::new::<WeightWatch>(json!({ "slow_down": 0 })).is_err());
    }
}
