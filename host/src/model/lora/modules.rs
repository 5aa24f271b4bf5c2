//! Which modules of a model can be adapted, and which of them the run file names.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use plugin_api::services::{fits, fitting};

use super::super::graph::Graph;
use super::super::op::Op;
use super::error::LoraError;

/// How a weight `W` takes part in the computation, and so the shapes of its adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[out, in]`, of `x Wᵀ` (`torch.nn.Linear`).
    Linear,
    /// `[in, out]`, of `x W` (`Conv1D` of transformers, which PEFT calls `fan_in_fan_out`).
    Transposed,
    /// `[out, in, height, width]` (`torch.nn.Conv2d`).
    Convolution,
}

/// The layout of each parameter that something computes with, by its name; or what computes with it that LoRA does not adapt, in
/// words.
pub type Roles = BTreeMap<String, Result<Layout, String>>;

/// A module with parameters of its own.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) name: String,
    /// Its weight, or why it cannot be adapted.
    pub(super) weight: Result<Weight, String>,
}

/// A weight that can be adapted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Weight {
    /// Its name.
    pub(super) parameter: String,
    /// Its module's.
    pub(super) module: String,
    pub(super) layout: Layout,
}

/// The roles of the parameters of a graph.
pub(in super::super) fn roles(graph: &Graph) -> Roles {
    let mut roles = Roles::new();
    for node in graph.nodes() {
        for parameter in &node.parameters {
            let tensor = parameter.name.rsplit('.').next().unwrap_or_default();
            let role = match (&node.op, tensor) {
                (_, "bias" | "in_proj_bias") => continue,
                (Op::Linear { .. } | Op::MultiHeadAttention { .. }, _) => Ok(Layout::Linear),
                (Op::Conv2d { groups: 1, .. }, _) => Ok(Layout::Convolution),
                (Op::Conv2d { groups, .. }, _) => Err(format!("it is a convolution in {groups} groups")),
                (op, _) => Err(format!("it is `{}`", op.name())),
            };
            roles.insert(parameter.name.clone(), role);
        }
    }
    roles
}

/// The modules of a model with these parameters, in their order.
///
/// Of `torch.nn.MultiheadAttention`, which has no linear layers but for its output, the projection to queries, keys and values is
/// adapted, as one matrix. The output is not: PEFT 0.21 adds what its adapter makes twice
/// (`peft.tuners.lora.layer.MultiheadAttention.merge`), so that it would load another model than was trained.
pub(super) fn modules(parameters: &[&str], roles: &Roles) -> Vec<Module> {
    let is_attention = |module: &str| roles.contains_key(&format!("{module}.in_proj_weight"));
    let mut modules: Vec<Module> = Vec::new();
    let mut positions: HashMap<&str, usize> = HashMap::new();
    for parameter in parameters {
        let Some((name, tensor)) = parameter.rsplit_once('.') else { continue };
        let is_output = name.strip_suffix(".out_proj").is_some_and(is_attention);
        let weight = match (tensor, roles.get(*parameter)) {
            (_, Some(_)) if is_output => {
                Err("it is the output of a multi-head attention, which PEFT adapts wrongly".to_owned())
            }
            ("weight" | "in_proj_weight", Some(Ok(layout))) => {
                Ok(Weight { parameter: (*parameter).to_owned(), module: name.to_owned(), layout: *layout })
            }
            (_, Some(Err(reason))) => Err(reason.clone()),
            _ => Err("it has no `weight` of its own".to_owned()),
        };
        match positions.get(name).and_then(|position| modules.get_mut(*position)) {
            Some(module) if module.weight.is_err() && (weight.is_ok() || tensor == "weight") => module.weight = weight,
            Some(_) => {}
            None => {
                positions.insert(name, modules.len());
                modules.push(Module { name: name.to_owned(), weight });
            }
        }
    }
    modules
}

impl Module {
    /// Whether a pattern names it, or its weight.
    fn is_named(&self, pattern: &str) -> bool {
        let fits_weight = match &self.weight {
            Ok(weight) => fits(pattern, &weight.parameter),
            Err(_) => fits(pattern, &format!("{}.weight", self.name)),
        };
        fits_weight || fits(pattern, &self.name)
    }
}

/// The weights of the modules that `targets` name, in the model's order.
///
/// # Errors
///
/// A pattern that fits no module, or one that cannot be adapted.
pub(super) fn chosen(targets: &[String], modules: Vec<Module>) -> Result<Vec<Weight>, LoraError> {
    if targets.is_empty() {
        return Err(LoraError::NoTargets);
    }
    let mut named = BTreeSet::new();
    for (index, pattern) in targets.iter().enumerate() {
        let fitting_modules = modules.iter().enumerate().filter(|(_, module)| module.is_named(pattern));
        let mut is_idle = true;
        for (position, module) in fitting_modules {
            if let Err(reason) = &module.weight {
                return Err(LoraError::Module { index, module: module.name.clone(), reason: reason.clone() });
            }
            is_idle = false;
            named.insert(position);
        }
        if is_idle {
            let names: Vec<&str> =
                modules.iter().filter(|module| module.weight.is_ok()).map(|module| module.name.as_str()).collect();
            let message = fitting("module", std::slice::from_ref(pattern), &names).err();
            return Err(LoraError::Target {
                index,
                pattern: pattern.clone(),
                message: message.map_or_else(String::new, |refusal| refusal.message),
                names: names.into_iter().map(str::to_owned).collect(),
            });
        }
    }
    let chosen = modules.into_iter().enumerate().filter(|(position, _)| named.contains(position));
    Ok(chosen.filter_map(|(_, module)| module.weight.ok()).collect())
}
