//! The normalization of the data, when it is part of a file.

use plugin_api::protocol::DataInfo;
use plugin_api::{Result, Tensor};

/// `(x - offset) / scale`, with one pair for each index of a sample's first dimension.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalization {
    /// The numbers to subtract.
    pub offset: Vec<f32>,
    /// The numbers to divide by.
    pub scale: Vec<f32>,
}

impl Normalization {
    /// That of the data; `None` if they are not normalized.
    pub fn of(data: &DataInfo) -> Option<Normalization> {
        let is_there = !data.offset.is_empty() && data.offset.len() == data.scale.len();
        is_there.then(|| Normalization { offset: data.offset.clone(), scale: data.scale.clone() })
    }

    /// Samples before it: those that are `inputs` after it, up to rounding.
    ///
    /// # Errors
    ///
    /// `inputs` are not f32.
    pub fn undone(&self, inputs: &Tensor) -> Result<Tensor> {
        self.each(inputs, |value, offset, scale| value * scale + offset)
    }

    /// Samples after it, computed as the host does.
    ///
    /// # Errors
    ///
    /// `inputs` are not f32.
    pub fn applied(&self, inputs: &Tensor) -> Result<Tensor> {
        self.each(inputs, |value, offset, scale| (value - offset) / scale)
    }

    fn each(&self, inputs: &Tensor, change: impl Fn(f32, f32, f32) -> f32) -> Result<Tensor> {
        let view = inputs.view();
        let mut values = view.to_vec::<f32>()?;
        let groups = self.offset.len();
        let rows = view.shape().first().map_or(1, |rows| *rows as usize);
        let length = (values.len() / (rows * groups).max(1)).max(1);
        for (group, values) in values.chunks_mut(length).enumerate() {
            let (offset, scale) = (self.offset[group % groups], self.scale[group % groups]);
            values.iter_mut().for_each(|value| *value = change(*value, offset, scale));
        }
        Tensor::new(view.name(), view.shape(), &values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_channel_has_its_own_pair() {
        let normalization = Normalization { offset: vec![1.0, 10.0], scale: vec![2.0, 4.0] };
        let stored = Tensor::new("inputs", &[2, 2, 2], &[1.0f32, 3.0, 10.0, 18.0, 5.0, 7.0, 14.0, 6.0]).unwrap();
        let normalized = normalization.applied(&stored).unwrap();
        assert_eq!(normalized.view().to_vec::<f32>().unwrap(), [0.0, 1.0, 0.0, 2.0, 2.0, 3.0, 1.0, -1.0]);
        let undone = normalization.undone(&normalized).unwrap();
        assert_eq!(undone.view().to_vec::<f32>().unwrap(), stored.view().to_vec::<f32>().unwrap());
        assert_eq!(Normalization::of(&DataInfo::default()), None);
    }
}
