//! How often each class was predicted as each.

use plugin_api::{Error, Result, TensorView};

/// The counts of one evaluation: the true class is the row, the predicted one the column.
#[derive(Default)]
pub struct Counts {
    classes: usize,
    /// Row by row.
    counts: Vec<u64>,
}

impl Counts {
    /// Counts a batch: scores `[samples, classes]`, and the number of each sample's class. The prediction is the class with
    /// the largest score, the first of equal ones.
    pub fn add(&mut self, outputs: &TensorView<'_>, targets: &TensorView<'_>) -> Result<()> {
        let [_, classes] = *outputs.shape() else {
            return Err(Error::new(format!("the outputs are of shape {:?}, not [samples, classes]", outputs.shape())));
        };
        let classes = usize::try_from(classes)?;
        if self.counts.is_empty() {
            *self = Self { classes, counts: vec![0; classes * classes] };
        }
        let (scores, targets) = (outputs.to_vec::<f32>()?, targets.to_vec::<i64>()?);
        for (row, &target) in scores.chunks(self.classes.max(1)).zip(&targets) {
            let class = usize::try_from(target).ok().filter(|class| *class < self.classes);
            let class = class.ok_or_else(|| {
                Error::new(format!("a target is class {target}, but there are outputs of {} classes", self.classes))
            })?;
            self.counts[class * self.classes + largest(row)] += 1;
        }
        Ok(())
    }

    /// The share of samples whose prediction is correct; `None` if there was no sample.
    pub fn accuracy(&self) -> Option<f64> {
        let correct: u64 = (0..self.classes).map(|class| self.of(class, class)).sum();
        let samples: u64 = self.counts.iter().sum();
        (samples > 0).then(|| correct as f64 / samples as f64)
    }

    /// Shape and values for the history. Counts up to 2²⁴ are exact in f32.
    pub fn matrix(&self) -> ([u64; 2], Vec<f32>) {
        ([self.classes as u64; 2], self.counts.iter().map(|&count| count as f32).collect())
    }

    /// A row for each class, named by `names` where there are as many.
    pub fn table(&self, names: &[String]) -> (Vec<String>, Vec<Vec<String>>) {
        let columns = ["class", "samples", "predictions", "precision", "recall"].map(str::to_owned).to_vec();
        let share = |part: u64, of: u64| if of == 0 { 0.0 } else { part as f64 / of as f64 };
        let row = |class: usize| {
            let samples = (0..self.classes).map(|predicted| self.of(class, predicted)).sum();
            let predictions = (0..self.classes).map(|actual| self.of(actual, class)).sum();
            let correct = self.of(class, class);
            let (precision, recall) = (share(correct, predictions), share(correct, samples));
            let name = names.get(class).cloned().unwrap_or_else(|| class.to_string());
            vec![name, samples.to_string(), predictions.to_string(), format!("{precision:.3}"), format!("{recall:.3}")]
        };
        (columns, (0..self.classes).map(row).collect())
    }

    fn of(&self, class: usize, predicted: usize) -> u64 {
        self.counts[class * self.classes + predicted]
    }
}

/// The index of the largest score, the first of equal ones.
fn largest(scores: &[f32]) -> usize {
    let mut best = 0;
    for (index, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = index;
        }
    }
    best
}
