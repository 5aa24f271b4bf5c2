//! The cost of one hook.

use std::hint::black_box;
use std::time::Duration;

use host::dispatch::Dispatcher;
use plugin_api::EventKind;

use crate::Result;
use crate::answers::Answers;
use crate::libraries::{Libraries, kinds};
use crate::table::{Figure, Table, Target};
use crate::timing::{take_turns, time};
use crate::workload::MLP;

const EVENTS: u64 = 200_000;
const ROUNDS: usize = 30;

pub fn measure(libraries: &Libraries, table: &mut Table) -> Result<()> {
    let kinds = kinds();
    let dispatcher = |count: usize| -> Result<Dispatcher> {
        let plan = MLP.plan(libraries.folder(), vec![libraries.noops()], &kinds[..count])?;
        let (dispatcher, created) = Dispatcher::create(plan.order);
        created?;
        Ok(dispatcher)
    };
    let (mut one, mut ten, mut unsubscribed) = (dispatcher(1)?, dispatcher(kinds.len())?, dispatcher(kinds.len())?);
    let [one, ten, unsubscribed, empty] = take_turns(
        ROUNDS,
        [
            &mut || fire(&mut one, EventKind::STEP_END),
            &mut || fire(&mut ten, EventKind::STEP_END),
            &mut || fire(&mut unsubscribed, EventKind::EVAL_STEP_START),
            &mut || Ok(time(|| (0..EVENTS).for_each(|_| _ = black_box(EventKind::STEP_END)))),
        ],
    )?;
    let nanoseconds = |seconds: f64, hooks: usize| seconds * 1e9 / EVENTS as f64 / hooks as f64;
    let hooks = kinds.len();
    table.push(&Figure {
        what: format!("no-op `step_end` through a loaded library, one of {hooks}"),
        best: nanoseconds(ten.best(), hooks),
        median: nanoseconds(ten.median(), hooks),
        unit: "ns",
        target: Target::AtMost(10.0),
        from: "including its share of the event".to_owned(),
    });
    table.push(&Figure {
        what: "an event that one library handles, including its hook".to_owned(),
        best: nanoseconds(one.best(), 1),
        median: nanoseconds(one.median(), 1),
        unit: "ns",
        target: Target::None,
        from: "the cost of an event itself, however many handle it".to_owned(),
    });
    table.push(&Figure {
        what: "an event that nobody handles".to_owned(),
        best: nanoseconds(unsubscribed.best() - empty.best(), 1),
        median: nanoseconds(unsubscribed.median() - empty.median(), 1),
        unit: "ns",
        // A load and a branch or two, out of the 132,000 ns of the smallest step.
        target: Target::AtMost(1.5),
        from: "a loop with it minus a loop without it".to_owned(),
    });
    Ok(())
}

fn fire(dispatcher: &mut Dispatcher, event: EventKind) -> Result<Duration> {
    let mut outcome = Ok(());
    let time = time(|| {
        for _ in 0..EVENTS {
            // The loop sets the position long before the hook: its stores are not part of the measurement.
            let fired = dispatcher.fire_at(black_box(event), &mut Answers::default());
            if fired.is_err() {
                outcome = fired;
                break;
            }
        }
    });
    outcome?;
    Ok(time)
}
