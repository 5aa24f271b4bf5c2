//! The fake host fails where a real host would.

use std::collections::BTreeMap;

use super::host_call::HOST_TABLE;
use super::{FakeHost, json};
use crate::abi::HostHandle;
use crate::abi::kinds::{EventKind, ServiceKind};
use crate::event::{At, Custom, Evaluation, Outcome, RecordPut, Trigger};
use crate::protocol::{Control, CopyAction, Record, RecordValue, TensorSet};
use crate::{Callback, Creation, ErrorKind, Remote, Result, Run, Tensor, plugin};

/// Does in `trigger` what its cause says: one callback for many tests.
struct Puppet {
    remote: Option<Remote>,
    seen: Vec<String>,
}

#[plugin]
#[derive(Default)]
struct PuppetOptions {
    refuse: bool,
    panic: bool,
}

#[plugin]
impl Callback for Puppet {
    const KIND: &'static str = "puppet";
    const SUMMARY: &'static str = "Does what a test says";
    type Options = PuppetOptions;

    fn new(options: PuppetOptions, _: &Creation<'_>) -> Result<Self> {
        assert!(!options.panic, "told to panic");
        if options.refuse {
            return Err(crate::Error::new("refused"));
        }
        Ok(Self { remote: None, seen: Vec::new() })
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        self.seen = vec![String::from_utf8(state.to_vec())?];
        Ok(())
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
        Ok(self.seen.join(",").into_bytes())
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        match event.cause.as_ref() {
            "panic" => panic!("a bug"),
            "metric" => run.metric("val_los").map(drop),
            "position" => run.put_metric("seen", (event.epoch * 1000 + event.global_step) as f64),
            "remote" => {
                self.remote = Some(run.remote()?);
                Ok(())
            }
            "write" => {
                let weight = run.tensor(TensorSet::Parameters, "weight")?.to_vec::<f32>()?;
                let doubled: Vec<_> = weight.iter().map(|value| value * 2.0).collect();
                let doubled = Tensor::new("weight", &[2], &doubled)?;
                run.write(TensorSet::Parameters, &[doubled.view()])
            }
            "wrong shape" => {
                let other = Tensor::new("weight", &[1], &[0f32])?;
                run.write(TensorSet::Parameters, &[other.view()])
            }
            "copies" => {
                run.copy_weights("best", CopyAction::Take)?;
                let zero = Tensor::new("weight", &[2], &[0f32, 0.])?;
                run.write(TensorSet::Parameters, &[zero.view()])?;
                run.copy_weights("best", CopyAction::Restore)
            }
            "measure" => {
                let measured = run.measure("val", &["loss"], None)?;
                run.put_metric("measured", measured["loss"])
            }
            "checkpoint" => run.write_checkpoint("checkpoints/one").map(drop),
            "skip" => run.request(Control::SkipUpdate, "").map(drop),
            "rate" => run.set_hyper_parameter(None, "learning_rate", 0.5),
            "log" => {
                tracing::warn!(limit = 3, "careful");
                Ok(())
            }
            cause => Err(crate::Error::new(format!("cannot {cause}"))),
        }
    }

    fn on_eval_step_end(&mut self, run: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        self.seen.push(format!("{} {}/{} {}", event.split, event.batch, event.batches, run.loss()?));
        Ok(())
    }

    fn on_record(&mut self, run: &mut Run<'_>, event: &RecordPut<'_>) -> Result<()> {
        let record = run.current_record()?;
        self.seen.push(format!("{} by {}: {:?} {:?}", event.name, event.author, event.scalar, record.value));
        Ok(())
    }

    fn on_custom(&mut self, run: &mut Run<'_>, event: &Custom<'_>) -> Result<()> {
        let carried = run.tensors(TensorSet::Event)?;
        let tensors: Vec<_> = carried.iter().map(|view| ("twice", view)).collect();
        run.emit_with("echo", event.payload, &tensors)
    }
}

