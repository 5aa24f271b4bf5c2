//! `predict --prompt`: a text is continued, token by token.

use plugin_api::event::Outcome;
use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};
use serde_json::json;
use tch::{Kind, Tensor};

use super::super::handle::Link;
use super::super::log::Verbosity;
use super::super::results::PREDICTIONS;
use super::outputs::{self, Work, refuse_existing};
use super::plan::{CheckpointPlan, DataChoice};
use super::predict::Continuation;
use super::session::{self, Prepared, make_folder};
use super::{CheckpointJobOutcome, CheckpointRequest};
use crate::data::Samples;
use crate::report::{Problem, Problems};
use crate::services::Screen as _;
use crate::torch::TorchError;
use crate::train::{Session, TrainError};

/// The file of the text.
const FILE: &str = "text.txt";

const WORK: Work = Work { job: "predict", verb: "predicting", unit: "token" };

pub(super) fn continue_text(
    job: &CheckpointRequest,
    continuation: &Continuation,
    verbosity: Verbosity,
    link: &Link,
) -> Result<CheckpointJobOutcome, Problems> {
    let console = session::console(verbosity);
    if !(continuation.temperature >= 0.0 && continuation.temperature.is_finite()) {
        let message = format!("a temperature of {} makes no sense", continuation.temperature);
        return Err(Problem::new(message)
            .with_hint("0 takes the likeliest token, 1 draws by probability".to_owned())
            .into());
    }
    let plan = CheckpointPlan::make(job, &DataChoice::None)?;
    let samples = plan.description.samples.clone();
    if !matches!(samples, Samples::Characters { .. } | Samples::Bytes) {
        return Err(Problem::new("this model takes no text, so it cannot continue one")
            .with_hint("give it data: `--data PATH`".to_owned())
            .into());
    }
    let prompt = samples
        .encode(continuation.prompt.as_bytes())
        .map_err(|problem| Problem::new(format!("the prompt {problem}")))?;
    if prompt.is_empty() {
        return Err(Problem::new("the prompt is empty")
            .with_hint("begin the text: `--prompt 'To be'`".to_owned())
            .into());
    }
    let context = usize::try_from(plan.description.sample_shape.iter().product::<i64>()).unwrap_or(1).max(1);
    let seed = continuation.seed.unwrap_or(plan.run_file.run.seed);
    let folder = outputs::folder(job.out.as_deref(), &plan.located, PREDICTIONS);
    let path = folder.join(FILE);
    refuse_existing(std::slice::from_ref(&path), job.force)?;
    make_folder(&folder)?;
    let checkpoint = plan.located.path.display().to_string();

    let mut prepared = Prepared::new(plan, &folder, &console, link, WORK)?;
    let mut tokens = prompt;
    let mut generator = Pcg64::seed_from_u64(seed);
    let outcome = prepared.run(|trainer| {
        trainer.infer_once(continuation.tokens, &mut |session| {
            let next = next_token(session, &tokens, context, continuation.temperature, &mut generator)?;
            tokens.push(next);
            Ok(())
        })
    });
    drop(prepared);
    if outcome != Outcome::Finished {
        return Ok(CheckpointJobOutcome { outcome, folder, files: Vec::new(), result: json!({}) });
    }
    let text = samples.decode(&tokens);
    session::write(&path, text.as_bytes())?;
    console.line(&format!("{} tokens: {}", continuation.tokens, path.display()));
    let result = json!({ "checkpoint": checkpoint, "text": text, "file": path.display().to_string() });
    Ok(CheckpointJobOutcome { outcome, folder, files: vec![path], result })
}

/// The token after `tokens`, of which the model sees the last `context`. A shorter text is filled at its end, which the
/// position that is read does not see if the model is causal.
fn next_token(
    session: &Session,
    tokens: &[u32],
    context: usize,
    temperature: f64,
    generator: &mut Pcg64,
) -> Result<u32, TrainError> {
    let seen = &tokens[tokens.len().saturating_sub(context)..];
    let mut inputs: Vec<i64> = seen.iter().copied().map(i64::from).collect();
    let last = inputs.len() - 1;
    inputs.resize(context, 0);
    let inputs = Tensor::f_from_slice(&inputs)?.f_reshape([1, context as i64])?;
    let outputs = session.infer(&inputs)?;
    let scores = outputs.f_get(0)?.f_get(last as i64)?.f_to_kind(Kind::Double)?.f_to_device(tch::Device::Cpu)?;
    let scores = Vec::<f64>::try_from(scores).map_err(TorchError::from)?;
    Ok(choose(&scores, temperature, generator))
}

/// Draws a token by the softmax of its scores over the temperature; the likeliest one at 0.
fn choose(scores: &[f64], temperature: f64, generator: &mut Pcg64) -> u32 {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if temperature == 0.0 {
        let index = scores.iter().position(|score| *score == largest).unwrap_or(0);
        return u32::try_from(index).unwrap_or(0);
    }
    let weights: Vec<f64> = scores.iter().map(|score| ((score - largest) / temperature).exp()).collect();
    // 53 bits, as many as a number from 0 to 1 holds.
    let drawn = (generator.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * weights.iter().sum::<f64>();
    let mut sum = 0.0;
    let index = weights.iter().position(|weight| {
        sum += weight;
        drawn < sum
    });
    u32::try_from(index.unwrap_or(scores.len().saturating_sub(1))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_drawn_by_their_probabilities() {
        let mut generator = Pcg64::seed_from_u64(1);
        let scores = [0.0, 3f64.ln(), f64::NEG_INFINITY];
        let mut counts = [0; 3];
        for _ in 0..4000 {
            counts[choose(&scores, 1.0, &mut generator) as usize] += 1;
        }
        assert!(counts[2] == 0 && (2900..3100).contains(&counts[1]), "{counts:?}");
        assert_eq!(choose(&scores, 0.0, &mut generator), 1);
    }
}
