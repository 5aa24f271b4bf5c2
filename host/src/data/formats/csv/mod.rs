//! CSV files (RFC 4180) and their relatives, plain or compressed with gzip (RFC 1952).
//!
//! `text` decodes a file, `dialect` divides it, `columns` says which columns are features and targets, `table` parses
//! the rows, `number` the cells. Then `labels` and `categories` say what the texts of all files mean.

mod categories;
mod columns;
mod dialect;
mod hint;
mod labels;
mod number;
mod problem;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod texts;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use self::categories::{Encoder, Number, counted};
use self::columns::{Columns, First, Places, quoted};
use self::dialect::{Dialect, written};
use self::labels::Classes;
use self::number::Notation;
pub use self::problem::{CellProblem, ColumnPlace, LabelsProblem, TableProblem};
use self::table::{CsvFile, CsvTable, TargetColumns};
use self::text::Text;
use super::{Pool, Pools};
use crate::data::classes::first_class;
use crate::data::fill::{Fill, Filling, Gap, Gaps};
use crate::data::narrowing;
use crate::data::normalize::{Normalize, NormalizeOptions};
use crate::data::options::{CategoricalAs, CsvOptions, Missing, Task, UnknownCategory};
use crate::data::other::{Known, OtherPool};
use crate::data::rows::{Rows, Table};
use crate::data::split::{HeldOut, Place};
use crate::data::target::NO_CLASS;
use crate::data::typed::Typed;
use crate::data::{DataError, FeatureContent, INPUTS, Samples, Source, Sources, Target, Targets, Wanted};

/// Reads all files of the options.
pub(in crate::data) fn read(options: &CsvOptions, source: Source<'_>) -> Result<Pools, DataError> {
    check(options)?;
    let main = Opened::of(options, &options.path, source)?;
    let columns = Columns::of(options, &main.text, &main.first)?;
    let mut held_out = BTreeMap::new();
    let mut others = Vec::new();
    for (name, split) in &options.splits {
        match Place::of(name, split.fraction, split.stratified, split.path.as_deref())? {
            Place::Given(path) => others.push((name, Opened::of(options, path, source)?, !split.stratified)),
            Place::HeldOut(split) => drop(held_out.insert(name.clone(), split)),
        }
    }
    let firsts: Vec<&First> = others.iter().map(|(_, other, _)| &other.first).collect();
    columns.check_dropped(options, &main.text, &firsts)?;

    let training = Arc::clone(&main.text);
    let main = main.parse(options, &columns, columns.own_places())?;
    let mut given = BTreeMap::new();
    for (name, other, may_lack) in others {
        let places = columns.places(options, &training, &other.text, &other.first);
        let places = places.map_err(|problem| DataError::table(&other.text.path, problem))?;
        given.insert(name.clone(), (other.parse(options, &columns, places)?, may_lack));
    }
    pools(options, &columns, main, given, held_out)
}

/// Reads a file as the one that the description is about was read. `options` have its classes.
pub(in crate::data) fn read_like(options: &CsvOptions, known: Known<'_>) -> Result<OtherPool, DataError> {
    let Samples::Table { columns: described, .. } = &known.description.samples else {
        return Err(DataError::malformed(
            known.path,
            "cannot be read: the checkpoint does not say which columns it had",
        ));
    };
    let opened = Opened::of(options, known.path, Source::Folder(Path::new("")))?;
    let text = Arc::clone(&opened.text);
    let (columns, has_targets) = Columns::described(options, described, &text, &opened.first)
        .map_err(|problem| DataError::table(&text.path, problem))?;
    if !has_targets && known.wanted == Wanted::Required {
        let names: Vec<String> = options.target.as_slice().iter().map(|column| quoted(&column.to_string())).collect();
        return Err(known.no_targets(&format!("has no column {} to compare with", names.join(", "))));
    }
    let keeps_all = known.wanted == Wanted::IfPresent;
    let mut table = opened.parse_rows(options, &columns, columns.own_places(), keeps_all)?;
    let encoder = Encoder::described(options, &columns, described);
    let sample_shape = sample_shape(options, &table, encoder.width())?;
    let mut notes = about(&table);
    let gaps = gaps(options, &columns, &encoder, std::iter::once(&table));
    let encoded = encoder.encode(&mut table)?;
    notes.extend(encoder.zeros(&table, &encoded));
    let classes = match (options.task, &table.targets) {
        (Task::Classification, TargetColumns::Classes(_)) => Some(Classes::of(options, &table, &[])?),
        _ => None,
    };
    let targets = targets(options, &columns, &table, classes.as_ref())?;
    let width = encoder.width();
    let mut rows: Arc<dyn Rows> = Arc::new(Table { values: encoded.values, row_length: width });
    if let Some(gaps) = gaps {
        let fills = described.iter().filter_map(|feature| match feature.content {
            FeatureContent::Numbers { fill } => Some(fill.unwrap_or(0.0)),
            FeatureContent::Categories { .. } => None,
        });
        let fill = Fill { values: fills.collect() };
        notes.extend(gaps.notes(&fill));
        rows = gaps.apply(&fill, rows, width);
    }
    let sources = Sources::Lines { path: text.path.clone(), lines: std::mem::take(&mut table.lines) };
    let pool = Pool { path: text.path.clone(), rows, sample_shape, targets, typed: Typed::default() };
    Ok(OtherPool { pool, has_targets, sources, notes })
}

