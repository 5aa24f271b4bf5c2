//! The figures and their targets.

use std::fmt;

/// What a figure must reach.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Figure {
    pub what: String,
    /// From the fastest round of each side: what else the machine does only adds time. The target is compared with it.
    pub best: f64,
    /// The median over the rounds.
    pub median: f64,
    pub unit: &'static str,
    pub target: Target,
    /// What it was computed from.
    pub from: String,
}

/// The figures, in the order in which they were measured.
#[derive(Debug, Default)]
pub struct Table(Vec<Figure>);

impl Table {
    pub fn push(&mut self, figure: Figure) {
        self.0.push(figure);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.0.iter().map(|figure| figure.what.chars().count()).max().unwrap_or(0);
        writeln!(formatter, "\n{:<what$}  {:>12}  {:>12}  {:>12}  met", "what", "best", "median", "target")?;
        for figure in &self.0 {
            let with_unit = |value: f64| format!("{} {}", shown(value), figure.unit).trim_end().to_owned();
            let target = match figure.target {
                Target::AtMost(limit) => format!("≤ {}", with_unit(limit)),
                Target::AtLeast(limit) => format!("≥ {}", with_unit(limit)),
            };
            let met = if figure.target.is_met(figure.best) { "yes" } else { "NO" };
            writeln!(
                formatter,
                "{:<what$}  {:>12}  {:>12}  {target:>12}  {met:<3}  {}",
                figure.what,
                with_unit(figure.best),
                with_unit(figure.median),
                figure.from,
            )?;
        }
        Ok(())
    }
}

/// Three significant digits or so.
fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
