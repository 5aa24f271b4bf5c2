//! What cures the problems of a table.

use super::problem::{CellProblem, ColumnPlace, LabelsProblem, TableProblem, shown};
use crate::report::{did_you_mean, list};

impl TableProblem {
    /// What cures it.
    pub(in crate::data) fn hint(&self) -> Option<String> {
        let fixed = |text: &str| Some(text.to_owned());
        match self {
            TableProblem::Encoding { encoding, .. } if encoding == "utf-8" => {
                fixed("name its encoding in `[data]`, such as `encoding = \"windows-1252\"` for Western Europe")
            }
            TableProblem::Encoding { .. } => fixed("remove `encoding` if the file is UTF-8, or name another"),
            TableProblem::Utf16 { key, .. } => Some(format!("set `{key}` in `[data]`")),
            TableProblem::UnclosedQuote { .. } => {
                fixed("close it; if quotes have no meaning in the file, set `quote = \"none\"` in `[data]`")
            }
            TableProblem::Delimiters { candidates } => {
                let keys: Vec<String> =
                    candidates.iter().map(|delimiter| format!("delimiter = \"{delimiter}\"")).collect();
                let decimal = if candidates.iter().any(|delimiter| delimiter == ",") {
                    "; if commas are decimal ones, `decimal = \",\"`, too"
                } else {
                    ""
                };
                Some(format!("set {} in `[data]`{decimal}", list(keys.iter().map(String::as_str), "or")))
            }
            TableProblem::OneColumn { better, .. } => {
                better.as_ref().map(|better| format!("set `delimiter = \"{better}\"` in `[data]`"))
            }
            TableProblem::Ragged { expected: 1, .. } => {
                fixed("the first line has one column: remove it if it is a title, or set `delimiter` in `[data]`")
            }
            TableProblem::Ragged { .. } => {
                fixed("a text that contains delimiters is quoted; a file with other delimiters needs `delimiter`")
            }
            TableProblem::DuplicateColumn { .. } => {
                fixed("rename one of them, or remove a copy: that of a target would give it away")
            }
            TableProblem::NoHeader { training: None, .. } => {
                fixed("set `header = false` in `[data]`, and give columns by their indices, counted from 0")
            }
            TableProblem::NoHeader { training: Some(_), .. } => {
                fixed("add the header of the training file, since columns are found by their names")
            }
            TableProblem::OtherColumns { missing, extra, .. } => {
                let near = missing.iter().find_map(|name| {
                    let near = did_you_mean(name, extra.iter().map(String::as_str))?;
                    Some(format!("`{}`: {near}", shown(name)))
                });
                let drop: Vec<String> = extra.iter().map(|name| format!("{name:?}")).collect();
                near.or_else(|| {
                    (!extra.is_empty()).then(|| format!("`drop = [{}]` leaves columns out", drop.join(", ")))
                })
            }
            TableProblem::UnknownColumn { near, .. } => near.clone(),
            TableProblem::NameWithoutHeader { .. } => {
                fixed("set `header = true` in `[data]`, or give the column's index, counted from 0")
            }
            TableProblem::Shape { .. } => fixed("the features are all columns but `target` and those of `drop`"),
            TableProblem::NoCategory { column } => Some(format!(
                "all its cells are missing values: leave it out with `drop = [{}]` in `[data]`",
                column.key()
            )),
            TableProblem::NotNumbers { columns, dates, first_line } => {
                let keys: Vec<String> = columns.iter().map(|(column, _)| column.key()).collect();
                let keys = keys.join(", ");
                let mut hint = match dates {
                    true => format!(
                        "write dates as numbers, such as days since the first one, or leave them out: `drop = [{keys}]`"
                    ),
                    false => format!("set `categorical = [{keys}]` in `[data]`, or leave them out: `drop = [{keys}]`"),
                };
                if *first_line {
                    hint.push_str("; if the first line names the columns, set `header = true`");
                }
                Some(hint)
            }
            TableProblem::Cell { line, column, text, problem } => {
                let missing = || format!("if it means a missing value, list it: `missing_values = [{text:?}]`");
                let is_text = *problem == CellProblem::NotANumber && (*line > 1 || column.name.is_some());
                let hint = problem.hint(column).or_else(|| is_text.then(missing));
                // A header that is read as a row is wrong in its first number.
                let header = "if the first line names the columns, set `header = true` in `[data]`";
                match (hint, line, column.name.is_none()) {
                    (Some(hint), 1, true) => Some(format!("{hint}; {header}")),
                    (None, 1, true) => fixed(header),
                    (hint, ..) => hint,
                }
            }
            TableProblem::Labels { problem, .. } => Some(problem.hint()),
            TableProblem::OtherWidth { .. } => None,
        }
    }
}

