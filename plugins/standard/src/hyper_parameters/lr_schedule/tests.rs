use plugin_api::protocol::Evaluated;
use plugin_api::testing::{FakeHost, json};

use super::*;

/// A host whose learning rate is 1 and momentum 0.9, in epochs of two steps.
fn host(options: serde_json::Value) -> FakeHost {
    host_of(options, "{}")
}

fn host_of(options: serde_json::Value, run_file: &str) -> FakeHost {
    let mut host = FakeHost::new::<LrSchedule>(options).unwrap().with_info(|info| {
        (info.steps_per_epoch, info.run_file) = (2, run_file.to_owned());
    });
    for group in ["body", "head"] {
        host.put_hyper_parameter(group, "learning_rate", 1.0);
    }
    host.put_hyper_parameter("body", "momentum", 0.9);
    host.setup().unwrap();
    host
}

/// The learning rate in each of these steps, in epochs of two.
fn rates(host: &mut FakeHost, steps: std::ops::RangeInclusive<u64>) -> Vec<f64> {
    let mut rate = |step| {
        host.step_start(step).unwrap();
        host.hyper_parameter("learning_rate").unwrap()
    };
    steps.map(&mut rate).collect()
}

#[test]
fn a_point_holds_after_its_epoch() {
    let mut host = host(json!({ "points": [[1, 0.5], [3, 0.25]] }));
    assert_eq!(rates(&mut host, 1..=10), [1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]);
}

#[test]
fn the_point_zero_is_before_training_and_a_value_of_zero_counts() {
    let mut host = host(json!({ "points": [[0, 0.0], [1, 0.5]] }));
    assert_eq!(rates(&mut host, 1..=3), [0.0, 0.0, 0.5]);
}

#[test]
fn steps_are_counted_over_the_run() {
    let mut host = host(json!({ "points": [[3, 0.5]], "unit": "step" }));
    assert_eq!(rates(&mut host, 1..=5), [1.0, 1.0, 1.0, 0.5, 0.5]);
}

#[test]
fn a_line_goes_only_from_the_first_point_to_the_last() {
    let options = json!({ "points": [[2, 0.0], [4, 0.5], [5, 0.25]], "interp": "linear", "unit": "step" });
    let mut host = host(options);
    assert_eq!(rates(&mut host, 1..=8), [1.0, 1.0, 0.0, 0.25, 0.5, 0.25, 0.25, 0.25]);
}

#[test]
fn what_others_set_between_two_points_stays_until_the_next() {
    let mut host = host(json!({ "points": [[0, 0.5], [2, 0.25]] }));
    host.step_start(1).unwrap();
    host.put_hyper_parameter("body", "learning_rate", 0.7);
    assert_eq!(rates(&mut host, 2..=5), [0.7, 0.7, 0.7, 0.25]);
}

#[test]
fn a_resumed_run_goes_on_as_an_unbroken_one() {
    let options = json!({ "points": [[0, 0.0], [2, 0.3], [5, 0.1]], "interp": "linear" });
    let unbroken = rates(&mut host(options.clone()), 1..=12);
    for broken in 1..12 {
        let mut first = host(options.clone());
        let mut all = rates(&mut first, 1..=broken);
        let mut resumed = host(options.clone());
        // The host restores what callbacks have set, and who has set it.
        for group in ["body", "head"] {
            let rate = first.hyper_parameter("learning_rate").unwrap();
            resumed.own_hyper_parameter("lr-schedule", group, "learning_rate", rate);
        }
        resumed.load_state(&first.save_state().unwrap()).unwrap();
        all.extend(rates(&mut resumed, broken + 1..=12));
        assert_eq!(all, unbroken, "broken after {broken}");
    }
}

