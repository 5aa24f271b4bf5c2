//! Jobs of programs that bring parts of the training themselves.

use tch::Tensor;

use super::events::Events;
use super::handle::{JobHandle, Link};
use super::log::Verbosity;
use super::program::{ModelContext, Program};
use super::request::Request;
use super::run::{self, JobOutcome};
use crate::model::{BoxError, Network};
use crate::report::Problems;
use crate::train::{BatchStep, Computed};

/// A job in the making: what the command line asks for, and what the program brings itself.
///
/// ```no_run
/// use host::job::{Job, Request, Verbosity};
/// use host::model::{Mode, Network, variables};
/// use tch::nn::{self, ModuleT};
///
/// let request = Request { run_file: Some("run.toml".into()), ..Request::default() };
/// let outcome = Job::new(request)
///     .model(|context| {
///         let store = nn::VarStore::new(context.device);
///         let layers = nn::seq_t().add(nn::linear(store.root() / "head", 64, 10, Default::default()));
///         Network::custom(variables(&store), context.device, move |inputs, mode| {
///             Ok(layers.forward_t(&inputs.flatten(1, -1), mode == Mode::Train))
///         })
///     })
///     .run(Verbosity::Normal)?;
/// # Ok::<(), host::report::Problems>(())
/// ```
pub struct Job {
    request: Request,
    program: Program,
}

impl Job {
    /// The job that `request` asks for, without parts of the program's own.
    pub fn new(request: Request) -> Self {
        Self { request, program: Program::default() }
    }

    /// Trains the network that `make` returns; the run file then has no `layers`. What `make` draws from libtorch's
    /// default generators depends only on the run's seed. `init_from` and checkpoints identify its tensors by name.
    #[must_use]
    pub fn model<E: Into<BoxError>>(
        mut self,
        make: impl FnOnce(&ModelContext) -> Result<Network, E> + Send + 'static,
    ) -> Self {
        self.program.model = Some(Box::new(|context| make(context).map_err(Into::into)));
        self
    }

    /// Minimizes the scalar that `loss` computes from a batch's outputs (f32) and targets; evaluations give its mean.
    /// The run file then has no `loss`.
    #[must_use]
    pub fn loss(mut self, loss: impl Fn(&Tensor, &Tensor) -> Result<Tensor, BoxError> + Send + 'static) -> Self {
        self.program.loss = Some(Box::new(loss));
        self
    }

