//! The values of summaries, in the formats of TensorBoard's plugins.

use plugin_api::Result;
use prost::Message;

use crate::proto::{
    Content, DATA_CLASS_TENSOR, Histogram, Hparams, HparamsData, Image, Metadata, PluginData, PrCurveData, Shape,
    Tensor, Value, element,
};

/// A number. TensorBoard keeps 32 bits of it.
pub fn scalar(tag: &str, value: f64) -> Value {
    Value { tag: tag.to_owned(), metadata: None, content: Some(Content::Scalar(value as f32)) }
}

/// A histogram.
pub(crate) fn histogram(tag: &str, histogram: Histogram) -> Value {
    Value { tag: tag.to_owned(), metadata: None, content: Some(Content::Histogram(histogram)) }
}

/// Text, in Markdown.
pub(crate) fn text(tag: &str, text: &str) -> Value {
    let tensor = Tensor {
        dtype: element::STRING,
        shape: Some(Shape::default()),
        texts: vec![text.as_bytes().to_vec()],
        ..Tensor::default()
    };
    tensor_of("text", tag, tensor, Vec::new(), "")
}

/// A table, in Markdown.
pub(crate) fn table(tag: &str, columns: &[String], rows: &[Vec<String>]) -> Value {
    let width = rows.iter().map(Vec::len).chain([columns.len()]).max().unwrap_or(0);
    let line = |cells: &[String]| {
        let cells = (0..width).map(|index| cells.get(index).map_or_else(String::new, |cell| markdown_cell(cell)));
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let rule = format!("|{}\n", "---|".repeat(width));
    text(tag, &format!("{}{rule}{}", line(columns), rows.iter().map(|row| line(row)).collect::<String>()))
}

fn markdown_cell(cell: &str) -> String {
    cell.replace('\\', "\\\\").replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// A picture: rows from the top, `width × height × channels` bytes.
pub(crate) fn image(tag: &str, [height, width, channels]: [u32; 3], pixels: &[u8], description: &str) -> Result<Value> {
    let encoded = monitor::encode_png([height, width, channels], pixels)
        .map_err(|error| error.context(format!("the image `{tag}` cannot be written")))?;
    let image = Image { height: height as i32, width: width as i32, colorspace: channels as i32, encoded };
    // Without a plugin name, TensorBoard recognizes it by its content, like all images of this form.
    let metadata =
        (!description.is_empty()).then(|| Metadata { description: description.to_owned(), ..Metadata::default() });
    Ok(Value { tag: tag.to_owned(), metadata, content: Some(Content::Image(image)) })
}

/// The positives in the counts of [`pr_curve`]; a curve does not tell how many there were.
const POSITIVES: f64 = 1e6;

/// A precision-recall curve. Its tensor has the rows true positives, false positives, true negatives, false negatives,
/// precision and recall, for increasing thresholds (TensorBoard's `pr_curve/summary.py`). The counts are those of this
/// precision and recall for a million positives and no true negatives.
pub(crate) fn pr_curve(tag: &str, recall: &[f64], precision: &[f64]) -> Value {
    let mut points: Vec<(f64, f64)> =
        recall.iter().copied().zip(precision.iter().copied()).filter(|(r, p)| r.is_finite() && p.is_finite()).collect();
    // The higher the threshold, the fewer are found.
    points.sort_by(|first, second| second.0.total_cmp(&first.0));
    let true_positives = |&(recall, _): &(f64, f64)| (recall * POSITIVES).round();
    let false_positives = |point: &(f64, f64)| match point {
        (_, precision) if *precision > 0.0 => (true_positives(point) * (1.0 / precision - 1.0)).round().max(0.0),
        _ => POSITIVES,
    };
    let mut floats = Vec::with_capacity(6 * points.len());
    floats.extend(points.iter().map(|point| true_positives(point) as f32));
    floats.extend(points.iter().map(|point| false_positives(point) as f32));
    floats.extend(points.iter().map(|_| 0.0f32));
    floats.extend(points.iter().map(|point| (POSITIVES - true_positives(point)).max(0.0) as f32));
    floats.extend(points.iter().map(|(_, precision)| *precision as f32));
    floats.extend(points.iter().map(|(recall, _)| *recall as f32));
    let shape = Some(Shape::of([6, points.len() as i64]));
    let tensor = Tensor { dtype: element::FLOAT, shape, floats, texts: Vec::new() };
    let data = PrCurveData { version: 0, num_thresholds: points.len() as u32 };
    tensor_of("pr_curves", tag, tensor, data.encode_to_vec(), "")
}

/// A message of the plugin `hparams`: all of its content is in the metadata.
pub(crate) fn hparams(tag: &str, data: Hparams) -> Value {
    let content = HparamsData { version: 0, data: Some(data) }.encode_to_vec();
    // `metadata.NULL_TENSOR`.
    let tensor = Tensor { dtype: element::FLOAT, shape: Some(Shape::of([0])), ..Tensor::default() };
    tensor_of("hparams", tag, tensor, content, "")
}

fn tensor_of(plugin: &str, tag: &str, tensor: Tensor, content: Vec<u8>, description: &str) -> Value {
    let plugin_data = Some(PluginData { plugin_name: plugin.to_owned(), content });
    let metadata = Metadata { plugin_data, description: description.to_owned(), data_class: DATA_CLASS_TENSOR };
    Value { tag: tag.to_owned(), metadata: Some(metadata), content: Some(Content::Tensor(tensor)) }
}

/// A tag that every page of TensorBoard shows on its own line: without control characters, not empty, and without a
/// leading slash, which would be a group without a name.
pub(crate) fn tag(name: &str) -> String {
    let shown: String = name.chars().map(|letter| if letter.is_control() { '_' } else { letter }).collect();
    let trimmed = shown.trim_start_matches('/');
    if trimmed.is_empty() { "_".to_owned() } else { trimmed.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tables_are_markdown() {
        let value = table("t", &["a|b".to_owned()], &[vec!["1\n2".to_owned(), "x".to_owned()], vec![]]);
        let Some(Content::Tensor(tensor)) = value.content else { panic!("no tensor") };
        let text = String::from_utf8(tensor.texts[0].clone()).unwrap();
        assert_eq!(text, "| a\\|b |  |\n|---|---|\n| 1 2 | x |\n|  |  |\n");
    }

    #[test]
    fn the_counts_of_a_curve_give_the_curve() {
        let value = pr_curve("pr", &[0.0, 0.25, 1.0, f64::NAN], &[1.0, 0.8, 0.4, 1.0]);
        let Some(Content::Tensor(tensor)) = value.content else { panic!("no tensor") };
        let rows: Vec<&[f32]> = tensor.floats.chunks(3).collect();
        assert_eq!(rows.len(), 6);
        assert_eq!((rows[4], rows[5]), (&[0.4f32, 0.8, 1.0][..], &[1.0f32, 0.25, 0.0][..]));
        for (index, (precision, recall)) in rows[4].iter().zip(rows[5]).enumerate().take(2) {
            let (found, wrong, missed) = (rows[0][index], rows[1][index], rows[3][index]);
            assert!((found / (found + wrong) - precision).abs() < 1e-5);
            assert!((found / (found + missed) - recall).abs() < 1e-5);
        }
    }

    #[test]
    fn images_of_another_size_are_refused() {
        let error = image("i", [2, 2, 3], &[0; 11], "").unwrap_err();
        assert!(error.message().starts_with("the image `i` cannot be written: "), "{error}");
        assert!(image("i", [2, 2, 2], &[0; 8], "").unwrap_err().message().contains("2 channels"));
        assert!(image("i", [0, 0, 1], &[], "").is_err());
    }

    proptest! {
        #[test]
        fn any_name_is_a_tag_on_one_line(name: String) {
            let tag = tag(&name);
            prop_assert!(!tag.is_empty() && !tag.starts_with('/') && !tag.chars().any(char::is_control));
        }
    }
}