fn puppet() -> FakeHost {
    FakeHost::new::<Puppet>(json!({})).unwrap()
}

#[test]
fn a_panic_is_an_error_with_message_and_place_and_ends_the_instance() {
    let mut host = puppet();
    let error = host.trigger("panic").unwrap_err();
    assert!(error.message().starts_with("panicked at "), "{error}");
    assert!(error.message().contains("tests.rs:"), "{error}");
    assert!(error.message().ends_with(": a bug"), "{error}");
    assert!(host.trigger("position").unwrap_err().message().contains("has panicked"));
    assert_eq!(host.metric("seen"), None);
}

#[test]
fn what_new_refuses_and_panics_with_comes_back() {
    let error = FakeHost::new::<Puppet>(json!({ "refuse": true })).err().unwrap();
    assert_eq!(error.message(), "refused");
    let error = FakeHost::new::<Puppet>(json!({ "panic": true })).err().unwrap();
    assert!(error.message().starts_with("told to panic (panicked at "), "{error}");
    let error = FakeHost::new::<Puppet>(json!({ "patience": 3 })).err().unwrap();
    assert!(error.message().contains("unknown field `patience`"), "{error}");
}

#[test]
fn a_handle_used_after_its_hook_is_refused() {
    let mut host = puppet();
    host.trigger("log").unwrap();
    for ticket in 0..100 {
        let spent = HostHandle { table: &raw const HOST_TABLE, ticket };
        let error = crate::call::call_raw(spent, ServiceKind::METRICS, &[], &[]).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Stale);
    }
}

#[test]
fn an_unknown_metric_is_named_with_those_that_are_there() {
    let mut host = puppet();
    host.put_metric("val_loss", 1.0);
    let error = host.trigger("metric").unwrap_err();
    assert_eq!(error.message(), "there is no metric `val_los`; did you mean `val_loss`?");
}

#[test]
fn an_event_without_a_hook_does_not_reach_the_callback() {
    let mut host = puppet();
    assert!(!host.subscribes(EventKind::EPOCH_END));
    host.epoch_end(2).unwrap();
    host.trigger("position").unwrap();
    assert_eq!(host.metric("seen"), Some(2020.0));
}

#[test]
fn records_and_custom_events_arrive_whole() {
    let mut host = puppet();
    let value = RecordValue::Text { text: "hello".to_owned() };
    host.record("monitor", &Record { name: "note".to_owned(), value }).unwrap();
    host.custom("other", "ping", b"payload").unwrap();
    assert_eq!(host.save_state().unwrap(), br#"note by monitor: None Text { text: "hello" }"#);
    assert_eq!((host.emitted()[0].name.as_str(), host.emitted()[0].payload.0.as_slice()), ("echo", &b"payload"[..]));
    assert!(host.emitted_tensors(0).is_empty());
    let tensor = Tensor::new("once", &[2], &[1f32, 2.0]).unwrap();
    host.custom_with("other", "ping", b"", vec![tensor.clone()]).unwrap();
    assert_eq!(host.emitted_tensors(1), [tensor.named("twice")]);
}

#[test]
fn a_remote_works_from_another_thread_until_the_end() {
    struct Threaded(std::sync::mpsc::Sender<Remote>);
    #[plugin]
    impl Callback for Threaded {
        const KIND: &'static str = "threaded";
        const SUMMARY: &'static str = "Hands its remote to a thread";
        fn new(_: crate::NoOptions, _: &Creation<'_>) -> Result<Self> {
            let (sender, receiver) = std::sync::mpsc::channel::<Remote>();
            std::thread::spawn(move || {
                let remote = receiver.recv().unwrap();
                remote.request(Control::Stop, "enough").unwrap();
                let value = remote.metric("val_loss").unwrap();
                remote.put_record("asked", RecordValue::Scalar { value }).unwrap();
                assert_eq!(remote.metric("none").unwrap_err().kind(), ErrorKind::NoSuchName);
                while remote.metrics().is_ok() {
                    std::thread::yield_now();
                }
                assert_eq!(remote.metrics().unwrap_err().kind(), ErrorKind::Stale);
                done().lock().unwrap().push(());
            });
            Ok(Self(sender))
        }
        fn on_train_start(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
            Ok(self.0.send(run.remote()?)?)
        }
    }
    fn done() -> &'static std::sync::Mutex<Vec<()>> {
        static DONE: std::sync::Mutex<Vec<()>> = std::sync::Mutex::new(Vec::new());
        &DONE
    }
    let mut host = FakeHost::new::<Threaded>(json!({})).unwrap();
    host.put_metric("val_loss", 0.5);
    host.train_start().unwrap();
    while host.records().is_empty() {
        host.fire(EventKind::STEP_END).unwrap();
    }
    assert_eq!(host.stopped(), Some("enough"));
    assert_eq!(host.records()[0].value, RecordValue::Scalar { value: 0.5 });
    host.train_end(Outcome::Stopped).unwrap();
    while done().lock().unwrap().is_empty() {
        std::thread::yield_now();
    }
}

