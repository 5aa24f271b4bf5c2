//! What matched and what did not, for people.

use super::{InitialWeights, Skipped};
use crate::report::{list, nearest};

/// The most names that a message lists.
pub(super) const SHOWN: usize = 4;

/// The first of some names, and how many more there are.
pub(super) fn few(names: &[String]) -> String {
    match names.len().saturating_sub(SHOWN) {
        _ if names.is_empty() => "no tensor".to_owned(),
        0 => list(names.iter().map(String::as_str), "and"),
        more => {
            let first: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
            format!("{} and {more} more", first.join(", "))
        }
    }
}

impl InitialWeights {
    /// The tensors that matched and those that did not, and why.
    pub fn report(&self) -> String {
        let total = self.matched.len() + self.missing.len() + self.skipped.len();
        let mut text =
            format!("weights: {} of {total} tensors from `{}`", self.matched.len(), self.file.path.display());
        if let Some(key) = &self.file.within {
            text.push_str(&format!(", its `{key}`"));
        }
        if !self.skipped.is_empty() {
            let more = match self.skipped.len().saturating_sub(SHOWN) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let told: Vec<String> = self.skipped.iter().take(SHOWN).map(Skipped::told).collect();
            text.push_str(&format!("; skipped {}{more}", told.join(", ")));
        }
        for (names, what) in [(&self.missing, "the file lacks"), (&self.unused, "the model lacks")] {
            if !names.is_empty() {
                text.push_str(&format!("; {what} {}", few(names)));
            }
        }
        let (prefix, count) = &self.without_prefix;
        if *count > 0 {
            text.push_str(&format!("; {count} without the prefix `{prefix}`"));
        }
        if let Some(advice) = advice(&self.missing, &self.unused) {
            return format!("{text} ({advice})");
        }
        let alike = self.missing.iter().find_map(|name| {
            let near = nearest(name, self.unused.iter().map(String::as_str));
            Some(format!(" (is `{}` of the file `{name}` of the model?)", near.first()?))
        });
        text + alike.unwrap_or_default().as_str()
    }
}

impl Skipped {
    fn told(&self) -> String {
        match &self.shapes {
            Some((file, model)) => format!("`{}` ({file:?} in the file, {model:?} in the model)", self.name),
            None => format!("`{}`", self.name),
        }
    }
}

/// A prefix that names of the file have and the model's have not, or the other way round, as a line of the run file.
pub(super) fn advice(missing: &[String], unused: &[String]) -> Option<String> {
    if let Some(prefix) = prefix_of(unused, missing) {
        return Some(format!("with `prefix = \"{prefix}\"`, more would match"));
    }
    let prefix = prefix_of(missing, unused)?;
    Some(format!("with `rename = {{ \"^\" = \"{prefix}\" }}`, more would match"))
}

/// What most of the `long` names have before one of the `short` ones.
fn prefix_of<'n>(long: &'n [String], short: &[String]) -> Option<&'n str> {
    let short: std::collections::HashSet<&str> = short.iter().map(String::as_str).collect();
    let mut counts: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for name in long {
        for (dot, _) in name.match_indices('.') {
            let (prefix, rest) = name.split_at(dot + 1);
            if short.contains(rest) {
                *counts.entry(prefix).or_default() += 1;
            }
        }
    }
    let (prefix, count) = counts.into_iter().max_by_key(|(prefix, count)| (*count, std::cmp::Reverse(prefix.len())))?;
    // One name of many is a coincidence, such as `0.weight` in `layer.0.weight`.
    (count * 2 > short.len()).then_some(prefix)
}
