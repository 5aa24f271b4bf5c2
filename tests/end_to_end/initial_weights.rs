//! Weights that others trained, as the start of a run. The unit tests read files of every format.

use fixture::workspace_root;

use crate::small_run::{Ran, SmallRun};

/// The table of the page, with a file that `tests/figures/weights.py` wrote.
fn table() -> String {
    let page = std::fs::read_to_string(workspace_root().join("host/README.md")).expect("the page");
    let (_, rest) = page.split_once("```toml\n[model.init_from]\n").expect("a section");
    let (block, _) = rest.split_once("```").expect("its end");
    let keys =
        block.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).filter(|line| !line.is_empty());
    let keys: Vec<&str> = keys.collect();
    assert!(keys.len() == 4, "{keys:?}");
    let digits = workspace_root().join("tests/figures/weights/digits.pt");
    format!("model.init_from={{ {} }}", keys.join(", ")).replace("\"net.pt\"", &format!("'{}'", digits.display()))
}

fn run() -> SmallRun {
    SmallRun::with_libraries(&["recorder", "checkpoint"]).instance("kind = 'checkpoint'").set("train.epochs=1")
}

/// The tensors of the run's last checkpoint, by name, as bytes.
fn saved(ran: &Ran, name: &str) -> Vec<u8> {
    let bytes = std::fs::read(ran.out.join("checkpoints/last/model.safetensors")).expect("a checkpoint");
    safetensors::SafeTensors::deserialize(&bytes).expect("safetensors").tensor(name).expect("a tensor").data().to_vec()
}

#[test]
fn a_run_starts_from_a_net_of_pytorch_with_other_names_and_classes() {
    // With a rate of zero, what is saved is what it began with.
    let constant = "train.optimizer={ type = 'sgd', learning_rate = 0.0 }";
    let drawn = run().set(constant).run().succeeded();
    let ran = run().set(constant).set(&table()).run().succeeded();
    let stderr = ran.stderr();
    assert!(stderr.contains("weights: 2 of 4 tensors from"), "{stderr}");
    assert!(
        stderr.contains(
            "digits.pt`, its `state_dict`; skipped `fc2.weight` ([100, 16] in the file, [10, 16] in the model), \
             `fc2.bias` ([100] in the file, [10] in the model)"
        ),
        "{stderr}"
    );
    assert_eq!(saved(&ran, "fc1.bias"), 0.125_f32.to_le_bytes().repeat(16));
    assert_eq!(saved(&ran, "fc2.weight"), saved(&drawn, "fc2.weight"));
    assert_ne!(saved(&ran, "fc1.weight"), saved(&drawn, "fc1.weight"));
}

#[test]
fn a_run_starts_from_a_checkpoint_of_another() {
    let first = run().run().succeeded();
    let last = first.out.join("checkpoints/last");
    let from = format!("model.init_from={{ path = '{}', strict = true }}", last.display());
    let second = run().set(&from).set("train.optimizer={ type = 'sgd', learning_rate = 0.0 }").run().succeeded();
    assert!(second.stderr().contains("weights: 4 of 4 tensors from"), "{}", second.stderr());
    assert_eq!(saved(&second, "fc1.weight"), saved(&first, "fc1.weight"));
}

#[test]
fn what_does_not_fit_is_told_at_its_place() {
    let refused = |value: &str| {
        let ran = run().set(value).run();
        assert_eq!(ran.code(), Some(2));
        ran.shown().replace(&workspace_root().display().to_string(), "[ROOT]")
    };
    let weights = |name: &str| workspace_root().join("tests/figures/weights").join(name).display().to_string();
    let told = refused(&format!("model.init_from={{ path = '{}', prefx = 'a' }}", weights("digits.pt")));
    assert!(
        told.contains("unknown key `prefx` in `model.init_from`") && told.contains("did you mean `prefix`?"),
        "{told}"
    );
    let told = refused("model.init_from=3");
    assert!(told.contains("`model.init_from` must be a string or a table, found `3`"), "{told}");
    let told = refused(&table().replace("fc2.*\"]", "fc3.*\"]"));
    assert!(told.contains("there is no tensor `fc3.*`; did you mean `fc1.*` or `fc2.*`?"), "{told}");
    let told = refused(&table().replace("skip = [\"fc2.*\"]", "skip = []"));
    assert!(
        told.contains("`fc2.weight` is [100, 16] instead of [10, 16]") && told.contains("skip = [\"fc2.*\"]"),
        "{told}"
    );
    let told = refused(&format!("model.init_from='{}'", weights("hostile.pt")));
    assert!(told.contains("its pickle refers to `posix.system`"), "{told}");
    let told = refused(&format!("model.init_from='{}'", weights("legacy.pt")));
    assert!(told.contains("the legacy format of `torch.save`"), "{told}");
}
