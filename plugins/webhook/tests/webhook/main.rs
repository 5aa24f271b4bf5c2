//! `webhook` against a real server on loopback.

// What servers are sent, and what becomes of a run whose server does not answer as it should.
mod delivery;
// Of what a webhook tells, in which words, signed by whom; and which options it refuses.
mod notices;
// Everything that the plugin logs.
mod log;
// A server that answers as a test says.
mod server;