#[test]
fn weights_are_written_copied_and_guarded() {
    let mut host = puppet();
    let weight =
        |host: &FakeHost| host.tensor(&TensorSet::Parameters, "weight").unwrap().view().to_vec::<f32>().unwrap();
    assert!(host.trigger("write").unwrap_err().message().contains("put_tensor"));
    host.put_tensor(TensorSet::Parameters, Tensor::new("weight", &[2], &[1f32, 2.]).unwrap());
    host.trigger("write").unwrap();
    assert_eq!(weight(&host), [2.0, 4.0]);
    let error = host.trigger("wrong shape").unwrap_err();
    assert_eq!(error.message(), "`weight` is f32 [2], not f32 [1]");
    host.trigger("copies").unwrap();
    assert_eq!(weight(&host), [2.0, 4.0]);
}

#[test]
fn services_answer_from_what_the_test_gave_or_say_how_to_give_it() {
    let mut host = puppet();
    assert!(host.trigger("measure").unwrap_err().message().contains("FakeHost::answer_measure"));
    host.answer_measure(|request| Ok(BTreeMap::from([("loss".to_owned(), request.split.len() as f64)])));
    host.trigger("measure").unwrap();
    assert_eq!(host.metric("measured"), Some(3.0));
    host.put_hyper_parameter("default", "learning_rate", 0.1);
    host.trigger("rate").unwrap();
    assert_eq!(host.hyper_parameter("learning_rate"), Some(0.5));
    host.fail(ServiceKind::MEASURE, "the disk is full");
    assert_eq!(host.trigger("measure").unwrap_err().message(), "the disk is full");
    host.set_loss(0.25);
    host.evaluation(EventKind::EVAL_STEP_END, "val", 2, 5).unwrap();
    assert_eq!(host.save_state().unwrap(), b"val 2/5 0.25");
}

#[test]
fn what_is_not_allowed_in_a_hook_says_where_it_is() {
    let mut host = puppet();
    let error = host.trigger("checkpoint").unwrap_err();
    assert_eq!(error.message(), "`write_checkpoint` can be called only in `checkpoint`, not in `trigger`");
    assert!(host.trigger("skip").unwrap_err().message().contains("only in `gradients`"));
    assert!(!host.requested(Control::SkipUpdate));
}

#[test]
fn state_goes_round_and_logs_are_kept() {
    let mut host = puppet();
    host.load_state(b"kept").unwrap();
    assert_eq!(host.save_state().unwrap(), b"kept");
    assert!(host.load_state(&[0xff]).unwrap_err().message().contains("utf-8"));
    host.trigger("log").unwrap();
    assert_eq!(host.logs(), ["WARN careful limit=3"]);
}
