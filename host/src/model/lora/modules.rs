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
    /// Its weights, or why it cannot be adapted.
    pub(super) weights: Result<Vec<Weight>, String>,
}

/// A weight that can be adapted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Weight {
    /// Its name.
    pub(super) parameter: String,
    /// What the names of its adapter begin with here, without the dot.
    pub(super) prefix: String,
    /// The same in PEFT.
    pub(super) prefix_in_peft: String,
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
pub(super) fn modules(parameters: &[&str], roles: &Roles) -> Vec<Module> {
    let layout = |parameter: &str| roles.get(parameter).and_then(|role| role.as_ref().ok()).copied();
    // `torch.nn.MultiheadAttention` computes with both weights by itself, so that PEFT adapts both or none.
    let is_attention = |module: &str| {
        let weights = [format!("{module}.in_proj_weight"), format!("{module}.out_proj.weight")];
        weights.iter().all(|weight| layout(weight) == Some(Layout::Linear))
    };
    let mut modules: Vec<Module> = Vec::new();
    let mut positions: HashMap<&str, usize> = HashMap::new();
    for parameter in parameters {
        let Some((name, tensor)) = parameter.rsplit_once('.') else { continue };
        let attention = if tensor == "in_proj_weight" { Some(name) } else { name.strip_suffix(".out_proj") };
        let weights = match (attention.filter(|module| is_attention(module)), tensor, roles.get(*parameter)) {
            (Some(_), "in_proj_weight", _) => {
                let out = format!("{name}.out_proj");
                Ok(vec![
                    Weight {
                        parameter: (*parameter).to_owned(),
                        prefix: name.to_owned(),
                        prefix_in_peft: name.to_owned(),
                        layout: Layout::Linear,
                    },
                    Weight {
                        parameter: format!("{out}.weight"),
                        prefix: out,
                        // PEFT replaces the linear layer within the module that it wraps.
                        prefix_in_peft: format!("{name}.base_layer.out_proj"),
                        layout: Layout::Linear,
                    },
                ])
            }
            // With its module.
            (Some(_), ..) => continue,
            (None, "weight", Some(Ok(layout))) => Ok(vec![Weight {
                parameter: (*parameter).to_owned(),
                prefix: name.to_owned(),
                prefix_in_peft: name.to_owned(),
                layout: *layout,
            }]),
            (None, _, Some(Err(reason))) => Err(reason.clone()),
            (None, ..) => Err("it has no `weight` of its own".to_owned()),
        };
        match positions.get(name).and_then(|position| modules.get_mut(*position)) {
            Some(module) if module.weights.is_err() && (weights.is_ok() || tensor == "weight") => {
                module.weights = weights
            }
            Some(_) => {}
            None => {
                positions.insert(name, modules.len());
                modules.push(Module { name: name.to_owned(), weights });
            }
        }
    }
    modules
}

impl Module {
    /// Whether a pattern names it: its name, or all of its weights. `Err` if it names a part of an attention.
    fn is_named(&self, pattern: &str) -> Result<bool, String> {
        if fits(pattern, &self.name) {
            return Ok(true);
        }
        let weights = match &self.weights {
            Ok(weights) => weights.as_slice(),
            Err(_) => return Ok(fits(pattern, &format!("{}.weight", self.name))),
        };
        let fitting = weights.iter().filter(|weight| {
            fits(pattern, &weight.parameter) || (weight.prefix != self.name && fits(pattern, &weight.prefix))
        });
        match fitting.count() {
            0 => Ok(false),
            count if count == weights.len() => Ok(true),
            _ => Err(format!("`{pattern}` names a part of a multi-head attention, which is adapted as a whole")),
        }
    }
}

/// The modules that `targets` name, in the model's order.
///
/// # Errors
///
/// A pattern that fits none, or one that cannot be adapted.
pub(super) fn chosen(targets: &[String], modules: Vec<Module>) -> Result<Vec<(String, Vec<Weight>)>, LoraError> {
    if targets.is_empty() {
        return Err(LoraError::NoTargets);
    }
    let mut named = BTreeSet::new();
    for (index, pattern) in targets.iter().enumerate() {
        let mut is_idle = true;
        for (position, module) in modules.iter().enumerate() {
            let refused =
                |reason: &str| LoraError::Module { index, module: module.name.clone(), reason: reason.to_owned() };
            if !module.is_named(pattern).map_err(|reason| refused(&reason))? {
                continue;
            }
            if let Err(reason) = &module.weights {
                return Err(refused(reason));
            }
            is_idle = false;
            named.insert(position);
        }
        if is_idle {
            let names: Vec<&str> =
                modules.iter().filter(|module| module.weights.is_ok()).map(|module| module.name.as_str()).collect();
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
    Ok(chosen.filter_map(|(_, module)| Some((module.name, module.weights.ok()?))).collect())
}
