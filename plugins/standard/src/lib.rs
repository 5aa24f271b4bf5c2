//! The callbacks that most runs want, one per file: `progress`, `print-metrics` and `json-lines`, which run by default;
//! `csv`, `early-stopping`, those in `checks` and those in `measures`, which a run file must declare.

mod checks;
mod confusion_table;
mod csv;
mod display;
mod early_stopping;
mod json_lines;
mod line_file;
mod measures;
mod metric_patterns;
mod metrics_table;
mod print_metrics;
mod progress;
mod rows;

use plugin_api::{Kind, plugin};

#[plugin]
const KINDS: &[Kind] = &[
    Kind::of::<progress::Progress>(),
    Kind::of::<print_metrics::PrintMetrics>(),
    Kind::of::<json_lines::JsonLines>(),
    Kind::of::<csv::Csv>(),
    Kind::of::<early_stopping::EarlyStopping>(),
    Kind::of::<checks::terminate_on_nan::TerminateOnNan>(),
    Kind::of::<checks::spike_detection::SpikeDetection>(),
    Kind::of::<checks::check_numerics::CheckNumerics>(),
    Kind::of::<measures::moving_average::MovingAverage>(),
    Kind::of::<measures::throughput::Throughput>(),
    Kind::of::<measures::memory::Memory>(),
    Kind::of::<measures::dump_tensors::DumpTensors>(),
];
