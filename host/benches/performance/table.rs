//! The figures and their targets.

use std::fmt;

/// The target of a figure.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// No target; only measured.
    None,
}

impl Target {
    fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Self::AtMost(limit) => Some(value <= limit),
            Self::AtLeast(limit) => Some(value >= limit),
            Self::None => None,
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Figure {
    pub what: String,
    /// From the fastest round of each side: other work of the machine only adds time. The target is compared with it.
    pub best: f64,
    /// The median over the rounds.
    pub median: f64,
    pub unit: &'static str,
    pub target: Target,
    /// The values it was computed from.
    pub from: String,
}

/// Prints the figures as they are measured, which takes minutes.
pub struct Table {
    heading: bool,
}

/// Characters of the first column.
const WHAT: usize = 70;

impl Table {
    pub fn new() -> Self {
        Self { heading: true }
    }

    pub fn push(&mut self, figure: &Figure) {
        if std::mem::take(&mut self.heading) {
            println!("{:<WHAT$}  {:>10}  {:>10}  {:>10}  met", "what", "best", "median", "target");
        }
        println!("{figure}");
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_unit = |value: f64| format!("{} {}", shown(value), self.unit).trim_end().to_owned();
        let target = match self.target {
            Target::AtMost(limit) => format!("≤ {}", with_unit(limit)),
            Target::AtLeast(limit) => format!("≥ {}", with_unit(limit)),
            Target::None => "–".to_owned(),
        };
        let met = match self.target.is_met(self.best) {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "–",
        };
        let (what, best, median, from) = (&self.what, with_unit(self.best), with_unit(self.median), &self.from);
        write!(formatter, "{what:<WHAT$}  {best:>10}  {median:>10}  {target:>10}  {met:<3}  {from}")
    }
}

/// About three significant digits.
fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
