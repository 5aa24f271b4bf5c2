//! `remote-control`: asks the loop for something when a file appears in the run folder, as
//! `touch runs/digits/stop` in a shell, or from a machine that shares only the disk.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use plugin_api::event::{At, TrainEnd, Trigger};
use plugin_api::protocol::Control;
use plugin_api::{Callback, Creation, Error, Result, Run, When, plugin};

use super::control_files::{ControlFile, ControlFiles};
use super::pause_watch::PauseWatch;

/// Options of `remote-control`. The files are relative to the run folder.
#[plugin]
#[derive(Default)]
pub(crate) struct Options {
    /// The file that stops the run. All of these are relative to the run folder, and are removed when they are found.
    stop: Option<String>,
    /// The file that pauses the run, until `resume` or `host resume`.
    pause: Option<String>,
    /// The file that ends the pause that `pause` began.
    resume: Option<String>,
    /// The file that asks for a checkpoint, which the plugin `checkpoint` writes.
    checkpoint: Option<String>,
    /// The file that asks for an evaluation.
    evaluate: Option<String>,
    /// The file that ends the epoch after the current step.
    end_epoch: Option<String>,
}

pub(crate) struct RemoteControl {
    /// In the order in which they are looked for, so that a checkpoint comes before a stop.
    names: Vec<(String, Control)>,
    files: Arc<ControlFiles>,
    /// While a pause of this instance may come or be in progress, and after which step it was asked for.
    watch: Option<(PauseWatch, u64)>,
    has_several_ranks: bool,
}

#[plugin]
impl Callback for RemoteControl {
    const KIND: &'static str = "remote-control";
    const SUMMARY: &'static str = "Stops, pauses, saves or evaluates when a file appears in the run folder";
    const WHEN: When = When { every: Some("1 s"), at: &[] };
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        let Options { stop, pause, resume, checkpoint, evaluate, end_epoch } = options;
        let named = [
            ("checkpoint", checkpoint, Control::Checkpoint),
            ("evaluate", evaluate, Control::Evaluate),
            ("end_epoch", end_epoch, Control::EndEpoch),
            ("pause", pause, Control::Pause),
            ("resume", resume, Control::Resume),
            ("stop", stop, Control::Stop),
        ];
        let named: Vec<_> =
            named.into_iter().filter_map(|(option, name, action)| Some((option, name?, action))).collect();
        if named.is_empty() {
            return Err(Error::new("no file is named: name at least one, such as `stop = \"stop\"`"));
        }
        for (index, (option, name, _)) in named.iter().enumerate() {
            let path = normalized(name);
            if path.file_name().is_none() {
                return Err(Error::new(format!(
                    "`{option}` = `{name}` names no file: write a name, such as `{option}`"
                )));
            }
            if let Some((other, ..)) = named[..index].iter().find(|(_, other, _)| normalized(other) == path) {
                return Err(Error::new(format!(
                    "`{other}` and `{option}` both name the file `{name}`: give each a file of its own"
                )));
            }
        }
        let names = named.into_iter().map(|(_, name, action)| (name, action)).collect();
        Ok(Self { names, files: Arc::default(), watch: None, has_several_ranks: false })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let info = run.info()?;
        self.has_several_ranks = info.world_size > 1;
        let folder = PathBuf::from(info.folder);
        let files = self.names.iter().map(|(name, action)| ControlFile::new(&folder, name, *action));
        self.files = Arc::new(ControlFiles::new(files.collect()));
        Ok(())
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        // A trigger comes only when no pause is in progress. In a run of several ranks, one comes between the request and the
        // pause, which is decided together with the next step.
        let later = if self.has_several_ranks { 2 } else { 0 };
        self.watch.take_if(|(_, asked)| event.global_step >= *asked + later);
        for (action, reason) in self.files.take(|_| true) {
            // First, so that no pause begins that this instance cannot end.
            if action == Control::Pause {
                let watch = PauseWatch::start(&self.files, run.remote()?)?;
                self.watch = watch.map(|watch| (watch, event.global_step));
            }
            run.request(action, &reason)?;
        }
        Ok(())
    }

    fn on_train_end(&mut self, _: &mut Run<'_>, _: &TrainEnd<'_>) -> Result<()> {
        self.watch = None;
        Ok(())
    }
}

