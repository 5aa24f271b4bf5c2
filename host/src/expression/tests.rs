use std::sync::RwLock;

use plugin_api::protocol::Action;
use plugin_api::protocol::requests::Evaluate;
use proptest::prelude::*;

use super::*;
use crate::history::History;

/// A run in its third epoch.
struct Run {
    metrics: BTreeMap<&'static str, f64>,
    history: Arc<RwLock<History>>,
    groups: Vec<ParameterGroup>,
}

const POSITION: Position = Position { epoch: 3, step: 4, global_step: 24, samples: 768 };

impl Surroundings for Run {
    fn position(&self) -> Position {
        POSITION
    }

    fn metric(&mut self, name: &str) -> Option<f64> {
        self.metrics.get(name).copied()
    }

    fn history(&self) -> HistoryView {
        HistoryView::now(Arc::clone(&self.history))
    }

    fn groups(&self) -> Vec<ParameterGroup> {
        self.groups.clone()
    }
}

fn run() -> Run {
    let mut history = History::new();
    for (name, values) in
        [("val_loss", &[0.8, 0.4, 0.6][..]), ("val/accuracy", &[0.5, f64::NAN, 0.75]), ("broken_loss", &[f64::NAN])]
    {
        for value in values {
            history.put(name, Position::default(), *value).unwrap();
        }
    }
    let group = |name: &str, rate: f64| ParameterGroup {
        name: name.to_owned(),
        values: BTreeMap::from([("learning_rate".to_owned(), rate)]),
        owners: BTreeMap::new(),
    };
    Run {
        metrics: BTreeMap::from([("val_loss", 0.6), ("val/accuracy", 0.75), ("broken_loss", f64::NAN)]),
        history: Arc::new(RwLock::new(history)),
        groups: vec![group("body", 1.0), group("head", 0.1)],
    }
}

fn value(text: &str) -> Evaluated {
    Expression::read(text, [])
        .unwrap_or_else(|error| panic!("`{text}`: {error}"))
        .evaluate(&mut run(), &BTreeMap::new())
}

#[track_caller]
fn number(text: &str) -> f64 {
    let Evaluated::Number(number) = value(text) else { panic!("`{text}` is no number") };
    number
}

#[track_caller]
fn holds(text: &str) -> bool {
    let Evaluated::Bool(holds) = value(text) else { panic!("`{text}` is no condition") };
    holds
}

fn error(text: &str) -> ExpressionError {
    Expression::read(text, []).expect_err(text)
}

#[test]
fn numbers_are_doubles() {
    for (text, expected) in [
        ("5 / 2", 2.5),
        ("1 + 2 * 3", 7.0),
        ("(1 + 2) * 3", 9.0),
        ("-2 - -3", 1.0),
        ("+2", 2.0),
        ("7 % 4", 3.0),
        ("1e-3 * 1000", 1.0),
        ("10 / 4 / 2", 1.25),
        ("min(3, 1, 2)", 1.0),
        ("max(3, 1, 2)", 3.0),
        ("pow(2, 10)", 1024.0),
        ("sqrt(16) + abs(-1)", 5.0),
        ("log10(1000)", 3.0),
        ("log2(8) + log(exp(1))", 4.0),
        ("floor(1.5) + ceil(1.5)", 3.0),
        ("round(2.5)", 3.0),
        ("round(0.12345, 3)", 0.123),
        ("round(1234, -2)", 1200.0),
        ("9007199254740993", 9007199254740992.0),
    ] {
        assert_eq!(number(text), expected, "{text}");
    }
    assert_eq!((number("1 / 0"), number("-1 / 0")), (f64::INFINITY, f64::NEG_INFINITY));
    // Numbers that differ in their last bit are not equal.
    assert!(!holds("0.1 + 0.2 == 0.3") && holds("0.1 + 0.2 > 0.3"));
}

#[test]
fn names_are_positions_and_metrics() {
    assert_eq!((number("epoch"), number("step"), number("global_step")), (3.0, 4.0, 24.0));
    assert_eq!((number("val_loss"), number("metric('val/accuracy')")), (0.6, 0.75));
    let expression =
        Expression::read("best(val_loss) + metric('a b') * old > epoch or last('x') < 1", ["old"]).unwrap();
    assert_eq!(expression.metrics().collect::<Vec<_>>(), ["a b", "val_loss", "x"]);
    // A variable goes before a position.
    let expression = Expression::read("epoch + old", ["old", "epoch"]).unwrap();
    let variables = BTreeMap::from([("old".to_owned(), 1.0), ("epoch".to_owned(), 10.0)]);
    assert_eq!(expression.evaluate(&mut run(), &variables), Evaluated::Number(11.0));
}

