//! Seeded splits.

use std::collections::BTreeMap;

use super::{
    DataError, TRAIN,
    order::{Purpose, generator, shuffle},
};

/// A split that is held out of the training data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct HeldOut {
    /// Its share of the samples.
    pub(super) fraction: f64,
    /// Whether every class gives the same share.
    pub(super) stratified: bool,
}

/// Where a split comes from.
pub(super) enum Place<T> {
    /// From its own files.
    Given(T),
    /// From the training data.
    HeldOut(HeldOut),
}

impl<T> Place<T> {
    /// The options of a split, which name its own `files` or a fraction.
    pub(super) fn of(name: &str, fraction: Option<f64>, stratified: bool, files: Option<T>) -> Result<Self, DataError> {
        let option = format!("data.splits.{name}");
        let wrong = |value: &str, expected| Err(DataError::Option { option, value: value.to_owned(), expected });
        match (files, fraction) {
            _ if name == TRAIN => wrong("given", "omitted: `train` is the training data that the other splits leave"),
            (Some(files), None) => Ok(Place::Given(files)),
            (None, Some(fraction)) => Ok(Place::HeldOut(HeldOut { fraction, stratified })),
            (Some(_), Some(_)) => wrong("a fraction and files", "one of the two"),
            (None, None) => wrong("neither a fraction nor files", "one of the two"),
        }
    }
}

/// The indices of each split, ascending: those of `options`, and `train`, which takes the rest. Every sample is in one
/// split. A pure function of its arguments.
///
/// A stratified split takes its share of every class that occurs, rounded by the largest remainder so that its size is
/// its share of the whole. A split that is not stratified takes its share of what the others leave. Messages show a
/// class as `name` does.
pub(super) fn split(
    targets: &[i64],
    options: &BTreeMap<String, HeldOut>,
    seed: u64,
    name: impl Fn(usize) -> String,
) -> Result<BTreeMap<String, Vec<u32>>, DataError> {
    check(options)?;
    let mut generator = generator(seed, Purpose::Split, 0);
    let mut by_class: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
    for (index, target) in (0..).zip(targets) {
        by_class.entry(*target).or_default().push(index);
    }
    let (classes, mut remaining): (Vec<i64>, Vec<Vec<u32>>) = by_class.into_iter().unzip();
    let totals: Vec<usize> = remaining.iter().map(Vec::len).collect();
    for indices in &mut remaining {
        shuffle(indices, &mut generator);
    }
    let mut splits = BTreeMap::new();
    for (split_name, split) in options.iter().filter(|(_, split)| split.stratified) {
        let mut taken = Vec::new();
        for (class, count) in shares(&totals, split.fraction).into_iter().enumerate() {
            let indices = &mut remaining[class];
            let count = count.min(indices.len());
            if count == 0 {
                let class_name = name(usize::try_from(classes[class]).unwrap_or(0));
                return Err(DataError::TooFewSamples {
                    split: split_name.clone(),
                    what: format!("no sample of class {class_name}"),
                    available: totals[class],
                });
            }
            taken.extend(indices.drain(indices.len() - count..));
        }
        splits.insert(split_name.clone(), taken);
    }
    let mut rest: Vec<u32> = remaining.into_iter().flatten().collect();
    rest.sort_unstable();
    shuffle(&mut rest, &mut generator);
    for (name, split) in options.iter().filter(|(_, split)| !split.stratified) {
        let count = (split.fraction * targets.len() as f64).round() as usize;
        if count == 0 || count >= rest.len() {
            return Err(DataError::TooFewSamples {
                split: if count == 0 { name.clone() } else { TRAIN.to_owned() },
                what: "no samples".to_owned(),
                available: targets.len(),
            });
        }
        splits.insert(name.clone(), rest.split_off(rest.len() - count));
    }
    splits.insert(TRAIN.to_owned(), rest);
    for indices in splits.values_mut() {
        indices.sort_unstable();
    }
    Ok(splits)
}

fn check(options: &BTreeMap<String, HeldOut>) -> Result<(), DataError> {
    for (name, split) in options {
        if !(split.fraction > 0.0 && split.fraction < 1.0) {
            return Err(DataError::Option {
                option: format!("data.splits.{name}.fraction"),
                value: split.fraction.to_string(),
                expected: "above 0 and below 1",
            });
        }
    }
    let sum: f64 = options.values().map(|split| split.fraction).sum();
    if sum >= 1.0 {
        return Err(DataError::Option {
            option: "data.splits".to_owned(),
            value: format!("{sum}"),
            expected: "fractions that sum to less than 1, since the rest is `train`",
        });
    }
    Ok(())
}

