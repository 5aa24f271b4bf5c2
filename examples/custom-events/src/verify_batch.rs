//! `verify-batch`: looks through the tensors of an event, whoever sends it.

use plugin_api::event::{At, Custom};
use plugin_api::protocol::TensorSet;
use plugin_api::{
    Callback, Creation, Element, Error, Need, Result, Run, TensorView, decode_state, encode_state, plugin,
};

use crate::EVENT;

/// Options of `verify-batch`.
#[plugin]
pub struct Options {
    /// The event to listen to.
    event: String,
    /// The largest magnitude that an input may have.
    #[schemars(range(min = 0.0))]
    limit: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { event: EVENT.to_owned(), limit: 1e6 }
    }
}

pub struct VerifyBatch {
    options: Options,
    /// How many batches were right, also before a resume.
    verified: u64,
}

#[plugin]
impl Callback for VerifyBatch {
    const KIND: &'static str = "verify-batch";
    const SUMMARY: &'static str = "Fails when a batch that an event carries has wrong numbers";
    const BY_DEFAULT: bool = false;
    // In the background, `custom` gets copies of the event's tensors; without this, it would get none.
    const NEEDS: &'static [Need] = &[Need::EVENT];
    const PRODUCES: &'static [&'static str] = &["verified_batches"];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        if options.limit.is_nan() || options.limit < 0.0 {
            return Err(Error::new("`limit` must be 0 or more"));
        }
        Ok(Self { options, verified: 0 })
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        self.verified = decode_state(state)?;
        Ok(())
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
        encode_state(&self.verified)
    }

    fn on_custom(&mut self, run: &mut Run<'_>, event: &Custom<'_>) -> Result<()> {
        if event.name != self.options.event {
            return Ok(());
        }
        let inputs = run.tensor(TensorSet::Event, "inputs")?;
        let inputs = run.to_host(&inputs)?;
        // Tokens are whole numbers, which cannot be wrong in this way.
        if inputs.dtype() == f32::DTYPE {
            self.verify(&inputs, event)?;
        }
        self.verified += 1;
        run.put_metric("verified_batches", self.verified as f64)
    }
}

impl VerifyBatch {
    fn verify(&self, inputs: &TensorView<'_>, event: &Custom<'_>) -> Result<()> {
        let is_wrong = |value: &f32| value.is_nan() || f64::from(value.abs()) > self.options.limit;
        let wrong = inputs.to_vec::<f32>()?.iter().filter(|value| is_wrong(value)).count();
        if wrong == 0 {
            return Ok(());
        }
        let (limit, origin) = (self.options.limit, String::from_utf8_lossy(event.payload));
        Err(Error::new(format!(
            "the batch that `{}` sent ({origin}) has {wrong} inputs that are NaN or larger than {limit}",
            event.author
        )))
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::Tensor;
    use plugin_api::testing::{FakeHost, json};

    use super::*;

    fn inputs(values: [f32; 2]) -> Vec<Tensor> {
        vec![Tensor::new("inputs", &[2], &values).unwrap()]
    }

    #[test]
    fn right_batches_are_counted_across_a_resume() {
        let mut host = FakeHost::new::<VerifyBatch>(json!({})).unwrap();
        host.custom_with("sender", EVENT, b"step 1", inputs([0.5, -2.0])).unwrap();
        host.custom_with("sender", "another", b"", Vec::new()).unwrap();
        assert_eq!(host.metric("verified_batches"), Some(1.0));
        let state = host.save_state().unwrap();

        let mut resumed = FakeHost::new::<VerifyBatch>(json!({})).unwrap().in_background();
        resumed.load_state(&state).unwrap();
        resumed.custom_with("sender", EVENT, b"step 2", inputs([0.5, 1.0])).unwrap();
        assert_eq!(resumed.metric("verified_batches"), Some(2.0));
        assert!(resumed.load_state(b"damaged").is_err());
    }

    #[test]
    fn wrong_batches_are_errors() {
        let mut host = FakeHost::new::<VerifyBatch>(json!({ "limit": 1.5 })).unwrap();
        let error = host.custom_with("sender", EVENT, b"step 1", inputs([2.0, f32::NAN])).unwrap_err();
        let told = "the batch that `sender` sent (step 1) has 2 inputs that are NaN or larger than 1.5";
        assert_eq!(error.message(), told);
        let error = host.custom_with("sender", EVENT, b"", Vec::new()).unwrap_err();
        assert!(error.message().contains("`inputs`"), "{error}");
        assert!(FakeHost::new::<VerifyBatch>(json!({ "limit": -1.0 })).is_err());
    }
}
