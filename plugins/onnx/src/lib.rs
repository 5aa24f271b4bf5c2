//! `onnx`: exports the model being trained as ONNX, for other runtimes.
//!
//! It reads the model's graph and borrows its weights; it contains nothing of libtorch. The run's `when` decides when:
//! by default at the end; for example `when = { best = { val_loss = "min" } }`.

mod lower;
mod options;
mod proto;
mod quantize;
mod verification;
mod write;

use std::path::Path;

use export::{Ending, Include, Normalization, Origin, Precision, Publication, Ranges, Template, Weights};
use plugin_api::event::{At, Position, Trigger};
use plugin_api::graph::{Dtype, Graph, Input, Op};
use plugin_api::protocol::RunInfo;
use plugin_api::{Callback, Creation, Error, EventKind, Kind, Need, Result, Run, When, plugin};

pub use crate::options::{ExternalData, Opset, Options, Quantize};

use verify::{Point, Policy};

use crate::lower::{Elements, Lowered, Request};
use crate::proto::{GraphHead, ModelHead, Node, OperatorSetId, StringEntry, ValueInfo, element};
use crate::write::{ModelFile, half_name};

/// Larger weights, in bytes, are stored in a separate file, unless the options say otherwise: a message of the format's
/// encoding is limited to 2 GiB.
const LARGEST_WITHIN: u64 = 3 << 29;

/// Exports the model as ONNX.
pub struct Onnx {
    options: Options,
    name: Template,
    /// From `setup` on.
    known: Option<Known>,
}

/// What is known of the run before training.
struct Known {
    graph: Graph,
    ending: Ending,
    /// The normalization that the file includes.
    normalization: Option<Normalization>,
}

#[plugin]
impl Callback for Onnx {
    const KIND: &'static str = "onnx";
    const SUMMARY: &'static str = "Exports the model as ONNX";
    const WHEN: When = When { every: None, at: &["end"] };
    const BY_DEFAULT: bool = false;
    const PRODUCES: &'static [&'static str] = &["*_accuracy_before", "*_accuracy_after"];
    const NEEDS: &'static [Need] = &[
        Need::parameters(EventKind::TRIGGER),
        Need::buffers(EventKind::TRIGGER),
        Need::parameters(EventKind::EXPORT),
        Need::buffers(EventKind::EXPORT),
    ];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        let name = options.check()?;
        Ok(Self { options, name, known: None })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let graph = export::graph(run, "ONNX")?;
        lower::check(&graph).map_err(|error| error.context("the model cannot be exported as ONNX"))?;
        let info = run.info()?;
        export::remove_unfinished(&info.folder, &self.options.log_dir);
        let ending = Ending::new(&self.options.include, &info, graph.shape(&graph.output).unwrap_or_default())?;
        let includes_normalization = self.options.include.contains(&Include::Normalize);
        let normalization = Normalization::of(&info.data).filter(|_| includes_normalization);
        self.known = Some(Known { graph, ending, normalization });
        Ok(())
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        self.export(run, event)
    }

    fn on_export(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.export(run, event)
    }
}

impl Onnx {
    fn export(&self, run: &mut Run<'_>, position: &Position) -> Result<()> {
        let info = run.info()?;
        let folder = Path::new(&info.folder).join(&self.options.log_dir);
        let file = format!("{}.onnx", self.name.at(position.epoch, position.global_step));
        let ranges = match self.options.quantize {
            Quantize::Int8 => Some(self.calibrate(run, &info)?),
            _ => None,
        };
        let (publication, points) = self.write(run, ranges.as_ref(), [&folder, Path::new(&file)])?;
        let unverified = match self.options.verify {
            Policy::Off => false,
            policy => {
                let verdict = self.verify(run, &info, &publication.partial(&file), &points, ranges.as_ref())?;
                policy.marks_unverified(&verdict, &folder.join(&file))?
            }
        };
        if info.trial {
            return Ok(());
        }
        publication.publish()?;
        let path = relative(&self.options.log_dir, &file);
        run.publish("export", &path)?;
        if unverified { run.publish("unverified_export", &path) } else { Ok(()) }
    }

