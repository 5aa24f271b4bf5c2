//! Libraries that were built when version 1 of the ABI became final, kept as binaries: every host of the version loads
//! them. What built them is in `tests/kept/README.md`.

use fixture::workspace_root;

use crate::small_run::SmallRun;

/// The kept libraries are of this target.
const IS_THEIRS: bool = cfg!(all(target_arch = "x86_64", target_os = "linux"));

fn run_of_kept(background: bool) -> SmallRun {
    let run = SmallRun::with_libraries(&["checkpoint"]);
    for name in ["libkept_metric.so", "libkept_tensors.so"] {
        let library = workspace_root().join("tests/kept").join(name);
        std::fs::copy(&library, run.plugins().join(name)).expect("the library is part of the project");
    }
    let dispatch = if background { "background" } else { "inline" };
    run.instance("kind = 'kept-metric'\noptions = { factor = 10 }")
        .instance(&format!("kind = 'kept-tensors'\ndispatch = '{dispatch}'"))
        .instance("kind = 'checkpoint'")
}

/// What the callbacks printed.
fn told(stderr: &str) -> Vec<String> {
    stderr.lines().filter(|line| line.starts_with("kept-")).map(str::to_owned).collect()
}

#[test]
fn libraries_of_the_first_release_still_run() {
    if !IS_THEIRS {
        return;
    }
    let ran = run_of_kept(false).run().succeeded();
    let inline = told(&ran.stderr());
    assert_eq!(inline.len(), 4, "{inline:?}");
    assert!(inline[0].starts_with("kept-metric: epoch 1, 1 in all, "), "{inline:?}");
    assert!(inline[1].starts_with("kept-tensors: epoch 1, 1210 parameters, "), "{inline:?}");
    let metrics = &ran.status()["metrics"];
    let (kept, loss) = (metrics["kept"].as_f64().expect("a metric"), metrics["train_loss"].as_f64().expect("a loss"));
    assert_eq!(kept, loss * 10.0);
    assert!(metrics["kept_gradients"].as_f64().is_some_and(|sum| sum > 0.0));

    // In the background it reads copies of the same tensors.
    let background = told(&run_of_kept(true).run().succeeded().stderr());
    let of_tensors = |lines: &[String]| -> Vec<String> {
        lines.iter().filter(|line| line.starts_with("kept-tensors")).cloned().collect()
    };
    assert_eq!(of_tensors(&background), of_tensors(&inline));
}

#[test]
fn their_state_survives_a_resume() {
    if !IS_THEIRS {
        return;
    }
    let first = run_of_kept(false).run().succeeded();
    let resumed = run_of_kept(false).set("train.epochs=3").run_in(first.out.clone()).succeeded();
    let lines = told(&resumed.stderr());
    assert!(lines[0].starts_with("kept-metric: epoch 3, 3 in all, "), "{lines:?}");
}
