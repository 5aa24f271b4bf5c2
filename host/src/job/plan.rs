//! From a run file to everything that a run needs: checked, with nothing created.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use tch::Device;

use super::batches;
use super::builtin;
use super::columns;
use super::input_paths;
use super::isolation;
use super::learning::{self, Fitted};
use super::metric_names;
use super::model::{self, PlannedModel};
use super::output_paths;
use super::program::{LoadState, Program, SaveState};
use super::python;
use super::rank_plugins;
use super::request::Request;
use super::start;
use crate::config::{self, Document, Every};
use crate::data::{self, Data, DataError, Source, TEST};
use crate::dispatch::{self, Order};
use crate::distributed::{Launch, Origin};
use crate::model::{InitialWeights, ModelFile};
use crate::plugins::{Python, lock};
use crate::report::{Problem, Problems, did_you_mean};
use crate::run_file::{self, EvalOptions, Length, RunFile, Threads};
use crate::torch::products::Products;
use crate::train::loss::LossOptions;
use crate::train::metrics::Metric;
use crate::train::{self, BatchStepFunction, Batches, EvaluationPlan, LossFunction, Meaning, TrainingPlan};

/// Everything that a run needs.
pub struct JobPlan {
    /// The resolved run file.
    pub run_file: RunFile,
    /// The callbacks.
    pub order: Order,
    /// The data.
    pub data: Data,
    /// The model.
    pub model: PlannedModel,
    /// The files that a model is read from that is not made of layers: those of the run file or, where one is gone, the
    /// checkpoint's that the run goes on from.
    pub(super) model_files: Vec<(ModelFile, PathBuf)>,
    /// The training.
    pub plan: TrainingPlan,
    /// A program's own way from a training batch to its loss.
    pub batch_step: Option<Box<BatchStepFunction>>,
    /// What that remembers, for checkpoints.
    pub(super) save_state: Option<Box<SaveState>>,
    pub(super) load_state: Option<Box<LoadState>>,
    /// Where the tensors live.
    pub device: Device,
    /// Threads of one tensor operation, unless a checkpoint sets them.
    pub threads: usize,
    /// Why that number was chosen.
    pub threads_reason: String,
    /// Who computes products on the CPU, unless a checkpoint says.
    pub products: Products,
    /// The initial weights, if the run file names some. A resumed run has those of its checkpoint and does not need
    /// the file.
    pub initial_weights: Result<Option<InitialWeights>, Problem>,
    /// Files of the plugin folders that could not be loaded, and what others can change there.
    pub rejected: Vec<Problem>,
}

impl JobPlan {
    /// Reads and checks everything.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, unless one error hides another.
    pub fn make(request: &Request) -> Result<Self, Problems> {
        Self::with(request, Program::default())
    }