#[test]
fn after_a_resume_what_others_set_before_it_stays() {
    let mut first = host(json!({ "points": [[0, 0.5]] }));
    first.step_start(1).unwrap();
    first.step_start(2).unwrap();
    let mut resumed = host(json!({ "points": [[0, 0.5]] }));
    for group in ["body", "head"] {
        resumed.own_hyper_parameter("human", group, "learning_rate", 0.7);
    }
    resumed.load_state(&first.save_state().unwrap()).unwrap();
    assert_eq!(rates(&mut resumed, 3..=5), [0.7, 0.7, 0.7]);
}

#[test]
fn a_run_that_begins_in_a_later_epoch_has_the_value_of_that_epoch() {
    let mut host = host(json!({ "points": [[1, 0.5], [2, 0.25]] }));
    host.set_position(4, 7);
    host.fire(plugin_api::EventKind::STEP_START).unwrap();
    assert_eq!(host.hyper_parameter("learning_rate"), Some(0.25));
}

#[test]
fn one_hyper_parameter_of_one_group_is_set() {
    let options = json!({ "points": [[0, 0.5]], "hyper_parameter": "momentum", "group": "body" });
    let mut host = host(options);
    host.step_start(1).unwrap();
    assert_eq!((host.hyper_parameter("momentum"), host.hyper_parameter("learning_rate")), (Some(0.5), Some(1.0)));
}

#[test]
fn what_the_run_does_not_have_is_an_error_at_setup() {
    for (option, name, message) in [
        (
            "hyper_parameter",
            "learning_rat",
            "there is no hyper-parameter `learning_rat`; did you mean `learning_rate`?",
        ),
        ("group", "hed", "there is no parameter group `hed`; did you mean `head`?"),
    ] {
        let mut host = FakeHost::new::<LrSchedule>(json!({ "points": [[9, 0.5]], option: name })).unwrap();
        host.put_hyper_parameter("head", "learning_rate", 1.0);
        assert_eq!(host.setup().unwrap_err().message(), message);
    }
    // An evaluation of a saved checkpoint has no optimizer.
    let host = FakeHost::new::<LrSchedule>(json!({ "points": [[9, 0.5]] })).unwrap();
    host.with_info(|info| info.job = "evaluate".to_owned()).setup().unwrap();
}