#[test]
fn history_is_of_numbers_only_where_the_best_is_wanted() {
    for (text, expected) in [
        ("best(val_loss)", 0.4),
        ("best(val_loss, 'max')", 0.8),
        ("best('val/accuracy')", 0.75),
        ("best(metric('val/accuracy'), \"min\")", 0.5),
        ("mean(val_loss, 2)", 0.5),
        ("round(mean(val_loss, 9), 6)", 0.6),
        ("round(mean(val_loss), 6)", 0.6),
        ("last(val_loss)", 0.6),
        ("last(val_loss, 3)", 0.8),
    ] {
        assert_eq!(number(text), expected, "{text}");
    }
    for text in ["mean('val/accuracy')", "last(val_loss, 4)", "best(broken_loss)", "best(test_loss)", "mean(test_loss)"]
    {
        assert!(number(text).is_nan(), "{text}");
    }
}

#[test]
fn a_comparison_with_what_is_not_known_is_false() {
    for unknown in
        ["test_loss", "broken_loss", "min(test_loss, 1)", "max(1, broken_loss)", "pow(test_loss, 0)", "0 / 0"]
    {
        for sign in ["<", "<=", ">", ">=", "==", "!="] {
            assert!(!holds(&format!("{unknown} {sign} 1")), "{unknown} {sign} 1");
            assert!(!holds(&format!("1 {sign} {unknown}")), "1 {sign} {unknown}");
        }
    }
    assert!(!holds("test_loss == test_loss") && !holds("test_loss != test_loss"));
}

#[test]
fn conditions_are_joined() {
    for (text, expected) in [
        ("epoch > 2 and best(val_loss) < 0.5", true),
        ("epoch > 3 and val_loss < 1", false),
        ("epoch > 3 or val_loss < 1", true),
        ("not (epoch > 3)", true),
        ("not (epoch > 3) and true", true),
        ("false or epoch == 3 and step == 4", true),
        ("epoch > 2 && !(val_loss > 1)", true),
        ("epoch % 2 == 1", true),
        ("'a' == 'a' and \"a\" != 'b'", true),
    ] {
        assert_eq!(holds(text), expected, "{text}");
    }
}

