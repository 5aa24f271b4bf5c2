//! Steps per second: the host's loop, a bare loop, and the loop of tch's README.

use std::sync::Arc;
use std::time::{Duration, Instant};

use host::data::{Dataset, TRAIN};
use host::job::JobPlan;
use host::services::Screen;
use tch::nn::{self, Module, OptimizerConfig};
use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::libraries::{Libraries, kinds};
use crate::table::{Figure, Table, Target};
use crate::timing::{Times, take_turns};
use crate::workload::{self, CNN, Dark, MLP, Workload, train_bare, train_in_host};

const ROUNDS: usize = 60;

pub fn measure(libraries: &Libraries, table: &mut Table) -> Result<()> {
    let screen: Arc<dyn Screen> = Arc::new(Dark);
    let kinds = kinds();

    let plan =
        |workload: &Workload, kinds: &[String]| workload.plan(libraries.folder(), vec![libraries.noops()], kinds);
    let (with, without) = (plan(&MLP, &kinds)?, plan(&MLP, &[])?);
    workload::prepare(&without)?;
    let samples = Samples::of(&without)?;
    let [hosted, bare, alone, tch] = take_turns(
        ROUNDS,
        [
            &mut || train_in_host(&with, &screen),
            &mut || train_bare(&without, MLP.steps),
            &mut || train_in_host(&without, &screen),
            &mut || samples.train_with_tch(without.plan.batches.size, MLP.steps),
        ],
    )?;
    table.push(&against_bare(&MLP, &without, &hosted, &bare));
    table.push(&Figure {
        what: "MLP: steps per second without plugins, against tch's own loop".to_owned(),
        best: tch.best() / alone.best(),
        median: tch.median_ratio(&alone),
        unit: "×",
        target: Target::AtLeast(1.2),
        from: format!("{} against {}", per_step(&alone, MLP.steps), per_step(&tch, MLP.steps)),
    });

    let (with, without) = (plan(&CNN, &kinds)?, plan(&CNN, &[])?);
    workload::prepare(&without)?;
    let [hosted, bare] =
        take_turns(ROUNDS, [&mut || train_in_host(&with, &screen), &mut || train_bare(&without, CNN.steps)])?;
    table.push(&against_bare(&CNN, &without, &hosted, &bare));
    Ok(())
}

fn against_bare(workload: &Workload, plan: &JobPlan, hosted: &Times, bare: &Times) -> Figure {
    Figure {
        what: format!("{}: steps per second with 10 no-op plugins, against a bare loop", workload.name),
        best: bare.best() / hosted.best(),
        median: bare.median_ratio(hosted),
        unit: "×",
        target: Target::AtLeast(0.98),
        from: format!(
            "{} against {}, threads: {}",
            per_step(hosted, workload.steps),
            per_step(bare, workload.steps),
            plan.threads
        ),
    }
}

fn per_step(times: &Times, steps: u64) -> String {
    format!("{:.1} µs per step", times.best() * 1e6 / steps as f64)
}

/// `threads = "auto"`: the number that it chooses, compared with the other one of two.
pub fn measure_threads(libraries: &Libraries, table: &mut Table) -> Result<()> {
    for workload in [MLP, CNN] {
        let plan = workload.plan(libraries.folder(), vec![libraries.noops()], &[])?;
        workload::prepare(&plan)?;
        let with_threads = |threads: usize| {
            workload::set_threads(threads)?;
            // Wake the pool's threads before the clock starts.
            train_bare(&plan, 2)?;
            train_bare(&plan, workload.steps)
        };
        let other = if plan.threads == 1 { 2 } else { 1 };
        let [automatic, otherwise] =
            take_turns(ROUNDS / 2, [&mut || with_threads(plan.threads), &mut || with_threads(other)])?;
        table.push(&Figure {
            what: format!("{}: `threads = \"auto\"` takes {}, against {other}", workload.name, plan.threads),
            best: otherwise.best() / automatic.best(),
            median: otherwise.median_ratio(&automatic),
            unit: "×",
            target: Target::AtLeast(1.0),
            from: format!("{} against {}", per_step(&automatic, workload.steps), per_step(&otherwise, workload.steps)),
        });
    }
    Ok(())
}

/// The training split as two tensors.
struct Samples {
    inputs: Tensor,
    targets: Tensor,
}

impl Samples {
    fn of(plan: &JobPlan) -> Result<Self> {
        let split: &Arc<dyn Dataset> = plan.data.split(TRAIN)?;
        let all: Vec<u32> = (0..u32::try_from(split.len())?).collect();
        let batch = split.gather(&all)?;
        Ok(Self { inputs: batch.inputs.f_flatten(1, -1)?, targets: batch.targets })
    }

    /// The loop of tch's README and examples: its layers, its AdamW, batches by `index_select` of shuffled indices.
    fn train_with_tch(&self, batch_size: usize, steps: u64) -> Result<Duration> {
        let store = nn::VarStore::new(Device::Cpu);
        let root = store.root();
        let network = nn::seq()
            .add(nn::linear(&root / "layer1", 64, 128, nn::LinearConfig::default()))
            .add_fn(|values| values.relu())
            .add(nn::linear(&root / "layer2", 128, 10, nn::LinearConfig::default()));
        let mut optimizer = nn::AdamW::default().build(&store, 1e-3)?;
        let (samples, batch_size) = (self.inputs.size()[0], i64::try_from(batch_size)?);
        let mut done = 0;
        let start = Instant::now();
        while done < steps {
            let order = Tensor::randperm(samples, (Kind::Int64, Device::Cpu));
            let mut first = 0;
            while first < samples && done < steps {
                let indices = order.narrow(0, first, batch_size.min(samples - first));
                let (inputs, targets) = (self.inputs.index_select(0, &indices), self.targets.index_select(0, &indices));
                let loss = network.forward(&inputs).cross_entropy_for_logits(&targets);
                optimizer.backward_step(&loss);
                first += batch_size;
                done += 1;
            }
        }
        Ok(start.elapsed())
    }
}
