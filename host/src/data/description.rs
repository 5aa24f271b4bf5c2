//! What a model was trained on, in the form that checkpoints and run folders keep.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::options::{CategoricalAs, Color, Column, Orientation};
use super::{Data, INPUTS, Normalization, OtherInput, SampleType, Target};

/// All that must be known to give a trained model other samples, and to understand its answers.
///
/// Written as `model.json` into the run folder and into each checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataDescription {
    /// The samples of each split.
    pub splits: BTreeMap<String, u64>,
    /// What a sample is made from.
    pub samples: Samples,
    /// The shape of one sample.
    pub sample_shape: Vec<i64>,
    /// The dtype of samples; not given where what they are made from says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_type: Option<SampleType>,
    /// The name of the samples in a batch, if it is not `inputs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_name: Option<String>,
    /// The inputs beside the samples, in the order of those of a batch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<OtherInput>,
    /// What is predicted.
    pub target: TargetDescription,
    /// What every sample was normalized with; the last bit counts.
    pub normalization: Normalization,
}

/// What samples are made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Samples {
    /// Numbers, as they are stored.
    Numbers,
    /// The columns of a table, one after another.
    Table {
        /// What a category is in a sample.
        categorical_as: CategoricalAs,
        /// In the order of a sample.
        columns: Vec<FeatureColumn>,
    },
    /// Images, from 0 to 255.
    Images {
        /// The channels of a pixel.
        color: Color,
        /// Whether images are turned as their files say.
        orientation: Orientation,
        /// Height and width that every image is resized to, if it is.
        #[serde(default)]
        resize: Option<[u32; 2]>,
    },
    /// The characters of a text, as indices of `tokens`.
    Characters {
        /// In order.
        tokens: Vec<String>,
    },
    /// The bytes of a text, as numbers.
    Bytes,
}

impl Samples {
    /// How many different tokens or indices there are, for samples of those.
    pub fn vocabulary(&self) -> Option<usize> {
        match self {
            Samples::Characters { tokens } => Some(tokens.len()),
            Samples::Bytes => Some(256),
            Samples::Table { categorical_as: CategoricalAs::Index, columns } => {
                Some(columns.iter().map(|column| column.content.category_count()).sum())
            }
            Samples::Numbers | Samples::Table { .. } | Samples::Images { .. } => None,
        }
    }

    /// The dtype of samples, unless their data keeps its own.
    pub fn sample_type(&self) -> SampleType {
        match self.vocabulary() {
            Some(_) => SampleType::I64,
            None => SampleType::F32,
        }
    }

    /// The tokens of a text, for samples of those.
    ///
    /// # Errors
    ///
    /// A text that is not UTF-8, or with a character that is no token; or samples that are no text.
    pub fn encode(&self, text: &[u8]) -> Result<Vec<u32>, String> {
        let tokens = match self {
            Samples::Bytes => return Ok(text.iter().copied().map(u32::from).collect()),
            Samples::Characters { tokens } => tokens,
            _ => return Err("is a text, but the model takes none".to_owned()),
        };
        let text =
            std::str::from_utf8(text).map_err(|error| format!("is not UTF-8 at byte {}", error.valid_up_to()))?;
        let numbers: BTreeMap<&str, u32> = tokens.iter().map(String::as_str).zip(0..).collect();
        let mut buffer = [0; 4];
        text.chars()
            .map(|character| {
                let token = numbers.get(&*character.encode_utf8(&mut buffer)).copied();
                token.ok_or_else(|| format!("has the character {character:?}, which the training text does not have"))
            })
            .collect()
    }

    /// The text of tokens; a token that is not known, or a broken character, is replaced by `\u{fffd}`.
    pub fn decode(&self, tokens: &[u32]) -> String {
        match self {
            Samples::Characters { tokens: names } => {
                let name = |token: &u32| names.get(*token as usize).map_or("\u{fffd}", String::as_str);
                tokens.iter().map(name).collect()
            }
            _ => {
                let bytes: Vec<u8> = tokens.iter().map(|token| u8::try_from(*token).unwrap_or(b'?')).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
        }
    }

    /// The names of a sample's numbers, such as `age` and `city=Paris`; empty if no column has one.
    pub fn number_names(&self) -> Vec<String> {
        let Samples::Table { categorical_as, columns } = self else { return Vec::new() };
        if columns.iter().all(|column| matches!(column.column, Column::Index(_))) {
            return Vec::new();
        }
        let names = |FeatureColumn { column, content }: &FeatureColumn| match (content, categorical_as) {
            (FeatureContent::Categories { names }, CategoricalAs::OneHot) => {
                names.iter().map(|name| format!("{column}={name}")).collect()
            }
            _ => vec![column.to_string()],
        };
        columns.iter().flat_map(names).collect()
    }
}

/// A column of a table that is a feature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureColumn {
    /// Its name in the header; without a header its index, counted from 0.
    pub column: Column,
    /// What it holds.
    #[serde(flatten)]
    pub content: FeatureContent,
}