/// The same path written in one way.
fn normalized(path: &str) -> PathBuf {
    Path::new(path).components().filter(|component| *component != Component::CurDir).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use plugin_api::EventKind;
    use plugin_api::testing::{FakeHost, json};

    use super::*;

    const ALL: [(&str, Control); 6] = [
        ("checkpoint", Control::Checkpoint),
        ("evaluate", Control::Evaluate),
        ("end_epoch", Control::EndEpoch),
        ("pause", Control::Pause),
        ("resume", Control::Resume),
        ("stop", Control::Stop),
    ];

    /// A host that looks for a file for each action, named as its option.
    fn host() -> FakeHost {
        let options = ALL.iter().map(|(name, _)| ((*name).to_owned(), json!(name)));
        let mut host = FakeHost::new::<RemoteControl>(serde_json::Value::Object(options.collect())).unwrap();
        host.setup().unwrap();
        host.train_start().unwrap();
        host
    }

    fn touch(host: &FakeHost, name: &str) -> PathBuf {
        let path = host.folder().join(name);
        std::fs::write(&path, "").unwrap();
        path
    }

    fn actions(host: &FakeHost) -> Vec<Control> {
        host.requests().iter().map(|request| request.action).collect()
    }

    fn wait_until_gone(path: &Path) {
        let began = Instant::now();
        while path.exists() {
            assert!(began.elapsed() < Duration::from_secs(30), "{} stays", path.display());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn a_file_asks_for_its_action_once_and_is_removed() {
        for (name, action) in ALL {
            let mut host = host();
            host.trigger("time").unwrap();
            assert_eq!(actions(&host), []);
            let path = touch(&host, name);
            host.trigger("time").unwrap();
            host.trigger("time").unwrap();
            assert_eq!((actions(&host), path.exists()), (vec![action], false));
            assert_eq!(host.requests()[0].reason, format!("the file `{name}` appeared"));
        }
    }

    #[test]
    fn what_is_asked_for_at_once_is_done_before_a_stop() {
        let mut host = host();
        for (name, _) in ALL {
            touch(&host, name);
        }
        host.trigger("time").unwrap();
        assert_eq!(actions(&host), ALL.map(|(_, action)| action));
    }

    #[test]
    fn only_files_that_are_named_are_looked_for() {
        let mut host = FakeHost::new::<RemoteControl>(json!({ "stop": "sub/end.now" })).unwrap();
        host.setup().unwrap();
        let other = touch(&host, "pause");
        host.trigger("time").unwrap();
        assert!(other.exists() && actions(&host).is_empty());
        std::fs::create_dir(host.folder().join("sub")).unwrap();
        touch(&host, "sub/end.now");
        host.trigger("time").unwrap();
        assert_eq!(actions(&host), [Control::Stop]);
    }

    #[test]
    fn a_paused_loop_which_sends_no_trigger_is_saved_and_resumed() {
        let mut host = host();
        touch(&host, "pause");
        host.trigger("time").unwrap();
        for (name, _) in [ALL[0], ALL[4]] {
            wait_until_gone(&touch(&host, name));
        }
        host.fire(EventKind::STEP_START).unwrap();
        assert_eq!(actions(&host), [Control::Pause, Control::Checkpoint, Control::Resume]);
        // The pause is over: only triggers look for files.
        let stop = touch(&host, "stop");
        std::thread::sleep(Duration::from_millis(1500));
        assert!(stop.exists());
    }

    #[test]
    fn a_paused_loop_is_stopped() {
        let mut host = host();
        touch(&host, "pause");
        host.trigger("time").unwrap();
        wait_until_gone(&touch(&host, "stop"));
        host.train_end(plugin_api::event::Outcome::Stopped).unwrap();
        assert_eq!(actions(&host), [Control::Pause, Control::Stop]);
    }

    #[test]
    fn a_pause_that_others_end_ends_the_watch_with_the_next_trigger() {
        let mut host = host();
        touch(&host, "pause");
        host.trigger("time").unwrap();
        host.trigger("time").unwrap();
        let resume = touch(&host, "resume");
        std::thread::sleep(Duration::from_millis(1500));
        assert!(resume.exists());
    }

    #[test]
    fn with_several_ranks_a_trigger_may_come_before_the_pause() {
        let mut host = host().with_info(|info| info.world_size = 2);
        host.setup().unwrap();
        touch(&host, "pause");
        host.trigger("time").unwrap();
        host.trigger("time").unwrap();
        wait_until_gone(&touch(&host, "resume"));
        assert_eq!(actions(&host), [Control::Pause]);
        host.fire(EventKind::STEP_START).unwrap();
        assert_eq!(actions(&host), [Control::Pause, Control::Resume]);
    }

    #[test]
    fn what_cannot_be_removed_asks_for_nothing_and_is_told_once() {
        let mut host = host();
        std::fs::create_dir(host.folder().join("pause")).unwrap();
        host.trigger("time").unwrap();
        host.trigger("time").unwrap();
        assert_eq!((actions(&host), host.logs().len()), (vec![], 1));
        let begin = "WARN `pause` has no effect: it cannot be removed: ";
        assert!(host.logs()[0].starts_with(begin), "{:?}", host.logs());
    }

    #[test]
    fn a_file_of_somebody_else_stays() {
        let mut host = FakeHost::new::<RemoteControl>(json!({ "stop": "metrics.jsonl" })).unwrap();
        host.setup().unwrap();
        std::fs::write(host.folder().join("metrics.jsonl"), "{}\n").unwrap();
        host.trigger("time").unwrap();
        host.trigger("time").unwrap();
        assert!(host.folder().join("metrics.jsonl").exists());
        assert_eq!((actions(&host), host.logs().len()), (vec![], 1));
        assert!(host.logs()[0].starts_with("WARN `metrics.jsonl` has no effect: it is not empty"), "{:?}", host.logs());
    }

    #[test]
    fn options_that_make_no_sense_are_refused_with_the_reason() {
        for (options, message) in [
            (json!({}), "no file is named: name at least one, such as `stop = \"stop\"`"),
            (
                json!({ "pause": "a", "stop": "./a" }),
                "`pause` and `stop` both name the file `./a`: give each a file of its own",
            ),
            (json!({ "stop": "" }), "`stop` = `` names no file: write a name, such as `stop`"),
            (json!({ "resume": "a/.." }), "`resume` = `a/..` names no file: write a name, such as `resume`"),
        ] {
            assert_eq!(FakeHost::new::<RemoteControl>(options).err().unwrap().message(), message);
        }
    }
}