    /// The same with the parts that the program brings.
    pub(super) fn with(request: &Request, program: Program) -> Result<Self, Problems> {
        let (name, text, base) = read(request)?;
        let run_file::Loaded { mut run_file, document } =
            run_file::load(&name, &text, &request.appended, &request.overrides)?;
        if let Some(out) = &request.out {
            run_file.run.out = Some(out.display().to_string());
        }
        let locked = request.locking.locked || run_file.run.locked;
        let lock = locked.then(|| lock::path(request.locking.lock.as_deref(), base.as_deref()));
        let isolated = isolation::of(&run_file, &request.isolated);
        let mut catalogue = isolation::catalogue(&request.plugins, lock.as_deref(), &isolated, &run_file.plugins)?;
        let folder = base.as_deref().unwrap_or(Path::new(""));
        run_file.run.python = run_file.run.python.map(|program| python::program(program, folder));
        let python = Python::new(run_file.run.python.clone());
        python::open(&mut catalogue, &python, &document, &run_file.plugins, folder)?;
        isolation::check(&request.isolated, &catalogue)?;
        let rejected: Vec<Problem> =
            catalogue.rejected().iter().map(|rejected| Problem::from(&rejected.error)).collect();

        let mut problems: Vec<Problem> = Vec::new();
        let mut order = dispatch::order(&document, &run_file.plugins, run_file.run.by_default, &catalogue, &isolated)
            .unwrap_or_else(|found| {
                problems.extend(found);
                // A kind that is missing may be in a file that could not be loaded.
                problems.extend(rejected.iter().cloned());
                Order::default()
            });
        if let Some(launch) = &request.launch {
            order.world_size = launch.world_size;
            problems.extend(rank_plugins::check(&document, &order));
        }
        problems.extend(output_paths::check(&document, &order));
        problems.extend(input_paths::resolve(&document, &mut order, base.as_deref().unwrap_or(Path::new(""))));
        run_file.plugins = order.planned.iter().map(|planned| planned.options.clone()).collect();

        let data = data(&run_file, &document, base.as_deref()).map_err(|problem| problems.push(problem));
        if let Some(folder) = &base
            && let Err(error) = run_file.data.make_absolute(folder).and_then(|()| run_file.model.make_absolute(folder))
        {
            problems.push(Problem::new("cannot find the working folder").with_cause(&error));
        }
        let model_files = run_file.model.files().into_iter().map(|(file, path)| {
            let saved = || start::saved_model_file(request, &run_file.run, file.saved_name());
            let found = if path.exists() { None } else { saved() };
            (file, found.unwrap_or_else(|| path.to_owned()))
        });
        let model_files: Vec<(ModelFile, PathBuf)> = model_files.collect();
        problems.extend(too_many_threads(run_file.run.threads, &document));
        let device = device(run_file.run.device, &document).map_err(|problem| problems.push(problem));
        let model = data.as_ref().map_err(|&()| ()).and_then(|data| {
            let device = device.unwrap_or(Device::Cpu);
            model::plan(program.model, &model_files, &run_file, &document, data, device)
                .map_err(|problem| problems.push(problem))
        });
        let fitted = data.as_ref().ok().zip(model.as_ref().ok());
        let fitted = fitted.map(|(data, model)| Fitted { model, target: &data.target, positive: data.positive });
        let loss =
            learning::loss(&document, &run_file.train, program.loss.map(|loss| Rc::from(loss as Box<LossFunction>)))
                .map_err(|problem| problems.push(problem));
        problems.extend(learning::check(&document, &run_file.train, fitted));
        if program.batch_step.is_some() && matches!(run_file.train.loss, Some(LossOptions::Model {})) {
            problems.push(
                Problem::new("the program computes the loss of a batch itself, and `loss` is the model's own")
                    .with_label(document.label_key("/train/loss", ""))
                    .with_hint("name a loss of the host, which the program's step may call".to_owned()),
            );
        }
        let metrics = learning::metrics(&document, "/train/metrics", &run_file.train.metrics, fitted, &mut problems);
        let evaluation = run_file.eval.as_ref().and_then(|eval| {
            evaluation(&document, eval, data.as_ref().ok(), fitted, run_file.train.loss.as_ref(), &mut problems)
        });
        if let Ok(model) = &model
            && model.trained_names().is_empty()
        {
            problems.push(
                Problem::new("the model has no parameters: there is nothing to train")
                    .with_label(document.label_key("/model", ""))
                    .with_hint(
                        "add a layer that learns, such as `{ type = \"linear\", out_features = 10 }`".to_owned(),
                    ),
            );
        }
        if let Ok(model) = &model
            && !model.trained_names().is_empty()
        {
            problems.extend(model::check_frozen(&run_file.model.frozen_first(), model, &document));
        }
        if let Ok(data) = &data {
            problems.extend(batches::check(&document, &run_file, data, model.as_ref().ok()));
        }
        let (Ok(data), Ok(model), Ok(loss), Ok(device), true) = (data, model, loss, device, problems.is_empty()) else {
            return Err(Problems(problems));
        };

        if let Some(problem) = starts_after_the_end(&run_file, &document) {
            return Err(problem.into());
        }
        let length = match (request.trial, run_file.train.length()) {
            (true, _) => train::Length::Steps(1),
            (_, Some(Length::Epochs(epochs))) => train::Length::Epochs(epochs),
            (_, Some(Length::Steps(steps))) => train::Length::Steps(steps),
            (_, None) => return Err(Problem::new("the run has no length").into()),
        };
        let products = run_file.run.kernels.products();
        let (threads, threads_reason) =
            threads(run_file.run.threads, &model, &data, Share::of(request.launch.as_ref(), &run_file));
        let test = test(&run_file, &data, &evaluation, &metrics);
        let mut plan = TrainingPlan {
            length,
            start_epoch: run_file.train.start_epoch,
            batches: Batches {
                size: run_file.train.batch_size,
                accumulate: run_file.train.accumulate,
                order: match run_file.data.shuffle() {
                    true => data::Order::Shuffled { seed: run_file.run.seed },
                    false => data::Order::Sequential,
                },
                drop_last: run_file.data.drop_last(),
            },
            loss,
            metrics,
            schedule: run_file.train.schedule(),
            clip_gradient_norm: run_file.train.clip_gradient_norm,
            precision: run_file.train.precision,
            seed: run_file.run.seed,
            freeze: run_file.model.frozen_first(),
            evaluation,
            evaluate_every: run_file.eval.as_ref().map_or(Every::EPOCH, |eval| eval.every),
            test,
            known: BTreeSet::new(),
            trial: request.trial,
        };
        let trained = model.trained_names();
        let trained: Vec<&str> = trained.iter().map(String::as_str).collect();
        let rates = run_file.train.optimizer.learning_rate_names(&trained);
        plan.known = train::metric_names(&plan, rates);
        plan.known.extend(metric_names::produced(&order));
        let unknown = metric_names::check(&document, &order, &plan);
        if !unknown.is_empty() {
            return Err(Problems(unknown));
        }
        order.warnings.extend(metric_names::contrary(&order));
        let initial_weights = run_file.model.init_from.as_ref().map(|options| {
            InitialWeights::read(options, &model.tensors()).map_err(|error| {
                let place = format!("/model/init_from{}", error.place());
                Problem::from(&error).with_label(document.label_value(&place, ""))
            })
        });
        let initial_weights = initial_weights.transpose();
        let batch_step = program.batch_step.map(|step| step as Box<BatchStepFunction>);
        Ok(Self {
            run_file,
            order,
            data,
            model,
            model_files,
            plan,
            batch_step,
            save_state: program.save_state,
            load_state: program.load_state,
            device,
            threads,
            threads_reason,
            products,
            initial_weights,
            rejected: catalogue.warnings(),
        })
    }
}

