//! `[model] lora`: low-rank adapters beside frozen weights (Hu et al. 2021), as PEFT trains and stores them.
//!
//! A weight `W` `[out, in]` is replaced by `W + alpha / rank · B A` wherever the model computes: `A` `[rank, in]` and `B`
//! `[out, rank]` are the adapter, `<module>.lora_A.weight` and `<module>.lora_B.weight`. The sum is made anew in each forward pass
//! by operations that autograd records, so that it is the same for every kind of network, and gradients reach the adapter only.
//!
//! ```text
//! options.rs   the key of the run file
//! modules.rs   which modules can be adapted, and which are named
//! error.rs     why a model cannot be adapted
//! ```
//!
//! The model's tensors are the base's, as they were, and the adapters. Who exports gets [`Lora::merged`] instead: the base's names
//! with the sums.

mod error;
mod modules;
mod options;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use plugin_api::protocol::LoraInfo;
use plugin_api::services::fitting;
use tch::{Device, Kind, TchError, Tensor};

pub use error::LoraError;
pub use modules::{Layout, Roles};
pub use options::LoraOptions;

pub(super) use modules::roles;
use modules::{Weight, chosen, modules};

use super::error::ModelError;
use super::frozen::Frozen;
use super::named_tensor::NamedTensor;
use super::network::Network;
use crate::torch::TorchError;
use crate::torch::autocast;
use crate::torch::random::Generator;

/// Keeps what adapters begin with apart from the initial weights, which are drawn with the run's seed itself.
const APART: u64 = 0x6c6f_7261_5f41_0001;

/// The adapters of a network. They belong to no thread: their tensors are the network's.
#[derive(Debug)]
pub struct Lora {
    rank: u32,
    alpha: f64,
    /// In the order of the weights.
    adapters: Vec<Adapter>,
    /// The parameters that never learn: all but the adapters and what is trained beside them.
    base: BTreeSet<String>,
    /// The names of the modules that are trained themselves.
    modules_to_save: Vec<String>,
}

/// The matrices beside a weight.
#[derive(Debug)]
struct Adapter {
    weight: Weight,
    /// The names of `A` and `B`.
    names: [String; 2],
    /// The places of the weight, of `A`, and of `B` among the network's parameters.
    places: [usize; 3],
}

impl Lora {
    /// What PEFT's files say of the adapters.
    pub fn info(&self) -> LoraInfo {
        LoraInfo {
            rank: u64::from(self.rank),
            alpha: self.alpha,
            fan_in_fan_out: self.adapters.iter().all(|adapter| adapter.weight.layout == Layout::Transposed),
            target_modules: self.adapters.iter().map(|adapter| adapter.weight.module.clone()).collect(),
            modules_to_save: self.modules_to_save.clone(),
            tensors: self.adapters.iter().flat_map(|adapter| adapter.names.iter().cloned()).collect(),
        }
    }

    /// The names of the adapted weights.
    pub fn adapted(&self) -> impl Iterator<Item = &str> + Clone {
        self.adapters.iter().map(|adapter| adapter.weight.parameter.as_str())
    }

    /// Whether the parameter of this name never learns.
    pub(super) fn is_base(&self, parameter: &str) -> bool {
        self.base.contains(parameter)
    }

    /// Whether the parameter of this name belongs to an adapter.
    pub fn is_adapter(&self, parameter: &str) -> bool {
        self.adapters.iter().any(|adapter| adapter.names.iter().any(|name| name == parameter))
    }

    /// The sums that take the places of adapted weights, by the places of these among `parameters`, the network's, in order. Autograd
    /// records them, and autocast does not: what is added may be less than bf16 can add.
    pub(super) fn sums(&self, parameters: &[NamedTensor], device: Device) -> Result<Vec<(usize, Tensor)>, ModelError> {
        let _exact = autocast::suspend(device)?;
        let sum = |adapter: &Adapter| {
            let [weight, a, b] = adapter.places.map(|place| parameters.get(place).map(|named| &named.tensor));
            let unknown = || ModelError::UnknownTensor { name: adapter.weight.parameter.clone() };
            let (weight, a, b) = (weight.ok_or_else(unknown)?, a.ok_or_else(unknown)?, b.ok_or_else(unknown)?);
            Ok((adapter.places[0], self.sum(adapter.weight.layout, weight, a, b)?))
        };
        self.adapters.iter().map(sum).collect()
    }

