//! Keys and values of run files and plugin options that had another name in an earlier version.

/// Old names and new ones.
const RENAMED: [(&str, &str); 4] =
    [("normalise", "normalize"), ("colour", "color"), ("grey", "gray"), ("initialisation", "initialization")];

/// The new name of `old`, if it is among the names that are `known` in its place.
pub(super) fn new_name<'a>(old: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let (_, new) = RENAMED.iter().find(|(name, _)| *name == old)?;
    known.into_iter().find(|name| name == new)
}
