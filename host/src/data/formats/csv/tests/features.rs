//! Features that are texts, dates, or missing.

use super::*;

const CITIES: &str = "age,city,y\n30,Rome,0\n40,Paris,1\n50,Rome,0\n";
const NAMED: &str = "header = true\ntarget = \"y\"\nclasses = 2";

#[test]
fn columns_of_texts_are_never_guessed() {
    let text = "age,city,kind,y\n30,Rome,True,0\n40,Paris,False,1\n50,Oslo,True,0\n";
    let (message, hint) = advice(NAMED, text.as_bytes());
    assert_eq!(
        message,
        "`table.csv` column 2 (`city`) holds texts, such as `Rome`, `Paris` and `Oslo`; column 3 (`kind`) holds texts, such \
         as `True` and `False`"
    );
    assert_eq!(
        hint,
        "set `categorical = [\"city\", \"kind\"]` in `[data]`, or leave them out: `drop = [\"city\", \"kind\"]`"
    );
    // One wrong cell is no column of texts.
    let message = super::message(NAMED, b"age,y\n30,0\nold,1\n50,0\n");
    assert_eq!(message, "`table.csv` line 3, column 1 (`age`): `old` is not a number");
    let (message, hint) = advice(NAMED, b"day,y\n2024-01-31,0\n2024-02-01,1\n");
    assert_eq!(message, "`table.csv` column 1 (`day`) holds dates or times, such as `2024-01-31` and `2024-02-01`");
    assert!(hint.contains("days since the first one") && hint.contains("drop = [\"day\"]"), "{hint}");
    let (_, hint) = advice("target = 1", b"city,y\nRome,0\nParis,1\n");
    assert!(hint.contains("`categorical = [0]`") && hint.contains("`header = true`"), "{hint}");
}

#[test]
fn categories_are_one_hot() {
    let rest = format!("{NAMED}\ncategorical = [\"city\"]");
    let pools = read(&options(&rest), Source::Bytes(CITIES.as_bytes())).unwrap();
    assert_eq!(pools.samples.number_names(), ["age", "city=Paris", "city=Rome"]);
    assert_eq!(pools.notes, ["`city` has 2 categories: `Paris`, `Rome`"]);
    assert_eq!(pools.samples.vocabulary(), None);
    let (features, shape, _) = content(pools.main).unwrap();
    assert_eq!((features, shape), (vec![30.0, 0.0, 1.0, 40.0, 1.0, 0.0, 50.0, 0.0, 1.0], vec![3]));
    // In the order of `features`, and numbers as texts if the column is listed.
    let rest = format!("{NAMED}\nfeatures = [\"city\", \"age\"]\ncategorical = [1, \"age\"]");
    let pools = read(&options(&rest), Source::Bytes(CITIES.as_bytes())).unwrap();
    assert_eq!(pools.samples.number_names(), ["city=Paris", "city=Rome", "age=30", "age=40", "age=50"]);
    let message = super::message(&format!("{NAMED}\ncategorical = [\"y\"]"), CITIES.as_bytes());
    assert_eq!(message, "`data.categorical` = `y` must be columns that are features");
}

#[test]
fn categories_are_indices_for_an_embedding() {
    let text = b"city,kind,y\nRome,b,0\nParis,a,1\nOslo,b,0\n";
    let rest = format!("{NAMED}\ncategorical = [\"city\", \"kind\"]\ncategorical_as = \"index\"");
    let pools = read(&options(&rest), Source::Bytes(text)).unwrap();
    assert_eq!((pools.samples.vocabulary(), pools.samples.number_names().join(" ")), (Some(5), "city kind".to_owned()));
    assert_eq!(
        pools.notes,
        [
            "`city` has 3 categories, numbered from 0: `Oslo`, `Paris`, `Rome`",
            "`kind` has 2 categories, numbered from 3: `a`, `b`",
            "the features are indices for an `embedding` of `num_embeddings = 5`",
        ]
    );
    assert_eq!(content(pools.main).unwrap().0, [2.0, 4.0, 1.0, 3.0, 0.0, 4.0]);
    for wrong in ["normalize = \"standard\"", "unknown_category = \"zeros\""] {
        let error = parsed(&format!("{rest}\n{wrong}"), text).unwrap_err();
        assert_eq!(error.option(), Some("data.categorical_as"), "{error}");
    }
    let numbers = format!("{NAMED}\ncategorical = [\"city\"]\ncategorical_as = \"index\"");
    assert!(message(&numbers, CITIES.as_bytes()).contains("unless all features are in `categorical`"));
}