impl CellProblem {
    fn hint(&self, column: &ColumnPlace) -> Option<String> {
        let fixed = |text: &str| Some(text.to_owned());
        let first = |first: &Option<i64>| first.map(|first| format!("set `first_class = {first}` in `[data]`"));
        match self {
            CellProblem::NotANumber | CellProblem::NotFinite => None,
            CellProblem::DecimalComma => {
                fixed("set `decimal = \",\"` in `[data]`; a comma that separates thousands must be removed")
            }
            CellProblem::DecimalPoint => {
                fixed("remove `decimal = \",\"`; a point that separates thousands must be removed")
            }
            CellProblem::Thousands => fixed("write the number without it"),
            CellProblem::Currency | CellProblem::Percent => {
                Some(format!("write the number without it, or leave the column out: `drop = [{}]`", column.key()))
            }
            CellProblem::Date => Some(format!(
                "write it as a number, such as days since a first one, or leave the column out: `drop = [{}]`",
                column.key()
            )),
            CellProblem::Delimiter(delimiter) => {
                let decimal = if *delimiter == ';' { ", and `decimal = \",\"` for decimal commas" } else { "" };
                Some(format!("set `delimiter = \"{}\"` in `[data]`{decimal}", delimiter.escape_default()))
            }
            CellProblem::Missing => fixed(
                "set `missing` in `[data]`: `\"mean\"`, `\"median\"` or `\"zero\"` replaces it, `\"drop\"` leaves the row out",
            ),
            CellProblem::MissingIndex => fixed("`missing = \"drop\"` leaves the row out"),
            CellProblem::MissingLabel => fixed(
                "`missing_label = \"drop\"` leaves such rows out; a class of this name must be named in `classes`",
            ),
            CellProblem::NotWhole => fixed(
                "set `task = \"regression\"` in `[data]` if it is a number to predict, or name all classes in `classes`",
            ),
            CellProblem::NotAClass { first_class, .. } => {
                first(first_class).or_else(|| fixed("correct the label, or `classes` and `first_class`"))
            }
            CellProblem::UnknownName { near, first_class, .. } => near.clone().or_else(|| first(first_class)),
            CellProblem::NewClass { near } => {
                Some(with_near(near, "correct it, or name all classes: `classes = [\"…\", …]`"))
            }
            CellProblem::NewCategory { near, zeros: true } => {
                Some(with_near(near, "correct it, or set `unknown_category = \"zeros\"` in `[data]`"))
            }
            CellProblem::NewCategory { near, zeros: false } => {
                Some(with_near(near, "correct it, or leave such rows out of the file"))
            }
        }
    }
}

impl LabelsProblem {
    fn hint(&self) -> String {
        const REGRESSION: &str = "set `task = \"regression\"` in `[data]` if these are numbers to predict";
        let named = |all: &Option<Vec<String>>| match all {
            Some(all) => format!("name the classes: `classes = [{}]`", quoted(all)),
            None => "name the classes in `classes`".to_owned(),
        };
        let begin = |first_class: &Option<i64>| {
            first_class.map_or_else(String::new, |first| format!("set `first_class = {first}` if they begin there; "))
        };
        match self {
            LabelsProblem::Fractions { all, .. } => format!("{REGRESSION}; else {}", named(all)),
            LabelsProblem::Many { count, .. } => format!("{REGRESSION}; else count the classes: `classes = {count}`"),
            LabelsProblem::BelowFirst { first_class, all, .. } => {
                format!("{REGRESSION}; {}else {}", begin(first_class), named(all))
            }
            LabelsProblem::Gaps { first, last, lacking, first_class: Some(begin), .. } => {
                let all = last - first + 1;
                // Many classes without rows are a sign of measurements.
                let regression = *lacking > all / 2;
                let regression = if regression { format!("{REGRESSION}; ") } else { String::new() };
                format!(
                    "{regression}set `first_class = {begin}` if the classes begin there, or `classes = {all}` if these have \
                     no rows yet"
                )
            }
            LabelsProblem::Gaps { first, last, all, .. } => {
                let count = last - first + 1;
                format!("{REGRESSION}; else {}, or count them: `classes = {count}`", named(all))
            }
            LabelsProblem::Mixed { text_line: 1, .. } => {
                "set `header = true` in `[data]` if the first line names the columns; else name all classes in `classes`"
                    .to_owned()
            }
            LabelsProblem::Mixed { .. } => {
                "correct the label, or name all classes: `classes = [\"…\", …]`; a text that means a missing value belongs \
                 in `missing_values`"
                    .to_owned()
            }
        }
    }
}

fn with_near(near: &Option<String>, hint: &str) -> String {
    near.as_ref().map_or_else(|| hint.to_owned(), |near| format!("{near} {hint}"))
}

fn quoted(texts: &[String]) -> String {
    texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", ")
}