/// Options that exclude one another.
fn check(options: &CsvOptions) -> Result<(), DataError> {
    let wrong = |key: &str, value: &str, expected| {
        Err(DataError::Option { option: format!("data.{key}"), value: value.to_owned(), expected })
    };
    if options.task == Task::Regression {
        if options.classes.is_some() {
            return wrong("classes", "given", "omitted with `task = \"regression\"`");
        }
        if options.first_class.is_some() {
            return wrong("first_class", "given", "omitted with `task = \"regression\"`");
        }
    }
    first_class(options.first_class)?;
    if options.categorical_as == CategoricalAs::Index {
        let index = "index";
        if options.normalize != NormalizeOptions::Fitted(Normalize::None) {
            return wrong("categorical_as", index, "`one_hot` with `normalize`, since indices are no measurements");
        }
        if !options.augment.is_empty() {
            return wrong("categorical_as", index, "`one_hot` with `augment`, since indices are no images");
        }
        if options.unknown_category == UnknownCategory::Zeros {
            return wrong("categorical_as", index, "`one_hot` with `unknown_category = \"zeros\"`");
        }
    }
    Ok(())
}

/// A file whose columns are not known yet.
struct Opened<'a> {
    text: Arc<Text<'a>>,
    dialect: Dialect,
    first: First,
}

impl<'a> Opened<'a> {
    fn of(options: &CsvOptions, path: &Path, source: Source<'a>) -> Result<Opened<'a>, DataError> {
        let text = Text::open(options.encoding, path, source)?;
        let dialect = Dialect::of(options, &text).map_err(|problem| DataError::table(&text.path, problem))?;
        let first = First::of(&text, dialect)?;
        Ok(Opened { text: Arc::new(text), dialect, first })
    }

    fn parse(self, options: &'a CsvOptions, columns: &'a Columns, places: Places) -> Result<CsvTable<'a>, DataError> {
        self.parse_rows(options, columns, places, false)
    }

    fn parse_rows(
        self,
        options: &'a CsvOptions,
        columns: &'a Columns,
        places: Places,
        keeps_all: bool,
    ) -> Result<CsvTable<'a>, DataError> {
        if places.moved {
            tracing::info!(file = %self.text.path.display(), "columns are in another order than in the training file");
        }
        CsvFile { options, text: self.text, dialect: self.dialect, places, keeps_all }.parse(columns)
    }
}

/// What the files mean together.
fn pools(
    options: &CsvOptions,
    columns: &Columns,
    main: CsvTable<'_>,
    given: BTreeMap<String, (CsvTable<'_>, bool)>,
    held_out: BTreeMap<String, HeldOut>,
) -> Result<Pools, DataError> {
    let all = || std::iter::once(&main).chain(given.values().map(|(table, _)| table));
    let encoder = Encoder::of(options, columns, &main)?;
    let sample_shape = sample_shape(options, &main, encoder.width())?;
    let mut notes: Vec<String> = columns.unnamed_feature().map(unnamed_feature).into_iter().collect();
    notes.extend(all().flat_map(about));
    notes.extend(encoder.notes());
    let gaps = gaps(options, columns, &encoder, all());
    let (target, classes) = match options.task {
        Task::Classification => {
            let others: Vec<&CsvTable<'_>> = given.values().map(|(table, _)| table).collect();
            let classes = Classes::of(options, &main, &others)?;
            let (count, names) = (classes.table.count, classes.table.names.clone());
            (Target::Classes { count, names, shape: Vec::new() }, Some(classes))
        }
        Task::Regression => {
            let names: Vec<String> = columns.targets.iter().map(|column| columns.label(*column)).collect();
            notes.extend(all().filter_map(|table| narrowed(table, &names)));
            (Target::Values { names, within_unit: all().all(is_within_unit) }, None)
        }
    };
    let mut pool = |mut table: CsvTable<'_>| -> Result<Pool, DataError> {
        let encoded = encoder.encode(&mut table)?;
        notes.extend(encoder.zeros(&table, &encoded));
        Ok(Pool {
            targets: targets(options, columns, &table, classes.as_ref())?,
            rows: Arc::new(Table { values: encoded.values, row_length: encoder.width() }),
            sample_shape: sample_shape.clone(),
            path: table.file.text.path.clone(),
            typed: Typed::default(),
        })
    };
    let main = pool(main)?;
    let given = given.into_iter().map(|(name, (table, may_lack))| Ok((name, (pool(table)?, may_lack))));
    let given = given.collect::<Result<_, DataError>>()?;
    let samples = Samples::Table { categorical_as: options.categorical_as, columns: encoder.describe() };
    let (classes_given, input_name) = (options.classes.is_some(), INPUTS.to_owned());
    Ok(Pools { main, given, held_out, target, samples, input_name, classes_given, gaps, notes })
}

