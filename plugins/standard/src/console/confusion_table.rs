//! A confusion matrix as lines of text.
//!
//! ```text
//! val_confusion_matrix after step 336 (rows: true class, columns: predicted)
//!         cat  dog
//!   cat    45    3
//!   dog     2   50
//! ```

use monitor::ConfusionMatrix;

/// Longer names of classes are shortened.
const LONGEST_NAME: usize = 12;

/// Errors of a matrix that is too wide, of which only these are shown.
const ERRORS: usize = 5;

/// The lines of a matrix, none longer than `width`; of one that is wider, its most frequent errors.
pub(crate) fn lines(matrix: &ConfusionMatrix, width: usize) -> Vec<String> {
    let title = format!("{} after step {}", matrix.name, matrix.step);
    let name = |name: &str| -> String {
        match name.chars().count() > LONGEST_NAME {
            true => name.chars().take(LONGEST_NAME - 1).chain(['…']).collect(),
            false => name.to_owned(),
        }
    };
    let names: Vec<String> = matrix.classes.iter().map(|class| name(class)).collect();
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let digits = matrix.counts.iter().max().map_or(1, |count| count.to_string().len());
    let column = longest.max(digits) + 2;
    if 2 + longest + column * names.len() <= width {
        let head: String = names.iter().map(|name| format!("{name:>column$}")).collect();
        let rows = names.iter().zip(matrix.rows()).map(|(name, (_, counts))| {
            let cells: String = counts.iter().map(|count| format!("{count:>column$}")).collect();
            format!("  {name:<longest$}{cells}")
        });
        let title = format!("{title} (rows: true class, columns: predicted)");
        return [title, format!("{:longest$}  {head}", "")].into_iter().chain(rows).collect();
    }
    let errors = matrix.largest_errors(ERRORS).into_iter();
    let errors = errors.map(|error| {
        let (class, predicted) = (name(error.class), name(error.predicted));
        format!("  {class} predicted as {predicted}: {}", error.count)
    });
    let title = format!("{title}, {} classes; its most frequent errors:", names.len());
    std::iter::once(title).chain(errors).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(classes: &[&str], counts: &[u64]) -> ConfusionMatrix {
        ConfusionMatrix {
            name: "val_confusion_matrix".to_owned(),
            epoch: 12,
            step: 336,
            classes: classes.iter().map(|class| (*class).to_owned()).collect(),
            counts: counts.to_vec(),
        }
    }

    #[test]
    fn a_small_matrix_is_a_table() {
        let lines = lines(&matrix(&["cat", "a very long name"], &[45, 3, 2, 1050]), 80);
        assert_eq!(
            lines,
            [
                "val_confusion_matrix after step 336 (rows: true class, columns: predicted)",
                "                         cat  a very long…",
                "  cat                     45             3",
                "  a very long…             2          1050",
            ]
        );
    }

    #[test]
    fn of_a_wide_matrix_the_errors_are_shown() {
        let lines = lines(&matrix(&["cat", "dog", "bird"], &[9, 1, 0, 4, 9, 2, 0, 0, 9]), 20);
        assert_eq!(
            lines,
            [
                "val_confusion_matrix after step 336, 3 classes; its most frequent errors:",
                "  dog predicted as cat: 4",
                "  dog predicted as bird: 2",
                "  cat predicted as dog: 1",
            ]
        );
    }
}
