//! How long a background checkpoint blocks the training thread.

use std::hint::black_box;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use host::services::Screen;

use crate::Result;
use crate::libraries::Libraries;
use crate::table::{Figure, Table, Target};
use crate::timing::{Times, time};
use crate::workload::{self, LARGE, train_in_host};

/// f32; AdamW keeps two more values for each parameter.
const BYTES_PER_PARAMETER: usize = 3 * 4;

pub fn measure(libraries: &Libraries, table: &mut Table) -> Result<()> {
    let kinds = ["marker".to_owned(), "reader".to_owned()];
    let plan = LARGE.plan(libraries.folder(), vec![libraries.all_kinds()], &kinds)?;
    workload::prepare(&plan)?;
    let bytes = usize::try_from(plan.model.parameter_count())? * BYTES_PER_PARAMETER;
    let watch = Arc::new(Watch { source: vec![1; bytes], marks: Mutex::default() });
    let screen: Arc<dyn Screen> = Arc::<Watch>::clone(&watch);
    train_in_host(&plan, &screen)?;

    let marks = watch.marks.lock().unwrap_or_else(PoisonError::into_inner);
    // What happens between two steps anyway: freeing gradients, the next batch.
    let between = marks.plain.best();
    let stall = |gap: f64| (gap - between).max(0.0);
    table.push(&Figure {
        what: "stall of a background checkpoint of 100 M parameters, against memcpy".to_owned(),
        best: stall(marks.with_checkpoint.best()) / marks.copies.best(),
        median: stall(marks.with_checkpoint.median()) / marks.copies.median(),
        unit: "×",
        target: Target::AtMost(1.3),
        from: format!(
            "{:.0} ms against {:.0} ms for {:.2} GB",
            stall(marks.with_checkpoint.best()) * 1e3,
            marks.copies.best() * 1e3,
            bytes as f64 / 1e9
        ),
    });
    Ok(())
}

/// The screen that the marker writes to. It measures the time between the end of a step and the start of the next,
/// where every second step takes a checkpoint, and in turn the time of a memcpy.
struct Watch {
    source: Vec<u8>,
    marks: Mutex<Marks>,
}

#[derive(Default)]
struct Marks {
    steps: u64,
    ended: Option<Instant>,
    with_checkpoint: Times,
    plain: Times,
    copies: Times,
}

/// Steps that do not count, while memory and caches settle.
const WARM_UP: u64 = 4;

impl Screen for Watch {
    fn line(&self, text: &str) {
        let now = Instant::now();
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if text == "step_end" {
            marks.steps += 1;
            marks.ended = Some(now);
            return;
        }
        let Some(ended) = marks.ended.take().filter(|_| marks.steps > WARM_UP) else { return };
        if marks.steps.is_multiple_of(2) {
            marks.with_checkpoint.push(now - ended);
        } else {
            marks.plain.push(now - ended);
            marks.copies.push(copy(&self.source));
        }
    }

    fn status(&self, _: &str, _: &str, _: Option<f64>) {}
}

/// A copy into memory that is allocated for it, which is part of the time.
fn copy(source: &[u8]) -> Duration {
    let mut target: Vec<u8> = Vec::new();
    let time = time(|| {
        target.reserve_exact(source.len());
        target.extend_from_slice(source);
        black_box(&target);
    });
    drop(target);
    time
}
