//! A picture of the curves of several runs over one another, as SVG.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::words;
use crate::runs::history::Series;

/// The curves of a run.
pub(super) struct Curve {
    /// What it is called in the legend.
    pub(super) name: String,
    /// By metric.
    pub(super) series: BTreeMap<String, Series>,
}

/// The size of a chart, in pixels, its margins included.
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 240.0;

/// The margins at the left, for numbers, and at the other sides.
const LEFT: f64 = 64.0;
const MARGIN: f64 = 28.0;

/// Charts beside one another.
const COLUMNS: usize = 2;

/// The height of a line of the legend.
const LINE: f64 = 20.0;

/// Colors that people with any color vision tell apart (Okabe and Ito 2008).
const COLORS: [&str; 8] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999"];

/// A chart for each metric that changes, with a curve for each run that has it; `None` if there is none.
pub(super) fn draw(curves: &[Curve]) -> Option<String> {
    let names: BTreeSet<&str> = curves
        .iter()
        .flat_map(|curve| curve.series.iter().filter(|(_, series)| series.len() > 1).map(|(name, _)| name.as_str()))
        .collect();
    if names.is_empty() {
        return None;
    }
    let rows = names.len().div_ceil(COLUMNS);
    let legend = LINE * curves.len() as f64 + MARGIN;
    let (width, height) = (WIDTH * COLUMNS as f64, legend + HEIGHT * rows as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (index, curve) in curves.iter().enumerate() {
        let y = MARGIN + LINE * index as f64;
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\" stroke=\"{}\" stroke-width=\"2\"/>\
             <text x=\"{}\" y=\"{}\">{}</text>",
            LEFT + 24.0,
            color(index),
            LEFT + 32.0,
            y + 4.0,
            escaped(&curve.name)
        );
    }
    for (index, name) in names.into_iter().enumerate() {
        let (x, y) = (WIDTH * (index % COLUMNS) as f64, legend + HEIGHT * (index / COLUMNS) as f64);
        let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">");
        chart(name, curves, &mut svg);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// One chart: title, the range of both axes, the curves.
fn chart(name: &str, curves: &[Curve], svg: &mut String) {
    let all = || curves.iter().filter_map(|curve| curve.series.get(name)).flatten();
    let steps = range(all().map(|(step, _, _)| *step as f64));
    let values = range(all().map(|(_, _, value)| *value));
    let (right, bottom) = (WIDTH - MARGIN, HEIGHT - MARGIN);
    let x = |step: f64| LEFT + (step - steps.0) / (steps.1 - steps.0) * (right - LEFT);
    let y = |value: f64| bottom - (value - values.0) / (values.1 - values.0) * (bottom - MARGIN);
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{}</text>\
         <path d=\"M{LEFT} {MARGIN}V{bottom}H{right}\" fill=\"none\" stroke=\"#999\"/>",
        MARGIN - 8.0,
        escaped(name)
    );
    for (value, at) in [(values.0, bottom), (values.1, MARGIN + 4.0)] {
        let text = words::number(value);
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{at}\" text-anchor=\"end\">{text}</text>", LEFT - 6.0);
    }
    for (step, anchor) in [(steps.0, "start"), (steps.1, "end")] {
        let (x, y) = (x(step), bottom + 16.0);
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">step {step}</text>");
    }
    for (index, curve) in curves.iter().enumerate() {
        let Some(series) = curve.series.get(name) else { continue };
        let points = series.iter().map(|(step, _, value)| format!("{:.1},{:.1}", x(*step as f64), y(*value)));
        let points = points.collect::<Vec<_>>().join(" ");
        let _ = writeln!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"/>",
            color(index)
        );
    }
}

fn color(index: usize) -> &'static str {
    COLORS[index % COLORS.len()]
}

/// The least and the greatest; around a single value there is some room.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low < high { (low, high) } else { (low - 0.5, low + 0.5) }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_has_a_curve_in_the_chart_of_a_metric() {
        let curve = |name: &str, values: &[f64]| Curve {
            name: name.to_owned(),
            series: BTreeMap::from([(
                "loss".to_owned(),
                (1..).zip(values).map(|(step, value)| (step, 1, *value)).collect(),
            )]),
        };
        let svg = draw(&[curve("a<b", &[1.0, 0.5]), curve("c", &[2.0, 0.0])]).unwrap();
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("points=\"64.0,120.0 432.0,166.0\"") && svg.contains("a&lt;b"), "{svg}");
        assert!(draw(&[curve("one point", &[1.0])]).is_none());
    }
}
