//! Constants that are computed from weights when a program is written.

use std::borrow::Cow;
use std::sync::Arc;

use export::Weights;
use plugin_api::graph::Node;
use plugin_api::{Error, Result};

use crate::layout::element_order;
use crate::program::Recipe;

/// The f32 elements of a weight that must be `count`.
pub(super) fn read<'w>(weights: &Weights<'w>, name: &str, count: usize) -> Result<&'w [f32]> {
    let values = weights.f32(name)?;
    if values.len() != count {
        return Err(Error::new(format!("`{name}` has {} numbers, but the graph says {count}", values.len())));
    }
    Ok(values)
}

/// The name of a node's tensor, which another node may have, too.
pub(super) fn named(node: &Node, tensor: &str) -> String {
    node.tensor(tensor).map_or_else(|| format!("{}.{tensor}", node.name), |spec| spec.name.clone())
}

/// The factor and the offset of a batch norm, by channel.
#[derive(Clone)]
pub(super) struct Norm {
    /// The names of its tensors.
    weight: String,
    bias: String,
    mean: String,
    variance: String,
    channels: usize,
    eps: f64,
}

impl Norm {
    pub(super) fn new(node: &Node, channels: i64, eps: f64) -> Norm {
        let [weight, bias, mean, variance] =
            ["weight", "bias", "running_mean", "running_var"].map(|tensor| named(node, tensor));
        Norm { weight, bias, mean, variance, channels: channels as usize, eps }
    }

    pub(super) fn scale(&self, weights: &Weights<'_>) -> Result<Vec<f64>> {
        let read = |tensor: &str| read(weights, tensor, self.channels);
        let pairs = read(&self.weight)?.iter().zip(read(&self.variance)?);
        Ok(pairs.map(|(weight, variance)| f64::from(*weight) / (f64::from(*variance) + self.eps).sqrt()).collect())
    }

    /// The offset, including the `bias` of the layer before.
    pub(super) fn shift(&self, weights: &Weights<'_>, bias: Option<&[f32]>) -> Result<Vec<f32>> {
        let read = |tensor: &str| read(weights, tensor, self.channels);
        let (scale, mean, shift) = (self.scale(weights)?, read(&self.mean)?, read(&self.bias)?);
        let before = |channel: usize| bias.and_then(|bias| bias.get(channel)).copied().unwrap_or(0.0);
        let channels = scale.iter().zip(mean).zip(shift).enumerate();
        Ok(channels
            .map(|(channel, ((scale, mean), shift))| {
                (f64::from(*shift) + scale * (f64::from(before(channel)) - f64::from(*mean))) as f32
            })
            .collect())
    }
}

/// A weight, unchanged.
pub(super) fn whole(name: String, count: i64) -> Recipe {
    Arc::new(move |weights| Ok(Cow::Borrowed(read(weights, &name, count as usize)?)))
}

/// Rows `first..first + rows` of a weight of `columns` columns and `all` rows, times a factor.
pub(super) fn rows(name: String, [all, columns]: [i64; 2], first: i64, rows: i64, factor: f32) -> Recipe {
    Arc::new(move |weights| {
        let values = read(weights, &name, (all * columns) as usize)?;
        let values = &values[(first * columns) as usize..((first + rows) * columns) as usize];
        Ok(if factor == 1.0 {
            Cow::Borrowed(values)
        } else {
            Cow::Owned(values.iter().map(|value| value * factor).collect())
        })
    })
}

/// The rows of a weight of `columns` columns and `all` rows at these indices, which it has.
pub(super) fn chosen(name: String, [all, columns]: [i64; 2], indices: Vec<i64>) -> Recipe {
    Arc::new(move |weights| {
        let values = read(weights, &name, (all * columns) as usize)?;
        let row = |index: &i64| &values[(index * columns) as usize..((index + 1) * columns) as usize];
        Ok(Cow::Owned(indices.iter().flat_map(row).copied().collect()))
    })
}

/// A constant with its dimensions in another order.
pub(crate) fn permuted(constant: Recipe, shape: Vec<i64>, order: Vec<usize>) -> Recipe {
    let places = element_order(&shape, &order);
    Arc::new(move |weights| {
        let values = constant(weights)?;
        if values.len() != places.len() {
            return Err(Error::new(format!("a constant has {} numbers, not {}", values.len(), places.len())));
        }
        Ok(Cow::Owned(places.iter().map(|place| values[*place]).collect()))
    })
}

/// A weight of `shape` with its dimensions in `order`; its outputs, the dimension `output`, are scaled by a following
/// batch norm.
pub(super) fn reordered(name: String, shape: Vec<i64>, order: Vec<usize>, norm: Option<Norm>) -> Recipe {
    let is_plain = order.is_sorted();
    Arc::new(move |weights| {
        let count = shape.iter().product::<i64>() as usize;
        let values = read(weights, &name, count)?;
        if is_plain && norm.is_none() {
            return Ok(Cow::Borrowed(values));
        }
        let places = element_order(&shape, &order);
        let Some(norm) = &norm else {
            return Ok(Cow::Owned(places.into_iter().map(|place| values[place]).collect()));
        };
        let (scale, stride) = (norm.scale(weights)?, count / shape.first().map_or(1, |outputs| *outputs as usize));
        let scaled = |place: usize| (f64::from(values[place]) * scale[place / stride]) as f32;
        Ok(Cow::Owned(places.into_iter().map(scaled).collect()))
    })
}

/// The bias of a layer, with a following batch norm; `None` if there is neither.
pub(super) fn bias(name: Option<String>, count: i64, norm: Option<Norm>) -> Option<Recipe> {
    if name.is_none() && norm.is_none() {
        return None;
    }
    Some(Arc::new(move |weights| {
        let bias = name.as_ref().map(|name| read(weights, name, count as usize)).transpose()?;
        match &norm {
            Some(norm) => Ok(Cow::Owned(norm.shift(weights, bias)?)),
            None => Ok(Cow::Borrowed(bias.unwrap_or_default())),
        }
    }))
}
