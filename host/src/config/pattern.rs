//! Patterns of names, in which `*` stands for any text.

/// Whether `name` fits `pattern`.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::fits;

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

    proptest! {
        #[test]
        fn a_text_with_parts_taken_out_fits(parts in prop::collection::vec("[ab.]{0,4}", 1..5), others in "[ab.]{0,4}") {
            let pattern = parts.join("*");
            prop_assert!(fits(&pattern, &parts.join(&others)));
        }
    }
}