#[test]
fn the_runs_schedule_is_said_to_yield_once_when_it_does() {
    let run_file = r#"{"train":{"schedule":{"type":"cosine"}}}"#;
    let mut host = host_of(json!({ "points": [[1, 0.5], [2, 0.25]] }), run_file);
    rates(&mut host, 1..=2);
    assert_eq!(host.lines(), [""; 0]);
    rates(&mut host, 3..=8);
    let line = "`lr-schedule` sets `learning_rate` from now on; the run's schedule `cosine` no longer changes it";
    assert_eq!(host.lines(), [line]);
    let mut constant = host_of(json!({ "points": [[0, 0.5]] }), r#"{"train":{"schedule":{"type":"constant"}}}"#);
    rates(&mut constant, 1..=2);
    let mut other = json!({ "points": [[0, 0.5]] });
    other["hyper_parameter"] = json!("momentum");
    let mut other = host_of(other, run_file);
    rates(&mut other, 1..=2);
    assert_eq!((constant.lines().len(), other.lines().len()), (0, 0));
}

#[test]
fn points_that_make_no_sense_are_refused_with_the_reason() {
    for (points, message) in [
        (
            json!([]),
            "`points` must have at least one point, such as `[[30, 0.01]]`; or give `expr`, such as `old * 0.9`",
        ),
        (json!([[3, 0.1], [2, 0.2]]), "`points` is not in order: 2 comes after 3; sort the points"),
        (json!([[3, 0.1], [3, 0.2]]), "`points` has two values at 3: keep one of them"),
        (json!([[3, -0.1]]), "`points`: the value at 3 is -0.1; a hyper-parameter must be 0 or more, and finite"),
    ] {
        let error = FakeHost::new::<LrSchedule>(json!({ "points": points })).err().unwrap();
        assert_eq!(error.message(), message);
    }
    assert!(check(&[(3, f64::INFINITY)]).is_err() && check(&[(3, f64::NAN)]).is_err());
    for options in [json!({}), json!({ "points": [[0.5, 0.1]] }), json!({ "points": [[1, 0.1]], "group": "" })] {
        assert!(FakeHost::new::<LrSchedule>(options).is_err());
    }
}

/// A host that knows three expressions.
fn host_of_expression(expression: &str, options: &[(&str, &str)]) -> FakeHost {
    let mut all = json!({ "expr": expression });
    for (name, value) in options {
        all[name] = json!(value);
    }
    let mut host = host(all);
    host.answer_evaluate(|request| {
        let variable = |name: &str| request.variables[name];
        Ok(Evaluated::Number(match request.expression.as_str() {
            "old * 0.5" => variable("old") * 0.5,
            "1 / (1 + epoch)" => 1.0 / (1.0 + variable("epoch")),
            "step" => variable("step"),
            "0 / 0" => f64::NAN,
            "-old" => -variable("old"),
            other => panic!("`{other}` is not known"),
        }))
    });
    host
}

#[test]
fn an_expression_gives_the_value_after_each_epoch_or_step() {
    let mut host = host_of_expression("old * 0.5", &[]);
    assert_eq!(rates(&mut host, 1..=6), [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]);
    let mut host = host_of_expression("1 / (1 + epoch)", &[]);
    assert_eq!(rates(&mut host, 1..=5), [1.0, 1.0, 0.5, 0.5, 1.0 / 3.0]);
    let mut host = host_of_expression("step", &[("unit", "step")]);
    assert_eq!(rates(&mut host, 1..=4), [1.0, 1.0, 2.0, 3.0]);
}

#[test]
fn each_group_has_its_own_old_value() {
    let mut host = host_of_expression("old * 0.5", &[]);
    host.put_hyper_parameter("head", "learning_rate", 0.1);
    rates(&mut host, 1..=3);
    let rate = |group: &str| host.hyper_parameter_of(group, "learning_rate");
    assert_eq!((rate("body"), rate("head")), (Some(0.5), Some(0.05)));
}

#[test]
fn an_expression_goes_on_after_a_resume_and_counts_no_epoch_twice() {
    let unbroken = rates(&mut host_of_expression("old * 0.5", &[]), 1..=8);
    for broken in 1..8 {
        let mut first = host_of_expression("old * 0.5", &[]);
        let mut all = rates(&mut first, 1..=broken);
        let mut resumed = host_of_expression("old * 0.5", &[]);
        for group in ["body", "head"] {
            let rate = first.hyper_parameter("learning_rate").unwrap();
            resumed.own_hyper_parameter("lr-schedule", group, "learning_rate", rate);
        }
        resumed.load_state(&first.save_state().unwrap()).unwrap();
        all.extend(rates(&mut resumed, broken + 1..=8));
        assert_eq!(all, unbroken, "broken after {broken}");
    }
}

#[test]
fn a_number_that_is_no_hyper_parameter_is_not_set() {
    assert_eq!(rates(&mut host_of_expression("0 / 0", &[]), 1..=3), [1.0, 1.0, 1.0]);
    let mut host = host_of_expression("-old", &[]);
    rates(&mut host, 1..=2);
    let message =
        "`learning_rate` of the group `body` cannot become -1; a hyper-parameter must be 0 or more, and finite";
    assert_eq!(host.step_start(3).unwrap_err().message(), message);
}

#[test]
fn an_expression_takes_the_place_of_points() {
    for (options, message) in [
        (json!({ "points": [[1, 0.1]], "expr": "old" }), "`points` and `expr` both say what to set: keep one of them"),
        (
            json!({ "expr": "old", "interp": "linear" }),
            "`interp` is about `points`: leave it out, or give points instead of `expr`",
        ),
    ] {
        assert_eq!(FakeHost::new::<LrSchedule>(options).err().unwrap().message(), message);
    }
}
