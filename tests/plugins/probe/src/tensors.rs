//! Tensor functions of several kinds.

use plugin_api::protocol::TensorSet;
use plugin_api::{Result, Run, Tensor, TensorView};

/// A 64-bit hash of the tensors of a set.
pub fn fingerprint(run: &Run<'_>, set: TensorSet) -> Result<String> {
    fingerprint_of(&run.tensors(set)?)
}

/// The same for tensors at hand.
pub fn fingerprint_of(views: &[TensorView<'_>]) -> Result<String> {
    let mut bits = 0xcbf2_9ce4_8422_2325_u64;
    for view in views {
        // FNV-1a over the elements' bits.
        let words: Vec<u64> = match view.to_vec::<f32>() {
            Ok(values) => values.into_iter().map(|value| u64::from(value.to_bits())).collect(),
            Err(_) => view.to_vec::<i64>()?.into_iter().map(i64::cast_unsigned).collect(),
        };
        for word in words {
            bits = (bits ^ word).wrapping_mul(0x0100_0000_01b3);
        }
    }
    Ok(format!("{bits:016x}"))
}

/// Copies of a set that outlive the borrow.
pub fn owned(run: &Run<'_>, set: TensorSet) -> Result<Vec<Tensor>> {
    run.tensors(set)?.iter().map(TensorView::to_owned).collect()
}

pub fn views(tensors: &[Tensor]) -> Vec<TensorView<'_>> {
    tensors.iter().map(Tensor::view).collect()
}

/// The same with each f32 element changed.
pub fn mapped(tensors: &[Tensor], change: impl Fn(f32) -> f32) -> Result<Vec<Tensor>> {
    let map = |tensor: &Tensor| {
        let view = tensor.view();
        match view.to_vec::<f32>() {
            Ok(values) => Tensor::new(view.name(), view.shape(), &values.into_iter().map(&change).collect::<Vec<_>>()),
            Err(_) => Ok(tensor.clone()),
        }
    };
    tensors.iter().map(map).collect()
}

/// The mean cross-entropy of rows of logits.
pub fn cross_entropy(logits: &TensorView<'_>, targets: &TensorView<'_>) -> Result<f64> {
    let (rows, targets) = (logits.to_vec::<f32>()?, targets.to_vec::<i64>()?);
    let classes = rows.len() / targets.len();
    let loss = |(row, target): (&[f32], &i64)| {
        let sum: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
        sum.ln() - f64::from(row[*target as usize])
    };
    Ok(rows.chunks(classes).zip(&targets).map(loss).sum::<f64>() / targets.len() as f64)
}

/// The share of rows whose greatest logit is that of the target.
pub fn accuracy(logits: &TensorView<'_>, targets: &TensorView<'_>) -> Result<f64> {
    let (rows, targets) = (logits.to_vec::<f32>()?, targets.to_vec::<i64>()?);
    let classes = rows.len() / targets.len();
    let right = |(row, target): (&[f32], &i64)| {
        let best = row.iter().enumerate().max_by(|left, right| left.1.total_cmp(right.1)).map(|(index, _)| index);
        best == usize::try_from(*target).ok()
    };
    Ok(rows.chunks(classes).zip(&targets).filter(|pair| right(*pair)).count() as f64 / targets.len() as f64)
}
