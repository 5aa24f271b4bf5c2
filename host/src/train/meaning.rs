//! What the outputs of a model mean to people.

use tch::{Kind, Tensor};

use super::loss::LossOptions;
use crate::data::Target;
use crate::torch::TorchError;

/// What the numbers of a model are.
#[derive(Clone, Debug)]
pub enum Meaning {
    /// A score for each class of these names.
    Classes(Vec<String>),
    /// One score, of the second of two classes.
    SecondClass(Vec<String>),
    /// Probabilities that are independent of each other, by the names of the numbers.
    Independent(Vec<String>),
    /// Numbers of these names.
    Numbers(Vec<String>),
}

impl Meaning {
    /// What `width` outputs for a sample are, trained with `loss` towards `target`.
    pub fn of(target: &Target, width: usize, loss: Option<&LossOptions>) -> Self {
        let is_logits = matches!(loss, Some(LossOptions::BceWithLogits { .. }));
        match target {
            Target::Classes { count, names, .. } => {
                let names = match names.is_empty() {
                    true => (0..*count).map(|class| class.to_string()).collect(),
                    false => names.clone(),
                };
                if width == 1 && *count == 2 { Self::SecondClass(names) } else { Self::Classes(names) }
            }
            Target::Values { names, .. } if is_logits => Self::Independent(names.clone()),
            Target::Values { names, .. } => Self::Numbers(names.clone()),
        }
    }

    /// The names of the columns with a number each.
    pub fn columns(&self) -> Vec<String> {
        match self {
            Self::Classes(names) | Self::SecondClass(names) => names.iter().map(|name| format!("p_{name}")).collect(),
            Self::Independent(names) => names.iter().map(|name| format!("p_{name}")).collect(),
            Self::Numbers(names) => names.clone(),
        }
    }

    /// The numbers of a batch, for each sample as many as there are columns: probabilities, or the numbers themselves.
    ///
    /// # Errors
    ///
    /// Those of libtorch.
    pub fn numbers(&self, outputs: &Tensor) -> Result<Vec<Vec<f64>>, TorchError> {
        let size = outputs.size().first().copied().unwrap_or(0);
        let outputs = outputs.f_reshape([size, -1])?.f_to_kind(Kind::Double)?.f_to_device(tch::Device::Cpu)?;
        let numbers = match self {
            Self::Classes(_) => outputs.f_softmax(-1, Kind::Double)?,
            Self::SecondClass(_) => {
                let second = outputs.f_sigmoid()?;
                let first = outputs.f_neg()?.f_sigmoid()?;
                Tensor::f_cat(&[first, second], 1)?
            }
            Self::Independent(_) => outputs.f_sigmoid()?,
            Self::Numbers(_) => outputs,
        };
        let width = numbers.size().get(1).copied().unwrap_or(0) as usize;
        let flat: Vec<f64> = Vec::<f64>::try_from(numbers.f_reshape([-1])?)?;
        Ok(flat.chunks(width.max(1)).map(<[f64]>::to_vec).collect())
    }

    /// The likeliest class and its probability; `None` for numbers.
    pub fn chosen<'a>(&'a self, numbers: &[f64]) -> Option<(&'a str, f64)> {
        let (Self::Classes(names) | Self::SecondClass(names)) = self else { return None };
        let (index, probability) =
            numbers.iter().copied().enumerate().reduce(|best, next| if next.1 > best.1 { next } else { best })?;
        Some((names.get(index)?, probability))
    }

    fn class(&self, class: i64) -> Option<&str> {
        let (Self::Classes(names) | Self::SecondClass(names)) = self else { return None };
        names.get(usize::try_from(class).ok()?).map(String::as_str)
    }
}

/// The targets of a batch as texts, a class by its name; none for a sample without one.
///
/// # Errors
///
/// Those of libtorch.
pub fn targets(meaning: &Meaning, targets: &Tensor, is_known: bool) -> Result<Vec<Vec<String>>, TorchError> {
    let size = targets.size().first().copied().unwrap_or(0);
    if !is_known {
        return Ok(vec![Vec::new(); size as usize]);
    }
    let flat = targets.f_reshape([size, -1])?.f_to_device(tch::Device::Cpu)?;
    let width = flat.size().get(1).copied().unwrap_or(1).max(1) as usize;
    if flat.kind() == Kind::Int64 {
        let classes = Vec::<i64>::try_from(flat.f_reshape([-1])?)?;
        return Ok(classes
            .iter()
            .map(|class| meaning.class(*class).map(str::to_owned).into_iter().collect())
            .collect());
    }
    let values = Vec::<f64>::try_from(flat.f_to_kind(Kind::Double)?.f_reshape([-1])?)?;
    let texts = |values: &[f64]| match values.iter().any(|value| value.is_nan()) {
        true => Vec::new(),
        false => values.iter().map(|value| (*value as f32).to_string()).collect(),
    };
    Ok(values.chunks(width).map(texts).collect())
}
