//! The callbacks that most runs want, one per file: `progress`, `print-metrics` and `json-lines`, which run by default, and
//! others, which a run file must declare.

mod checks;
mod console;
mod control;
#[cfg(test)]
mod damaged_states;
mod display;
mod files;
mod hyper_parameters;
mod measures;
mod metric_patterns;
mod watched_metric;
mod weights;

use plugin_api::{Kind, plugin};

#[plugin]
const KINDS: &[Kind] = &[
    Kind::of::<console::progress::Progress>(),
    Kind::of::<console::print_metrics::PrintMetrics>(),
    Kind::of::<files::json_lines::JsonLines>(),
    Kind::of::<files::csv::Csv>(),
    Kind::of::<control::early_stopping::EarlyStopping>(),
    Kind::of::<checks::terminate_on_nan::TerminateOnNan>(),
    Kind::of::<hyper_parameters::lr_schedule::LrSchedule>(),
    Kind::of::<hyper_parameters::reduce_on_plateau::ReduceOnPlateau>(),
    Kind::of::<hyper_parameters::human_hyperparams::HumanHyperparams>(),
    Kind::of::<control::time_limit::TimeLimit>(),
    Kind::of::<control::remote_control::RemoteControl>(),
    Kind::of::<control::shell::Shell>(),
    Kind::of::<control::lambda::Lambda>(),
    Kind::of::<weights::ema::Ema>(),
    Kind::of::<weights::save_best::SaveBest>(),
    Kind::of::<weights::swa::Swa>(),
    Kind::of::<weights::gradient_clip::GradientClip>(),
    Kind::of::<weights::gradient_stats::GradientStats>(),
    Kind::of::<weights::weight_stats::WeightStats>(),
    Kind::of::<checks::spike_detection::SpikeDetection>(),
    Kind::of::<checks::check_numerics::CheckNumerics>(),
    Kind::of::<measures::moving_average::MovingAverage>(),
    Kind::of::<measures::throughput::Throughput>(),
    Kind::of::<measures::memory::Memory>(),
    Kind::of::<measures::dump_tensors::DumpTensors>(),
    Kind::of::<weights::freeze::Freeze>(),
    Kind::of::<control::limit_batches::LimitBatches>(),
    Kind::of::<control::step_eval::StepEval>(),
    Kind::of::<hyper_parameters::lr_finder::LrFinder>(),
    Kind::of::<measures::inference_runner::InferenceRunner>(),
    Kind::of::<measures::summaries::Summaries>(),
    Kind::of::<measures::dump_params_as_image::DumpParamsAsImage>(),
    Kind::of::<measures::confusion_matrix::ConfusionMatrix>(),
    Kind::of::<measures::profiler::Profiler>(),
    Kind::of::<measures::gpu_utilization::GpuUtilization<measures::gpu_utilization::nvml::Nvml>>(),
];
