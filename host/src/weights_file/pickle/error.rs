//! Why a pickle is refused.

use crate::report::Report;

/// Why a pickle is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PickleError {
    /// It ends within an operation, or without one that says so.
    #[error("its pickle ends too early")]
    Ends,
    /// It is of a protocol that PyTorch does not write in such files.
    #[error("its pickle has protocol {0}, and those from 2 to 5 are read")]
    Protocol(u8),
    /// An operation that is none of protocols 2 to 5, or not read.
    #[error("its pickle has the operation 0x{operation:02x} at byte {position}, which is not read")]
    Operation {
        /// The operation's code.
        operation: u8,
        /// Where it is.
        position: usize,
    },
    /// An operation that does not find what it needs.
    #[error("its pickle is damaged at byte {position}: {problem}")]
    Malformed {
        /// Where the operation is.
        position: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// It refers to something that is neither a tensor nor a container.
    #[error("its pickle refers to `{name}`, and nothing that a file names is executed")]
    Global {
        /// The module and the name in it.
        name: String,
    },
    /// Its root is an object of a class.
    #[error("it is a whole pickled object of the class `{class}`, not a state dict")]
    Object {
        /// The module and the name of the class.
        class: String,
    },
    /// It calls, makes, or changes something in a way that is not read.
    #[error("its pickle {action} `{name}` at byte {position} in a way that is not read")]
    Use {
        /// `calls`, `makes a`, `sets attributes of`.
        action: &'static str,
        /// What.
        name: String,
        /// Where the operation is.
        position: usize,
    },
    /// A tensor reaches beyond its storage, or has lengths that cannot be.
    #[error("a tensor in its pickle reaches beyond its storage (at byte {position})")]
    View {
        /// Where the operation is.
        position: usize,
    },
    /// It is too large.
    #[error("its pickle has more than {limit} {what}")]
    Limit {
        /// What it has too many of.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// It holds something else than a state dict.
    #[error("it holds {found}, not a state dict")]
    NoStateDict {
        /// What it holds.
        found: &'static str,
    },
    /// It is a dictionary without tensors, also where wrappers have them.
    #[error("its dictionary has no tensors, and none under `state_dict`, `model_state_dict` or `model`")]
    NoTensors {
        /// The keys that it has.
        keys: Vec<String>,
        /// The first key whose value is a dictionary with tensors.
        with_tensors: Option<String>,
    },
}

/// What writes a file that is read.
const HOW: &str = "in Python, `torch.save(model.state_dict(), path)` writes the weights alone";

impl Report for PickleError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Global { .. } => Some(format!(
                "as with `torch.load(path, weights_only=True)`, tensors, numbers, texts and \
                 containers of them are read; {HOW}"
            )),
            Self::NoTensors { with_tensors: Some(key), .. } => Some(format!(
                "`{key}` has tensors: in Python, `torch.save(torch.load(path, \
                 weights_only=True)[\"{key}\"], \"weights.pt\")`"
            )),
            Self::NoTensors { keys, with_tensors: None } if !keys.is_empty() => {
                Some(format!("it has {}; {HOW}", crate::report::list(keys.iter().map(String::as_str), "and")))
            }
            Self::Ends | Self::Malformed { .. } | Self::View { .. } => Some(super::super::stored::DAMAGED.to_owned()),
            _ => Some(HOW.to_owned()),
        }
    }
}