/// Refuses a first epoch after the last one.
fn starts_after_the_end(run_file: &RunFile, document: &Document) -> Option<Problem> {
    let (start, last) = (run_file.train.start_epoch, run_file.train.epochs?);
    (start > last).then(|| {
        Problem::new(format!("the first epoch, {start}, comes after the last one, {last}"))
            .with_label(document.label_value("/train/start_epoch", ""))
            .with_hint(format!("`epochs` is the number of the last epoch: make it {start} or more"))
    })
}

/// The data of a run file in `folder`; without a folder, that of the built-in run.
fn data(run_file: &RunFile, document: &Document, folder: Option<&Path>) -> Result<Data, Problem> {
    let source = match folder {
        Some(folder) => Source::Folder(folder),
        None => Source::Bytes(builtin::DATA),
    };
    Data::load(&run_file.data, source, run_file.run.seed).map_err(|error| data_problem(document, &error))
}

/// What is wrong with the data, at the place in the run file that names it.
pub(super) fn data_problem(document: &Document, error: &DataError) -> Problem {
    let label = columns::label(document, error).or_else(|| match (error.option(), error.path()) {
        (Some(option), _) => document.label_value(&format!("/{}", option.replace('.', "/")), ""),
        (None, Some(path)) => document.label_value(&named_by(document, "/data", path), ""),
        (None, None) => document.label_key("/data", ""),
    });
    Problem::new(error.to_string()).with_label(label).with_hint(error.hint().map(Cow::into_owned))
}

