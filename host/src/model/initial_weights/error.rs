//! Why a run cannot start from a file's weights.

use std::path::PathBuf;

use super::super::error::ModelError;
use super::report::{SHOWN, few};
use crate::config::child;
use crate::report::Report;
use crate::weights_file::WeightsFileError;

/// A tensor whose shape in the file is not the model's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Its name in the model.
    pub name: String,
    /// Its shape in the model.
    pub expected: Vec<i64>,
    /// Its shape in the file.
    pub found: Vec<usize>,
}

/// Why a run cannot start from a file's weights.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] WeightsFileError),
    /// No name of the file begins with the prefix.
    #[error("no tensor of `{}` has a name that begins with `{prefix}`", path.display())]
    Prefix {
        /// The file.
        path: PathBuf,
        /// The prefix.
        prefix: String,
        /// Names of the file.
        found: Vec<String>,
    },
    /// A pattern of `rename` is no regular expression.
    #[error("`{pattern}` is not a regular expression: {problem}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A pattern of `rename` finds nothing.
    #[error("`{pattern}` renames no tensor of `{}`", path.display())]
    RenamesNothing {
        /// The file.
        path: PathBuf,
        /// The pattern.
        pattern: String,
        /// The names that it was tried on.
        found: Vec<String>,
    },
    /// Two names of the file become one.
    #[error("`{first}` and `{second}` of `{}` both become `{name}`", path.display())]
    Collision {
        /// The file.
        path: PathBuf,
        /// A name.
        first: String,
        /// Another one.
        second: String,
        /// What both become.
        name: String,
    },
    /// A pattern of `skip` fits no tensor of the model.
    #[error("{message}")]
    Skip {
        /// Which pattern.
        index: usize,
        /// What is wrong, with what was probably meant.
        message: String,
        /// Names of the model.
        names: Vec<String>,
    },
    /// Tensors have other shapes in the file than in the model.
    #[error("`{}` has other shapes than the model: {}", path.display(), told(mismatches))]
    Shapes {
        /// The file.
        path: PathBuf,
        /// All of them; at least one.
        mismatches: Vec<Mismatch>,
    },
    /// A tensor cannot become the model's.
    #[error("`{name}` has dtype {found} in `{}`, which cannot become the {expected} of the model", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// Its name in the model.
        name: String,
        /// Its dtype in the model.
        expected: &'static str,
        /// Its dtype in the file.
        found: &'static str,
    },
    /// With `strict`, something is missing or left over.
    #[error(
        "`{}` does not have exactly the model's tensors, as `strict` asks: {}",
        path.display(),
        difference(missing, unused)
    )]
    Strict {
        /// The file.
        path: PathBuf,
        /// Names of the model that the file does not have.
        missing: Vec<String>,
        /// Names of the file that the model does not have.
        unused: Vec<String>,
        /// What would make more of them fit.
        advice: Option<String>,
    },
    /// The file has none of the model's tensors.
    #[error("`{}` has none of the model's tensors", path.display())]
    NothingMatches {
        /// The file.
        path: PathBuf,
        /// Names of the model.
        expected: Vec<String>,
        /// Names of the file.
        found: Vec<String>,
        /// What would make some of them fit.
        advice: Option<String>,
    },
    /// The network is not the model that the file was compared with; those of libtorch.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// The shapes that differ, in words.
fn told(mismatches: &[Mismatch]) -> String {
    let one = |Mismatch { name, expected, found }: &Mismatch| format!("`{name}` is {found:?} instead of {expected:?}");
    let shown: Vec<String> = mismatches.iter().take(SHOWN).map(one).collect();
    let more = match mismatches.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    format!("{}{more}", shown.join(", "))
}

/// What is missing and what is left over, in words.
fn difference(missing: &[String], unused: &[String]) -> String {
    let parts = [("it lacks", missing), ("the model lacks", unused)];
    let parts = parts.into_iter().filter(|(_, names)| !names.is_empty());
    parts.map(|(what, names)| format!("{what} {}", few(names))).collect::<Vec<_>>().join("; ")
}

impl WeightsError {
    /// What it is about, as a pointer from `init_from` in the run file.
    pub fn place(&self) -> String {
        match self {
            Self::File(_) => "/path".to_owned(),
            Self::Prefix { .. } => "/prefix".to_owned(),
            Self::Pattern { pattern, .. } | Self::RenamesNothing { pattern, .. } => child("/rename", pattern),
            Self::Collision { .. } => "/rename".to_owned(),
            Self::Skip { index, .. } => format!("/skip/{index}"),
            Self::Strict { .. } => "/strict".to_owned(),
            Self::Shapes { .. } | Self::Dtype { .. } | Self::NothingMatches { .. } | Self::Model(_) => String::new(),
        }
    }
}

/// Patterns for the layers of some tensors: `fc.*` for `fc.weight`.
fn patterns_of<'m>(names: impl Iterator<Item = &'m str>) -> String {
    let mut patterns: Vec<String> = Vec::new();
    for name in names {
        let pattern = name.rsplit_once('.').map_or_else(|| name.to_owned(), |(layer, _)| format!("{layer}.*"));
        if !patterns.contains(&pattern) {
            patterns.push(pattern);
        }
    }
    let quoted: Vec<String> = patterns.iter().take(SHOWN).map(|pattern| format!("\"{pattern}\"")).collect();
    format!("skip = [{}]", quoted.join(", "))
}

impl Report for WeightsError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Prefix { found, .. } | Self::RenamesNothing { found, .. } => {
                Some(format!("the file has {}", few(found)))
            }
            Self::Pattern { .. } => Some("the syntax is that of https://docs.rs/regex; `\\\\.` is a dot".to_owned()),
            Self::Collision { .. } => {
                Some("let `rename` find less, such as only the beginning of a name: `^backbone\\\\.`".to_owned())
            }
            Self::Skip { names, .. } => Some(format!("the model has {}; `*` stands for any text", few(names))),
            Self::Shapes { mismatches, .. } => {
                let skip = patterns_of(mismatches.iter().map(|mismatch| mismatch.name.as_str()));
                let classes = mismatches.iter().all(|Mismatch { expected, found, .. }| {
                    expected.len() == found.len()
                        && expected.iter().zip(found).skip(1).all(|(own, other)| usize::try_from(*own) == Ok(*other))
                });
                let why = match classes {
                    true => "if they are of another number of classes",
                    false => "if they are to be trained anew",
                };
                Some(format!(
                    "{why}, `{skip}` keeps the model's initial values there; otherwise, give the layer \
                     the same sizes"
                ))
            }
            Self::Dtype { .. } => Some(
                "float32, float16, bfloat16 and float64 become each other; whole numbers and truth \
                 values must be the same"
                    .to_owned(),
            ),
            Self::Model(_) => None,
            Self::Strict { advice, .. } => Some(advice.clone().unwrap_or_else(|| {
                "name what the file lacks in `skip`, rename what has another name, or leave `strict` out".to_owned()
            })),
            Self::NothingMatches { expected, found, advice, .. } => {
                let names = format!("the file has {}; the model has {}", few(found), few(expected));
                Some(match advice {
                    Some(advice) => format!("{advice}; {names}"),
                    None => names,
                })
            }
        }
    }
}
