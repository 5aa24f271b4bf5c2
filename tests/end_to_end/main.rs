//! The real binary, real plugins from real files, real readers of what they write.

// The tools for plugin authors: `host plugins new`, `list`, `describe`, `check`.
mod author;
// What happens to files that are no plugins, or plugins that do not fit: each one readable paragraph.
mod loading;
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
// What follows from plugins that fail.
mod failures;
// What the command line says.
mod cli;
// The run that these share.
mod small_run;