/// How many samples of each class make a split of `fraction`, by the largest remainder: the sum is the share of the
/// whole, rounded, and no class is off by one or more.
fn shares(totals: &[usize], fraction: f64) -> Vec<usize> {
    let exact: Vec<f64> = totals.iter().map(|total| *total as f64 * fraction).collect();
    let mut counts: Vec<usize> = exact.iter().map(|share| share.floor() as usize).collect();
    let whole = (totals.iter().sum::<usize>() as f64 * fraction).round() as usize;
    let missing = whole.saturating_sub(counts.iter().sum());
    let mut by_remainder: Vec<usize> = (0..totals.len()).collect();
    by_remainder.sort_by(|left, right| {
        let remainder = |class: usize| exact[class].fract();
        remainder(*right).total_cmp(&remainder(*left)).then(left.cmp(right))
    });
    for class in by_remainder.into_iter().take(missing) {
        counts[class] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn options(splits: &[(&str, f64, bool)]) -> BTreeMap<String, HeldOut> {
        splits
            .iter()
            .map(|(name, fraction, stratified)| {
                let split = HeldOut { fraction: *fraction, stratified: *stratified };
                ((*name).to_owned(), split)
            })
            .collect()
    }

    proptest! {
        #[test]
        fn every_sample_is_in_one_split_and_classes_keep_their_shares(
            targets in prop::collection::vec(0i64..4, 200..600),
            seed: u64,
            stratified: bool,
        ) {
            let options = options(&[("test", 0.1, stratified), ("val", 0.25, true)]);
            let splits = split(&targets, &options, seed, |class| class.to_string()).unwrap();
            prop_assert_eq!(&splits, &split(&targets, &options, seed, |class| class.to_string()).unwrap());
            let mut all: Vec<u32> = splits.values().flatten().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..targets.len() as u32).collect::<Vec<_>>());
            prop_assert_eq!(splits["val"].len(), (targets.len() as f64 * 0.25).round() as usize);
            for class in 0..4 {
                let total = targets.iter().filter(|target| **target == class).count();
                let held = splits["val"].iter().filter(|index| targets[**index as usize] == class).count();
                prop_assert!((held as f64 - total as f64 * 0.25).abs() < 1.0);
            }
        }
    }

    #[test]
    fn another_seed_gives_another_split() {
        let targets: Vec<i64> = (0..100).map(|index| index % 2).collect();
        let options = options(&[("val", 0.2, true)]);
        let split = |seed| split(&targets, &options, seed, |class| class.to_string()).unwrap();
        assert_ne!(split(1), split(2));
    }

    #[test]
    fn classes_without_samples_change_nothing() {
        let options = options(&[("val", 0.2, true), ("test", 0.1, false)]);
        let near: Vec<i64> = (0..100).map(|index| index % 2).collect();
        let far: Vec<i64> = near.iter().map(|class| class * 1_000_000_000).collect();
        let split = |targets: &[i64]| split(targets, &options, 1, |class| class.to_string()).unwrap();
        assert_eq!(split(&near), split(&far));
    }

    #[test]
    fn impossible_splits_are_refused() {
        let message = |targets: &[i64], splits| {
            split(targets, &options(splits), 0, |class| format!("`{class}`")).unwrap_err().to_string()
        };
        let targets: Vec<i64> = (0..10).map(|index| index % 2).collect();
        let train = Place::of("train", Some(0.5), true, None::<()>).err().unwrap().to_string();
        assert!(train.contains("omitted"), "{train}");
        assert!(message(&targets, &[("val", f64::NAN, true)]).contains("above 0 and below 1"));
        assert!(message(&targets, &[("val", 0.5, true), ("test", 0.5, true)]).contains("less than 1"));
        assert_eq!(
            message(&[0, 0, 0, 0, 0, 0, 0, 1], &[("val", 0.25, true)]),
            "split `val` has no sample of class `1` (1 in the data)"
        );
        assert_eq!(message(&targets, &[("val", 0.01, false)]), "split `val` has no samples (10 in the data)");
    }
}
