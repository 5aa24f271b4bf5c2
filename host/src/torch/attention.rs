//! Scaled dot-product attention, in the precision in which the device computes it fastest.

use tch::{Device, Kind, Tensor};

use super::{TorchError, autocast, fused};

/// Attention of queries over keys and values, each `[batch, heads, length, features]`, with weights that are zeroed with the
/// probability `dropout`, and only over positions up to the own one if it is `causal`
/// (`torch.nn.functional.scaled_dot_product_attention`).
///
/// On the CPU, bf16 and f16 are computed in f32 and f32 is returned: libtorch's backward kernel makes a new oneDNN primitive for
/// each small product in bf16. Measured on an AMD EPYC (4 layers, 12 samples, 4 heads of 32 features, 64 positions): 29.7 ms
/// backward and 5.7 ms forward in bf16, 4.6 ms and 2.3 ms in f32.
///
/// # Errors
///
/// Those of libtorch.
pub fn attend(heads: [Tensor; 3], dropout: f64, causal: bool) -> Result<Tensor, TorchError> {
    let [query, key, value] = &heads;
    let attend = |query: &Tensor, key: &Tensor, value: &Tensor| {
        let mask = None::<Tensor>;
        Tensor::f_scaled_dot_product_attention(query, key, value, mask, dropout, causal, None, false)
    };
    if !matches!(query.kind(), Kind::BFloat16 | Kind::Half) || query.device() != Device::Cpu {
        return Ok(attend(query, key, value)?);
    }
    let _f32 = autocast::suspend(Device::Cpu)?;
    let widened = |tensor: &Tensor| tensor.f_to_kind(Kind::Float);
    Ok(attend(&widened(query)?, &widened(key)?, &widened(value)?)?)
}

/// [`attend`] for queries, keys and values that lie beside each other, as one linear layer gives them:
/// `[batch, length, 3, heads, features]` to `[batch, length, heads × features]`.
///
/// # Errors
///
/// Those of libtorch.
pub fn attend_projected(projected: &Tensor, dropout: f64, causal: bool) -> Result<Tensor, TorchError> {
    if dropout == 0.0
        && let Some(output) = fused::attention(projected, causal)?
    {
        return Ok(output);
    }
    // Unbound, not selected: the gradient of three selections is three tensors of zeros and their sum.
    let parts = projected.f_unbind(2)?;
    let heads = |index: usize| parts[index].f_transpose(1, 2);
    let attended = attend([heads(0)?, heads(1)?, heads(2)?], dropout, causal)?;
    Ok(attended.f_transpose(1, 2)?.f_flatten(2, -1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_on_the_cpu_is_attended_in_f32_within_autocast_too() {
        let heads = |kind| {
            [0.1, 0.2, 0.3].map(|seed| {
                let numbers = Tensor::arange(2 * 3 * 5 * 4, (Kind::Float, Device::Cpu)) * 0.7 + seed;
                numbers.sin().reshape([2, 3, 5, 4]).to_kind(Kind::BFloat16).to_kind(kind)
            })
        };
        let expected = attend(heads(Kind::Float), 0.0, true).unwrap();
        let _bf16 = autocast::enter(Device::Cpu, Kind::BFloat16).unwrap();
        let found = attend(heads(Kind::BFloat16), 0.0, true).unwrap();
        assert_eq!((found.kind(), found), (Kind::Float, expected));
    }
}
