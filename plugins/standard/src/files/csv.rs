//! `csv`: appends the metrics to `metrics.csv` in the run folder, one row per epoch, for spreadsheets and data frames.
//!
//! ```csv
//! kind,epoch,step,train_loss,val_loss
//! epoch,1,28,0.71,
//! epoch,2,56,0.31,NaN
//! ```
//!
//! The first three columns are those of `json-lines`. Each cell of a confusion matrix of at most 32 classes is a column:
//! `val_confusion_matrix[cat,dog]` counts the cats that were predicted as dogs. A metric without a value in a row is an empty cell; NaN and the
//! infinities are `NaN`, `inf` and `-inf`, which `float()` in Python and `pandas.read_csv` read. Cells are quoted by
//! RFC 4180, and a name that begins as a formula does (`=`, `+`, `-`, `@`) has an apostrophe before it, so that a spreadsheet does
//! not compute it.
//!
//! A metric that first appears during the run becomes a column after the others: the file is written again under a
//! temporary name, with empty cells in the earlier rows, and then renamed, so that a reader sees the old file or the
//! new one.
//!
//! A resumed run cuts the file back to the rows that it had at the checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use csv::{ByteRecord, ReaderBuilder, WriterBuilder};
use plugin_api::event::{At, Evaluation, Position, TrainEnd};
use plugin_api::{Callback, Creation, Error, Result, Run, decode_state, encode_state, plugin, tracing};
use serde::{Deserialize, Serialize};

use super::line_file::LineFile;
use super::rows::{self, LastRows, Rows};

/// Confusion matrices of more classes are left out: each of their cells would be a column.
const MOST_CLASSES: usize = 32;

/// The columns of each row.
const FIXED: [&str; 3] = ["kind", "epoch", "step"];

/// Options of `csv`.
#[plugin]
pub(crate) struct Options {
    /// The file, relative to the run folder. Two instances need two files.
    #[schemars(extend("format" = "output-file"))]
    file: String,
    /// The number of steps between additional rows; 0 for none.
    every_steps: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { file: "metrics.csv".to_owned(), every_steps: 0 }
    }
}

/// The state in checkpoints: the number of rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct State {
    rows: u64,
    /// What the rows that come next do not repeat.
    #[serde(default)]
    last: LastRows,
}

pub(crate) struct Csv {
    /// The name of the file.
    name: String,
    rows: Rows,
    /// From the checkpoint that the run resumed from.
    resumed: Option<State>,
    table: Option<Table>,
    /// Confusion matrices that are too large.
    left_out: BTreeSet<String>,
}

#[plugin]
impl Callback for Csv {
    const KIND: &'static str = "csv";
    const SUMMARY: &'static str = "Appends the metrics to metrics.csv, one row per epoch";
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        if options.file.is_empty() {
            return Err(Error::new("`file` must not be empty"));
        }
        Ok(Self {
            name: options.file,
            rows: Rows::new(options.every_steps),
            resumed: None,
            table: None,
            left_out: BTreeSet::new(),
        })
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        let state: State = decode_state(state)?;
        self.rows.resume(state.last);
        self.resumed = Some(state);
        Ok(())
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
        let rows = match (&self.table, self.resumed) {
            (Some(table), _) => table.rows,
            (None, resumed) => resumed.map_or(0, |state| state.rows),
        };
        encode_state(&State { rows, last: self.rows.last() })
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let path = Path::new(&run.info()?.folder).join(&self.name);
        self.table = Some(Table::open(path, self.resumed.map(|state| state.rows), event.global_step)?);
        self.rows.begin(run, event)?;
        run.publish("metrics", &self.name)
    }

    fn on_step_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let row = self.rows.step(run, event)?;
        self.append(event, row)
    }

    fn on_epoch_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let row = self.rows.epoch(run, event)?;
        self.append(event, row)
    }

    fn on_eval_end(&mut self, run: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        let row = self.rows.evaluation(run, event)?;
        self.append(event, row)
    }

    fn on_train_end(&mut self, run: &mut Run<'_>, event: &TrainEnd<'_>) -> Result<()> {
        let row = self.rows.end(run, event)?;
        self.append(event, row)
    }
}

impl Csv {
    fn append(&mut self, position: &Position, row: Option<rows::Row>) -> Result<()> {
        let (Some(table), Some(mut row)) = (&mut self.table, row) else { return Ok(()) };
        for matrix in &row.matrices {
            if matrix.classes.len() > MOST_CLASSES {
                if self.left_out.insert(matrix.name.clone()) {
                    let classes = matrix.classes.len();
                    tracing::warn!(
                        "`{}` has {classes} classes, too many for columns; `json-lines` writes it",
                        matrix.name
                    );
                }
                continue;
            }
            for (class, counts) in matrix.rows() {
                let cells = matrix.classes.iter().zip(counts);
                row.metrics.extend(
                    cells.map(|(predicted, count)| (format!("{}[{class},{predicted}]", matrix.name), *count as f64)),
                );
            }
        }
        table.append(row.kind, position, &row.metrics)
    }
}

/// The file, as a header and rows.
struct Table {
    path: PathBuf,
    file: LineFile,
    /// Empty until the first row comes, and the header with it.
    columns: Vec<String>,
    rows: u64,
}

