//! What a process of its own costs a plugin: each hook, tensors that are handed over, and the start.

use std::sync::Arc;
use std::time::{Duration, Instant};

use host::dispatch::Dispatcher;
use host::plugins::Isolation;
use host::services::SharedTensor;
use plugin_api::{EventKind, Tensor};

use crate::Result;
use crate::answers::Answers;
use crate::libraries::Libraries;
use crate::table::{Figure, Table, Target};
use crate::timing::{take_turns, time};
use crate::workload::MLP;

const HOOKS: u32 = 2_000;
const ROUNDS: usize = 20;

/// The smallest step takes that long.
const PAUSE: Duration = Duration::from_micros(50);

/// Elements of 100 MB of f32.
const ELEMENTS: usize = 25_000_000;

pub fn measure(libraries: &Libraries, table: &mut Table) -> Result<()> {
    let create = |kind: &str, spin: Duration| -> Result<Dispatcher> {
        let mut plan = MLP.plan(libraries.folder(), vec![libraries.all_kinds()], &[kind.to_owned()])?;
        plan.order.planned[0].isolation = Some(Isolation { spin, ..Isolation::default() });
        let (dispatcher, created) = Dispatcher::create(plan.order);
        created?;
        Ok(dispatcher)
    };
    measure_hooks(create("noop", Duration::ZERO)?, create("noop", Duration::from_millis(1))?, table)?;
    measure_tensors(create("parameter-reader", Duration::ZERO)?, table)?;
    // The plan is made before: what is measured is the process, its library and its instance.
    let start = || -> Result<Duration> {
        let mut plan = MLP.plan(libraries.folder(), vec![libraries.all_kinds()], &["noop".to_owned()])?;
        plan.order.planned[0].isolation = Some(Isolation::default());
        let mut made = None;
        let time = time(|| made = Some(Dispatcher::create(plan.order)));
        if let Some((_, created)) = made {
            created?;
        }
        Ok(time)
    };
    let [starts] = take_turns(ROUNDS, [&mut || start()])?;
    table.push(&Figure {
        what: "start of a plugin in a process of its own".to_owned(),
        best: starts.best() * 1e3,
        median: starts.median() * 1e3,
        unit: "ms",
        target: Target::AtMost(20.0),
        from: "its process, its library and its instance".to_owned(),
    });
    Ok(())
}

fn measure_hooks(mut sleeping: Dispatcher, mut spinning: Dispatcher, table: &mut Table) -> Result<()> {
    let [sleeping, spinning] = take_turns(ROUNDS, [&mut || fire(&mut sleeping), &mut || fire(&mut spinning)])?;
    for (how, times, goal) in
        [("that sleeps", sleeping, 15.0), ("that looks for it on a core of its own", spinning, 3.0)]
    {
        let microseconds = |seconds: f64| seconds * 1e6 / f64::from(HOOKS);
        table.push(&Figure {
            what: format!("no-op `step_end` in a process {how}"),
            best: microseconds(times.best()),
            median: microseconds(times.median()),
            unit: "us",
            target: Target::AtMost(goal),
            from: "there and back, 50 us after the one before".to_owned(),
        });
    }
    Ok(())
}

/// The time in hooks, between which there is as much time as a small step takes: a process that sleeps does.
fn fire(dispatcher: &mut Dispatcher) -> Result<Duration> {
    let mut total = Duration::ZERO;
    for _ in 0..HOOKS {
        let pause = Instant::now();
        while pause.elapsed() < PAUSE {
            std::hint::spin_loop();
        }
        let mut outcome = Ok(());
        total += time(|| outcome = dispatcher.fire_at(EventKind::STEP_END, &mut Answers::default()));
        outcome?;
    }
    Ok(total)
}

fn measure_tensors(mut dispatcher: Dispatcher, table: &mut Table) -> Result<()> {
    let values = vec![1f32; ELEMENTS];
    let owner = Arc::new(Tensor::new("weight", &[ELEMENTS as i64], &values).map_err(|error| error.to_string())?);
    let data = owner.view().as_slice::<f32>().map_err(|error| error.to_string())?.as_ptr();
    let dtype = owner.view().dtype();
    // SAFETY: contiguous, on the CPU, only read, and alive as long as its owner.
    let tensor = unsafe {
        SharedTensor::new("weight", &[ELEMENTS as i64], dtype, data.cast_mut().cast(), Arc::clone(&owner) as _)
    };
    let mut answers = Answers { tensor: Some(tensor) };
    let mut hand_over = || {
        let mut outcome = Ok(());
        let time = time(|| outcome = dispatcher.trigger_all(&mut answers));
        outcome?;
        Ok(time)
    };
    let mut copy = vec![0f32; ELEMENTS];
    let mut copy = || Ok(time(|| std::hint::black_box(&mut copy).copy_from_slice(std::hint::black_box(&values))));
    let [handed, copied] = take_turns(ROUNDS, [&mut hand_over, &mut copy])?;
    table.push(&Figure {
        what: "100 MB of tensors handed to a process, in copies of memory".to_owned(),
        best: handed.best() / copied.best(),
        median: handed.median_ratio(&copied),
        unit: "x",
        target: Target::AtMost(1.1),
        from: format!("{:.1} ms and {:.1} ms", handed.best() * 1e3, copied.best() * 1e3),
    });
    Ok(())
}
