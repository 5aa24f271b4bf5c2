//! An average of the model's weights over the training, in f32, in the callback's own memory.

use plugin_api::protocol::{Blob, CopyAction, TensorSet};
use plugin_api::{Error, ErrorKind, Result, Run, Tensor};
use serde::{Deserialize, Serialize};

use super::values::{f32_values, is_f32};

/// The averaged tensors, in the model's order.
pub(crate) struct Average {
    tensors: Vec<Averaged>,
    /// Whether floating-point buffers are averaged, too; integer ones never are.
    buffers: bool,
}

struct Averaged {
    set: TensorSet,
    name: String,
    shape: Vec<i64>,
    values: Vec<f32>,
}

/// A tensor of an average in a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Saved {
    name: String,
    /// Its elements as little-endian f32.
    values: Blob,
}

impl Average {
    /// An average that begins as the present weights.
    ///
    /// # Errors
    ///
    /// A parameter that does not hold f32.
    pub(crate) fn begin(run: &Run<'_>, buffers: bool) -> Result<Self> {
        let mut average = Self { tensors: Vec::new(), buffers };
        for set in average.sets() {
            for view in run.tensors(set.clone())? {
                if !is_f32(&view) {
                    if set == TensorSet::Buffers {
                        continue;
                    }
                    let (name, held) = (view.name(), view.dtype().name());
                    return Err(Error::new(format!("only f32 weights can be averaged, but `{name}` holds `{held}`")));
                }
                let values = f32_values(run, &view)?.into_owned();
                let (name, shape) = (view.name().to_owned(), view.shape().to_vec());
                average.tensors.push(Averaged { set: set.clone(), name, shape, values });
            }
        }
        Ok(average)
    }

    /// Moves each value by `share` of its distance toward the present weights.
    ///
    /// # Errors
    ///
    /// A model whose tensors are no longer those of the beginning.
    pub(crate) fn move_toward_weights(&mut self, run: &Run<'_>, share: f64) -> Result<()> {
        let share = share as f32;
        let mut averaged = self.tensors.iter_mut();
        for set in sets(self.buffers) {
            for view in run.tensors(set.clone())?.iter().filter(|view| is_f32(view)) {
                let own = averaged.next().filter(|own| own.name == view.name() && own.set == set);
                let present = f32_values(run, view)?;
                let own = own.filter(|own| own.values.len() == present.len()).ok_or_else(|| {
                    Error::new(format!("the model's tensor `{}` was not there when the average began", view.name()))
                })?;
                for (average, present) in own.values.iter_mut().zip(present.iter()) {
                    *average += share * (present - *average);
                }
            }
        }
        Ok(())
    }

    /// What a checkpoint holds.
    pub(crate) fn save(&self) -> Vec<Saved> {
        let bytes = |values: &[f32]| Blob(values.iter().flat_map(|value| value.to_le_bytes()).collect());
        self.tensors.iter().map(|own| Saved { name: own.name.clone(), values: bytes(&own.values) }).collect()
    }

    /// Takes the values of a checkpoint. Tensors that it does not have (buffers that were not averaged before) keep those
    /// of the model.
    ///
    /// # Errors
    ///
    /// A tensor of another size.
    pub(crate) fn load(&mut self, saved: &[Saved]) -> Result<()> {
        for Saved { name, values: Blob(bytes) } in saved {
            let Some(own) = self.tensors.iter_mut().find(|own| own.name == *name) else { continue };
            let (numbers, rest) = bytes.as_chunks::<4>();
            if numbers.len() != own.values.len() || !rest.is_empty() {
                return Err(Error::new(format!(
                    "the checkpoint's average of `{name}` has {} bytes, but the model's tensor has {} numbers of 4 bytes; \
                     resume with the model that the checkpoint was taken of",
                    bytes.len(),
                    own.values.len()
                )));
            }
            own.values = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        }
        Ok(())
    }

    /// Writes the average into the model.
    ///
    /// # Errors
    ///
    /// A hook in which weights cannot be written.
    pub(crate) fn write_to_model(&self, run: &mut Run<'_>) -> Result<()> {
        for set in self.sets() {
            let tensors = self.tensors.iter().filter(|own| own.set == set).map(Averaged::tensor);
            let tensors = tensors.collect::<Result<Vec<_>>>()?;
            run.write(set, &views(&tensors))?;
        }
        Ok(())
    }

    /// Makes the average the weights that the run ends with. They come from `copy`, a copy of the weights of an earlier
    /// step: the host then knows that they are not those of the last step, and keeps these beside them in checkpoints,
    /// from which a resumed run goes on. What is not averaged is as the model has it.
    ///
    /// # Errors
    ///
    /// A hook in which weights cannot be written.
    pub(crate) fn end_with(&self, run: &mut Run<'_>, copy: &str) -> Result<()> {
        let set = TensorSet::Copy(copy.to_owned());
        match run.list(set.clone()) {
            Err(error) if error.kind() == ErrorKind::NoSuchName => run.copy_weights(copy, CopyAction::Take)?,
            listed => drop(listed?),
        }
        let mut tensors = Vec::new();
        for view in run.tensors(TensorSet::Buffers)? {
            let view = if view.device().is_cpu() { view } else { run.to_host(&view)? };
            tensors.push(view.to_owned()?);
        }
        tensors.retain(|buffer| !self.tensors.iter().any(|own| own.name == buffer.name()));
        for own in &self.tensors {
            tensors.push(own.tensor()?);
        }
        run.write(set, &views(&tensors))?;
        run.copy_weights(copy, CopyAction::Restore)
    }

    fn sets(&self) -> impl Iterator<Item = TensorSet> + use<> {
        sets(self.buffers)
    }
}

impl Averaged {
    fn tensor(&self) -> Result<Tensor> {
        Tensor::new(self.name.as_str(), &self.shape, &self.values)
    }
}

fn sets(buffers: bool) -> impl Iterator<Item = TensorSet> {
    std::iter::once(TensorSet::Parameters).chain(buffers.then_some(TensorSet::Buffers))
}

fn views(tensors: &[Tensor]) -> Vec<plugin_api::TensorView<'_>> {
    tensors.iter().map(Tensor::view).collect()
}