/// The place, in the part of the document at `pointer`, of the value that names `path` or a folder around it; the
/// part itself if no value does.
fn named_by(document: &Document, pointer: &str, path: &Path) -> String {
    /// The keys whose values are paths.
    const PATHS: [&str; 3] = ["path", "inputs", "targets"];
    fn find(value: &serde_json::Value, pointer: &str, path: &Path) -> Option<String> {
        match value {
            serde_json::Value::String(text) => {
                let leads_there = !text.is_empty() && path.ancestors().any(|path| path.ends_with(text));
                leads_there.then(|| pointer.to_owned())
            }
            serde_json::Value::Object(members) => {
                let candidates =
                    members.iter().filter(|(key, value)| value.is_object() || PATHS.contains(&key.as_str()));
                candidates.into_iter().find_map(|(key, value)| find(value, &config::child(pointer, key), path))
            }
            _ => None,
        }
    }
    let part = document.value().pointer(pointer);
    part.and_then(|part| find(part, pointer, path)).unwrap_or_else(|| pointer.to_owned())
}

/// The model of a run file, and the samples that it takes.
#[derive(Debug)]
pub struct ModelPlan {
    /// The model.
    pub model: PlannedModel,
    /// The samples of one batch.
    pub batch_size: usize,
    /// What a sample has, for people.
    pub inputs: String,
}

impl ModelPlan {
    /// Reads the run file and its data, and checks the model; plugins are not loaded.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, unless one error hides another.
    pub fn make(request: &Request) -> Result<Self, Problems> {
        let (name, text, base) = read(request)?;
        let run_file::Loaded { mut run_file, document } = run_file::load(&name, &text, &[], &request.overrides)?;
        let data = data(&run_file, &document, base.as_deref())?;
        if let Some(folder) = &base {
            let unknown = |error| Problem::new("cannot find the working folder").with_cause(&error);
            run_file.model.make_absolute(folder).map_err(unknown)?;
        }
        let model = model::plan(None, &run_file.model.files(), &run_file, &document, &data, Device::Cpu)?;
        Ok(Self { model, batch_size: run_file.train.batch_size, inputs: data.inputs_text() })
    }
}

/// The run file's name, its text, and the folder that its paths belong to; none for the built-in one.
fn read(request: &Request) -> Result<(String, String, Option<PathBuf>), Problems> {
    let Some(path) = &request.run_file else {
        return Ok((builtin::NAME.to_owned(), builtin::RUN_FILE.to_owned(), None));
    };
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Problem::new(format!("cannot read the run file `{name}`"))
            .with_cause(&error)
            .with_hint("give the path of a run file, or none for the built-in digits run".to_owned())
    })?;
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    Ok((name, text, Some(folder)))
}

pub(super) fn evaluation(
    document: &Document,
    eval: &EvalOptions,
    data: Option<&Data>,
    fitted: Option<Fitted<'_>>,
    loss: Option<&LossOptions>,
    problems: &mut Vec<Problem>,
) -> Option<EvaluationPlan> {
    let metrics = learning::metrics(document, "/eval/metrics", &eval.metrics, fitted, problems);
    if let Some(data) = data
        && !data.splits.contains_key(&eval.split)
    {
        let names: Vec<&str> = data.splits.keys().map(String::as_str).collect();
        problems.push(
            Problem::new(format!("there is no split `{}` to evaluate", eval.split))
                .with_label(document.label_value("/eval/split", "unknown").or(document.label_key("/eval", "")))
                .with_hint(
                    did_you_mean(&eval.split, names.iter().copied())
                        .or_else(|| Some(format!("name it under `[data.splits]`; there is {}", names.join(", ")))),
                ),
        );
        return None;
    }
    let split = Arc::from(eval.split.as_str());
    let shows = fitted.filter(|_| eval.show_results > 0);
    if let Some(misfit) = shows.and_then(|fitted| fitted.misfit()) {
        problems.push(
            Problem::new(format!("predictions cannot be shown beside their targets: {misfit}"))
                .with_label(document.label_value("/eval/show_results", ""))
                .with_hint(
                    "set it to 0, or name another of the tensors that the model returns with `[model] output`"
                        .to_owned(),
                ),
        );
        return None;
    }
    let shown = shows.map(|fitted| {
        let width = fitted.model.output_shape().iter().product::<i64>();
        (eval.show_results, Meaning::of(fitted.target, usize::try_from(width).unwrap_or(0), loss))
    });
    Some(EvaluationPlan { split, metrics, batch_size: eval.batch_size, shown })
}