#[test]
fn texts_are_joined_in_either_quotes() {
    for (text, expected) in [
        ("'loss is ' + val_loss", "loss is 0.6"),
        ("\"epoch \" + epoch + ': ' + (epoch > 2)", "epoch 3: true"),
        ("epoch + 1 + ' of ' + 4", "4 of 4"),
        ("'x' + test_loss", "xNaN"),
        ("'' + 1 / 0", "inf"),
        ("'a'", "a"),
        ("''+1e300", "1e300"),
        ("'a' + -1", "a-1"),
        (r#""it's" + 'a\tb\\'"#, "it'sa\tb\\"),
        ("'' + 0.000001", "1e-6"),
        (r#"'say "hi"'"#, r#"say "hi""#),
    ] {
        assert_eq!(value(text), Evaluated::Text(expected.to_owned()), "{text}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_what_to_do() {
    for (text, message, hint) in [
        ("", "it is empty", None),
        ("val_loss <", "column 11: it ends too early", None),
        ("min(1, 2", "column 9: `)` is missing", None),
        ("val_loss = 1", "column 10: `=` is not expected here", Some("did you mean `==`?")),
        ("'a", "column 1: a text has no end", None),
        ("sqr(2)", "column 1: there is no function `sqr`", Some("did you mean `sqrt`?")),
        ("1 + pow(2)", "column 5: `pow` takes 2 arguments, not 1", Some("write pow(base, exponent)")),
        ("abs()", "column 1: `abs` takes 1 argument, not 0", Some("write abs(x)")),
        ("1 + (epoch > 2)", "column 12: `+` takes numbers, and this is a condition", None),
        (
            "not epoch > 2",
            "column 5: `not` takes conditions, and this is a number",
            Some("`not` takes what follows it at once: write `not (a < b)`"),
        ),
        (
            "epoch and true",
            "column 1: `and` takes conditions, and this is a number",
            Some("compare it with a number, as in `val_loss < 0.5`"),
        ),
        (
            "0 < val_loss < 1",
            "column 3: `<` takes numbers, and this is a condition",
            Some("two comparisons are joined with `and`: `a < b and b < c`"),
        ),
        (
            "'a' < 'b'",
            "column 5: `<` cannot take a text",
            Some("texts can be joined with `+`, and two of them compared with `==` and `!=`"),
        ),
        (
            "best(learning_rate)",
            "column 1: the name `learning_rate` does not tell what is best",
            Some("is it the right name? if so, write `best('learning_rate', 'min')` or `best('learning_rate', 'max')`"),
        ),
        ("best(val_loss, 'least')", "column 16: `best` takes `'min'` or `'max'` here", None),
        ("mean(val_loss, 0)", "column 16: `mean` takes a whole number from 1 here", None),
        ("mean(val_loss, epoch)", "column 16: `mean` takes a whole number from 1 here", None),
        ("mean(epoch + 1)", "column 12: `mean` takes a metric's name, not a computed number", None),
        ("2 ** 3", "column 3: there is no operator `**`", Some("write `pow(a, b)`")),
        ("print(1)", "column 1: there is no function `print`", None),
        ("1; 2", "column 2: `;` is not expected here", None),
        ("1 2", "column 3: `2` is not expected here", None),
        ("1 < and", "column 5: `and` is not expected here", None),
    ] {
        let error = error(text);
        assert_eq!(error.to_string(), message, "{text}");
        if hint.is_some() {
            assert_eq!(error.hint().as_deref(), hint, "{text}");
        }
    }
    for text in [
        "let x = 1",
        "if true { 1 }",
        "while true {}",
        "loop {}",
        "fn f() { 1 }",
        "[1, 2]",
        "a.b",
        "a[0]",
        "x = 1",
        "x += 1",
        "`a ${1}`",
        "#{}",
        "()",
        "|x| x",
        "1..2",
        "1 in 2",
        "a ?? b",
        "this",
        "eval('1')",
        "return 1",
        "{ 1 }",
        "import 'x'",
        "1 & 2",
        "switch 1 { _ => 1 }",
        "throw 1",
        "call(f)",
    ] {
        assert!(Expression::read(text, []).is_err(), "`{text}` was read");
        assert!(Expression::read_actions(text, []).is_err(), "`{text}` was read");
    }
}

fn actions(text: &str) -> Vec<Action> {
    let expression = Expression::read_actions(text, []).unwrap_or_else(|error| panic!("`{text}`: {error}"));
    match expression.evaluate(&mut run(), &BTreeMap::new()) {
        Evaluated::Actions(actions) => actions,
        other => panic!("{other:?}"),
    }
}

#[test]
fn actions_come_in_order_with_their_values() {
    let asked = actions("log('a'); put('twice', 2 * val_loss); checkpoint(); stop('loss is ' + val_loss);");
    assert_eq!(
        asked,
        [
            Action::Log { text: "a".to_owned() },
            Action::Put { name: "twice".to_owned(), value: 1.2 },
            Action::Checkpoint {},
            Action::Stop { reason: "loss is 0.6".to_owned() },
        ]
    );
    let expression = Expression::read_actions("put('b', val_loss); put('a', epoch)", []).unwrap();
    assert_eq!(
        (expression.put_metrics().collect::<Vec<_>>(), expression.metrics().collect::<Vec<_>>()),
        (vec!["a", "b"], vec!["val_loss"])
    );
}

#[test]
fn set_has_the_old_value_of_each_group() {
    let set = |group: Option<&str>, value| Action::Set {
        name: "learning_rate".to_owned(),
        group: group.map(str::to_owned),
        value,
    };
    assert_eq!(actions("set('learning_rate', old * 0.5)"), [set(Some("body"), 0.5), set(Some("head"), 0.05)]);
    assert_eq!(actions("set('learning_rate', old + 1, 'head')"), [set(Some("head"), 1.1)]);
    assert_eq!(
        actions("set('learning_rate', 1, 'tail')"),
        [Action::Set { name: "learning_rate".to_owned(), group: Some("tail".to_owned()), value: 1.0 }]
    );
    // Elsewhere, `old` is a metric like others.
    assert_eq!(Expression::read_actions("log(old)", []).unwrap().metrics().collect::<Vec<_>>(), ["old"]);
}

#[test]
fn wrong_actions_are_refused_with_what_is_meant() {
    for (text, message, hint) in [
        ("stopp('x')", "column 1: there is no action `stopp`", Some("did you mean `stop`?")),
        ("log('a'); checkpoint(1)", "column 11: `checkpoint` takes 0 arguments, not 1", Some("write checkpoint()")),
        ("stop()", "column 1: `stop` takes 1 argument, not 0", Some("write stop('reason')")),
        ("put('a')", "column 1: `put` takes 2 arguments, not 1", None),
        ("put(val_loss, 1)", "column 5: `put` takes a name in quotes here", None),
        ("set('', 1)", "column 5: `set` takes a name in quotes here", None),
        ("put('a', 'b')", "column 10: `put` takes numbers, and this is a text", None),
        ("val_loss", "column 1: this is no action", None),
        ("1 + 1", "column 3: this is no action", None),
        (";", "this is no action", None),
    ] {
        let error = Expression::read_actions(text, []).expect_err(text);
        assert_eq!(error.to_string(), message, "{text}");
        if hint.is_some() {
            assert_eq!(error.hint().as_deref(), hint, "{text}");
        }
    }
}

#[test]
fn a_service_reads_an_expression_once() {
    let expressions = Expressions::default();
    let request = |text: &str, variables: &[&str]| Evaluate {
        expression: text.to_owned(),
        variables: variables.iter().map(|name| ((*name).to_owned(), 1.0)).collect(),
        actions: false,
    };
    let first = expressions.get(&request("old + 1", &["old"])).unwrap();
    let again = expressions.get(&request("old + 1", &["old"])).unwrap();
    assert!(Arc::ptr_eq(&first.tree, &again.tree));
    // Without the variable, `old` is a metric.
    assert_eq!(expressions.get(&request("old + 1", &[])).unwrap().metrics().count(), 1);
    for number in 0..1000 {
        expressions.get(&request(&number.to_string(), &[])).unwrap();
    }
}

#[test]
fn length_and_depth_are_limited() {
    let deep = |count: usize, open: &str, close: &str| format!("{}1{}", open.repeat(count), close.repeat(count));
    assert!(Expression::read(&deep(10, "(", ")"), []).is_ok());
    for text in [deep(1000, "(", ")"), deep(500, "abs(", ")"), deep(2000, "- ", ""), deep(2000, "!", "")] {
        assert!(error(&text).to_string().contains("nested deeper"), "{text}");
    }
    let sum = |count: usize| format!("1{}", " + 1".repeat(count));
    assert_eq!(number(&sum(50)), 51.0);
    assert!(error(&sum(1000)).to_string().contains("nested deeper"));
    let long = format!("'{}'", "a".repeat(LONGEST));
    assert_eq!(error(&long).to_string(), format!("it has {} bytes, more than {LONGEST}", LONGEST + 2));
    let and = vec!["epoch > 1"; 50].join(" and ");
    assert!(holds(&and));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_read_or_refused_and_computed(text in any_text()) {
        for expression in [Expression::read(&text, []), Expression::read_actions(&text, [])].into_iter().flatten() {
            expression.evaluate(&mut run(), &BTreeMap::new());
        }
    }

    #[test]
    fn a_number_is_computed_as_in_rust(a in -1e6..1e6, b in -1e6..1e6, c in 1..1000) {
        let text = format!("({a} + {b}) * {c} - {a} / {c}");
        prop_assert_eq!(number(&text), (a + b) * f64::from(c) - a / f64::from(c));
    }
}

/// Any characters, and words of the language in any order.
fn any_text() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "(",
        ")",
        ",",
        ";",
        "+",
        "-",
        "*",
        "/",
        "%",
        "**",
        "<",
        "<=",
        "==",
        "!=",
        "=",
        "!",
        "and",
        "or",
        "not",
        "&&",
        "|",
        "..",
        "'",
        "\"",
        "`",
        "${",
        "{",
        "}",
        "[",
        "]",
        "#",
        "\\",
        "\n",
        "//",
        "/*",
        "*/",
        "'a'",
        "\"b\"",
        "'\\x41'",
        "1",
        "2.5",
        "1e9",
        "0x1F",
        ".5",
        "1_0",
        "99999999999999999999",
        "val_loss",
        "epoch",
        "old",
        "best",
        "mean",
        "last",
        "min",
        "abs",
        "metric",
        "round",
        "stop",
        "set",
        "put",
        "log",
        "checkpoint",
        "let",
        "if",
        "else",
        "while",
        "fn",
        "switch",
        "this",
        "eval",
        "true",
        "?",
        "??",
        "?.",
        ":",
        "::",
        "@",
        "é",
        "π",
    ]);
    prop_oneof![
        "\\PC{0,40}",
        prop::collection::vec(word.clone(), 0..24).prop_map(|words| words.concat()),
        prop::collection::vec(word, 0..24).prop_map(|words| words.join(" ")),
    ]
}
