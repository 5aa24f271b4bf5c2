//! Words that people bring from other tools, and what they are called here.

use crate::report::{list, nearest};

/// Keys and values under other names.
const SYNONYMS: [(&str, &str); 16] = [
    ("lr", "learning_rate"),
    ("max_lr", "learning_rate"),
    ("wd", "weight_decay"),
    ("bs", "batch_size"),
    ("num_epochs", "epochs"),
    ("max_epochs", "epochs"),
    ("n_epochs", "epochs"),
    ("max_steps", "steps"),
    ("shuffle_seed", "seed"),
    ("dense", "linear"),
    ("fc", "linear"),
    ("conv", "conv2d"),
    ("maxpool", "max_pool2d"),
    ("avgpool", "avg_pool2d"),
    ("kernel", "kernel_size"),
    ("filters", "out_channels"),
];

/// Keys of layers in other tools that say what the layer before gives.
const INFERRED: [&str; 7] =
    ["in_features", "in_channels", "input_size", "num_features", "num_channels", "normalized_shape", "input_shape"];

/// Those of `known` that `word` probably means, the most likely first.
pub(super) fn meant<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Vec<&'a str> {
    let synonym = SYNONYMS.iter().find(|(other, _)| *other == word).map(|(_, ours)| *ours);
    match synonym.and_then(|ours| known.clone().into_iter().find(|known| *known == ours)) {
        Some(known) => vec![known],
        None => nearest(word, known),
    }
}

/// The hint that names what `word` probably means; `None` if it resembles nothing.
pub(super) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    let meant = meant(word, known);
    (!meant.is_empty()).then(|| format!("did you mean {}?", list(meant, "or")))
}

/// The hint for a key of a layer that the host finds out itself; `None` for any other key.
pub(super) fn inferred(pointer: &str, key: &str) -> Option<String> {
    let of_layer = pointer.starts_with("/model/layers/");
    (of_layer && INFERRED.contains(&key))
        .then(|| format!("remove it: `{key}` is inferred from what the layer before gives, or from the data"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_other_tools_lead_to_ours_where_there_is_one() {
        let known = ["learning_rate", "momentum", "lower"];
        assert_eq!(did_you_mean("lr", known).as_deref(), Some("did you mean `learning_rate`?"));
        assert_eq!(did_you_mean("momentun", known).as_deref(), Some("did you mean `momentum`?"));
        assert_eq!(did_you_mean("lr", ["momentum"]), None);
    }
}