    /// A model's tensors with the sums in place of adapted weights and without the adapters. Without gradients. A weight whose
    /// adapter is not among the tensors stays as it is. With `wanted` names, only weights of these names are merged, and adapters
    /// of these names are kept: do not read the others.
    ///
    /// # Errors
    ///
    /// Those of libtorch.
    pub fn merged(
        &self,
        tensors: Vec<(String, Tensor)>,
        wanted: &[String],
    ) -> Result<Vec<(String, Tensor)>, TorchError> {
        let is_wanted = |name: &str| wanted.iter().any(|wanted| wanted == name);
        let given: BTreeMap<&str, &Tensor> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let mut sums: BTreeMap<&str, Tensor> = BTreeMap::new();
        let mut hidden: BTreeSet<&str> = BTreeSet::new();
        for adapter in &self.adapters {
            let parameter = adapter.weight.parameter.as_str();
            let [a, b] = [&adapter.names[0], &adapter.names[1]].map(|name| given.get(name.as_str()));
            if let (Some(weight), Some(a), Some(b)) = (given.get(parameter), a, b)
                && (wanted.is_empty() || is_wanted(parameter))
            {
                sums.insert(parameter, tch::no_grad(|| self.sum(adapter.weight.layout, weight, a, b))?);
            }
            hidden.extend(adapter.names.iter().map(String::as_str).filter(|name| !is_wanted(name)));
        }
        let shown = tensors.iter().filter(|(name, _)| !hidden.contains(name.as_str()));
        let sum = |(name, tensor): &(String, Tensor)| {
            (name.clone(), sums.remove(name.as_str()).unwrap_or_else(|| tensor.shallow_clone()))
        };
        Ok(shown.map(sum).collect())
    }

    /// `W + alpha / rank · B A`, in the layout of `W`. While `B` is zeros, these are the bits of `W`.
    fn sum(&self, layout: Layout, weight: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor, TchError> {
        let scale = self.alpha / f64::from(self.rank);
        // One of the small matrices, and not the product.
        let scaled = if scale == 1.0 { b.shallow_clone() } else { b.f_mul_scalar(scale)? };
        match layout {
            Layout::Linear => weight.f_addmm(&scaled, a),
            Layout::Transposed => weight.f_addmm(&a.f_tr()?, &scaled.f_tr()?),
            // The product of both convolutions, of which that of `B` has a kernel of one pixel.
            Layout::Convolution => {
                let flat = weight.f_flatten(1, -1)?.f_addmm(&scaled.f_flatten(1, -1)?, &a.f_flatten(1, -1)?)?;
                flat.f_view_as(weight)
            }
        }
    }

    /// How many weights are adapted, and which part of the network's parameters is trained, for people.
    pub fn summary(&self, network: &Network) -> String {
        let count = |learns: bool| {
            let counted = network.parameters().iter().filter(|named| !learns || !self.is_base(&named.name));
            counted.map(|named| named.tensor.numel()).sum::<usize>()
        };
        let weights = match self.adapters.len() {
            1 => "1 weight".to_owned(),
            weights => format!("{weights} weights"),
        };
        let (trained, all) = (count(true), count(false));
        let percent = 100.0 * trained as f64 / all.max(1) as f64;
        format!("lora: rank {}, {weights}; {trained} of {all} parameters are trained ({percent:.2} %)", self.rank)
    }
}

impl Network {
    /// What the optimizer trains, in the model's order: without adapters, all parameters; with them, an adapter in place of its
    /// weight, and nothing else of the base. The tensors are the network's own.
    pub fn trained(&self) -> Vec<NamedTensor> {
        let share =
            |named: &NamedTensor| NamedTensor { name: named.name.clone(), tensor: named.tensor.shallow_clone() };
        let Some(lora) = self.lora() else { return self.parameters().iter().map(share).collect() };
        let mut of_weight: BTreeMap<usize, &[usize]> = BTreeMap::new();
        for Adapter { places, .. } in &lora.adapters {
            of_weight.insert(places[0], &places[1..]);
        }
        let mut trained = Vec::new();
        for (place, named) in self.parameters().iter().enumerate() {
            let matrices = of_weight.get(&place).copied().unwrap_or_default();
            trained.extend(matrices.iter().filter_map(|place| self.parameters().get(*place)).map(share));
            if !lora.is_base(&named.name) && !lora.is_adapter(&named.name) {
                trained.push(share(named));
            }
        }
        trained
    }