/// The targets of a table; `classes` are those of a classification.
fn targets(
    options: &CsvOptions,
    columns: &Columns,
    table: &CsvTable<'_>,
    classes: Option<&Classes>,
) -> Result<Targets, DataError> {
    match (&table.targets, classes) {
        (TargetColumns::Values(values), _) => {
            let values = values.iter().map(|value| *value as f32).collect();
            Ok(Targets::Values { values, width: columns.targets.len() })
        }
        (TargetColumns::None, _) => Ok(Targets::classes(vec![NO_CLASS; table.rows])),
        (TargetColumns::Classes(labels), None) => Ok(Targets::classes(vec![0; labels.rows.len()])),
        (TargetColumns::Classes(labels), Some(classes)) => {
            let notation = Notation::of(options);
            let of_label = labels.distinct.iter().map(|entry| match entry.is_value() {
                // No row has it, unless rows without a target are kept.
                false => Ok(NO_CLASS),
                true => classes
                    .class(&entry.text, &notation)
                    .map_err(|problem| table.wrong_entry(columns.targets[0], entry, problem)),
            });
            let of_label: Vec<i64> = of_label.collect::<Result<_, _>>()?;
            Ok(Targets::classes(labels.rows.iter().map(|label| of_label[*label as usize]).collect()))
        }
    }
}

/// What f32 cannot hold apart of the numbers to predict.
fn narrowed(table: &CsvTable<'_>, names: &[String]) -> Option<String> {
    match &table.targets {
        TargetColumns::Classes(_) | TargetColumns::None => None,
        TargetColumns::Values(values) => narrowing::targets(&table.file.text.path, values, names),
    }
}

fn is_within_unit(table: &CsvTable<'_>) -> bool {
    match &table.targets {
        TargetColumns::Classes(_) | TargetColumns::None => false,
        TargetColumns::Values(values) => values.iter().all(|value| (0.0..=1.0).contains(value)),
    }
}

fn sample_shape(options: &CsvOptions, main: &CsvTable<'_>, width: usize) -> Result<Vec<i64>, DataError> {
    let Some(shape) = &options.shape else {
        return Ok(vec![i64::try_from(width).unwrap_or(i64::MAX)]);
    };
    let expected = shape.iter().fold(1, |count: u64, length| count.saturating_mul(u64::from(*length)));
    if shape.is_empty() || expected != width as u64 {
        return Err(main.wrong(TableProblem::Shape { shape: shape.clone(), expected, found: width }));
    }
    Ok(shape.iter().map(|length| i64::from(*length)).collect())
}

/// The features that are numbers, if what is missing is replaced: another file may lack those that these files have.
fn gaps<'a>(
    options: &CsvOptions,
    columns: &Columns,
    encoder: &Encoder<'_>,
    all: impl Iterator<Item = &'a CsvTable<'a>>,
) -> Option<Gaps> {
    let filling = match options.missing {
        Missing::Error | Missing::Drop => return None,
        Missing::Mean => Filling::Mean,
        Missing::Median => Filling::Median,
        Missing::Zero => Filling::Zero,
    };
    let mut counts: Vec<usize> = Vec::new();
    for table in all {
        counts.resize(table.missing.len(), 0);
        for (count, missing) in counts.iter_mut().zip(&table.missing) {
            *count += missing;
        }
    }
    let gap = |(number, count): (Number, usize)| Gap {
        position: number.position,
        column: number.feature,
        name: quoted(&columns.label(number.column)),
        count,
    };
    Some(Gaps { filling, features: encoder.numbers().zip(counts).map(gap).collect() })
}

/// What is unusual about a file, for people.
fn about(table: &CsvTable<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    if table.file.dialect.is_news {
        notes.push(format!("columns are separated by `{}`", written(table.file.dialect.delimiter)));
    }
    for (count, what) in [
        (table.left_out.without_target, "without a target"),
        (table.left_out.without_features, "with missing features"),
    ] {
        if count > 0 {
            let are = if count == 1 { "is" } else { "are" };
            notes.push(format!("{} {what} {are} left out", counted(count, "row", "rows")));
        }
    }
    notes.into_iter().map(|note| format!("`{}`: {note}", table.file.text.path.display())).collect()
}

fn unnamed_feature(column: usize) -> String {
    format!(
        "column {} has no name and is a feature; if it numbers the rows, `drop = [{column}]` leaves it out",
        column + 1
    )
}
