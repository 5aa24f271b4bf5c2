//! Why a model cannot be adapted.

use plugin_api::services::{fits, list_names};

use super::super::error::ModelError;
use crate::report::Report;

/// The most names that a hint lists.
const SHOWN: usize = 8;

/// Why a model cannot be adapted.
#[derive(Debug, thiserror::Error)]
pub enum LoraError {
    /// What computes the model cannot take other weights.
    #[error("LoRA adapts models of layers and exported programs, and this one is neither")]
    Model,
    /// It has adapters.
    #[error("the model has adapters")]
    Twice,
    /// The scale of the adapters is not usable.
    #[error("`alpha` is {value}, which is not a number above 0")]
    Alpha {
        /// Its value.
        value: f64,
    },
    /// No module is named.
    #[error("`targets` names no module")]
    NoTargets,
    /// A pattern of `targets` fits no module.
    #[error("{message}")]
    Target {
        /// Which one.
        index: usize,
        /// The pattern.
        pattern: String,
        /// What is wrong, with what was probably meant.
        message: String,
        /// The modules that can be adapted.
        names: Vec<String>,
    },
    /// A pattern of `targets` fits a module that cannot be adapted.
    #[error("LoRA cannot adapt `{module}`: {reason}")]
    Module {
        /// Which pattern.
        index: usize,
        /// The module.
        module: String,
        /// Why not.
        reason: String,
    },
    /// A pattern of `train` fits no parameter.
    #[error("{message}")]
    Train {
        /// Which one.
        index: usize,
        /// What is wrong, with what was probably meant.
        message: String,
        /// The parameters.
        names: Vec<String>,
    },
    /// A pattern of `train` fits a parameter that PEFT's files cannot hold beside the adapters.
    #[error("`{name}` cannot be trained beside the adapters: {reason}")]
    Trained {
        /// Which pattern.
        index: usize,
        /// The parameter.
        name: String,
        /// Why not.
        reason: String,
    },
    /// Those of the network and of libtorch.
    #[error(transparent)]
    Network(#[from] ModelError),
}

impl LoraError {
    /// What it is about, as a pointer from `lora` in the run file.
    pub fn place(&self) -> String {
        match self {
            Self::Model | Self::Twice | Self::Network(_) => String::new(),
            Self::Alpha { .. } => "/alpha".to_owned(),
            Self::NoTargets => "/targets".to_owned(),
            Self::Target { index, .. } | Self::Module { index, .. } => format!("/targets/{index}"),
            Self::Train { index, .. } | Self::Trained { index, .. } => format!("/train/{index}"),
        }
    }
}

fn few(names: &[String]) -> String {
    match names.get(..SHOWN) {
        Some(first) if names.len() > SHOWN => {
            let first: Vec<String> = first.iter().map(|name| format!("`{name}`")).collect();
            format!("{} and {} more", first.join(", "), names.len() - SHOWN)
        }
        _ => list_names(names.iter().map(String::as_str), "and"),
    }
}

impl Report for LoraError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Model => Some("export it with `torch.export`: `host model --explain-export` says how".to_owned()),
            Self::Alpha { .. } => Some("PEFT's default is 8; twice the rank is common".to_owned()),
            Self::NoTargets => Some("name some, such as `targets = [\"*.query\", \"*.value\"]`".to_owned()),
            Self::Target { names, .. } if names.is_empty() => {
                Some("the model has no linear layer, 2-d convolution or multi-head attention to adapt".to_owned())
            }
            Self::Target { pattern, names, .. } => {
                // PEFT's names fit the ends of modules' names.
                let within = format!("*.{pattern}");
                let can_be_adapted = format!("what can be adapted is {}; `*` stands for any text", few(names));
                match names.iter().filter(|name| fits(&within, name)).count() {
                    0 => Some(can_be_adapted),
                    count => Some(format!("`{within}` fits {count} of the modules; {can_be_adapted}")),
                }
            }
            Self::Module { .. } => Some(
                "it adapts linear layers, 2-d convolutions without groups, and the input of multi-head attention; `train` names \
                 parameters that are trained themselves"
                    .to_owned(),
            ),
            Self::Train { names, .. } => Some(format!("the model has {}; `*` stands for any text", few(names))),
            Self::Trained { .. } | Self::Twice | Self::Network(_) => None,
        }
    }
}
