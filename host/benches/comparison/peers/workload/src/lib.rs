//! What a contestant that is written in Rust has in common with the others: the samples and settings of a workload, the
//! order of the samples, the clock, and the report.
//!
//! A contestant's loop is its own, as a user of its framework writes it. It takes the samples of each step from
//! [`Workload::steps`] and gives the losses back to it.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// What every contestant fails with: these are programs for one command, which shows the text.
pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The learning rate of AdamW in every workload.
pub const LEARNING_RATE: f64 = 1e-3;
/// The decoupled weight decay of AdamW in every workload.
pub const WEIGHT_DECAY: f64 = 0.01;
/// AdamW's ε, which is PyTorch's default.
pub const EPSILON: f64 = 1e-8;
/// The share of the steps at the end whose mean loss is reported: one in this many.
const JUDGED: usize = 10;

/// What is trained on, and how: what `samples.py` writes of a run file.
#[derive(Debug)]
pub struct Workload {
    /// The name of the run file.
    pub name: String,
    /// All samples.
    pub inputs: Inputs,
    /// The shape of the inputs, samples first.
    pub input_shape: Vec<usize>,
    /// A class for each sample, or for each token of each sample.
    pub targets: Vec<u32>,
    /// How many different classes, or tokens, there are.
    pub classes: usize,
    /// Samples in a step.
    pub batch_size: usize,
    epochs: usize,
    warm_up: usize,
}

/// Values of samples, one after the other.
#[derive(Debug)]
pub enum Inputs {
    /// Digits: normalized shades of gray, `[samples, 1, 8, 8]`.
    Digits(Vec<f32>),
    /// Text: tokens, `[samples, context]`.
    Tokens(Vec<u32>),
}

impl Workload {
    /// Reads the file that the program's first argument names; the second is the number of steps that the clock leaves
    /// out.
    ///
    /// # Errors
    ///
    /// When an argument is missing, or the file is not one of `samples.py`.
    pub fn from_arguments() -> Result<Self> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let [file, warm_up] = arguments.as_slice() else {
            return Err("the arguments are a file of samples.py and the number of steps that do not count".into());
        };
        Self::read(Path::new(file), warm_up.parse()?)
    }

    fn read(path: &Path, warm_up: usize) -> Result<Self> {
        let bytes = std::fs::read(path)?;
        let (_, header) = SafeTensors::read_metadata(&bytes)?;
        let settings = header.metadata().clone().ok_or("the file has no settings")?;
        let setting = |name: &str| settings.get(name).ok_or(format!("the file does not set `{name}`"));
        let arrays = SafeTensors::deserialize(&bytes)?;
        let (inputs, targets) = (arrays.tensor("inputs")?, arrays.tensor("targets")?);
        Ok(Self {
            name: setting("workload")?.clone(),
            input_shape: inputs.shape().to_vec(),
            inputs: match inputs.dtype() {
                Dtype::F32 => Inputs::Digits(values(&inputs, f32::from_le_bytes)),
                _ => Inputs::Tokens(classes(&inputs)?),
            },
            targets: classes(&targets)?,
            classes: setting("classes")?.parse()?,
            batch_size: setting("batch_size")?.parse()?,
            epochs: setting("epochs")?.parse()?,
            warm_up,
        })
    }

    /// The number of samples.
    pub fn samples(&self) -> usize {
        self.input_shape.first().copied().unwrap_or(0)
    }

    /// The shape of the targets: samples, and the targets of a sample.
    pub fn target_shape(&self) -> [usize; 2] {
        [self.samples(), self.targets.len() / self.samples().max(1)]
    }

    /// The samples of each step, in a new order in each epoch, and the clock of these steps.
    pub fn steps(&self) -> Steps<'_> {
        let order = (0..).take(self.samples()).collect();
        Steps { workload: self, order, next: 0, epoch: 0, began: None, seconds: 0.0, losses: Vec::new() }
    }
}

/// Little-endian values of four bytes.
fn values<T>(array: &TensorView<'_>, read: impl Fn([u8; 4]) -> T) -> Vec<T> {
    array.data().as_chunks().0.iter().map(|bytes| read(*bytes)).collect()
}

fn classes(array: &TensorView<'_>) -> Result<Vec<u32>> {
    match array.dtype() {
        Dtype::U32 => Ok(values(array, u32::from_le_bytes)),
        other => Err(format!("the file has classes of type {other:?}, not u32").into()),
    }
}

/// The indices of the samples of each step. The clock starts when the steps that do not count are over, and stops after
/// the last one.
#[derive(Debug)]
pub struct Steps<'a> {
    workload: &'a Workload,
    order: Vec<u32>,
    next: usize,
    epoch: usize,
    began: Option<Instant>,
    seconds: f64,
    losses: Vec<f64>,
}

impl Steps<'_> {
    /// The indices of the samples of the next step; `None` after the last step.
    pub fn next_samples(&mut self) -> Option<Vec<u32>> {
        if self.losses.len() == self.workload.warm_up {
            self.began = Some(Instant::now());
        }
        if self.next == 0 {
            if self.epoch == self.workload.epochs {
                self.seconds = self.began.map_or(0.0, |began| began.elapsed().as_secs_f64());
                return None;
            }
            self.epoch += 1;
            fastrand::shuffle(&mut self.order);
        }
        let end = self.order.len().min(self.next + self.workload.batch_size);
        let samples = self.order.get(self.next..end).map(<[u32]>::to_vec);
        self.next = if end == self.order.len() { 0 } else { end };
        samples
    }

    /// Takes the loss of a step, which ends the step.
    pub fn end_step(&mut self, loss: f64) {
        self.losses.push(loss);
    }

    /// Prints what the comparison reads, as train.py does.
    pub fn report(&self, parameters: usize) {
        let steps = self.losses.len();
        let judged = steps / JUDGED;
        let report = serde_json::json!({
            "seconds_per_step": self.seconds / steps.saturating_sub(self.workload.warm_up) as f64,
            "steps": steps,
            "parameters": parameters,
            "first_loss": self.losses.first(),
            "last_loss": self.losses.iter().rev().take(judged).sum::<f64>() / judged as f64,
        });
        println!("{report}");
    }
}
