//! Labels: which texts are classes.

use super::*;

fn names(target: Target) -> (usize, String) {
    match target {
        Target::Classes { count, names, .. } => (count, names.join(" ")),
        Target::Values { names, .. } => (0, names.join(" ")),
    }
}

#[test]
fn classes_are_named_counted_or_given() {
    let text = b"1,dog\n2,cat\n3,dog\n";
    assert_eq!(names(target_of("target = 1", text)), (2, "cat dog".to_owned()));
    let (_, _, targets) = parsed("target = 1", text).unwrap();
    assert_eq!(targets, Targets::classes(vec![1, 0, 1]));
    let given = "target = 1\nclasses = [\"dog\", \"cat\"]";
    assert_eq!(names(target_of(given, text)), (2, "dog cat".to_owned()));
    assert_eq!(
        advice("target = 1\nclasses = [\"dog\", \"bird\", \"cats\"]", text),
        (
            "`table.csv` line 2, column 2 (index 1): `cat` is not one of the 3 classes".to_owned(),
            "did you mean `cats`?".to_owned()
        )
    );
    assert_eq!(names(target_of("target = 1", b"1,0\n2,1.0\n")), (2, String::new()));
    assert!(message("target = 1\nclasses = [\"a\", \"a\"]", text).contains("names each class once"));
    assert!(message("target = 1\nclasses = 0", text).contains("at least 1"));
}

#[test]
fn classes_may_begin_at_any_number() {
    let text = b"5,1\n6,2\n7,3\n5,1\n";
    let classes = |rest: &str| parsed(&format!("target = 1\n{rest}"), text).unwrap().2;
    let expected = Targets::classes(vec![0, 1, 2, 0]);
    assert_eq!(classes("first_class = 1"), expected);
    assert_eq!(classes("first_class = 1\nclasses = 3"), expected);
    assert_eq!(classes("classes = [\"1\", \"2\", \"3\"]"), expected);
    assert_eq!(classes("first_class = 1\nclasses = [\"a\", \"b\", \"c\"]"), expected);
    assert_eq!(
        names(target_of("target = 1\nfirst_class = 1\nclasses = [\"a\", \"b\", \"c\"]", text)),
        (3, "a b c".to_owned())
    );
    assert_eq!(names(target_of("target = 1\nfirst_class = 1", text)), (3, "1 2 3".to_owned()));
    let rating = b"5,-1\n6,0\n7,1\n";
    assert_eq!(parsed("target = 1\nfirst_class = -1", rating).unwrap().2, Targets::classes(vec![0, 1, 2]));
    for rest in ["", "classes = 3", "classes = [\"a\", \"b\", \"c\"]"] {
        let (message, hint) = advice(&format!("target = 1\n{rest}"), text);
        assert!(hint.contains("set `first_class = 1`"), "{message} {hint}");
    }
    assert_eq!(
        advice("target = 1", text).0,
        "`table.csv` column 2 (index 1): the classes are 0 to 3, but no row has the class 0"
    );
    assert!(advice("target = 1\nfirst_class = 2", text).1.contains("`first_class = 1`"));
}

#[test]
fn a_name_matches_its_text_or_its_number() {
    let named = "target = 1\nclasses = [\"1\", \"2\"]";
    assert_eq!(parsed(named, b"5,1.0\n6,2\n5,02\n").unwrap().2, Targets::classes(vec![0, 1, 1]));
    // Names that are one number are told apart by their texts.
    let twice = "target = 1\nclasses = [\"1\", \"01\"]";
    assert_eq!(parsed(twice, b"5,01\n6,1\n").unwrap().2, Targets::classes(vec![1, 0]));
    assert!(message(twice, b"5,1.0\n").contains("is not one of the 2 classes"));
    let minus = "target = 1\nclasses = [\"-1\", \"1\"]";
    assert_eq!(parsed(minus, b"5,-1\n6,+1\n").unwrap().2, Targets::classes(vec![0, 1]));
}

#[test]
fn a_missing_label_is_an_error_or_leaves_its_row_out() {
    for missing in ["", "NA", "NaN", "nan", "null", "NULL", "N/A", "n/a", "<NA>", "None", "#N/A"] {
        let text = format!("x,y\n1,cat\n2,{missing}\n3,dog\n");
        let named = "header = true\ntarget = \"y\"";
        let (message, hint) = advice(named, text.as_bytes());
        let shown = if missing.is_empty() { "a blank cell".to_owned() } else { format!("`{missing}`") };
        assert_eq!(message, format!("`table.csv` line 3, column 2 (`y`): {shown} is a missing target"));
        assert!(hint.contains("missing_label = \"drop\"") && hint.contains("`classes`"), "{hint}");
        let dropping = format!("{named}\nmissing_label = \"drop\"");
        let (features, _, targets) = parsed(&dropping, text.as_bytes()).unwrap();
        assert_eq!((features, targets), (vec![1.0, 3.0], Targets::classes(vec![0, 1])));
        assert_eq!(notes(&dropping, text.as_bytes()), ["`table.csv`: 1 row without a target is left out"]);
    }
    let text = b"1,cat\n2,NA\n";
    let named = parsed("target = 1\nclasses = [\"NA\", \"cat\"]", text).unwrap().2;
    assert_eq!(named, Targets::classes(vec![1, 0]), "a class may be called so");
    let other = parsed("target = 1\nmissing_values = [\"?\"]", text).unwrap().2;
    assert_eq!(other, Targets::classes(vec![1, 0]));
    assert_eq!(message("target = 1\nmissing_label = \"drop\"", b"1,\n2,NA\n"), "`table.csv` has no samples");
    let values = "target = [1, 2]\ntask = \"regression\"\nmissing_label = \"drop\"";
    let (features, _, targets) = parsed(values, b"1,5,6\n2,7,NA\n3,,8\n4,9,10\n").unwrap();
    assert_eq!(features, [1.0, 4.0]);
    assert_eq!(targets, Targets::Values { values: vec![5.0, 6.0, 9.0, 10.0], width: 2 });
}

