//! The records of callbacks, in the formats of TensorBoard's plugins.

use plugin_api::graph::Graph;
use plugin_api::protocol::RecordValue;
use plugin_api::{Error, Result};

use crate::proto::{Summary, Value, What};
use crate::{graph, histogram, plot, summary};

/// Whether records of a type are supported: a newer host may have others.
pub(crate) fn is_known(type_name: &str) -> bool {
    matches!(type_name, "scalar" | "histogram" | "image" | "text" | "table" | "curve" | "graph" | "hyper_parameters")
}

/// The event with a record under `tag`; `None` for hyper-parameters, which are not a single event.
pub(crate) fn event(tag: &str, record: &RecordValue) -> Result<Option<What>> {
    let value = match record {
        RecordValue::Scalar { value } => summary::scalar(tag, *value),
        RecordValue::Histogram { edges, counts } => match histogram::of_edges(edges, counts) {
            Some(histogram) => summary::histogram(tag, histogram),
            None => {
                return Err(Error::new(format!(
                    "the histogram `{tag}` has {} edges and {} counts; it needs one edge more than counts, ascending, and \
                 counts that are not negative",
                    edges.len(),
                    counts.len()
                )));
            }
        },
        RecordValue::Image { width, height, channels, pixels } => {
            summary::image(tag, [*height, *width, *channels], &pixels.0, "")?
        }
        RecordValue::Text { text } => summary::text(tag, text),
        RecordValue::Table { columns, rows } => summary::table(tag, columns, rows),
        RecordValue::Curve { x_label, y_label, x, y } => curve(tag, [x_label, y_label], x, y)?,
        RecordValue::Graph { json } => {
            let graph: Graph = serde_json::from_str(json)
                .map_err(|error| Error::from(error).context(format!("the graph `{tag}` cannot be read")))?;
            return Ok(Some(What::GraphDef(graph::graph_def(&graph))));
        }
        _ => return Ok(None),
    };
    Ok(Some(What::Summary(Summary { value: vec![value] })))
}

/// A line of precision over recall goes to the page for such curves; any other line becomes a picture.
fn curve(tag: &str, [x_label, y_label]: [&str; 2], x: &[f64], y: &[f64]) -> Result<Value> {
    let is = |label: &str, name: &str| label.eq_ignore_ascii_case(name);
    if is(x_label, "recall") && is(y_label, "precision") {
        return Ok(summary::pr_curve(tag, x, y));
    }
    let ([left, right], [bottom, top]) = (plot::range(x), plot::range(y));
    let description = format!("{y_label} from {bottom} to {top} over {x_label} from {left} to {right}");
    let [height, width] = plot::SIZE.map(|size| size as u32);
    summary::image(tag, [height, width, 3], &plot::line(x, y), &description)
}
