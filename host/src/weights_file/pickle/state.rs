//! The state dict in what a pickle built.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::PickleError;
use super::machine::{Built, LONGEST_NAME, Storage, Tensor, Value};

/// The keys under which programs save the state dict of their model, beside others of an optimizer or an epoch.
const WRAPPERS: [&str; 3] = ["state_dict", "model_state_dict", "model"];

/// The most keys that a message lists.
const SHOWN: usize = 8;

/// The most keys that are looked at for a message.
const LOOKED_AT: usize = 100;

/// The tensors of a state dict, and their storages.
#[derive(Debug)]
pub(in super::super) struct StateDict<'p> {
    /// By name.
    pub(in super::super) tensors: BTreeMap<String, Arc<Tensor>>,
    pub(in super::super) storages: Vec<Storage<'p>>,
    /// The key of the dictionary that they are taken from, if they are not at the top.
    pub(in super::super) within: Option<&'static str>,
}

/// The tensors at the top of a dictionary or, if it has none, those of a model in it.
///
/// # Errors
///
/// It is no dictionary, or has no tensors there.
pub(in super::super) fn state_dict<'p>(built: &Built<'p>) -> Result<StateDict<'p>, PickleError> {
    let Value::Dict(root) = built.root else { return Err(PickleError::NoStateDict { found: built.root.what() }) };
    let entries = built.dicts.get(root).map(Vec::as_slice).unwrap_or_default();
    let state = |tensors, within| StateDict { tensors, storages: built.storages.clone(), within };
    let tensors = built.tensors_of(root)?;
    if !tensors.is_empty() {
        return Ok(state(tensors, None));
    }
    let nested = |wanted: &str| {
        entries.iter().rev().find_map(|entry| match *entry {
            (Value::Text(key), Value::Dict(dict)) if key == wanted => Some(dict),
            _ => None,
        })
    };
    for wrapper in WRAPPERS {
        let tensors = nested(wrapper).map(|dict| built.tensors_of(dict)).transpose()?.unwrap_or_default();
        if !tensors.is_empty() {
            return Ok(state(tensors, Some(wrapper)));
        }
    }
    let texts = || {
        entries
            .iter()
            .filter_map(|entry| if let (Value::Text(key), value) = *entry { Some((key, value)) } else { None })
    };
    let with_tensors = texts().take(LOOKED_AT).find_map(|(key, value)| match value {
        Value::Dict(dict) if built.has_tensors(dict) => Some(key.to_owned()),
        _ => None,
    });
    let keys = texts().take(SHOWN).map(|(key, _)| key.chars().take(SHOWN * 8).collect()).collect();
    Err(PickleError::NoTensors { keys, with_tensors })
}

impl Built<'_> {
    /// The tensors of a dictionary, by their keys; of two with one key, the later one.
    fn tensors_of(&self, dict: usize) -> Result<BTreeMap<String, Arc<Tensor>>, PickleError> {
        let mut tensors: BTreeMap<String, Arc<Tensor>> = BTreeMap::new();
        for entry in self.dicts.get(dict).into_iter().flatten() {
            let (Value::Text(key), Value::Tensor(number)) = *entry else { continue };
            let Some(tensor) = self.tensors.get(number) else { continue };
            if key.len() > LONGEST_NAME {
                return Err(PickleError::Limit { what: "bytes in a name", limit: LONGEST_NAME });
            }
            match tensors.get_mut(key) {
                Some(earlier) => *earlier = Arc::clone(tensor),
                None => drop(tensors.insert(key.to_owned(), Arc::clone(tensor))),
            }
        }
        Ok(tensors)
    }

    fn has_tensors(&self, dict: usize) -> bool {
        self.dicts.get(dict).into_iter().flatten().any(|entry| matches!(entry, (Value::Text(_), Value::Tensor(_))))
    }
}
