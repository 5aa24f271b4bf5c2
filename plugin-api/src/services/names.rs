//! Names: patterns of them, and what is said of one that is not known, with those that were probably meant.

use std::cmp::Reverse;

use super::rules::Refusal;
use crate::abi::kinds::Status;

/// The most names that a message suggests.
const OFFERED: usize = 3;

/// The candidates that `word` probably means, the most likely first, at most three.
///
/// A candidate counts when at most a third of its letters differ (Damerau-Levenshtein distance, capitals and
/// `-` against `_` ignored), or when it starts with the word.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let word = folded(word);
    let length = word.chars().count();
    let mut near: Vec<(usize, usize, &str)> = candidates
        .into_iter()
        .enumerate()
        .filter_map(|(order, candidate)| {
            let folded = folded(candidate);
            let distance = strsim::damerau_levenshtein(&word, &folded);
            let allowed = (length.max(folded.chars().count()) / 3).max(1);
            // Words of one letter are not similar if that letter differs.
            let resembles = distance <= allowed && distance < length;
            let begins = length >= 3 && folded.starts_with(&word);
            (resembles || begins).then_some((distance, order, candidate))
        })
        .collect();
    near.sort_by_key(|&(distance, order, candidate)| (distance, order, Reverse(candidate)));
    near.dedup_by_key(|entry| entry.2);
    near.into_iter().take(OFFERED).map(|(_, _, candidate)| candidate).collect()
}

/// The hint with the nearest candidates, or `None` if nothing is similar to `word`.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let near = nearest(word, candidates);
    (!near.is_empty()).then(|| format!("did you mean {}?", list_names(near, "or")))
}

/// Whether `name` fits `pattern`, in which `*` stands for any text.
pub fn fits(pattern: &str, name: &str) -> bool {
    // The last star, and where in the name the rest of the pattern was tried.
    let mut retry: Option<(&[u8], &[u8])> = None;
    let (mut pattern, mut name) = (pattern.as_bytes(), name.as_bytes());
    loop {
        match (pattern, name) {
            ([], []) => return true,
            ([b'*', rest @ ..], _) => {
                retry = Some((rest, name));
                pattern = rest;
            }
            ([own, rest @ ..], [other, others @ ..]) if own == other => (pattern, name) = (rest, others),
            _ => match retry {
                Some((rest, [_, others @ ..])) => {
                    retry = Some((rest, others));
                    (pattern, name) = (rest, others);
                }
                _ => return false,
            },
        }
    }
}

/// Those of `names` that any of the `patterns` fits, in their order.
///
/// # Errors
///
/// A pattern that fits none of them; the message suggests names and patterns that do.
pub fn fitting<'n>(what: &str, patterns: &[String], names: &[&'n str]) -> Result<Vec<&'n str>, Refusal> {
    let is_missing = |pattern: &&String| !names.iter().any(|name| fits(pattern, name));
    if let Some(pattern) = patterns.iter().find(is_missing) {
        let patterns = patterns_of(names);
        let candidates = names.iter().copied().chain(patterns.iter().map(String::as_str));
        return Err(Refusal { status: Status::NO_SUCH_NAME, message: no_such_name(what, pattern, candidates) });
    }
    Ok(names.iter().copied().filter(|name| patterns.iter().any(|pattern| fits(pattern, name))).collect())
}

/// Patterns that people write for tensors of these names: of a layer (`conv1.*`), and of its kind (`conv*`).
fn patterns_of(names: &[&str]) -> Vec<String> {
    let mut patterns: Vec<String> = Vec::new();
    for (layer, _) in names.iter().filter_map(|name| name.rsplit_once('.')) {
        let kind = layer.trim_end_matches(|letter: char| letter.is_ascii_digit());
        patterns.extend([format!("{kind}*"), format!("{layer}.*")]);
    }
    patterns.dedup();
    patterns
}

/// The refusal of every host to freeze the last parameter that learns.
pub fn nothing_learns() -> Refusal {
    let message = "all parameters of the model would be frozen, so that nothing would learn; leave some out".to_owned();
    Refusal { status: Status::ERROR, message }
}

/// The refusal of every host to add a split under the name of another one.
pub fn split_is_there(split: &str) -> Refusal {
    let message = format!("the run has a split `{split}` already; give the other data another name");
    Refusal { status: Status::ERROR, message }
}

/// The refusal of every host to take no batch of a split.
pub fn no_batch(split: &str) -> Refusal {
    let message = format!("0 batches of `{split}` would be none; take 1 or more, or leave the limit out for all");
    Refusal { status: Status::ERROR, message }
}

