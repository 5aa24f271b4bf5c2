//! The callbacks that most runs want, one per file: `progress`, `print-metrics` and `json-lines`, which run by default;
//! `csv`, `early-stopping`, `terminate-on-nan` and those of the folders, which a run file must declare.

mod confusion_table;
mod csv;
mod display;
mod early_stopping;
mod json_lines;
mod line_file;
mod metrics_table;
mod print_metrics;
mod progress;
mod rows;
mod terminate_on_nan;
mod weights;

use plugin_api::{Kind, plugin};

#[plugin]
const KINDS: &[Kind] = &[
    Kind::of::<progress::Progress>(),
    Kind::of::<print_metrics::PrintMetrics>(),
    Kind::of::<json_lines::JsonLines>(),
    Kind::of::<csv::Csv>(),
    Kind::of::<early_stopping::EarlyStopping>(),
    Kind::of::<terminate_on_nan::TerminateOnNan>(),
    Kind::of::<weights::ema::Ema>(),
    Kind::of::<weights::save_best::SaveBest>(),
    Kind::of::<weights::swa::Swa>(),
    Kind::of::<weights::gradient_clip::GradientClip>(),
    Kind::of::<weights::gradient_stats::GradientStats>(),
    Kind::of::<weights::weight_stats::WeightStats>(),
];