/// The evaluation of the split `test`, if there is one and no other evaluation takes it: with the metrics of `[eval]`,
/// or, without it, those of training.
fn test(
    run_file: &RunFile,
    data: &Data,
    evaluation: &Option<EvaluationPlan>,
    metrics: &[Metric],
) -> Option<EvaluationPlan> {
    data.splits.get(TEST)?;
    let split = Arc::from(TEST);
    match evaluation {
        Some(evaluation) if &*evaluation.split == TEST => None,
        Some(evaluation) => Some(EvaluationPlan { split, ..evaluation.clone() }),
        None => Some(EvaluationPlan {
            split,
            metrics: metrics.to_vec(),
            batch_size: run_file.train.batch_size,
            shown: None,
        }),
    }
}

pub(super) fn device(device: config::Device, document: &Document) -> Result<Device, Problem> {
    match device {
        config::Device::Cpu => Ok(Device::Cpu),
        config::Device::Auto => Ok(Device::cuda_if_available()),
        config::Device::Cuda(index) => {
            let count = tch::Cuda::device_count();
            if i64::from(index) < count {
                return Ok(Device::Cuda(index as usize));
            }
            let found = match count {
                0 => "this libtorch finds no CUDA device".to_owned(),
                1 => "there is one CUDA device, `cuda:0`".to_owned(),
                count => format!("there are {count} CUDA devices"),
            };
            Err(Problem::new(format!("there is no device `cuda:{index}`"))
                .with_label(document.label_value("/run/device", "not there"))
                .with_hint(format!("{found}; `auto` uses one if there is one")))
        }
    }
}

/// Refuses more threads than any machine has use for; a number beyond this one's cores is a choice, since sums depend on it.
fn too_many_threads(threads: Threads, document: &Document) -> Option<Problem> {
    const MOST: usize = 1024;
    match threads {
        Threads::Count(count) if count.get() > MOST => Some(
            Problem::new(format!("`run.threads` = `{count}` is more than {MOST}"))
                .with_label(document.label_value("/run/threads", ""))
                .with_hint("`auto` takes what the model has use for".to_owned()),
        ),
        _ => None,
    }
}

/// What one process computes of a step, and with how many cores.
struct Share {
    batch_size: usize,
    cores: usize,
}

impl Share {
    /// The share of a process: all, or one of several. They divide the cores of their machine, where SLURM has not done it.
    fn of(launch: Option<&Launch>, run_file: &RunFile) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let batch_size = run_file.train.batch_size;
        let Some(launch) = launch else { return Self { batch_size, cores } };
        let processes = if launch.origin == Origin::Slurm { 1 } else { launch.local_world_size };
        Self { batch_size: batch_size.div_ceil(launch.world_size), cores: (cores / processes).max(1) }
    }
}

fn threads(threads: Threads, model: &PlannedModel, data: &Data, share: Share) -> (usize, String) {
    match threads {
        Threads::Count(count) => (count.get(), "as the run file says".to_owned()),
        Threads::Auto => {
            let Share { batch_size, cores } = share;
            let (flops, how) = model.flops_per_sample(&data.sample_shape);
            let chosen = train::threads::automatic(flops, batch_size, cores);
            // Forward and backward are three times the forward pass.
            let flops = flops as f64 * batch_size as f64 * 3.0 / 1e6;
            (chosen, format!("auto: {how}{flops:.1} MFLOP a step, {cores} cores"))
        }
    }
}