/// What a column of a table holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FeatureContent {
    /// Numbers: one in a sample.
    Numbers {
        /// The number that replaces a missing one; `None` if there must be one.
        #[serde(default)]
        fill: Option<f64>,
    },
    /// Texts: as many numbers as there are categories, or the category's index, counted on over all columns.
    Categories {
        /// In order.
        names: Vec<String>,
    },
}

impl FeatureContent {
    fn category_count(&self) -> usize {
        match self {
            FeatureContent::Numbers { .. } => 0,
            FeatureContent::Categories { names } => names.len(),
        }
    }
}

/// What is predicted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TargetDescription {
    /// One of `count` classes.
    Classes {
        /// How many there are.
        count: u64,
        /// Their names, in order; empty if they are the numbers from 0 on.
        names: Vec<String>,
        /// The shape of one sample's classes: empty for one class, a length for one at each position of a sequence.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        shape: Vec<i64>,
    },
    /// Numbers.
    Values {
        /// Their names, in order.
        names: Vec<String>,
    },
}

impl DataDescription {
    /// The description of `data`.
    pub fn new(data: &Data) -> DataDescription {
        DataDescription {
            splits: data.splits.iter().map(|(name, split)| (name.clone(), split.len() as u64)).collect(),
            samples: data.samples.clone(),
            sample_shape: data.sample_shape.clone(),
            sample_type: Some(data.sample_type).filter(|own| *own != data.samples.sample_type()),
            input_name: Some(data.input_name.clone()).filter(|name| name != INPUTS),
            others: data.others.clone(),
            target: match &data.target {
                Target::Classes { count, names, shape } => {
                    TargetDescription::Classes { count: *count as u64, names: names.clone(), shape: shape.clone() }
                }
                Target::Values { names, .. } => TargetDescription::Values { names: names.clone() },
            },
            normalization: data.normalization.clone(),
        }
    }

    /// Reads the description that a checkpoint or a run folder holds.
    ///
    /// # Errors
    ///
    /// Text that is not such a description.
    pub fn parse(text: &str) -> serde_json::Result<DataDescription> {
        serde_json::from_str(text)
    }

    /// The text of `model.json`.
    ///
    /// # Errors
    ///
    /// None that is known: every part of it can be written as JSON.
    pub fn text(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn example(offset: f64) -> DataDescription {
        DataDescription {
            splits: BTreeMap::from([("train".to_owned(), 7)]),
            samples: Samples::Images { color: Color::Gray, orientation: Orientation::Apply, resize: Some([4, 5]) },
            sample_shape: vec![1, 4, 5],
            sample_type: None,
            input_name: None,
            others: Vec::new(),
            target: TargetDescription::Classes {
                count: 2,
                names: vec!["cat".to_owned(), "dog".to_owned()],
                shape: Vec::new(),
            },
            normalization: Normalization { offset: vec![offset], scale: vec![1.0 / 3.0] },
        }
    }

    #[test]
    fn the_text_is_that_of_the_docs() {
        let value: serde_json::Value = serde_json::from_str(&example(0.5).text().unwrap()).unwrap();
        let expected = json!({
            "splits": {"train": 7},
            "samples": {"type": "images", "color": "gray", "orientation": "apply", "resize": [4, 5]},
            "sample_shape": [1, 4, 5],
            "target": {"type": "classes", "count": 2, "names": ["cat", "dog"]},
            "normalization": {"offset": [0.5], "scale": [0.333_333_333_333_333_3]},
        });
        assert_eq!(value, expected);
    }

    proptest! {
        #[test]
        fn every_bit_of_the_normalization_comes_back(offset in any::<f64>().prop_filter("finite", |x| x.is_finite())) {
            let description = example(offset);
            prop_assert_eq!(&DataDescription::parse(&description.text().unwrap()).unwrap(), &description);
        }
    }
}
