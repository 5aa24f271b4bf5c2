//! What the simulated run's model computes, in plain memory: exporters compare what they wrote with it.

use super::tensors::Values;
use super::world::World;
use crate::model::Op;
use crate::services::ServiceError;

/// The value of each node for a batch of samples, in evaluation mode, in the graph's order.
///
/// # Errors
///
/// An operator that the model does not have.
pub(super) fn forward(world: &World, inputs: &Values) -> Result<Vec<Values>, ServiceError> {
    let samples = inputs.shape[0];
    let mut values: Vec<Values> = Vec::new();
    for node in world.graph.nodes() {
        let read = node.inputs.first().and_then(|name| values.iter().find(|value| value.name == *name));
        let read = read.unwrap_or(inputs);
        let tensor = |tensor: &str| {
            let name = format!("{}.{tensor}", node.name);
            let all = world.weights.parameters.iter().chain(&world.weights.buffers);
            all.clone().find(|tensor| tensor.name == name).map(Values::floats).unwrap_or_default()
        };
        let x = read.floats();
        let shape: Vec<i64> = std::iter::once(samples).chain(node.shape.iter().copied()).collect();
        let each = node.shape.iter().product::<i64>().unsigned_abs() as usize;
        let read_each = x.len() / samples.unsigned_abs().max(1) as usize;
        let computed: Box<dyn Fn(usize) -> f32 + '_> = match &node.op {
            Op::Conv2d { in_channels, kernel_size, padding, .. } => {
                let (weight, bias) = (tensor("weight"), tensor("bias"));
                let (kernel, padding, channels) =
                    (kernel_size.map(usize_of), padding.map(usize_of), usize_of(*in_channels));
                let [height, width] = [usize_of(node.shape[1]), usize_of(node.shape[2])];
                // The padding keeps height and width.
                Box::new(move |index| {
                    let (sample, element) = (index / each, index % each);
                    let (out, row, column) = (element / (height * width), element / width % height, element % width);
                    let mut sum = bias.get(out).copied().unwrap_or_default();
                    for (channel, i, j) in places(channels, kernel) {
                        let (y, x_) = ((row + i).wrapping_sub(padding[0]), (column + j).wrapping_sub(padding[1]));
                        if y < height && x_ < width {
                            let at = ((out * channels + channel) * kernel[0] + i) * kernel[1] + j;
                            sum += weight[at] * x[sample * read_each + (channel * height + y) * width + x_];
                        }
                    }
                    sum
                })
            }
            Op::BatchNorm { eps, .. } => {
                let (weight, bias) = (tensor("weight"), tensor("bias"));
                let (mean, variance) = (tensor("running_mean"), tensor("running_var"));
                let (eps, inside) = (*eps as f32, each / weight.len().max(1));
                Box::new(move |index| {
                    let channel = index % each / inside;
                    (x[index] - mean[channel]) / (variance[channel] + eps).sqrt() * weight[channel] + bias[channel]
                })
            }
            Op::Relu => Box::new(move |index| x[index].max(0.0)),
            Op::Flatten => Box::new(move |index| x[index]),
            Op::Linear { in_features, .. } => {
                let (weight, bias, features) = (tensor("weight"), tensor("bias"), usize_of(*in_features));
                Box::new(move |index| {
                    let (sample, out) = (index / each, index % each);
                    let row = &weight[out * features..][..features];
                    let products = row.iter().zip(&x[sample * features..]).map(|(weight, x)| weight * x);
                    products.sum::<f32>() + bias.get(out).copied().unwrap_or_default()
                })
            }
            other => return Err(ServiceError::Failed(format!("the simulated model has no `{}`", other.name()))),
        };
        let value = Values::f32(&node.name, shape, computed);
        values.push(value);
    }
    Ok(values)
}

/// Every element of a kernel, with its channel.
fn places(channels: usize, [height, width]: [usize; 2]) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..channels * height * width).map(move |at| (at / (height * width), at / width % height, at % width))
}

fn usize_of(length: i64) -> usize {
    length.unsigned_abs() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::author::check::world::Task;

    #[test]
    fn a_model_of_equal_weights_computes_sums() {
        let folder = tempfile::tempdir().unwrap();
        let mut world = World::new(folder.path(), Task::Classes).unwrap();
        // The norm passes on what it reads: mean 0 and variance 1, scale 1 and shift 0, nearly.
        for tensor in world.weights.parameters.iter_mut().chain(&mut world.weights.buffers) {
            let value = match tensor.name.as_str() {
                "bn1.running_mean" | "bn1.bias" => 0.0,
                "bn1.running_var" | "bn1.weight" => 1.0,
                _ => continue,
            };
            *tensor = Values::f32(tensor.name.clone(), tensor.shape.clone(), |_| value);
        }
        let ones = Values::f32("inputs", vec![1, 1, 4, 4], |_| 1.0);
        let values = forward(&world, &ones).unwrap();
        // Nine weights of 0.1 and a bias of 0.1; in a corner, four.
        let conv = values[0].floats();
        assert!((conv[5] - 1.0).abs() < 1e-5 && (conv[0] - 0.5).abs() < 1e-5, "{conv:?}");
        // In each of two channels 4 corners of 0.5, 8 edges of 0.7, and 4 of 1: 11.6 each.
        let output = values[values.len() - 1].floats();
        assert_eq!(values[values.len() - 1].shape, [1, 3]);
        assert!((output[0] - (2.0 * 11.6 * 0.1 + 0.1)).abs() < 1e-3, "{output:?}");
    }
}
