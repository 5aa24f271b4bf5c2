//! The cost of plugins and of the host itself, measured side by side in one run: `cargo xtask bench`.
//!
//! Every ratio compares two things that took turns in this process, since a machine's speed changes from minute to
//! minute. A figure that misses its target is marked, but nothing fails: measuring is not testing.
//!
//! `cargo xtask bench -- -- hooks startup` measures only those sections.

mod answers;
mod checkpoint;
mod commands;
mod exported;
mod hooks;
mod isolation;
mod kinds;
mod libraries;
mod memory;
mod products;
mod ranks;
mod startup;
mod table;
mod timing;
mod training;
mod workload;

use std::process::ExitCode;

use libraries::Libraries;
use table::Table;

/// An error ends the measurement, with its message.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

type Section = fn(&Libraries, &mut Table) -> Result<()>;

const SECTIONS: [(&str, Section); 12] = [
    ("hooks", hooks::measure),
    ("isolation", isolation::measure),
    ("products", products::measure),
    ("training", training::measure),
    ("threads", training::measure_threads),
    ("kinds", kinds::measure),
    ("startup", startup::measure),
    ("commands", commands::measure),
    ("memory", memory::measure),
    ("checkpoint", checkpoint::measure),
    ("exported", exported::measure),
    ("ranks", ranks::measure),
];

fn main() -> ExitCode {
    // Cargo passes this argument to every benchmark.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let outcome = match arguments.split_first() {
        Some((first, rest)) if first == memory::CHILD => memory::child(rest),
        Some((first, rest)) if first == exported::CHILD => exported::child(rest),
        _ => measure(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(wanted: &[String]) -> Result<()> {
    if let Some(unknown) = wanted.iter().find(|name| SECTIONS.iter().all(|(section, _)| section != name)) {
        let sections = SECTIONS.map(|(name, _)| format!("`{name}`")).join(", ");
        return Err(format!("there is no section `{unknown}`; the sections are {sections}").into());
    }
    let libraries = Libraries::build()?;
    let mut table = Table::new();
    for (name, section) in SECTIONS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            section(&libraries, &mut table)?;
        }
    }
    Ok(())
}