    /// Computes outputs and loss of each training batch with `step`. The loop still does backward, hooks and update,
    /// and evaluations compute the model's outputs and the run's loss. What `step` remembers from one batch to the next
    /// is in checkpoints if [`Self::batch_step_state`] says how.
    #[must_use]
    pub fn batch_step(
        mut self,
        step: impl FnMut(&mut BatchStep<'_>) -> Result<Computed, BoxError> + Send + 'static,
    ) -> Self {
        self.program.batch_step = Some(Box::new(step));
        self
    }

    /// Keeps what the batch step remembers in checkpoints, so that a resumed run equals an unbroken one: `save` gives it, and
    /// `load` takes it back before the first step of a run that resumes.
    #[must_use]
    pub fn batch_step_state<E: Into<BoxError>>(
        mut self,
        save: impl Fn() -> Vec<u8> + Send + 'static,
        load: impl FnOnce(&[u8]) -> Result<(), E> + Send + 'static,
    ) -> Self {
        self.program.save_state = Some(Box::new(save));
        self.program.load_state = Some(Box::new(|state| load(state).map_err(Into::into)));
        self
    }

    /// Trains.
    ///
    /// # Errors
    ///
    /// What prevents the run from starting: a wrong run file, plugin or data, or a checkpoint that does not fit. A
    /// run that started and failed is an outcome; the console and `status.json` tell its error.
    pub fn run(self, verbosity: Verbosity) -> Result<JobOutcome, Problems> {
        run::run(&self.request, self.program, verbosity, Events::Off, &Link::default())
    }

    /// The same, with an event a line on stdout, as `host run --json`.
    pub(crate) fn run_with_events(self, verbosity: Verbosity) -> Result<JobOutcome, Problems> {
        run::run(&self.request, self.program, verbosity, Events::Stdout, &Link::default())
    }

    /// Trains on a thread of its own.
    ///
    /// ```
    /// use host::job::{Job, Request, Verbosity};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let out = folder.path().join("run");
    /// // The built-in run, without its plugins; `run_file` names another one.
    /// let overrides = ["train.epochs=2", "plugins=[]"].map(str::to_owned).to_vec();
    /// let request = Request { out: Some(out), overrides, ..Request::default() };
    /// let job = Job::new(request).start(Verbosity::Quiet)?;
    /// while !job.is_finished() {
    ///     println!("{:.0} %, {:?} left", job.progress() * 100.0, job.remaining());
    ///     std::thread::sleep(std::time::Duration::from_millis(50));
    /// }
    /// assert!(!job.is_failed() && job.metrics().len() == 2);
    /// println!("epoch 2: {:?}", job.metrics()[1]);
    /// let results = job.join().expect("nothing is wrong with it").results();
    /// assert!(results.run_folder.join("status.json").is_file());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the system gives no thread. What prevents the run from starting is told by
    /// [`JobHandle::join`](super::JobHandle::join).
    pub fn start(self, verbosity: Verbosity) -> std::io::Result<JobHandle> {
        JobHandle::start(move |link| run::run(&self.request, self.program, verbosity, Events::Off, link))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tch::Kind;

    use super::*;
    use crate::torch::test_support;
    use crate::torch::values;

    /// A net with batch norm and dropout on the digits, two epochs of three steps. `[LOSS]` stands for a loss.
    const RUN: &str = r#"
        [run]
        name = "program"
        seed = 3
        device = "cpu"
        threads = 1

        [data]
        format = "csv"
        path = "digits.csv.gz"
        target = 64
        shape = [1, 8, 8]
        classes = 10
        normalize = "standard"
        splits = { val = { fraction = 0.2 } }

        [model]
        layers = [
          { type = "conv2d", out_channels = 4, kernel_size = 3 }, { type = "batch_norm" }, { type = "relu" },
          { type = "flatten" }, { type = "dropout", p = 0.2 }, { type = "linear", out_features = 10 },
        ]

        [train]
        epochs = 2
        batch_size = 500
        [LOSS]
        metrics = ["accuracy"]
        optimizer = { type = "adamw", learning_rate = 1e-2 }

        [eval]
        metrics = ["accuracy"]
    "#;

    const CROSS_ENTROPY: &str = "loss = { type = \"cross_entropy\" }";

    /// The outcome, without the seconds.
    fn outcome(loss: &str, overrides: &[&str], complete: impl FnOnce(Job) -> Job) -> Value {
        let _generator = test_support::default_generator();
        let folder = tempfile::tempdir().unwrap();
        let digits = include_bytes!("../../../examples/digits/digits.csv.gz");
        std::fs::write(folder.path().join("digits.csv.gz"), digits).unwrap();
        let run_file = folder.path().join("run.toml");
        std::fs::write(&run_file, RUN.replace("[LOSS]", loss)).unwrap();
        let request = Request {
            run_file: Some(run_file),
            out: Some(folder.path().join("run")),
            overrides: overrides.iter().map(|text| (*text).to_owned()).collect(),
            ..Request::default()
        };
        let mut status = complete(Job::new(request)).run(Verbosity::Quiet).unwrap().status;
        let metrics = status["metrics"].as_object_mut().unwrap();
        metrics.retain(|name, _| !name.ends_with("_seconds"));
        status
    }

    fn cross_entropy(outputs: &Tensor, targets: &Tensor) -> Result<Tensor, BoxError> {
        Ok(outputs.f_cross_entropy_loss(targets, None::<Tensor>, tch::Reduction::Mean, -100, 0.0)?)
    }

    #[test]
    fn a_loss_and_a_step_that_do_what_the_loop_does_give_the_same_bits() {
        // The program's loss is computed by libtorch's operators; the host's, on some processors, by kernels of its own.
        const LIBTORCH: &str = r#"run.kernels="libtorch""#;
        for overrides in [&[LIBTORCH][..], &[LIBTORCH, "train.accumulate=2", "train.batch_size=250"], &[]] {
            let own = outcome(CROSS_ENTROPY, overrides, |job| job);
            assert!(own["metrics"]["val_accuracy"].as_f64() > Some(0.5), "{own}");
            if overrides.contains(&LIBTORCH) {
                let loss = outcome("", overrides, |job| job.loss(cross_entropy));
                assert_eq!(own["metrics"], loss["metrics"]);
            }
            let step = outcome(CROSS_ENTROPY, overrides, |job| {
                job.batch_step(|step| {
                    let outputs = step.forward(step.inputs())?;
                    let loss = step.loss(&outputs, step.targets())?;
                    Ok(Computed { outputs, loss })
                })
            });
            assert_eq!(own["metrics"], step["metrics"]);
        }
    }

    #[test]
    fn a_step_decides_what_is_minimised() {
        let squares = outcome(CROSS_ENTROPY, &[], |job| {
            job.batch_step(|step| {
                let outputs = step.forward(step.inputs())?;
                let loss = outputs.f_square()?.f_mean(Kind::Float)?;
                assert!(values::scalar(&loss).unwrap() >= 0.0);
                Ok(Computed { outputs, loss })
            })
        });
        let metric = |name: &str| squares["metrics"][name].as_f64().unwrap();
        // Outputs of zeros guess among ten classes.
        assert!((metric("val_loss") - f64::ln(10.0)).abs() < 0.3, "{squares}");
    }

    #[test]
    fn an_event_that_nobody_listens_to_is_not_even_looked_at() {
        let sends = outcome(CROSS_ENTROPY, &[], |job| {
            job.batch_step(|step| {
                // Of a type that callbacks do not know.
                let complex = Tensor::f_zeros([1], (Kind::ComplexFloat, step.inputs().device()))?;
                step.emit_with("odd", b"payload", &[("complex", &complex)])?;
                let outputs = step.forward(step.inputs())?;
                let loss = step.loss(&outputs, step.targets())?;
                Ok(Computed { outputs, loss })
            })
        });
        assert_eq!(sends["outcome"], "finished", "{sends}");
    }

    #[test]
    fn a_program_that_fails_fails_the_run_with_its_words() {
        let message = |complete: fn(Job) -> Job, loss| {
            let failed = outcome(loss, &[], complete);
            assert_eq!(failed["outcome"], "failed", "{failed}");
            failed["error"].as_str().unwrap().to_owned()
        };
        let no_graph = message(
            |job| {
                job.batch_step(|step| {
                    let outputs = tch::no_grad(|| step.forward(step.inputs()))?;
                    let loss = step.loss(&outputs, step.targets())?;
                    Ok(Computed { outputs, loss })
                })
            },
            CROSS_ENTROPY,
        );
        assert!(no_graph.starts_with("the program's batch step failed: its loss has no autograd graph"), "{no_graph}");
        let panic = message(|job| job.batch_step(|_| panic!("no idea")), CROSS_ENTROPY);
        assert_eq!(panic, "the program's batch step failed: it panicked: no idea");
        let shape = message(|job| job.loss(|outputs, _| Ok(outputs.f_square()?)), "");
        assert_eq!(shape, "the program's loss failed: its loss is of shape [500, 10], not a scalar");
    }
}