impl Table {
    /// Opens the file without the rows that an interrupted run wrote after the point from which this one resumes: with
    /// the first `rows`, if that number is known and they exist, or those of up to `global_step` steps.
    fn open(path: PathBuf, rows: Option<u64>, global_step: u64) -> Result<Self> {
        // What a process left that was ended while it wrote the file again.
        let _ = fs::remove_file(partial(&path));
        let mut file = LineFile::open(&path)?;
        let whole = whole_rows(&file.content()?);
        let mut this = Self { path, file, columns: Vec::new(), rows: 0 };
        let Some((header, rest)) = whole.split_first().filter(|(header, _)| global_step > 0 && header.is_ours()) else {
            this.file.cut(0)?;
            return Ok(this);
        };
        this.columns = header.cells.clone();
        this.rows = match rows {
            Some(rows) if rows <= rest.len() as u64 => rows,
            // The run was resumed in another folder, or without this plugin.
            _ => rest.iter().take_while(|row| row.step().is_some_and(|step| step <= global_step)).count() as u64,
        };
        let last = rest.iter().take(usize::try_from(this.rows).unwrap_or(0)).next_back().unwrap_or(header);
        this.file.cut(last.end)?;
        Ok(this)
    }

    fn append(&mut self, kind: &str, position: &Position, metrics: &BTreeMap<String, f64>) -> Result<()> {
        let cells: BTreeMap<String, f64> = metrics.iter().map(|(name, value)| (column(name), *value)).collect();
        let new: Vec<String> = cells.keys().filter(|name| !self.columns.contains(name)).cloned().collect();
        if self.columns.is_empty() {
            let columns: Vec<String> = FIXED.map(str::to_owned).into_iter().chain(new).collect();
            self.file.append(&line(&columns)?)?;
            self.columns = columns;
        } else if !new.is_empty() {
            self.widen(new)?;
        }
        let values =
            self.columns.iter().skip(FIXED.len()).map(|name| cells.get(name).copied().map_or_else(String::new, number));
        let fixed = [kind.to_owned(), position.epoch.to_string(), position.global_step.to_string()];
        let row: Vec<String> = fixed.into_iter().chain(values).collect();
        self.file.append(&line(&row)?)?;
        self.rows += 1;
        Ok(())
    }

    /// Writes the file again with more columns.
    fn widen(&mut self, new: Vec<String>) -> Result<()> {
        let columns: Vec<String> = self.columns.iter().cloned().chain(new).collect();
        let mut content = line(&columns)?;
        for row in whole_rows(&self.file.content()?).into_iter().skip(1) {
            let mut cells = row.cells;
            cells.resize(columns.len(), String::new());
            content.extend(line(&cells)?);
        }
        let partial = partial(&self.path);
        let written = fs::write(&partial, &content).and_then(|()| fs::rename(&partial, &self.path));
        if let Err(error) = written {
            // On a full disk, it is in the way of what comes next.
            let _ = fs::remove_file(&partial);
            return Err(Error::from(error).context(self.path.display()));
        }
        let mut file = LineFile::open(&self.path)?;
        file.cut(content.len() as u64)?;
        (self.file, self.columns) = (file, columns);
        Ok(())
    }
}

/// The path of the file while it is written again.
fn partial(path: &Path) -> PathBuf {
    path.with_extension("csv.partial")
}

/// A line of the file, and where it ends.
struct Row {
    cells: Vec<String>,
    end: u64,
}

impl Row {
    fn is_ours(&self) -> bool {
        self.cells.get(..FIXED.len()).is_some_and(|first| first == FIXED)
    }

    fn step(&self) -> Option<u64> {
        self.cells.get(2)?.parse().ok()
    }
}

/// The rows of a file, header first, as far as they are complete and text.
fn whole_rows(content: &[u8]) -> Vec<Row> {
    let whole = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let mut reader =
        ReaderBuilder::new().has_headers(false).flexible(true).from_reader(content.get(..whole).unwrap_or(&[]));
    let (mut rows, mut record) = (Vec::new(), ByteRecord::new());
    while reader.read_byte_record(&mut record).is_ok_and(|read| read) {
        let cells = record.iter().map(|cell| String::from_utf8(cell.to_vec()).ok()).collect::<Option<_>>();
        let Some(cells) = cells else { break };
        rows.push(Row { cells, end: reader.position().byte() });
    }
    rows
}

fn line(cells: &[String]) -> Result<Vec<u8>> {
    let mut writer = WriterBuilder::new().from_writer(Vec::new());
    writer.write_record(cells)?;
    writer.into_inner().map_err(|error| Error::new(error.to_string()))
}

/// The column of a metric, which may have the name of one of the row's own, or of a formula.
fn column(metric: &str) -> String {
    if FIXED.contains(&metric) { format!("metric_{metric}") } else { no_formula(metric) }
}

/// A text that no spreadsheet computes: with an apostrophe before what begins like a formula and is no number.
fn no_formula(text: &str) -> String {
    // Also before the apostrophes of one that has some, so that two names stay two.
    let begins_so = text.trim_start_matches('\'').starts_with(['=', '+', '-', '@', '\t', '\r']);
    if begins_so && text.parse::<f64>().is_err() { format!("'{text}") } else { text.to_owned() }
}

fn number(value: f64) -> String {
    if value.is_finite() { serde_json::Value::from(value).to_string() } else { value.to_string() }
}

#[cfg(test)]
mod tests;
