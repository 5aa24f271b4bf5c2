use serde_json::Value;

use crate::browser::Browser;
use crate::small_run::{Ran, SmallRun};

fn run() -> SmallRun {
    SmallRun::with_libraries(&["report", "checkpoint", "recorder"])
        .instance("kind = 'checkpoint'")
        .instance("kind = 'report'\nwhen = { every = '1 epoch' }")
        .set("train.epochs=5")
}

fn html(ran: &Ran) -> String {
    std::fs::read_to_string(ran.out.join("report.html")).expect("there is a report")
}

/// What the page's script reads.
fn content(ran: &Ran) -> Value {
    let html = html(ran);
    let (_, rest) = html.split_once("id=\"data\">").expect("there is data");
    let (data, _) = rest.split_once("</script>").expect("the data end");
    serde_json::from_str(data).expect("the data are JSON")
}

#[test]
fn the_report_knows_the_run() {
    let ran = run().run().succeeded();
    let (content, status) = (content(&ran), ran.status());
    assert_eq!((&content["progress"]["state"], &content["progress"]["epoch"]), (&"finished".into(), &5.into()));
    let points = content["curves"]["val_loss"]["points"].as_array().expect("there is a curve");
    assert_eq!(points.len(), 5);
    assert_eq!(points[4][1], status["metrics"]["val_loss"]);
    let kinds: Vec<&str> =
        content["artifacts"].as_array().expect("a list").iter().filter_map(|file| file["kind"].as_str()).collect();
    assert_eq!(kinds, ["best_checkpoint", "last_checkpoint"]);
    let costs = content["times"].as_array().expect("a list");
    let plugins: Vec<&str> = costs.iter().filter_map(|cost| cost["plugin"].as_str()).collect();
    assert!(plugins.contains(&"checkpoint") && plugins.contains(&"report"), "{plugins:?}");
    assert_eq!(content["facts"]["model"]["parameters"], 64 * 16 + 16 + 16 * 10 + 10);
    assert_eq!(status["artifacts"]["report"], "report.html");
}

#[test]
fn a_run_that_fails_has_a_report_that_says_so() {
    let ran = run().recorder("a", "", "fail_in = 'epoch_end'").run();
    assert_eq!(ran.code(), Some(1), "{}", ran.shown());
    let content = content(&ran);
    assert_eq!(content["progress"]["state"], "failed");
    let reason = content["progress"]["reason"].as_str().expect("there is a reason");
    assert!(reason.contains("`a` failed in `epoch_end`"), "{reason}");
}

#[test]
fn a_browser_draws_the_report() {
    let Some(mut browser) = Browser::start() else { return };
    let ran = run().run().succeeded();
    browser.show_as(1280, 900, "light");
    browser.open(&format!("file://{}", ran.out.join("report.html").display()));
    browser.wait_until("document.querySelectorAll('#curves .chart').length >= 3");
    // A line through five points, for training and validation each.
    for curve in ["train_loss", "val_loss"] {
        let path = browser.evaluate(&format!("document.querySelector('[data-curve={curve}]').getAttribute('d')"));
        assert_eq!(path.as_str().map(|path| path.matches(['M', 'L']).count()), Some(5), "{path}");
    }
    let best = browser.evaluate("document.querySelector('#best .tile').textContent");
    assert!(best.as_str().is_some_and(|text| text.starts_with("val_")), "{best}");
    // On a logarithmic axis the heights differ.
    let path = "document.querySelector('[data-curve=val_loss]').getAttribute('d')";
    let linear = browser.evaluate(path);
    browser.evaluate("document.querySelector('#curves .toggle').click()");
    assert_ne!(browser.evaluate(path), linear);
    let ground = "getComputedStyle(document.body).backgroundColor";
    let light = browser.evaluate(ground);
    browser.show_as(390, 844, "dark");
    browser.wait_until("document.querySelector('.drawing svg').clientWidth < 390");
    assert_ne!(browser.evaluate(ground), light);
    assert_eq!(browser.evaluate("document.documentElement.scrollWidth"), 390, "nothing sticks out on a phone");
    assert_eq!(browser.problems(), [""; 0]);
}
