//! The real binary, real plugins from real files, real readers of what they write.

// The tools for plugin authors: `host plugins new`, `list`, `describe`, `check`.
mod author;
// A plugin of this minor version and of the next, in a host of this one and of the next.
mod compatibility;
// What happens to files that are no plugins, or plugins that do not fit: each one readable paragraph.
mod loading;
// Plugins in C and C++: that they run, and what is said of those that are wrong.
mod c_plugins;
// A run from the command line to what it leaves behind, and what must not change it.
mod run;
// Which hooks come, with what, and which still come after a stop or a failure.
mod events;
// In which order callbacks run, and what they see of each other.
mod order;
// When triggers come, and what a condition gates.
mod schedule;
// Callbacks on threads of their own.
mod background;
// Metrics as comma-separated values.
mod csv;
// The formats that data is read from, and what is wrong with files.
mod data;
// What exporters leave behind, and who reads it.
mod exports;
// Headless Chromium, for the tests of pages.
mod browser;
// The page that a run leaves behind.
mod report;
// The page that is there while a run goes on.
mod dashboard;
// What follows from plugins that fail.
mod failures;
// The weights that a run exports, as other programs read them.
mod exports_weights;
mod inspection;
// What the command line says.
mod cli;
// The run that these share.
mod small_run;
// Going on from a checkpoint: bit for bit, whatever ended the process.
mod resume;
// What callbacks ask of the run, and whether the answers are right.
mod services;
// What every host answers to every service in every hook.
mod service_table;
// A plugin as a stranger writes it, built as a stranger builds it.
mod third_party;
// A program with a model, a loss and a batch step of its own.
mod custom_trainer;
// TorchScript modules in place of layers.
mod torchscript;
// Notices to servers, and who may not see where they go.
mod webhook;
// Commands that a run starts.
mod command;
// What a real tracking server has of a run.
mod mlflow;
// Event files, as TensorBoard's own package and server read them.
mod tensorboard;
// What the repository says of itself.
mod tidy;
// The run that the tests of services, checkpoints and compatibility share.
mod training;