    fn known(&self) -> Result<&Known> {
        self.known.as_ref().ok_or_else(|| Error::new("`setup` did not run"))
    }

    /// The ranges of the model's nodes for samples of the run's data.
    fn calibrate(&self, run: &mut Run<'_>, info: &RunInfo) -> Result<Ranges> {
        let graph = &self.known()?.graph;
        // Weights and indices are no activations.
        let is_computed = |op: &Op| !matches!(op, Op::Parameter { .. } | Op::Constant { .. });
        let nodes = graph.nodes.iter().filter(|node| is_computed(&node.op));
        let nodes: Vec<&str> = nodes.map(|node| node.name.as_str()).collect();
        Ranges::calibrate(run, info, self.options.calibration_batches, &nodes, self.options.allow_non_finite)
    }

    /// Writes everything without publishing it.
    fn write(
        &self,
        run: &Run<'_>,
        ranges: Option<&Ranges>,
        [folder, file]: [&Path; 2],
    ) -> Result<(Publication, Vec<Point>)> {
        let Known { graph, ending, normalization } = self.known()?;
        let info = run.info()?;
        let weights = Weights::read(run, self.options.allow_non_finite)?;
        let request = Request {
            graph,
            opset: self.options.opset,
            // A norm between two conversions to eight bits would round twice.
            fold_batch_norm: self.options.fold_batch_norm || ranges.is_some(),
            ending: *ending,
            normalization: normalization.as_ref(),
        };
        let mut lowered = lower::lower(&request, &weights)?;
        let half = self.options.quantize == Quantize::Fp16;
        let precision = if half { Precision::Half } else { Precision::Full };
        for initializer in lowered.builder.initializers.iter().filter(|initializer| initializer.is_weight) {
            if let Elements::F32(values) = &initializer.elements {
                weights.check(&initializer.name, values, precision)?;
            }
        }
        if let Some(ranges) = ranges {
            quantize::quantize(&mut lowered, ranges);
        }
        let metadata = Origin::read(run, &info)?;
        let metadata = metadata.texts().map(|(key, value)| StringEntry { key: key.to_owned(), value }).collect();
        let (opset, ir_version) = self.options.opset.versions();
        let model = ModelFile {
            head: ModelHead {
                ir_version,
                producer_name: env!("CARGO_PKG_NAME").to_owned(),
                producer_version: env!("CARGO_PKG_VERSION").to_owned(),
                opset_import: vec![OperatorSetId { domain: String::new(), version: opset }],
                metadata_props: metadata,
            },
            graph: graph_head(&info.name, &lowered, half),
            initializers: &lowered.builder.initializers,
            half,
        };
        let external = match self.options.external_data {
            ExternalData::Auto => model.weight_bytes() > LARGEST_WITHIN,
            ExternalData::Always => true,
            ExternalData::Never => false,
        };
        let mut publication = Publication::begin(folder, self.options.sync)?;
        // The file that refers to the other comes last, so that its target always exists.
        let file = file.to_string_lossy();
        let data = format!("{file}.data");
        let mut places = Vec::new();
        if external {
            let mut partial = publication.create(&data, self.options.overwrite)?;
            places = model.write_weights(&mut partial)?;
            partial.finish(publication.syncs())?;
        }
        let mut partial = publication.create(&file, self.options.overwrite)?;
        model.write(&data, &places, &mut partial)?;
        partial.finish(publication.syncs())?;
        Ok((publication, lowered.points))
    }
}

