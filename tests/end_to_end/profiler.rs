//! Where the time of steps goes, as the profiler writes it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::small_run::SmallRun;
use crate::training::read_json;

#[test]
fn a_profile_has_the_phases_of_its_steps_and_the_operators_of_the_slowest() {
    let plain = SmallRun::with_libraries(&["standard"]).run().succeeded();
    let profiler = "kind = 'profiler'\noptions = { skip = 2, steps = 3, file = 'profile/trace.json' }";
    let ran = SmallRun::with_libraries(&["standard"]).instance(profiler).run().succeeded();
    let trace = read_json(&ran.out.join("profile/trace.json"));
    let events: Vec<&Value> =
        trace["traceEvents"].as_array().expect("events").iter().filter(|event| event["ph"] == "X").collect();
    let (phases, operators): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| event["cat"] == "phase");
    for step in 3..=5 {
        let of_step: BTreeSet<&str> = phases
            .iter()
            .filter(|phase| phase["args"]["step"] == step)
            .filter_map(|phase| phase["name"].as_str())
            .collect();
        let all = ["backward", "callbacks", "data", "forward", "optimizer"];
        assert_eq!(of_step, BTreeSet::from(all), "step {step}");
    }
    assert!(phases.iter().all(|phase| (3..=5).contains(&phase["args"]["step"].as_u64().unwrap_or_default())));
    let steps: BTreeSet<u64> = operators.iter().filter_map(|one| one["args"]["step"].as_u64()).collect();
    assert_eq!(steps.len(), 1, "{steps:?}");
    let has = |name: &str| operators.iter().any(|one| one["name"] == name);
    assert!(has("aten::addmm") && has("aten::mm"), "forward and backward of a linear layer: {operators:?}");
    assert!(ran.stderr().contains("profile of 3 steps from step 3 on"), "{}", ran.stderr());
    // It only looks.
    let loss = |status: Value| status["metrics"]["val_loss"].clone();
    assert_eq!(loss(ran.status()), loss(plain.status()));
}
