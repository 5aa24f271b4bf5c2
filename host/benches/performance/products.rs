//! Matrix products of the shapes that layers have, by libtorch and by `gemm`.

use std::hint::black_box;
use std::time::Duration;

use host::torch::products::{self, Products};
use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::libraries::Libraries;
use crate::table::{Figure, Table, Target};
use crate::timing::{take_turns, time};

const ROUNDS: usize = 50;

/// Rows of the batch, features of the input, and of the output.
const SHAPES: [[i64; 3]; 6] =
    [[64, 64, 128], [12, 256, 1024], [64, 1024, 128], [768, 128, 512], [768, 512, 128], [1024, 1024, 1024]];

pub fn measure(_: &Libraries, table: &mut Table) -> Result<()> {
    let threads = tch::get_num_threads();
    for used in [1, 2] {
        tch::set_num_threads(used);
        for shape in SHAPES {
            table.push(&linear(shape, used)?);
        }
    }
    tch::set_num_threads(threads);
    Ok(())
}

/// A linear layer, forward: its weight lies the other way round.
fn linear([rows, inputs, outputs]: [i64; 3], threads: i32) -> Result<Figure> {
    let values = |shape: [i64; 2]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
    let (input, weight) = (values([rows, inputs]), values([outputs, inputs]));
    // Long enough for a clock.
    let repetitions = (20_000_000 / (rows * inputs * outputs)).max(1);
    let run = |products: Products| -> Result<Duration> {
        let _products = products::enter(products)?;
        Ok(time(|| {
            for _ in 0..repetitions {
                let _ = black_box(input.linear(&weight, None::<&Tensor>));
            }
        }))
    };
    let [theirs, ours] = take_turns(ROUNDS, [&mut || run(Products::Libtorch), &mut || run(Products::Gemm)])?;
    let gigaflops = |seconds: f64| 2e-9 * (rows * inputs * outputs * repetitions) as f64 / seconds;
    Ok(Figure {
        what: format!(
            "linear {rows}×{inputs}×{outputs}, {threads} thread{}: gemm against libtorch",
            if threads == 1 { "" } else { "s" }
        ),
        best: theirs.best() / ours.best(),
        median: theirs.median_ratio(&ours),
        unit: "×",
        target: if Products::fastest() == Products::Gemm { Target::AtLeast(1.0) } else { Target::None },
        from: format!("{:.0} and {:.0} GFLOP/s", gigaflops(ours.best()), gigaflops(theirs.best())),
    })
}