/// The graph without its initializers.
fn graph_head(name: &str, lowered: &Lowered<'_>, half: bool) -> GraphHead {
    let input = |input: &Input| {
        let dtype = match input.dtype {
            Dtype::F32 => element::FLOAT,
            Dtype::I64 => element::INT64,
        };
        ValueInfo::batched(&input.name, dtype, &input.shape)
    };
    let output_type = if lowered.ending.is_class() { element::INT64 } else { element::FLOAT };
    let widened = lowered.builder.initializers.iter().filter(|initializer| half && initializer.is_weight);
    let casts = widened.map(|initializer| Node {
        input: vec![half_name(&initializer.name)],
        output: vec![initializer.name.clone()],
        name: initializer.name.clone(),
        op_type: "Cast".to_owned(),
        attribute: vec![proto::Attribute::int("to", i64::from(element::FLOAT))],
    });
    GraphHead {
        node: casts.chain(lowered.builder.nodes.iter().cloned()).collect(),
        // The checker rejects an empty name.
        name: if name.is_empty() { "model".to_owned() } else { name.to_owned() },
        input: lowered.inputs.iter().map(input).collect(),
        output: vec![ValueInfo::batched(&lowered.output, output_type, &lowered.output_shape)],
    }
}

/// A path relative to the run folder, as published.
fn relative(folder: &str, file: &str) -> String {
    Path::new(folder).join(file).display().to_string()
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Onnx>()];

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use plugin_api::Tensor;
    use plugin_api::protocol::TensorSet;
    use plugin_api::testing::{FakeHost, json};
    use serde_json::Value;

    use super::*;

    fn graph() -> Value {
        json!({
            "inputs": [{ "name": "inputs", "shape": [2], "dtype": "f32" }],
            "nodes": [{
                "name": "fc1",
                "op": { "type": "linear", "in_features": 2, "out_features": 3, "bias": true },
                "inputs": ["inputs"],
                "shape": [3],
                "parameters": [
                    { "name": "fc1.weight", "shape": [3, 2], "dtype": "f32" },
                    { "name": "fc1.bias", "shape": [3], "dtype": "f32" },
                ],
                "buffers": [],
            }],
            "output": "fc1",
        })
    }

    /// A run that cannot predict, so that nothing can be verified.
    fn host(mut options: Value, weight: f32) -> FakeHost {
        options["verify"] = json!(false);
        let mut host = FakeHost::new::<Onnx>(options).unwrap();
        host.set_graph(graph());
        let tensors = [("fc1.weight", vec![3, 2], vec![weight; 6]), ("fc1.bias", vec![3], vec![0.5; 3])];
        for (name, shape, values) in tensors {
            host.put_tensor(TensorSet::Parameters, Tensor::new(name, &shape, &values).unwrap());
        }
        host
    }

    fn failure(host: &mut FakeHost) -> String {
        host.setup().and_then(|()| host.trigger("end")).unwrap_err().message().to_owned()
    }

    fn files(host: &FakeHost) -> Vec<PathBuf> {
        let folder = std::fs::read_dir(host.folder().join("exports"));
        folder.map_or_else(|_| Vec::new(), |entries| entries.map(|entry| entry.unwrap().path()).collect())
    }

    #[test]
    fn a_file_is_published_under_the_name_that_the_options_say() {
        let mut host = host(json!({ "name": "net-{epoch}" }), 1.0);
        host.setup().unwrap();
        host.set_position(3, 30);
        host.trigger("epoch").unwrap();
        assert_eq!(host.artifacts()[0].path, "exports/net-0003.onnx");
        assert_eq!(files(&host), [host.folder().join("exports/net-0003.onnx")]);
        host.fire(EventKind::EXPORT).unwrap();
        assert_eq!(host.artifacts().len(), 2);
    }

    #[test]
    fn weights_that_are_no_numbers_are_refused_unless_they_are_allowed() {
        let found = failure(&mut host(json!({}), f32::NAN));
        assert!(found.starts_with("the weight `fc1.weight` is `NaN` at element 0"), "{found}");
        let mut allowed = host(json!({ "allow_non_finite": true }), f32::NAN);
        allowed.setup().and_then(|()| allowed.trigger("end")).unwrap();
    }

    #[test]
    fn weights_that_sixteen_bits_cannot_hold_are_refused_without_verification_too() {
        let half = |weight, allow: bool| host(json!({ "quantize": "fp16", "allow_non_finite": allow }), weight);
        let found = failure(&mut half(1e5, false));
        assert!(found.starts_with("the weight `fc1.weight` is `100000` at element 0, but 16 bits"), "{found}");
        for (weight, allow) in [(65504.0, false), (1e5, true)] {
            let mut host = half(weight, allow);
            host.setup().and_then(|()| host.trigger("end")).unwrap();
        }
    }

    #[test]
    fn what_stands_in_the_way_is_an_error_and_nothing_is_left_behind() {
        let mut there = host(json!({ "overwrite": false }), 1.0);
        there.setup().and_then(|()| there.trigger("end")).unwrap();
        let before = std::fs::read(&files(&there)[0]).unwrap();
        assert!(failure(&mut there).contains("exports/model.onnx` already exists"));
        assert_eq!((files(&there).len(), std::fs::read(&files(&there)[0]).unwrap()), (1, before));

        let mut file = host(json!({}), 1.0);
        std::fs::write(file.folder().join("exports"), "").unwrap();
        assert!(failure(&mut file).starts_with("cannot create the folder `"));
        let full = host(json!({ "log_dir": "/dev/full/exports" }), 1.0);
        assert!(failure(&mut { full }).starts_with("cannot create the folder `/dev/full/exports`"));
    }

    #[test]
    fn graphs_and_options_that_cannot_be_exported_are_refused_before_training() {
        let mut twice = host(json!({}), 1.0);
        let mut graph = graph();
        graph["nodes"][0]["name"] = json!("inputs");
        twice.set_graph(graph);
        let found = twice.setup().unwrap_err().message().to_owned();
        assert!(found.contains("the graph has the name `inputs` twice"), "{found}");

        let mut newer = host(json!({}), 1.0);
        let mut graph = self::graph();
        graph["nodes"][0]["op"] = json!({ "type": "fast_fourier_transform" });
        newer.set_graph(graph);
        let found = newer.setup().unwrap_err().message().to_owned();
        assert!(found.contains("unknown variant `fast_fourier_transform`"), "{found}");

        let numbers = r#"{ "train": { "loss": { "type": "mse" } } }"#;
        let mut regression =
            host(json!({ "include": ["softmax"] }), 1.0).with_info(|info| info.run_file = numbers.to_owned());
        let found = regression.setup().unwrap_err().message().to_owned();
        assert!(found.contains("`softmax` needs classes, but this run predicts numbers, with `mse`"), "{found}");

        for (options, expected) in [
            (json!({ "opset": 19 }), "opset `19` is not supported"),
            (json!({ "name": "a/b" }), "must not lead into another folder"),
            (json!({ "include": ["argmax", "softmax"] }), "`argmax` must come last"),
        ] {
            let found = FakeHost::new::<Onnx>(options).err().unwrap().message().to_owned();
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn names_with_slashes_and_other_scripts_are_names() {
        let mut host = host(json!({}), 1.0);
        let mut graph = graph();
        graph["nodes"][0]["name"] = json!("слой/1");
        graph["output"] = json!("слой/1");
        for (index, tensor) in ["weight", "bias"].into_iter().enumerate() {
            let name = format!("слой/1.{tensor}");
            graph["nodes"][0]["parameters"][index]["name"] = json!(name);
            let (shape, values): (&[i64], _) =
                if index == 0 { (&[3, 2], vec![1.0f32; 6]) } else { (&[3], vec![0.0; 3]) };
            host.put_tensor(TensorSet::Parameters, Tensor::new(name, shape, &values).unwrap());
        }
        host.set_graph(graph);
        host.setup().and_then(|()| host.trigger("end")).unwrap();
        let bytes = std::fs::read(&files(&host)[0]).unwrap();
        assert!(bytes.windows(10).any(|window| window == "слой/1".as_bytes()));
    }

    #[test]
    fn a_trial_publishes_nothing() {
        let mut host = host(json!({}), 1.0).with_info(|info| info.trial = true);
        host.setup().and_then(|()| host.trigger("end")).unwrap();
        assert!(files(&host).is_empty() && host.artifacts().is_empty());
    }
}
