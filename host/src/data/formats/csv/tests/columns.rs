//! Columns: by index, by name, and in the files of several splits.

use super::*;

#[test]
fn columns_are_found_by_name() {
    let text = b"kind,a,b\n1,5,6\n";
    let named = "header = true\ntarget = \"kind\"\nclasses = 3";
    let (features, _, targets) = parsed(named, text).unwrap();
    assert_eq!((features, targets), (vec![5.0, 6.0], Targets::classes(vec![1])));
    let (features, ..) = parsed(&format!("{named}\nfeatures = [\"b\", 1, \"b\"]"), text).unwrap();
    assert_eq!(features, [6.0, 5.0, 6.0]);
    let (message, hint) = advice("header = true\ntarget = \"kinds\"", text);
    assert_eq!(message, "`table.csv` has no column `kinds`; it has `kind`, `a`, `b`");
    assert_eq!(hint, "did you mean `kind`?");
    assert!(advice("target = \"kind\"", text).1.contains("header = true"));
    assert_eq!(
        super::message(&format!("{named}\nfeatures = [\"a\", \"kind\"]"), text),
        "`data.features` = `kind` must be columns other than the target"
    );
}

#[test]
fn columns_are_left_out() {
    let text = b"id,a,b,kind\n7,1,2,0\n8,3,4,1\n";
    let named = "header = true\ntarget = \"kind\"\nclasses = 2";
    for drop in ["drop = [\"id\"]", "drop = [0]", "features = [\"a\", \"b\"]\ndrop = [\"id\"]"] {
        let pools = read(&options(&format!("{named}\n{drop}")), Source::Bytes(text)).unwrap();
        assert_eq!(pools.samples.number_names(), ["a", "b"]);
        assert_eq!(content(pools.main).unwrap().0, [1.0, 2.0, 3.0, 4.0]);
    }
    let (message, hint) = advice(&format!("{named}\ndrop = [\"ids\"]"), text);
    assert_eq!(
        (message.as_str(), hint.as_str()),
        ("`table.csv` has no column `ids`; it has `id`, `a`, `b`, `kind`", "did you mean `id`?")
    );
    for (rest, key) in [("drop = [\"kind\"]", "data.drop"), ("drop = [\"a\"]\nfeatures = [\"a\"]", "data.drop")] {
        let error = parsed(&format!("{named}\n{rest}"), text).unwrap_err();
        assert_eq!(error.option(), Some(key), "{error}");
    }
    assert!(super::message(&format!("{named}\ndrop = [\"id\", \"a\", \"b\"]"), text).contains("at least one column"));
}

const NAMED: &str = "header = true\ntarget = \"y\"\nclasses = 2";

#[test]
fn another_file_is_read_by_its_names() {
    let train = "a,b,y\n1,2,0\n3,4,1\n";
    for (rest, test) in [
        (NAMED.to_owned(), "y,b,a\n0,2,1\n1,4,3\n"),
        (format!("{NAMED}\ndrop = [\"id\"]"), "id,y,b,a\n9,0,2,1\n9,1,4,3\n"),
        // A list of features needs no other column.
        (format!("{NAMED}\nfeatures = [0, \"b\"]"), "b,id,y,a\n2,9,0,1\n4,9,1,3\n"),
    ] {
        let mut pools = with_test(&rest, train, test).unwrap();
        let (test, _) = pools.given.remove("test").unwrap();
        assert_eq!(content(test).unwrap(), content(pools.main).unwrap(), "{rest}");
    }
}

#[test]
fn other_columns_are_refused() {
    let train = "age,b,y\n1,2,0\n3,4,1\n";
    for (test, message, hint) in [
        (
            "age,b,z\n1,2,0\n",
            "`test.csv` has other columns than `train.csv`: it lacks `y`; only it has `z`",
            "`drop = [\"z\"]` leaves columns out",
        ),
        (
            "agee,b,y\n1,2,0\n",
            "`test.csv` has other columns than `train.csv`: it lacks `age`; only it has `agee`",
            "`age`: did you mean `agee`?",
        ),
        ("b,y\n2,0\n", "`test.csv` has other columns than `train.csv`: it lacks `age`", ""),
        (
            "id,age,b,y\n1,1,2,0\n",
            "`test.csv` has other columns than `train.csv`: only it has `id`",
            "`drop = [\"id\"]` leaves columns out",
        ),
        (
            "1,2,0\n3,4,1\n",
            "`test.csv` has no header: line 1 has none of the names of `train.csv`",
            "add the header of the training file, since columns are found by their names",
        ),
        (
            "\nu,v,w\n3,4,1\n",
            "`test.csv` has no header: line 2 has none of the names of `train.csv`",
            "add the header of the training file, since columns are found by their names",
        ),
        (
            "age,b,b,y\n1,2,3,0\n",
            "`test.csv` names two columns `b`: columns 2 and 3",
            "rename one of them, or remove a copy: that of a target would give it away",
        ),
    ] {
        assert_eq!(advice_with_test(NAMED, train, test), (message.to_owned(), hint.to_owned()));
    }
    let found = advice_with_test("target = 2\nclasses = 2", "1,2,0\n", "1,2,3,0\n").0;
    assert_eq!(found, "`test.csv` has 4 columns, but `train.csv` has 3");
    // Numbers that happen to be names, too, make a row no header.
    let counted = "header = true\ntarget = 3\nclasses = 2";
    let found = advice_with_test(counted, "0,1,2,3\n5,6,7,0\n", "0,0,1,1\n").0;
    assert!(found.starts_with("`test.csv` has no header"), "{found}");
}

#[test]
fn a_header_names_each_column_once() {
    assert_eq!(super::message(NAMED, b"y,a,y\n0,1,0\n"), "`table.csv` names two columns `y`: columns 1 and 3");
    assert_eq!(super::message(NAMED, b",y,\n0,1,0\n"), "`table.csv` names two columns with no name: columns 1 and 3");
    assert_eq!(
        notes(NAMED, b",a,y\n0,1,0\n1,2,1\n"),
        ["column 1 has no name and is a feature; if it numbers the rows, `drop = [0]` leaves it out"]
    );
    assert!(notes(&format!("{NAMED}\ndrop = [0]"), b",a,y\n0,1,0\n1,2,1\n").is_empty());
}

#[test]
fn a_training_file_without_a_header_is_recognized() {
    let by_index = "header = true\ntarget = 2\nclasses = 2";
    let (message, hint) = advice(by_index, b"\n5.5,2,0\n3,4,1\n");
    assert_eq!(message, "`table.csv` has no header: line 2 holds only numbers");
    assert!(hint.contains("`header = false`"), "{hint}");
    // Numbers that count the columns, and numbers that the options name, are names.
    for (rest, text) in [
        (by_index, "0,1,2\n3,4,1\n"),
        (by_index, "1,2,3\n3,4,1\n"),
        ("header = true\ntarget = \"2021\"\nclasses = 2", "2019,2020,2021\n3,4,1\n"),
    ] {
        assert_eq!(parsed(rest, text.as_bytes()).unwrap().0, [3.0, 4.0], "{text}");
    }
}
