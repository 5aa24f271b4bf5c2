//! The real binary, real plugins from real files, real readers of what they write.

// The tools for plugin authors: `host plugins new`, `list`, `describe`, `check`.
mod author;
// A plugin of this minor version and of the next, in a host of this one and of the next.
mod compatibility;
// Plugins as they were built when the ABI became final.
mod kept;
// What happens to files that are no plugins, or plugins that do not fit: each one readable paragraph.
mod loading;
// Plugins in C and C++: that they run, and what is said of those that are wrong.
mod c_plugins;
// Plugins in Python, and callbacks of other frameworks.
mod python_plugins;
// Plugins from others: the lock, who else can change them, packages.
mod packages;
// A run from the command line to its output, and what must not change it.
mod run;
// Which hooks come, with which arguments, and which still come after a stop or a failure.
mod events;
// In which order callbacks run, and what they see of each other.
mod between_callbacks;
mod order;
// What is known and told before the training.
mod plan;
// When triggers come, and what a condition gates.
mod schedule;
// Callbacks on threads of their own.
mod background;
// Checkpoints that are written while the training goes on, after a failure, and into folders elsewhere.
mod checkpoints;
// Callbacks that look for wrong numbers, and those that measure.
mod checks;
// Callbacks that show what is inside the model.
mod summaries;
// Metrics as comma-separated values.
mod csv;
// The formats that data is read from, and what is wrong with files.
mod data;
mod data_run;
// The example with every kind of callback in one run.
mod everything;
// The files of exporters, and their readers.
mod exports;
// Headless Chromium, for the tests of pages.
mod browser;
// The page that a run writes.
mod report;
// The page that a running host serves.
mod dashboard;
// What follows from plugins that fail.
mod failures;
// Plugins that harm the process that they live in.
mod harms;
// The weights that a run exports, as other programs read them.
mod exports_weights;
// Adapters beside frozen weights, and PEFT's view of them.
mod hints;
mod inspection;
mod isolation;
mod lora;
// What a person meets first: no options, nothing saved, a loss that is NaN.
mod finetune;
mod first_contact;
// The table of kinds in the README.
mod kinds;
// The page of all layers, and their names.
mod layers;
// What the command line says.
mod cli;
// Hyper-parameters that callbacks set, and the end of a run that they ask for.
mod schedules;
// Expressions in `if` and in options, and the kind `lambda`.
mod expressions;
// The run that these share.
mod small_run;
// Where the time of steps goes.
mod profiler;
// What a run computes in.
mod precision;
// What a resumed run takes along.
mod carried;
// Callbacks that steer the training itself.
mod training_control;
// Hooks that take too long.
mod limits;
// What a run trained is used again: evaluate, predict, export.
mod jobs;
// Which of several processes one is, and the launcher that starts them.
#[cfg(unix)]
mod launch;
// Runs of several processes: their numbers, how they resume, and what ends them.
#[cfg(unix)]
mod ranks;
// Plugins, status and requests of a run of several ranks.
#[cfg(unix)]
mod rank_plugins;
// A run as other processes see and steer it.
mod follow;
// Averages of the weights, the best ones, and what is done with gradients.
mod averages;
// Resuming from a checkpoint: bit for bit, whatever ended the process.
mod restore_best;
mod resume;
// Who computes the products of a run.
mod kernels;
// Kills at any instant of a run, which then ends as if there had been none.
#[cfg(unix)]
mod kills;
// Disks that are full or broken for some of a run's files.
#[cfg(target_os = "linux")]
mod disk_full;
// What callbacks ask of the run, and whether the answers are right.
mod services;
// What every host answers to every service in every hook.
mod service_table;
// The prompt of a run that waits for a person.
#[cfg(unix)]
mod shell;
// A plugin as a third party writes and builds it.
mod third_party;
// Events of callbacks and programs, with tensors.
mod custom_events;
// A program with a model, a loss and a batch step of its own.
mod custom_trainer;
// Exported programs in place of layers.
mod exported;
// Those with several inputs, or with a loss of their own.
mod several_inputs;
// The same against eager PyTorch, to the last bit.
mod eager;
// TorchScript modules in place of layers.
mod torchscript;
// Weights that others trained, as the start of a run.
mod initial_weights;
// Notices to servers, and who may not see where they go.
mod webhook;
// Commands that a run starts.
mod command;
// What a real tracking server has about a run.
mod metrics;
mod mlflow;
// Event files, as TensorBoard's own package and server read them.
mod tables;
mod tensorboard;
// Offline runs, as W&B's own program reads them.
mod wandb;
// The repository's documentation.
mod tidy;
// The run that the tests of services, checkpoints and compatibility share.
mod training;
