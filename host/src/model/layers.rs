//! `[model]` of the run file, and its lowering to a graph.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    error::{LayerPath, ModelError},
    graph::{Graph, GraphBuilder, Input},
    op::{Dtype, Op},
};

/// The name of the value that the first layer reads.
const INPUT: &str = "inputs";

/// `[model]`: what is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelOptions {
    /// The layers, first to last. The first reads the sample; sizes of inputs follow from the layer before.
    pub layers: Vec<Layer>,
}

/// A layer or a block of layers.
///
/// A layer that isn't named is called after its kind and its place among those of its kind, counted from 1: `conv1`,
/// `bn1`, `fc2`. Within a block the count starts anew, after the block's own name: `residual1.conv1`,
/// `repeat1.0.conv1`. Tensors are called `<layer>.<tensor>`, with PyTorch's names for the tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Layer {
    /// A fully connected layer (`torch.nn.Linear`).
    Linear {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The number of values that it gives.
        out_features: u32,
        /// Whether a bias is added.
        #[serde(default = "yes")]
        bias: bool,
    },
    /// A convolution over images (`torch.nn.Conv2d`).
    Conv2d {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The number of channels that it gives.
        out_channels: u32,
        /// The size of the kernel.
        kernel_size: Size2d,
        /// The step of the kernel.
        #[serde(default = "one")]
        stride: Size2d,
        /// Zeros added on each side.
        #[serde(default = "zero")]
        padding: Size2d,
        /// The distance between the kernel's elements.
        #[serde(default = "one")]
        dilation: Size2d,
        /// The number of channel groups; a divisor of the channels of input and output.
        #[serde(default = "one_group")]
        groups: u32,
        /// Whether a bias is added.
        #[serde(default = "yes")]
        bias: bool,
    },
    /// Batch normalisation of vectors or images (`torch.nn.BatchNorm1d`, `BatchNorm2d`).
    BatchNorm {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Added to the variance.
        #[serde(default = "batch_norm_eps")]
        eps: f64,
        /// The share of the newest batch in the running statistics.
        #[serde(default = "batch_norm_momentum")]
        momentum: f64,
    },
    /// The largest value in a window (`torch.nn.MaxPool2d`).
    MaxPool2d {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The size of the window.
        kernel_size: Size2d,
        /// The step of the window; its size where not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stride: Option<Size2d>,
        /// Added on each side, at most half of the window.
        #[serde(default = "zero")]
        padding: Size2d,
    },
    /// The rectifier, `max(x, 0)` (`torch.nn.ReLU`).
    Relu {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// Makes one vector of a sample (`torch.nn.Flatten`).
    Flatten {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// Zeroes values at random while training (`torch.nn.Dropout`).
    Dropout {
        /// The layer's name in the graph and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The probability with which a value is zeroed.
        #[serde(default = "dropout_probability")]
        p: f64,
    },
    /// Adds what its layers give to what they were given; both have one shape (He et al. 2016).
    Residual {
        /// The block's name, which its layers' names start with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The layers of the block.
        layers: Vec<Layer>,
    },
    /// The same layers several times one after another, each time with weights of their own.
    Repeat {
        /// The block's name, which its layers' names start with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// How many times.
        times: u32,
        /// The layers of the block.
        layers: Vec<Layer>,
    },
}

/// One length for height and width, or `[height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a whole number or [height, width]")]
pub enum Size2d {
    /// Height and width alike.
    Square(u32),
    /// Height and width.
    Each([u32; 2]),
}

impl Size2d {
    /// Height and width.
    fn pair(self) -> [i64; 2] {
        match self {
            Size2d::Square(length) => [i64::from(length); 2],
            Size2d::Each(lengths) => lengths.map(i64::from),
        }
    }
}

fn yes() -> bool {
    true
}

fn zero() -> Size2d {
    Size2d::Square(0)
}

fn one() -> Size2d {
    Size2d::Square(1)
}

fn one_group() -> u32 {
    1
}

fn batch_norm_eps() -> f64 {
    1e-5
}

fn batch_norm_momentum() -> f64 {
    0.1
}

fn dropout_probability() -> f64 {
    0.5
}

impl ModelOptions {
    /// The graph of these layers for samples of `sample_shape` in f32, every shape checked.
    pub fn lower(&self, sample_shape: &[i64]) -> Result<Graph, ModelError> {
        let mut builder = GraphBuilder::default();
        builder.input(Input { name: INPUT.to_owned(), shape: sample_shape.to_vec(), dtype: Dtype::F32 })?;
        let mut path = LayerPath::default();
        let output =
            lower_all(&self.layers, &mut Scope::new(String::new()), &mut path, INPUT.to_owned(), &mut builder)?;
        builder.finish(&output)
    }
}

/// The names within a block: the block's own name in front, and a count for each kind.
struct Scope {
    prefix: String,
    counts: HashMap<&'static str, usize>,
}

impl Scope {
    fn new(prefix: String) -> Scope {
        Scope { prefix, counts: HashMap::new() }
    }

    /// The full name of the next layer of a kind. A layer with a name of its own counts too, so that naming one
    /// does not rename the others.
    fn name(&mut self, kind: &'static str, given: Option<&String>, path: &LayerPath) -> Result<String, ModelError> {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        match given {
            None => Ok(format!("{}{kind}{count}", self.prefix)),
            Some(name) if is_name(name) => Ok(format!("{}{name}", self.prefix)),
            Some(name) => Err(ModelError::InvalidName { path: path.clone(), name: name.clone() }),
        }
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
}

/// Lowers layers one after another, the first reading `value`; returns the value that the last gives.
fn lower_all(
    layers: &[Layer],
    scope: &mut Scope,
    path: &mut LayerPath,
    mut value: String,
    builder: &mut GraphBuilder,
) -> Result<String, ModelError> {
    for (index, layer) in layers.iter().enumerate() {
        path.0.push(index);
        value = lower_one(layer, scope, path, value, builder)?;
        path.0.pop();
    }
    Ok(value)
}

fn lower_one(
    layer: &Layer,
    scope: &mut Scope,
    path: &mut LayerPath,
    value: String,
    builder: &mut GraphBuilder,
) -> Result<String, ModelError> {
    // What the operators call the sizes of their input. A shape that does not fit gets a size from it all the same,
    // and the operator's own check names what is wrong.
    let shape = builder.shape(INPUT, &value)?;
    let first = shape.first().copied().unwrap_or(0);
    let last = shape.last().copied().unwrap_or(0);
    let (kind, name, op) = match layer {
        Layer::Linear { name, out_features, bias } => {
            let op = Op::Linear { in_features: last, out_features: i64::from(*out_features), bias: *bias };
            ("fc", name, op)
        }
        Layer::Conv2d { name, out_channels, kernel_size, stride, padding, dilation, groups, bias } => {
            let op = Op::Conv2d {
                in_channels: first,
                out_channels: i64::from(*out_channels),
                kernel_size: kernel_size.pair(),
                stride: stride.pair(),
                padding: padding.pair(),
                dilation: dilation.pair(),
                groups: i64::from(*groups),
                bias: *bias,
            };
            ("conv", name, op)
        }
        Layer::BatchNorm { name, eps, momentum } => {
            let op = Op::BatchNorm { num_features: first, eps: *eps, momentum: *momentum };
            ("bn", name, op)
        }
        Layer::MaxPool2d { name, kernel_size, stride, padding } => {
            let op = Op::MaxPool2d {
                kernel_size: kernel_size.pair(),
                stride: stride.unwrap_or(*kernel_size).pair(),
                padding: padding.pair(),
            };
            ("pool", name, op)
        }
        Layer::Relu { name } => ("relu", name, Op::Relu),
        Layer::Flatten { name } => ("flatten", name, Op::Flatten),
        Layer::Dropout { name, p } => ("dropout", name, Op::Dropout { p: *p }),
        Layer::Residual { name, layers } => {
            let block = scope.name("residual", name.as_ref(), path)?;
            if layers.is_empty() {
                return Err(option(path, block, "residual", "layers", "[]", "at least one layer"));
            }
            let mut inner = Scope::new(format!("{block}."));
            let body = lower_all(layers, &mut inner, path, value.clone(), builder)?;
            let sum = format!("{block}.add");
            builder.node(path, sum.clone(), Op::Add, &[&value, &body])?;
            return Ok(sum);
        }
        Layer::Repeat { name, times, layers } => {
            let block = scope.name("repeat", name.as_ref(), path)?;
            if *times == 0 {
                return Err(option(path, block, "repeat", "times", "0", "at least 1"));
            }
            let mut value = value;
            for time in 0..*times {
                let mut inner = Scope::new(format!("{block}.{time}."));
                value = lower_all(layers, &mut inner, path, value, builder)?;
            }
            return Ok(value);
        }
    };
    let name = scope.name(kind, name.as_ref(), path)?;
    builder.node(path, name.clone(), op, &[&value])?;
    Ok(name)
}

fn option(
    path: &LayerPath,
    name: String,
    operator: &'static str,
    option: &'static str,
    value: &str,
    expected: &'static str,
) -> ModelError {
    ModelError::Option { path: path.clone(), name, operator, option, value: value.to_owned(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lower(toml: &str, sample_shape: &[i64]) -> Result<Graph, ModelError> {
        let options: ModelOptions = toml::from_str(toml).unwrap();
        options.lower(sample_shape)
    }

    const DIGITS: &str = r#"
        layers = [
          { type = "conv2d", out_channels = 32, kernel_size = 3, padding = 1 },
          { type = "batch_norm" },
          { type = "relu" },
          { type = "max_pool2d", kernel_size = 2 },
          { type = "flatten" },
          { type = "dropout", p = 0.25 },
          { type = "linear", out_features = 10 },
        ]
    "#;

    #[test]
    fn layers_become_named_nodes_with_shapes_and_tensors() {
        let graph = lower(DIGITS, &[1, 8, 8]).unwrap();
        let nodes: Vec<_> = graph.nodes().iter().map(|node| (node.name.as_str(), node.shape.as_slice())).collect();
        assert_eq!(
            nodes,
            [
                ("conv1", [32, 8, 8].as_slice()),
                ("bn1", &[32, 8, 8]),
                ("relu1", &[32, 8, 8]),
                ("pool1", &[32, 4, 4]),
                ("flatten1", &[512]),
                ("dropout1", &[512]),
                ("fc1", &[10]),
            ]
        );
        assert_eq!(graph.output_shape(), [10]);
        assert_eq!(graph.parameter_count(), 32 * 9 + 32 + 64 + 5120 + 10);
        let tensors: Vec<_> = graph
            .nodes()
            .iter()
            .flat_map(|node| node.parameters.iter().chain(&node.buffers))
            .map(|tensor| tensor.name.as_str())
            .collect();
        assert_eq!(
            tensors,
            [
                "conv1.weight",
                "conv1.bias",
                "bn1.weight",
                "bn1.bias",
                "bn1.running_mean",
                "bn1.running_var",
                "bn1.num_batches_tracked",
                "fc1.weight",
                "fc1.bias"
            ]
        );
    }

    #[test]
    fn blocks_unfold_with_names_of_their_own() {
        let graph = lower(
            r#"
            [[layers]]
            type = "repeat"
            times = 2
            layers = [{ type = "residual", layers = [{ type = "linear", out_features = 4 }, { type = "relu", name = "act" }] }]
            "#,
            &[4],
        )
        .unwrap();
        let names: Vec<_> = graph.nodes().iter().map(|node| node.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "repeat1.0.residual1.fc1",
                "repeat1.0.residual1.act",
                "repeat1.0.residual1.add",
                "repeat1.1.residual1.fc1",
                "repeat1.1.residual1.act",
                "repeat1.1.residual1.add",
            ]
        );
        assert_eq!(graph.nodes()[3].inputs, ["repeat1.0.residual1.add"]);
        assert_eq!(graph.nodes()[5].inputs, ["repeat1.0.residual1.add", "repeat1.1.residual1.act"]);
    }

    #[test]
    fn errors_name_the_layer_and_both_shapes() {
        let message = |toml: &str, shape: &[i64]| lower(toml, shape).unwrap_err().to_string();
        assert_eq!(
            message(
                r#"layers = [{ type = "flatten" }, { type = "conv2d", out_channels = 2, kernel_size = 3 }]"#,
                &[1, 8, 8]
            ),
            "`layers[1]` (`conv1`, conv2d) expects an image of shape [channels, height, width], but gets a vector of 64 values"
        );
        assert_eq!(
            message(r#"layers = [{ type = "residual", layers = [{ type = "linear", out_features = 3 }] }]"#, &[4]),
            "`layers[0]` (`residual1.add`, add) expects two values of one shape, the first [4], but gets a vector of 3 values"
        );
        assert_eq!(
            message(
                r#"layers = [{ type = "residual", layers = [{ type = "conv2d", out_channels = 3, kernel_size = 3, groups = 2 }] }]"#,
                &[4, 8, 8]
            ),
            "`layers[0].layers[0]` (`residual1.conv1`, conv2d) has `groups` = `2`, which must be a divisor of the channels of input and output"
        );
        assert_eq!(
            message(r#"layers = [{ type = "dropout", p = 1.5 }]"#, &[4]),
            "`layers[0]` (`dropout1`, dropout) has `p` = `1.5`, which must be between 0 and 1"
        );
        assert_eq!(
            message(r#"layers = [{ type = "repeat", times = 0, layers = [] }]"#, &[4]),
            "`layers[0]` (`repeat1`, repeat) has `times` = `0`, which must be at least 1"
        );
        assert_eq!(message("layers = []", &[4]), "the model has no layers");
        assert!(message(r#"layers = [{ type = "relu", name = "a.b" }]"#, &[4]).contains("`a.b`"));
        assert_eq!(
            message(r#"layers = [{ type = "relu", name = "relu2" }, { type = "relu" }]"#, &[4]),
            "two nodes of the model are named `relu2`"
        );
        assert!(matches!(
            lower(r#"layers = [{ type = "repeat", times = 4000000000, layers = [{ type = "relu" }] }]"#, &[4]),
            Err(ModelError::TooManyNodes { .. })
        ));
        assert!(matches!(
            lower(r#"layers = [{ type = "max_pool2d", kernel_size = 9 }]"#, &[1, 8, 8]),
            Err(ModelError::Shape { .. })
        ));
    }

    #[test]
    fn unknown_and_misspelt_options_are_errors() {
        for toml in [
            r#"layers = [{ type = "relu", slope = 1 }]"#,
            r#"layers = [{ type = "linear", out_featurs = 1 }]"#,
            r#"layers = [{ type = "lineal", out_features = 1 }]"#,
            r#"layers = [{ type = "max_pool2d", kernel_size = "3" }]"#,
        ] {
            assert!(toml::from_str::<ModelOptions>(toml).is_err(), "{toml}");
        }
    }

    #[test]
    fn a_graph_survives_json_and_an_edited_one_is_refused() {
        let graph = lower(DIGITS, &[1, 8, 8]).unwrap();
        let json = serde_json::to_string(&graph).unwrap();
        assert_eq!(serde_json::from_str::<Graph>(&json).unwrap(), graph);
        let edited = json.replace(r#""in_features":512"#, r#""in_features":513"#);
        let error = serde_json::from_str::<Graph>(&edited).unwrap_err().to_string();
        assert!(error.contains("`fc1`"), "{error}");
        let edited = json.replace(r#""shape":[10,512]"#, r#""shape":[10,511]"#);
        let error = serde_json::from_str::<Graph>(&edited).unwrap_err().to_string();
        assert!(error.contains("parameters of node `fc1`"), "{error}");
        let edited = json.replace(r#""inputs":["conv1"]"#, r#""inputs":["conv9"]"#);
        let error = serde_json::from_str::<Graph>(&edited).unwrap_err().to_string();
        assert!(error.contains("`conv9`"), "{error}");
    }

    #[test]
    fn the_cost_is_that_of_the_products() {
        let mlp = lower(
            r#"layers = [{ type = "linear", out_features = 128, bias = false }, { type = "relu" }, { type = "linear", out_features = 10 }]"#,
            &[64],
        )
        .unwrap();
        assert_eq!(mlp.flops_per_sample(), 2 * 64 * 128 + 128 + (2 * 128 + 1) * 10);
    }
}