#[test]
fn a_category_that_the_training_file_lacks_is_an_error_or_zeros() {
    let rest = format!("{NAMED}\ncategorical = [\"city\"]");
    let test = "age,city,y\n1,Paris,0\n2,Rom,1\n3,Rom,1\n";
    let (message, hint) = advice_with_test(&rest, CITIES, test);
    assert_eq!(message, "`test.csv` line 3, column 2 (`city`): `Rom` is a category that the training file lacks");
    assert_eq!(hint, "did you mean `Rome`? correct it, or set `unknown_category = \"zeros\"` in `[data]`");
    let mut pools = with_test(&format!("{rest}\nunknown_category = \"zeros\""), CITIES, test).unwrap();
    let note = without_folders(pools.notes.last().unwrap());
    assert_eq!(note, "`test.csv`: the features of `city` are 0 in 2 rows with a category that the training file lacks");
    let (features, ..) = content(pools.given.remove("test").unwrap().0).unwrap();
    assert_eq!(features, [1.0, 1.0, 0.0, 2.0, 0.0, 0.0, 3.0, 0.0, 0.0]);
}

const GAPS: &[u8] = b"a,city,b,y\n1,Rome,,0\n2,Paris,5,1\nNA,Rome,7,0\n4,,9,1\n";

#[test]
fn missing_features_are_an_error_or_leave_their_rows_out() {
    let rest = format!("{NAMED}\ncategorical = [\"city\"]");
    let (message, hint) = advice(&rest, GAPS);
    assert_eq!(message, "`table.csv` line 2, column 3 (`b`): a blank cell is a missing value");
    assert!(hint.starts_with("set `missing` in `[data]`"), "{hint}");
    let dropping = format!("{rest}\nmissing = \"drop\"");
    // A category that only such rows have is none.
    assert_eq!(parsed(&dropping, GAPS).unwrap().0, [2.0, 1.0, 5.0]);
    assert!(notes(&dropping, GAPS).contains(&"`table.csv`: 3 rows with missing features are left out".to_owned()));
    let index =
        "header = true\ntarget = \"y\"\ncategorical = [\"city\"]\ncategorical_as = \"index\"\nmissing = \"mean\"";
    assert!(super::message(index, b"city,y\nRome,0\n,1\n").contains("which has no index"));
}

#[test]
fn missing_features_are_left_to_the_training_split() {
    for (missing, filling) in [("mean", Filling::Mean), ("median", Filling::Median), ("zero", Filling::Zero)] {
        let rest = format!("{NAMED}\ncategorical = [\"city\"]\nmissing = \"{missing}\"");
        let pools = read(&options(&rest), Source::Bytes(GAPS)).unwrap();
        let gaps = pools.gaps.as_ref().unwrap();
        assert_eq!(gaps.filling, filling);
        let found: Vec<_> = gaps.features.iter().map(|gap| (gap.position, gap.name.as_str(), gap.count)).collect();
        assert_eq!(found, [(0, "`a`", 1), (3, "`b`", 1)]);
        assert_eq!(pools.notes.last().unwrap(), "`table.csv`: the features of `city` are 0 in 1 row without one");
        let (features, ..) = content(pools.main).unwrap();
        assert!(features[8].is_nan() && features[3].is_nan());
        assert_eq!(features[12..], [4.0, 0.0, 0.0, 9.0]);
    }
    // A gap that only another split has is filled, too.
    let pools = with_test(&format!("{NAMED}\nmissing = \"mean\""), "a,y\n1,0\n3,1\n", "a,y\nNA,0\n").unwrap();
    assert_eq!(pools.gaps.unwrap().features[0].count, 1);
}

#[test]
fn a_column_without_a_category_is_refused() {
    for missing in ["mean", "zero"] {
        let rest = format!("{NAMED}\ncategorical = [\"city\"]\nmissing = \"{missing}\"");
        for text in ["city,y\n,0\nNA,1\n", "a,city,y\n1,,0\n2,,1\n"] {
            let (message, hint) = advice(&rest, text.as_bytes());
            assert!(message.ends_with("(`city`): no row has a category"), "{message}");
            assert_eq!(hint, "all its cells are missing values: leave it out with `drop = [\"city\"]` in `[data]`");
        }
    }
}

#[test]
fn the_texts_of_missing_values_can_be_given() {
    let text = b"a,y\n?,0\n2,1\n";
    let rest = format!("{NAMED}\nmissing = \"drop\"");
    assert!(message(&rest, text).contains("`?` is not a number"));
    assert_eq!(parsed(&format!("{rest}\nmissing_values = [\"?\"]"), text).unwrap().0, [2.0]);
    let country = format!("{NAMED}\ncategorical = [\"a\"]\nmissing_values = []");
    assert_eq!(notes(&country, b"a,y\nNA,0\nDE,1\n"), ["`a` has 2 categories: `DE`, `NA`"]);
}
