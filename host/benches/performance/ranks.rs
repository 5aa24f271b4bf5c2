//! Several processes that train one model: their speed against one process, and what it costs them to sum gradients.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use host::distributed::{Meeting, ProcessGroup};
use host::torch::buckets::BucketSizes;
use host::torch::c10d::Serving;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::libraries::Libraries;
use crate::table::{Figure, Table, Target};
use crate::timing::{Times, time};

/// Times that each kind of run takes its turn.
const ROUNDS: usize = 5;

/// Sums of each size.
const SUMS: usize = 100;

/// Numbers of f32: one, and buckets of 4 KB, 1 MB and 25 MB.
const COUNTS: [i64; 4] = [1, 1 << 10, 1 << 18, 25 << 18];

const CNN: &str = r#"
    { type = "conv2d", out_channels = 32, kernel_size = 3, padding = 1 }, { type = "relu" },
    { type = "conv2d", out_channels = 64, kernel_size = 3, padding = 1 }, { type = "relu" },
    { type = "max_pool2d", kernel_size = 2 }, { type = "flatten" },
    { type = "linear", out_features = 128 }, { type = "relu" }, { type = "linear", out_features = 10 },
"#;

/// 10.2 million parameters.
const WIDE: &str = r#"
    { type = "flatten" },
    { type = "linear", out_features = 2240 }, { type = "relu" },
    { type = "linear", out_features = 2240 }, { type = "relu" },
    { type = "linear", out_features = 2240 }, { type = "relu" }, { type = "linear", out_features = 10 },
"#;

/// A model, its batches, and the steps of an epoch's worth of measuring.
struct Trained {
    name: &'static str,
    layers: &'static str,
    batch_size: usize,
    steps: u64,
}

const RUNS: [Trained; 3] = [
    Trained { name: "CNN, batch 64", layers: CNN, batch_size: 64, steps: 46 },
    Trained { name: "MLP of 10 million, batch 128", layers: WIDE, batch_size: 128, steps: 24 },
    Trained { name: "MLP of 10 million, batch 512", layers: WIDE, batch_size: 512, steps: 12 },
];

pub fn measure(libraries: &Libraries, table: &mut Table) -> Result<()> {
    for trained in &RUNS {
        measure_run(trained, libraries.folder(), table)?;
    }
    for (count, sums) in COUNTS.into_iter().zip(sums()?) {
        let bytes = count as f64 * 4.0;
        table.push(&Figure {
            what: format!("the sum of {bytes:.0} bytes over two ranks, and of what goes with it"),
            best: sums.best() * 1e3,
            median: sums.median() * 1e3,
            unit: "ms",
            target: Target::None,
            from: format!("{:.2} GB/s in each direction", bytes / sums.best() / 1e9),
        });
    }
    Ok(())
}

/// Two ranks with one thread each, against one process with two threads.
fn measure_run(trained: &Trained, folder: &Path, table: &mut Table) -> Result<()> {
    let (mut two, mut one, mut waits) = (Times::default(), Times::default(), Times::default());
    for _ in 0..ROUNDS {
        let (step, wait) = train(trained, folder, 2, 1)?;
        two.push(step);
        waits.push(wait);
        one.push(train(trained, folder, 1, 2)?.0);
    }
    table.push(&Figure {
        what: format!("{}: two ranks against two threads", trained.name),
        best: one.best() / two.best(),
        median: one.median_ratio(&two),
        unit: "×",
        target: Target::None,
        from: format!("{:.2} ms against {:.2} ms a step", two.best() * 1e3, one.best() * 1e3),
    });
    table.push(&Figure {
        what: format!("{}: the part of a step that ranks wait after backward", trained.name),
        best: waits.best() / two.best(),
        median: waits.median() / two.median(),
        unit: "",
        target: Target::None,
        from: format!("{:.2} ms a step", waits.best() * 1e3),
    });
    Ok(())
}

/// The time of a step of the last epoch, and how long it waited for other ranks after backward.
fn train(trained: &Trained, folder: &Path, processes: usize, threads: usize) -> Result<(Duration, Duration)> {
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/digits/digits.csv.gz");
    let Trained { layers, batch_size, steps, .. } = trained;
    let run_file = folder.join("ranks.toml");
    std::fs::write(
        &run_file,
        format!(
            r#"
            [run]
            name = "ranks"
            device = "cpu"
            threads = {threads}
            [data]
            format = "csv"
            path = '{}'
            header = false
            target = 64
            shape = [1, 8, 8]
            classes = 10
            normalize = "standard"
            [model]
            layers = [{layers}]
            [train]
            steps = {steps}
            batch_size = {batch_size}
            loss = {{ type = "cross_entropy" }}
            optimizer = {{ type = "adamw", learning_rate = 1e-3 }}
            "#,
            digits.display()
        ),
    )?;
    let out = tempfile::tempdir_in(folder)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
    command.arg("run").arg(&run_file).arg("--quiet").arg("--out").arg(out.path());
    command.args(["--processes", &processes.to_string()]);
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let status: Value = serde_json::from_slice(&std::fs::read(out.path().join("status.json"))?)?;
    let metric = |name: &str| {
        let value = status["metrics"][name].as_f64();
        Duration::try_from_secs_f64(value.unwrap_or_default())
    };
    Ok((metric("step_seconds")?, metric("rank_wait_seconds")?))
}

/// The times in which two ranks, threads of this process, sum the gradients of a parameter of each of [`COUNTS`].
fn sums() -> Result<Vec<Times>> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let rank = |rank: usize| -> std::result::Result<Vec<Times>, String> {
        let meeting = Meeting {
            rank,
            world_size: 2,
            address: "127.0.0.1".to_owned(),
            port,
            serving: if rank == 0 { Serving::Listening } else { Serving::No },
            zero_serves: true,
            loopback: true,
            attempt: 0,
            timeout: Duration::from_secs(30),
        };
        let group = ProcessGroup::join(&meeting).map_err(|error| error.to_string())?;
        let sums = COUNTS.map(|count| sums_of(&group, count));
        group.rank_end().leave();
        sums.into_iter().collect()
    };
    let times = std::thread::scope(|scope| {
        let other = scope.spawn(|| rank(1));
        let own = rank(0);
        other.join().map_err(|_| "the other rank panicked".to_owned())??;
        own
    });
    Ok(times?)
}

fn sums_of(group: &ProcessGroup, count: i64) -> std::result::Result<Times, String> {
    let parameter = Tensor::zeros([count], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    parameter.sum(Kind::Float).backward();
    let buckets = group.buckets([&parameter], BucketSizes::default(), 1).map_err(|error| error.to_string())?;
    let mut buckets = buckets.ok_or("two ranks have buckets")?;
    let mut times = Times::default();
    for _ in 0..SUMS {
        let mut outcome = Ok(());
        times.push(time(|| {
            outcome = buckets.begin(&[1.0], 1.0).map_err(|error| error.to_string());
            if outcome.is_ok() {
                outcome = group.finish(&mut buckets).map(drop).map_err(|error| error.to_string());
            }
        }));
        outcome?;
    }
    Ok(times)
}
