//! Patterns for the names of metrics.

/// Whether a metric matches a pattern of `include` and none of `exclude`.
pub fn selected(include: &[String], exclude: &[String], name: &str) -> bool {
    let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, name));
    any(include) && !any(exclude)
}

/// Whether `name` matches `pattern`, where `*` stands for any characters.
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut pieces: Vec<_> = pieces.collect();
    // Without a star there is no last piece, and nothing may remain.
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        match rest.split_once(piece) {
            Some((_, tail)) => rest = tail,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_is_any_characters_and_nothing_else_is_special() {
        let cases = [
            ("val_loss", "val_loss", true),
            ("val_loss", "val_losses", false),
            ("*", "", true),
            ("a*", "a", true),
            ("*a", "ba", true),
            ("a*a", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
            ("v?l", "val", false),
            ("", "", true),
            ("", "a", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_excluded_is_not_selected_even_if_it_is_included() {
        let patterns = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let (include, exclude) = (patterns(&["val_*", "train_loss"]), patterns(&["*f1"]));
        let chosen = ["val_loss", "val_f1", "train_loss", "train_accuracy"];
        let chosen: Vec<_> = chosen.into_iter().filter(|name| selected(&include, &exclude, name)).collect();
        assert_eq!(chosen, ["val_loss", "train_loss"]);
    }

    proptest! {
        #[test]
        fn a_pattern_made_from_a_name_matches_it(parts in prop::collection::vec("[a-c]{0,3}", 1..5)) {
            let pattern = parts.join("*");
            prop_assert!(matches(&pattern, &parts.join("")));
            prop_assert!(matches(&pattern, &parts.join("aa")));
        }
    }
}
