//! `webhook` against a real server on loopback.

// What servers receive, and what happens to a run whose server misbehaves.
mod delivery;
// The notices, their texts and signatures; and the options that the plugin rejects.
mod notices;
// Everything that the plugin logs.
mod log;
// A server that answers as a test says.
mod server;
