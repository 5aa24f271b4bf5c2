//! `host/LAYERS.md`: every layer with its keys, its shapes and an example. The page is written by this test from the schema
//! and from what the examples become.
//!
//! `HOST_WRITE_PAGES=1 cargo test --release --test end_to_end layers` writes it again.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Output;

use fixture::{host, temporary_folder, workspace_root};
use serde_json::Value;

/// A sample of tokens instead of numbers.
const TOKENS: &[i64] = &[];

/// An example of each layer, in the order of the schema: the shape of a sample, and the layer.
const EXAMPLES: [(&str, &[i64], &str); 35] = [
    ("linear", &[16], r#"{ type = "linear", out_features = 10 }"#),
    ("conv1d", &[4, 20], r#"{ type = "conv1d", out_channels = 8, kernel_size = 3, padding = 1 }"#),
    ("conv2d", &[3, 8, 8], r#"{ type = "conv2d", out_channels = 16, kernel_size = 3, padding = 1 }"#),
    (
        "conv_transpose2d",
        &[16, 4, 4],
        r#"{ type = "conv_transpose2d", out_channels = 8, kernel_size = 2, stride = 2 }"#,
    ),
    ("batch_norm", &[16, 8, 8], r#"{ type = "batch_norm" }"#),
    ("layer_norm", &[6, 32], r#"{ type = "layer_norm" }"#),
    ("rms_norm", &[6, 32], r#"{ type = "rms_norm" }"#),
    ("group_norm", &[16, 8, 8], r#"{ type = "group_norm", num_groups = 4 }"#),
    ("max_pool2d", &[16, 8, 8], r#"{ type = "max_pool2d", kernel_size = 2 }"#),
    ("avg_pool2d", &[16, 8, 8], r#"{ type = "avg_pool2d", kernel_size = [2, 4] }"#),
    ("adaptive_avg_pool2d", &[16, 8, 8], r#"{ type = "adaptive_avg_pool2d", output_size = 1 }"#),
    ("relu", &[16], r#"{ type = "relu" }"#),
    ("leaky_relu", &[16], r#"{ type = "leaky_relu", negative_slope = 0.2 }"#),
    ("elu", &[16], r#"{ type = "elu" }"#),
    ("hard_swish", &[16], r#"{ type = "hard_swish" }"#),
    ("hard_sigmoid", &[16], r#"{ type = "hard_sigmoid" }"#),
    ("gelu", &[16], r#"{ type = "gelu", approximate = "tanh" }"#),
    ("silu", &[16], r#"{ type = "silu" }"#),
    ("tanh", &[16], r#"{ type = "tanh" }"#),
    ("sigmoid", &[16], r#"{ type = "sigmoid" }"#),
    ("softmax", &[16], r#"{ type = "softmax" }"#),
    ("flatten", &[16, 4, 4], r#"{ type = "flatten" }"#),
    ("reshape", &[16, 4, 4], r#"{ type = "reshape", shape = [16, -1] }"#),
    ("permute", &[16, 20], r#"{ type = "permute", dims = [1, 0] }"#),
    ("dropout", &[16], r#"{ type = "dropout", p = 0.1 }"#),
    ("embedding", TOKENS, r#"{ type = "embedding", num_embeddings = 32, embedding_dim = 16 }"#),
    ("positional_embedding", &[6, 32], r#"{ type = "positional_embedding" }"#),
    ("multi_head_attention", &[6, 32], r#"{ type = "multi_head_attention", num_heads = 4, causal = true }"#),
    ("lstm", &[6, 32], r#"{ type = "lstm", hidden_size = 64, last_only = true }"#),
    ("gru", &[6, 32], r#"{ type = "gru", hidden_size = 64, bidirectional = true }"#),
    ("upsample", &[16, 4, 4], r#"{ type = "upsample", scale_factor = 2, mode = "bilinear" }"#),
    (
        "residual",
        &[16, 8, 8],
        r#"{ type = "residual", layers = [
  { type = "conv2d", out_channels = 16, kernel_size = 3, padding = 1 },
  { type = "relu" },
] }"#,
    ),
    (
        "repeat",
        &[16],
        r#"{ type = "repeat", times = 3, layers = [{ type = "linear", out_features = 16 }, { type = "relu" }] }"#,
    ),
    (
        "concat",
        &[3, 8, 8],
        r#"{ type = "concat", branches = [[{ type = "conv2d", out_channels = 8, kernel_size = 1 }], []] }"#,
    ),
    (
        "parallel",
        &[16],
        r#"{ type = "parallel", combine = "multiply", branches = [
  [{ type = "linear", out_features = 16 }, { type = "sigmoid" }],
  [],
] }"#,
    ),
];

const INTRODUCTION: &str = "\
# Layers

These are the layers of `[model] layers`, in a run file. The first layer reads a sample, each of the others the one before it;
so no layer is told the size of its input. Shapes are those of one sample, without the batch.

`host model run.toml` shows what the layers of a run file become. This page is made from `host config schema`, and its examples
are what `host model` shows.

Every layer may have a `name`. Its tensors are then `<name>.weight`, `<name>.bias` and so on, in checkpoints and in files for
`init_from`. A name consists of letters, digits and `_`, and may be a path: with `name = \"net.0\"` and `name = \"net.2\"`, two
linear layers have the names that `self.net = nn.Sequential(nn.Linear(…), nn.ReLU(), nn.Linear(…))` gives them in PyTorch.
Without a name a layer is called after its kind and its place among those: `fc1`, `conv2`. In a block, the names begin with the
block's: `residual1.conv1`, `repeat1.0.fc1`.
";

/// `host model --json` of a single layer.
fn model(folder: &Path, shape: &[i64], layers: &str) -> Output {
    let data = if shape == TOKENS {
        std::fs::write(folder.join("text.txt"), "to be or not to be ".repeat(40)).expect("a text can be written");
        "format = \"text\"\npath = \"text.txt\"\ncontext = 6"
    } else {
        const SAMPLES: i64 = 4;
        let lengths: Vec<String> = shape.iter().map(|length| format!("{length}, ")).collect();
        let values = SAMPLES * shape.iter().product::<i64>();
        array(
            &folder.join("x.npy"),
            "<f4",
            &format!("({SAMPLES}, {})", lengths.concat()),
            &vec![0; values as usize * 4],
        );
        let classes: Vec<u8> = (0..SAMPLES).flat_map(|sample| (sample % 2).to_le_bytes()).collect();
        array(&folder.join("y.npy"), "<i8", &format!("({SAMPLES},)"), &classes);
        "format = \"npy\"\ninputs = \"x.npy\"\ntargets = \"y.npy\""
    };
    let text = format!(
        "[run]\nname = \"layer\"\n\n[data]\n{data}\n\n[model]\nlayers = [{layers}]\n\n[train]\nepochs = 1\nbatch_size = 1\n\
         loss = {{ type = \"cross_entropy\" }}\noptimizer = {{ type = \"sgd\", learning_rate = 0.1 }}\n"
    );
    std::fs::write(folder.join("run.toml"), text).expect("the run file can be written");
    host().args(["model", "run.toml", "--json"]).current_dir(folder).output().expect("the host starts")
}

/// Writes an array in NumPy's format.
fn array(path: &Path, kind: &str, shape: &str, bytes: &[u8]) {
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
    // Magic, version and length are 10 bytes; the whole is a multiple of 64.
    let padding = 64 - (10 + header.len() + 1) % 64;
    header.push_str(&" ".repeat(padding));
    header.push('\n');
    let length = u16::try_from(header.len()).expect("a short header");
    let file = [b"\x93NUMPY\x01\x00".as_slice(), &length.to_le_bytes(), header.as_bytes(), bytes].concat();
    std::fs::write(path, file).expect("an array can be written");
}

fn schema() -> Value {
    let output = host().args(["config", "schema"]).output().expect("the host starts");
    serde_json::from_slice(&output.stdout).expect("the schema is JSON")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// A type for people who write TOML.
fn type_name(schema: &Value, property: &Value) -> String {
    let alternatives = property["anyOf"].as_array().or(property["oneOf"].as_array());
    if let Some(alternatives) = alternatives {
        let names = alternatives.iter().filter(|one| one["type"] != "null").map(|one| type_name(schema, one));
        return names.collect::<Vec<_>>().join(" or ");
    }
    if let Some(value) = property.get("const") {
        return format!("`{value}`");
    }
    match text(property, "$ref").rsplit('/').next() {
        Some("Layer") => return "layer".to_owned(),
        Some("WeightInitialization") => return "[initialization](#initialization)".to_owned(),
        Some(name) if !name.is_empty() => return type_name(schema, &schema["$defs"][name]),
        _ => {}
    }
    let names: Vec<&str> = match &property["type"] {
        Value::Array(names) => names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect(),
        name => name.as_str().into_iter().collect(),
    };
    match names.as_slice() {
        ["array"] => match property["maxItems"].as_u64() {
            Some(count) => {
                let item = type_name(schema, &property["items"]);
                format!("`[{}]`", vec![item; count as usize].join(", "))
            }
            None => format!("list of {}", type_name(schema, &property["items"])),
        },
        names => names.join(" or "),
    }
}

/// A table of the keys of an object, without its tag and its name.
fn keys(schema: &Value, object: &Value) -> String {
    let required: Vec<&str> = object["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = object["properties"].as_object().expect("an object has properties");
    let rows = properties.iter().filter(|(key, _)| *key != "type" && *key != "name").map(|(key, property)| {
        let default = match &property["default"] {
            _ if required.contains(&key.as_str()) => "required".to_owned(),
            Value::Null => "none".to_owned(),
            value => format!("`{value}`"),
        };
        let meaning = text(property, "description").replace('\n', " ");
        format!("| `{key}` | {} | {default} | {meaning} |\n", type_name(schema, property))
    });
    let rows: String = rows.collect();
    if rows.is_empty() {
        String::new()
    } else {
        format!("\n| key | type | default | meaning |\n|---|---|---|---|\n{rows}")
    }
}

fn page() -> String {
    let schema = schema();
    let folder = temporary_folder();
    let mut page = INTRODUCTION.to_owned();
    let layers = schema["$defs"]["Layer"]["oneOf"].as_array().expect("the schema lists the layers");
    let names: Vec<&str> = layers.iter().map(|layer| text(&layer["properties"]["type"], "const")).collect();
    assert_eq!(names, EXAMPLES.map(|(name, ..)| name), "each layer has an example, in the order of the schema");
    for (layer, (name, shape, example)) in layers.iter().zip(EXAMPLES) {
        let output = model(folder.path(), shape, example);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stdout));
        let graph: Value = serde_json::from_slice(&output.stdout).expect("the graph is JSON");
        let nodes = graph["nodes"].as_array().expect("a graph has nodes");
        let shown = |shape: &Value| {
            let lengths: Vec<String> = shape.as_array().into_iter().flatten().map(Value::to_string).collect();
            format!("[{}]", lengths.join(", "))
        };
        let (from, to) = (shown(&graph["inputs"][0]["shape"]), shown(&nodes[nodes.len() - 1]["shape"]));
        let meaning = text(layer, "description").replace('\n', " ");
        let of = if shape == TOKENS { "tokens " } else { "" };
        write!(
            page,
            "\n## `{name}`\n\n{meaning}\n{}\nFrom {of}`{from}` to `{to}`:\n\n```toml\n{example}\n```\n",
            keys(&schema, layer)
        )
        .expect("a text can be written to");
    }
    let initialization = &schema["$defs"]["WeightInitialization"];
    let meaning = text(initialization, "description").replace('\n', " ");
    write!(page, "\n## Initialization\n\n{meaning}\n\n| type | keys | meaning |\n|---|---|---|\n").expect("a text");
    for one in initialization["oneOf"].as_array().expect("the schema lists them") {
        let keys = one["properties"].as_object().into_iter().flatten().filter(|(key, _)| *key != "type");
        let keys: Vec<String> = keys.map(|(key, of)| format!("`{key}`: {}", text(of, "description"))).collect();
        let name = text(&one["properties"]["type"], "const");
        let meaning = text(one, "description").replace('\n', " ");
        writeln!(page, "| `{name}` | {} | {meaning} |", keys.join(" ")).expect("a text can be written to");
    }
    page
}

#[test]
fn the_page_of_layers_is_what_the_schema_and_the_models_say() {
    let path = workspace_root().join("host/LAYERS.md");
    let page = page();
    if std::env::var_os("HOST_WRITE_PAGES").is_some() {
        std::fs::write(&path, &page).expect("the page can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "`host/LAYERS.md` is old: run this test with `HOST_WRITE_PAGES=1`");
}

#[test]
fn the_names_of_a_sequential_are_names_of_layers() {
    let folder = temporary_folder();
    let layers = r#"{ type = "linear", out_features = 4, name = "net.0" }, { type = "relu" },
        { type = "linear", out_features = 2, name = "net.2" }"#;
    let output = model(folder.path(), &[16], layers);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let graph: Value = serde_json::from_slice(&output.stdout).expect("the graph is JSON");
    let nodes = graph["nodes"].as_array().expect("a graph has nodes");
    let parameters = nodes.iter().flat_map(|node| node["parameters"].as_array().into_iter().flatten());
    let names: Vec<&str> = parameters.map(|parameter| text(parameter, "name")).collect();
    assert_eq!(names, ["net.0.weight", "net.0.bias", "net.2.weight", "net.2.bias"]);
    for wrong in ["net.", ".net", "a..b", "a b", "a/b", ""] {
        let output = model(folder.path(), &[16], &format!("{{ type = \"relu\", name = \"{wrong}\" }}"));
        assert_eq!(output.status.code(), Some(2), "`{wrong}`");
    }
}
