//! The file of `human-hyperparams`: lines `learning_rate: 0.001` and `head.learning_rate: 0.01`.

use std::collections::BTreeMap;

/// A line that says something.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    /// Its number in the file, from 1.
    pub(super) number: usize,
    /// The parameter group; `None` for all.
    pub(super) group: Option<String>,
    /// The hyper-parameter.
    pub(super) name: String,
    pub(super) value: f64,
}

/// The lines that say something, and the number and the reason of each line that is wrong. The first line about a
/// hyper-parameter counts.
pub(super) fn lines(text: &str) -> Vec<Result<Line, (usize, String)>> {
    let mut first: BTreeMap<(Option<String>, String), usize> = BTreeMap::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let said = line.split('#').next().unwrap_or_default().trim();
        if said.is_empty() {
            continue;
        }
        let line = parse(number, said).and_then(|line| {
            match first.entry((line.group.clone(), line.name.clone())) {
                std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(number)),
                std::collections::btree_map::Entry::Occupied(entry) => {
                    return Err(format!("line {} has set `{}` already", entry.get(), line.key()));
                }
            }
            Ok(line)
        });
        found.push(line.map_err(|reason| (number, reason)));
    }
    found
}

fn parse(number: usize, said: &str) -> Result<Line, String> {
    let (key, value) = said.split_once(':').ok_or("it is not `name: value`")?;
    let (key, value) = (key.trim(), value.trim());
    // The name of a hyper-parameter has no dot, that of a group may.
    let (group, name) = match key.rsplit_once('.') {
        Some((group, name)) => (Some(group.to_owned()), name),
        None => (None, key),
    };
    if name.is_empty() || group.as_deref() == Some("") {
        return Err("it is not `name: value`".to_owned());
    }
    let number_of: f64 = value.parse().map_err(|_| format!("`{value}` is not a number"))?;
    if !number_of.is_finite() {
        return Err(format!("`{value}` is not a finite number"));
    }
    Ok(Line { number, group, name: name.to_owned(), value: number_of })
}

impl Line {
    fn key(&self) -> String {
        self.group.as_ref().map_or_else(|| self.name.clone(), |group| format!("{group}.{}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_group_may_have_dots_in_its_name() {
        let line = Line { number: 1, group: Some("block.1".to_owned()), name: "momentum".to_owned(), value: 0.5 };
        assert_eq!(lines("block.1.momentum:5e-1"), [Ok(line)]);
    }

    #[test]
    fn the_same_name_in_another_group_is_another() {
        let found = lines("a.momentum: 0\nmomentum: 1\nb.momentum: 2\nb.momentum: 3");
        assert!(found[..3].iter().all(Result::is_ok), "{found:?}");
        assert_eq!(found[3], Err((4, "line 3 has set `b.momentum` already".to_owned())));
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_no_number_is_infinite(text in "[a-z.:#0-9e \n-]{0,40}|\\PC{0,40}") {
            prop_assert!(lines(&text).iter().flatten().all(|line| line.value.is_finite()));
        }
    }
}