/// There is no `what` called `name`: the message of every host, with the nearest of `names`.
pub fn no_such_name<'n>(what: &str, name: &str, names: impl IntoIterator<Item = &'n str>) -> String {
    let nearest = did_you_mean(name, names).map_or_else(String::new, |hint| format!("; {hint}"));
    format!("there is no {what} `{name}`{nearest}")
}

/// The option called `name` of an instance's `options`; `a.b` is `b` in the table `a`.
///
/// # Errors
///
/// When there is no such option; the message lists the nearest names of its table.
pub fn option_of<'o>(options: &'o serde_json::Value, name: &str) -> Result<&'o serde_json::Value, Refusal> {
    let mut value = options;
    let mut path = String::new();
    for part in name.split('.') {
        let table = value.as_object();
        value = table.and_then(|table| table.get(part)).ok_or_else(|| {
            let keys = table.into_iter().flat_map(|table| table.keys());
            let names: Vec<String> = keys.map(|key| format!("{path}{key}")).collect();
            let message = no_such_name("option", name, names.iter().map(String::as_str));
            Refusal { status: Status::NO_SUCH_NAME, message }
        })?;
        path = format!("{path}{part}.");
    }
    Ok(value)
}

/// The metric is known but has no value yet: the message of every host.
pub fn no_value(metric: &str) -> String {
    format!("the metric `{metric}` has no value yet")
}

/// Names in backticks as a sentence lists them: `` `a`, `b` or `c` ``.
pub fn list_names<'a>(names: impl IntoIterator<Item = &'a str>, conjunction: &str) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} {conjunction} {last}", others.join(", ")),
    }
}

fn folded(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_finds_its_word_and_the_closest_comes_first() {
        let keys = ["epochs", "steps", "optimizer", "metrics"];
        assert_eq!(nearest("optimzer", keys), ["optimizer"]);
        assert_eq!(nearest("epoch", keys), ["epochs"]);
        assert_eq!(nearest("stepe", ["stepped", "steps"]), ["steps", "stepped"]);
    }

    #[test]
    fn the_nearest_options_are_those_of_the_same_table() {
        let options = serde_json::json!({ "limit": 1, "table": { "patience": 3 } });
        assert_eq!(option_of(&options, "table.patience").unwrap(), 3);
        let said = |name: &str| option_of(&options, name).unwrap_err().message;
        assert_eq!(said("table.patiense"), "there is no option `table.patiense`; did you mean `table.patience`?");
        assert_eq!(said("limt"), "there is no option `limt`; did you mean `limit`?");
    }

    #[test]
    fn a_pattern_that_fits_nothing_is_told_with_one_that_does() {
        let names = ["conv1.weight", "conv1.bias", "bn1.weight", "fc1.weight"];
        let fitting = |pattern: &str| fitting("parameter", &[pattern.to_owned()], &names).map_err(|it| it.message);
        assert_eq!(fitting("*1.weight").unwrap(), ["conv1.weight", "bn1.weight", "fc1.weight"]);
        let said = |pattern: &str| fitting(pattern).unwrap_err();
        assert_eq!(said("conf*"), "there is no parameter `conf*`; did you mean `conv*`?");
        assert_eq!(said("conv2.*"), "there is no parameter `conv2.*`; did you mean `conv1.*` or `conv*`?");
        assert_eq!(said("zzzzzz"), "there is no parameter `zzzzzz`");
    }

    #[test]
    fn capitals_hyphens_and_beginnings_count() {
        assert_eq!(nearest("Early_Stopping", ["early-stopping"]), ["early-stopping"]);
        assert_eq!(nearest("learn", ["learning_rate", "loss"]), ["learning_rate"]);
    }

    #[test]
    fn what_resembles_nothing_gets_no_offer() {
        assert_eq!(did_you_mean("xylophone", ["epochs", "steps"]), None);
        assert_eq!(did_you_mean("a", ["b"]), None);
        assert_eq!(did_you_mean("", ["a", ""]), None);
    }

    #[test]
    fn several_offers_read_as_a_sentence() {
        assert_eq!(did_you_mean("conv", ["conv1d", "conv2d"]).as_deref(), Some("did you mean `conv1d` or `conv2d`?"));
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text) in
            [("*", ""), ("*.bias", "fc1.bias"), ("fc*.b*", "fc1.bias"), ("a*b*c", "aXbYbZc"), ("fc1.bias", "fc1.bias")]
        {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("", "a"), ("*.bias", "fc1.weight"), ("fc", "fc1"), ("a*b", "a"), ("*a", "ab")] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }
}
