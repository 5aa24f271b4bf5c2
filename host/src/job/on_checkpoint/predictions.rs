//! What a model says of samples, and the files that hold it.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use host_command::arguments::PredictionFormat;
use serde_json::{Map, Value, json};

use super::super::status::number;
use crate::train::Meaning;

/// The name of the file of predictions.
pub(super) fn file_name(format: PredictionFormat) -> &'static str {
    match format {
        PredictionFormat::Csv => "predictions.csv",
        PredictionFormat::Jsonl => "predictions.jsonl",
        PredictionFormat::Npy => "predictions.npy",
    }
}

/// A sample and what the model says of it.
pub(super) struct Prediction<'a> {
    pub(super) index: u64,
    pub(super) source: String,
    /// One text for a class, the numbers otherwise; empty without targets.
    pub(super) targets: Vec<String>,
    pub(super) numbers: &'a [f64],
}

/// A file of predictions, which appears under its name when it is whole.
pub(super) struct PredictionFile {
    path: PathBuf,
    file: tempfile::NamedTempFile,
    writer: Writer,
}

enum Writer {
    Csv(Box<csv::Writer<BufWriter<File>>>),
    Jsonl(BufWriter<File>),
    Npy { out: BufWriter<File>, rows: u64, columns: usize },
}

impl PredictionFile {
    pub(super) fn create(folder: &Path, format: PredictionFormat, meaning: &Meaning) -> std::io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".tmp-predictions-");
        // By default only the owner could read it.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
        let file = builder.tempfile_in(folder)?;
        let mut out = BufWriter::new(file.as_file().try_clone()?);
        let writer = match format {
            PredictionFormat::Csv => {
                let mut csv = csv::Writer::from_writer(out);
                csv.write_record(header(meaning).iter().map(|name| no_formula(name)))?;
                Writer::Csv(Box::new(csv))
            }
            PredictionFormat::Jsonl => Writer::Jsonl(out),
            PredictionFormat::Npy => {
                out.write_all(&npy_header(0, meaning.columns().len()))?;
                Writer::Npy { out, rows: 0, columns: meaning.columns().len() }
            }
        };
        Ok(Self { path: folder.join(file_name(format)), file, writer })
    }

    pub(super) fn add(&mut self, meaning: &Meaning, prediction: &Prediction<'_>) -> std::io::Result<()> {
        let chosen = meaning.chosen(prediction.numbers);
        match &mut self.writer {
            Writer::Csv(csv) => {
                let mut record = vec![prediction.index.to_string(), prediction.source.clone()];
                match chosen {
                    Some((name, probability)) => {
                        record.push(prediction.targets.first().cloned().unwrap_or_default());
                        record.extend([name.to_owned(), text(probability)]);
                    }
                    None => {
                        let width = meaning.columns().len();
                        record
                            .extend((0..width).map(|index| prediction.targets.get(index).cloned().unwrap_or_default()));
                    }
                }
                record.extend(prediction.numbers.iter().copied().map(text));
                csv.write_record(record.iter().map(|cell| no_formula(cell)))?;
            }
            Writer::Jsonl(out) => {
                let columns = meaning.columns();
                let numbers: Map<String, Value> =
                    columns.into_iter().zip(prediction.numbers.iter().copied().map(number)).collect();
                let mut line = json!({ "index": prediction.index, "source": prediction.source });
                match chosen {
                    Some((name, probability)) => {
                        line["target"] = prediction.targets.first().map_or(Value::Null, |target| json!(target));
                        line["prediction"] = json!(name);
                        line["probability"] = number(probability);
                        line["probabilities"] = Value::Object(numbers);
                    }
                    None => {
                        let targets: Vec<Value> = prediction
                            .targets
                            .iter()
                            .map(|target| target.parse().map_or(Value::Null, number))
                            .collect();
                        line["target"] = if targets.is_empty() { Value::Null } else { Value::Array(targets) };
                        line["prediction"] = Value::Object(numbers);
                    }
                }
                writeln!(out, "{line}")?;
            }
            Writer::Npy { out, rows, .. } => {
                for value in prediction.numbers {
                    out.write_all(&(*value as f32).to_le_bytes())?;
                }
                *rows += 1;
            }
        }
        Ok(())
    }

    /// Gives the file its name.
    pub(super) fn finish(self) -> std::io::Result<PathBuf> {
        let Self { path, mut file, writer } = self;
        match writer {
            Writer::Csv(csv) => drop(csv.into_inner().map_err(|error| error.into_error())?.into_inner()?),
            Writer::Jsonl(out) => drop(out.into_inner()?),
            Writer::Npy { out, rows, columns } => {
                drop(out.into_inner()?);
                file.seek(SeekFrom::Start(0))?;
                file.write_all(&npy_header(rows, columns))?;
            }
        }
        file.persist(&path).map_err(|error| error.error)?;
        Ok(path)
    }
}

fn header(meaning: &Meaning) -> Vec<String> {
    let mut header = vec!["index".to_owned(), "source".to_owned()];
    let columns = meaning.columns();
    match meaning {
        Meaning::Classes(_) | Meaning::SecondClass(_) => {
            header.extend(["target", "prediction", "probability"].map(str::to_owned));
            header.extend(columns);
        }
        // One number is called as the columns of classes are.
        _ if columns.len() == 1 => header.extend(["target", "prediction"].map(str::to_owned)),
        _ => {
            header.extend(columns.iter().map(|name| format!("target_{name}")));
            header.extend(columns.iter().map(|name| format!("prediction_{name}")));
        }
    }
    header
}

/// A cell that no spreadsheet computes: names of files and classes are a stranger's, and one that begins like a formula has an
/// apostrophe before it. A number stays as it is.
fn no_formula(cell: &str) -> String {
    // Also before apostrophes that are there, so that two names stay two.
    let begins_so = cell.trim_start_matches('\'').starts_with(['=', '+', '-', '@', '\t', '\r']);
    if begins_so && cell.parse::<f64>().is_err() { format!("'{cell}") } else { cell.to_owned() }
}

/// A number as the shortest text that f32 reads back.
fn text(value: f64) -> String {
    (value as f32).to_string()
}

/// The header of version 1.0 of NumPy's format for f32 of `[rows, columns]`, of one length for any number of rows.
fn npy_header(rows: u64, columns: usize) -> Vec<u8> {
    const LENGTH: usize = 128;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend(((LENGTH - 10) as u16).to_le_bytes());
    header.extend(format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}").bytes());
    header.resize(LENGTH - 1, b' ');
    header.push(b'\n');
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spreadsheet_computes_no_text() {
        for text in ["=1+2", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "-", "--1", "'=1"] {
            assert_eq!(no_formula(text), format!("'{text}"));
        }
        for cell in ["-1.5e3", "-inf", "nan", "-nan", "+1", "-0", "1", "", "cat", "a=b", "'a"] {
            assert_eq!(no_formula(cell), cell);
        }
    }
}
