//! Patterns for the names of metrics.

use plugin_api::services::fits;

/// Whether a metric matches a pattern of `include` and none of `exclude`.
pub fn selected(include: &[String], exclude: &[String], name: &str) -> bool {
    let any = |patterns: &[String]| patterns.iter().any(|pattern| fits(pattern, name));
    any(include) && !any(exclude)
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
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
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
            prop_assert!(fits(&pattern, &parts.join("")));
            prop_assert!(fits(&pattern, &parts.join("aa")));
        }
    }
}
