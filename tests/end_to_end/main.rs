//! The real binary, real plugins from real files, real readers of what they write.

// The tools for plugin authors: `host plugins new`, `list`, `describe`, `check`.
mod author;
// What happens to files that are no plugins, or plugins that do not fit: each one readable paragraph.
mod loading;
