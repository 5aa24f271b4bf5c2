//! Attention, and its mask.

use tch::{Kind, Tensor};

use super::arguments::Call;
use super::layout::Layout;
use super::{Lowering, Reason, Value};
use crate::model::Op;
use crate::torch::TorchError;

/// What is at most this is hidden: its softmax is 0 beside any score that a model has.
const HIDDEN: f64 = -1e9;

/// What a mask that depends on sizes alone does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mask {
    /// Nothing.
    Nothing,
    /// It hides later positions.
    Causal,
    /// Something else.
    Other,
}

impl<'d> Lowering<'d> {
    pub(super) fn attention(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let mut inputs = Vec::new();
        for name in ["query", "key", "value"] {
            let value = self.read(call.tensor(name)?)?;
            if value.layout != Layout::PLAIN {
                return Err(Reason::from(format!("its {name} does not begin with the batch")));
            }
            inputs.push(value);
        }
        if call.flag("enable_gqa", false)? {
            return Err(Reason::from("its heads share keys, which the graph does not have"));
        }
        let mut is_boolean = false;
        let mut is_causal = call.flag("is_causal", false)?;
        let [.., length, width] = inputs[0].shape[..] else {
            return Err(Reason::from("its query has no positions"));
        };
        if let Some(name) = call.optional_tensor("attn_mask")? {
            let keys = inputs[1].shape.iter().rev().nth(1).copied().unwrap_or(0);
            match self.values.get(name) {
                Some(Value::Constant(value)) => match mask(value, [length, keys]).unwrap_or(Mask::Other) {
                    Mask::Nothing => {}
                    Mask::Causal => is_causal = true,
                    Mask::Other => {
                        return Err(Reason::from(format!(
                            "its mask `{name}` hides other positions than all later ones"
                        )));
                    }
                },
                _ => {
                    let mask = self.unrepeated(name)?;
                    if !mask.layout.is_plain() {
                        return Err(Reason::from("its mask does not begin with the batch"));
                    }
                    is_boolean = self.kind(name) == Some(Kind::Bool);
                    inputs.push(mask);
                }
            }
        }
        // The schema's default.
        let scale = call.double("scale", 1.0 / (width as f64).sqrt())?;
        let dropout = call.double("dropout_p", 0.0)?;
        let op = Op::ScaledDotProductAttention { is_causal, scale, dropout, is_boolean };
        self.value(call, op, &inputs.iter().collect::<Vec<_>>())
    }
}

/// What a mask does: of truth values, or of numbers that are added.
fn mask(mask: &Tensor, [length, keys]: [i64; 2]) -> Result<Mask, TorchError> {
    let shown = match mask.kind() {
        Kind::Bool => mask.shallow_clone(),
        Kind::Float => {
            let shown = mask.f_eq(0)?;
            if mask.f_le(HIDDEN)?.f_logical_or(&shown)?.f_all()?.f_int64_value(&[])? == 0 {
                return Ok(Mask::Other);
            }
            shown
        }
        _ => return Ok(Mask::Other),
    };
    if shown.f_all()?.f_int64_value(&[])? == 1 {
        return Ok(Mask::Nothing);
    }
    let causal = Tensor::f_ones([length, keys], (Kind::Bool, mask.device()))?.f_tril(0)?;
    let is_causal = length == keys && shown.f_eq_tensor(&causal)?.f_all()?.f_int64_value(&[])? == 1;
    Ok(if is_causal { Mask::Causal } else { Mask::Other })
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn a_mask_is_known_by_what_it_hides() {
        let ones = Tensor::ones([1, 5, 5], (Kind::Bool, Device::Cpu));
        let causal = ones.tril(0);
        let added = |shown: &Tensor, hidden: f64| shown.logical_not().to_kind(Kind::Float) * hidden;
        for (value, expected) in [
            (ones.shallow_clone(), Mask::Nothing),
            (causal.shallow_clone(), Mask::Causal),
            (ones.tril(1), Mask::Other),
            (ones.tril(-1), Mask::Other),
            (added(&ones, -1e30), Mask::Nothing),
            (added(&causal, f64::from(f32::MIN)), Mask::Causal),
            (added(&causal, -1.0), Mask::Other),
        ] {
            assert_eq!(mask(&value, [5, 5]).unwrap(), expected, "{value}");
        }
        // Of one position, a row is the same as a column.
        assert_eq!(mask(&Tensor::from_slice(&[true, false]), [1, 2]).unwrap(), Mask::Other);
    }
}