    /// Adds adapters, and freezes the base: all other parameters but those of `train`. Batch norms of the base keep their
    /// statistics unless these are `moving_statistics`. `A` is drawn as PEFT draws it (`kaiming_uniform_` with `a = sqrt(5)`), from a
    /// generator of its own, a function of `seed`; `B` is zeros.
    ///
    /// # Errors
    ///
    /// See [`LoraError`]; unless libtorch failed, nothing has changed then. A network that has adapters is refused.
    pub fn adapt(&mut self, options: &LoraOptions, moving_statistics: bool, seed: u64) -> Result<(), LoraError> {
        let LoraOptions { rank, alpha, ref targets, ref train } = *options;
        if !(alpha.is_finite() && alpha > 0.0) {
            return Err(LoraError::Alpha { value: alpha });
        }
        if self.lora().is_some() {
            return Err(LoraError::Twice);
        }
        let roles = self.roles().ok_or(LoraError::Model)?;
        let names: Vec<&str> = self.parameters().iter().map(|named| named.name.as_str()).collect();
        let chosen = chosen(targets, modules(&names, &roles))?;
        let (trained, modules_to_save) = beside(train, &names, &chosen)?;
        let base: BTreeSet<String> =
            names.iter().filter(|name| !trained.contains(**name)).map(|name| (*name).to_owned()).collect();

        let mut generator = Generator::new(seed ^ APART).map_err(ModelError::from)?;
        let (mut adapters, mut tensors) = (Vec::new(), Vec::new());
        let places: HashMap<&str, usize> = names.iter().enumerate().map(|(place, name)| (*name, place)).collect();
        let mut weights = chosen;
        weights.sort_by_key(|weight| places.get(weight.parameter.as_str()).copied());
        for weight in weights {
            let unknown = || ModelError::UnknownTensor { name: weight.parameter.clone() };
            let place = places.get(weight.parameter.as_str()).copied().ok_or_else(unknown)?;
            let own = self.tensor(&weight.parameter)?;
            let [a, b] = matrices(own, weight.layout, i64::from(rank.get()), &mut generator)
                .map_err(|error| error.of(&weight, targets))?;
            let matrix = |matrix: &str| format!("{}.{matrix}.weight", weight.module);
            let matrices = ["lora_A", "lora_B"].map(matrix);
            let first = names.len() + tensors.len();
            adapters.push(Adapter { places: [place, first, first + 1], names: matrices.clone(), weight });
            tensors.extend(matrices.into_iter().zip([a, b]).map(|(name, tensor)| NamedTensor { name, tensor }));
        }
        let rank = rank.get();
        let lora = Lora { rank, alpha, adapters, base, modules_to_save };
        let frozen = Frozen::of(lora.base.clone(), moving_statistics);
        self.add_adapters(lora, tensors)?;
        Ok(self.set_frozen(frozen)?)
    }
}

/// Why a weight gets no matrices.
enum Unfit {
    /// Its shape.
    Shape(Vec<i64>),
    /// Its type.
    Kind(Kind),
    Torch(TorchError),
}

impl From<TchError> for Unfit {
    fn from(error: TchError) -> Self {
        Self::Torch(error.into())
    }
}

impl From<TorchError> for Unfit {
    fn from(error: TorchError) -> Self {
        Self::Torch(error)
    }
}

impl Unfit {
    fn of(self, weight: &Weight, targets: &[String]) -> LoraError {
        let reason = match self {
            Self::Shape(shape) => format!("`{}` has the shape {shape:?}, which is no matrix", weight.parameter),
            Self::Kind(kind) => format!("`{}` is of the type {kind:?}, and not of floats", weight.parameter),
            Self::Torch(error) => return LoraError::Network(error.into()),
        };
        let is_named = |pattern: &String| {
            [&weight.module, &weight.parameter].into_iter().any(|name| plugin_api::services::fits(pattern, name))
        };
        let index = targets.iter().position(is_named).unwrap_or(0);
        LoraError::Module { index, module: weight.module.clone(), reason }
    }
}

/// `A` and `B` for a weight, on its device and of its type.
fn matrices(weight: &Tensor, layout: Layout, rank: i64, generator: &mut Generator) -> Result<[Tensor; 2], Unfit> {
    let kind = weight.kind();
    if !weight.is_floating_point() {
        return Err(Unfit::Kind(kind));
    }
    let shape = weight.size();
    let (a, b) = match (layout, &shape[..]) {
        (Layout::Linear, [out, inputs]) | (Layout::Transposed, [inputs, out]) => {
            (vec![rank, *inputs], vec![*out, rank])
        }
        (Layout::Convolution, [out, inputs, height, width]) => {
            (vec![rank, *inputs, *height, *width], vec![*out, rank, 1, 1])
        }
        _ => return Err(Unfit::Shape(shape)),
    };
    // `kaiming_uniform_(a=sqrt(5))`: gain² is 2 / (1 + 5), and the bound sqrt(3) · gain / sqrt(fan_in).
    let fan_in = a.iter().skip(1).product::<i64>().max(1) as f64;
    let bound = 1.0 / fan_in.sqrt();
    let a = generator.uniform(&a, -bound, bound)?.f_to_kind(kind)?.f_to_device(weight.device())?;
    let b = Tensor::f_zeros(&b, (kind, weight.device()))?;
    Ok([a.f_set_requires_grad(true)?, b.f_set_requires_grad(true)?])
}

/// The parameters that `train` names, and their modules.
///
/// # Errors
///
/// A pattern that fits none, or one that PEFT's files cannot hold: they hold whole modules, without adapters in them.
fn beside(train: &[String], names: &[&str], chosen: &[Weight]) -> Result<(BTreeSet<String>, Vec<String>), LoraError> {
    let (mut trained, mut modules) = (BTreeSet::new(), Vec::new());
    for (index, pattern) in train.iter().enumerate() {
        let fitting = fitting("parameter", std::slice::from_ref(pattern), names).map_err(|refusal| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            LoraError::Train { index, message: refusal.message, names }
        })?;
        for name in fitting {
            let refused = |reason: String| LoraError::Trained { index, name: name.to_owned(), reason };
            let Some((module, _)) = name.rsplit_once('.') else {
                return Err(refused("it belongs to the model itself, and to none of its modules".to_owned()));
            };
            let within = chosen.iter().map(|weight| weight.module.as_str()).find(|adapted| {
                *adapted == module
                    || adapted.strip_prefix(module).is_some_and(|rest| rest.starts_with('.'))
                    || module.strip_prefix(*adapted).is_some_and(|rest| rest.starts_with('.'))
            });
            if let Some(adapted) = within {
                return Err(refused(format!(
                    "`{adapted}` is adapted, and a module is either adapted or trained as a whole"
                )));
            }
            trained.insert(name.to_owned());
            if !modules.iter().any(|known| known == module) {
                modules.push(module.to_owned());
            }
        }
    }
    Ok((trained, modules))
}