#[test]
fn numbers_to_predict_are_told_from_classes() {
    let regression = "set `task = \"regression\"` in `[data]` if these are numbers to predict; ";
    let rows = |values: &[i64]| values.iter().map(|value| format!("1,{value}\n")).collect::<String>();
    let fractions = b"1,0.5\n2,0.25\n".as_slice();
    let (message, hint) = advice("target = 1", fractions);
    assert_eq!(message, "`table.csv` column 2 (index 1): a class is a whole number or a text, but line 1 has `0.5`");
    assert_eq!(hint, format!("{regression}else name the classes: `classes = [\"0.5\", \"0.25\"]`"));
    assert_eq!(parsed("target = 1\nclasses = [\"0.5\", \"0.25\"]", fractions).unwrap().2, Targets::classes(vec![0, 1]));

    // Measurements between 100 and 400, from -5 to 5, and a number a row.
    let scattered: Vec<i64> = (0..60).map(|row| 100 + row * 37 % 300).collect();
    let around_zero: Vec<i64> = (0..60).map(|row| row % 11 - 5).collect();
    let counted: Vec<i64> = (0..60).collect();
    for (values, problem) in [
        (scattered, "60 rows have 60 different numbers, too many to be classes"),
        (around_zero, "line 1 has `-5`, but the first class is 0"),
        (counted, "60 rows have 60 different numbers, too many to be classes"),
    ] {
        let (message, hint) = advice("target = 1", rows(&values).as_bytes());
        assert_eq!(message, format!("`table.csv` column 2 (index 1): {problem}"));
        assert!(hint.starts_with(regression), "{hint}");
    }
    let (message, hint) = advice("target = 1", rows(&[0, 3, 3, 0]).as_bytes());
    assert_eq!(message, "`table.csv` column 2 (index 1): the classes are 0 to 3, but no row has 2 of them, such as 1");
    assert_eq!(
        hint,
        format!("{regression}else name the classes: `classes = [\"0\", \"3\"]`, or count them: `classes = 4`")
    );
    assert_eq!(parsed("target = 1\nclasses = [\"0\", \"3\"]", b"1,0\n2,3\n").unwrap().2, Targets::classes(vec![0, 1]));
    let (message, hint) = advice("target = 1\nclasses = 3", b"1,0\n2,0.5\n");
    assert!(
        message.contains("`0.5` is not a whole number") && hint.starts_with("set `task = \"regression\"`"),
        "{hint}"
    );
}

#[test]
fn labels_are_all_numbers_or_all_texts() {
    for text in ["1,0\n2,x\n", "1,x\n2,0\n"] {
        let message = message("target = 1", text.as_bytes());
        assert!(message.contains("some labels are numbers (line ") && message.contains("`x`"), "{message}");
        assert!(parsed("target = 1\nclasses = [\"x\", \"0\"]", text.as_bytes()).is_ok());
    }
    assert!(advice("target = 1", b"0,label\n1,0\n2,1\n").1.starts_with("set `header = true`"));
}

#[test]
fn a_class_that_the_training_file_lacks_must_be_named() {
    let (message, hint) = advice_with_test("target = 1", "1,cat\n2,dog\n", "1,cat\n2,dogs\n");
    assert_eq!(message, "`test.csv` line 2, column 2 (index 1): `dogs` is a class that the training file lacks");
    assert!(hint.starts_with("did you mean `dog`?") && hint.contains("classes = ["), "{hint}");
    let found = advice_with_test("target = 1", "1,0\n2,1\n", "1,0\n2,2\n").0;
    assert_eq!(found, "`test.csv` line 2, column 2 (index 1): `2` is a class that the training file lacks");
    let named = "target = 1\nclasses = [\"cat\", \"dog\", \"bird\"]";
    let mut pools = with_test(named, "1,cat\n2,dog\n", "1,bird\n").unwrap();
    assert_eq!(content(pools.given.remove("test").unwrap().0).unwrap().2, Targets::classes(vec![2]));
}

#[test]
fn labels_of_different_bytes_are_different_classes() {
    // Two names in Latin-1 that are not UTF-8, and that a lossy reading makes one.
    let text = b"1,caf\xe9\n2,caf\xe8\n3,caf\xe9\n";
    let (message, hint) = advice("target = 1", text);
    assert_eq!(message, "`table.csv` line 1 is not utf-8");
    assert!(hint.contains("encoding = \"windows-1252\""), "{hint}");
    let read = "target = 1\nencoding = \"latin-1\"";
    assert_eq!(names(target_of(read, text)), (2, "caf\u{e8} caf\u{e9}".to_owned()));
    assert_eq!(parsed(read, text).unwrap().2, Targets::classes(vec![1, 0, 1]));
}

#[test]
fn a_regression_has_no_classes() {
    for rest in ["classes = 2", "first_class = 1"] {
        let message = message(&format!("target = 1\ntask = \"regression\"\n{rest}"), b"1,2\n");
        assert!(message.contains("omitted with `task = \"regression\"`"), "{message}");
    }
}
