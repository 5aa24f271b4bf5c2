//! `host model`.

use std::process::ExitCode;

use host_command::arguments::ModelArguments;
use host_command::{cannot, print, print_data};

use crate::job::{ModelPlan, PlannedModel, Request};
use crate::model::{ModelError, Network};
use crate::report::{Problems, table, terminal};

/// How a model of PyTorch becomes a file that the host trains.
const HOW_TO_EXPORT: &str = include_str!("explain_export.txt");

pub(super) fn show(arguments: &ModelArguments) -> Result<ExitCode, Problems> {
    if arguments.explain_export {
        print(HOW_TO_EXPORT)?;
        return Ok(ExitCode::SUCCESS);
    }
    let request =
        Request { run_file: arguments.run_file.clone(), overrides: arguments.overrides.clone(), ..Request::default() };
    let ModelPlan { model, batch_size, inputs } = ModelPlan::make(&request)?;
    let graph = match &model {
        PlannedModel::Graph(graph) => graph,
        PlannedModel::Network(network) => match network.graph() {
            Ok(graph) => graph,
            Err(error) => return show_tensors(network, &inputs, &error, arguments.json),
        },
    };
    if arguments.json {
        let text = serde_json::to_string_pretty(graph.as_ref()).map_err(|error| cannot("write the graph", &error))?;
        print_data(&format!("{text}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows: Vec<[String; 6]> = graph
        .inputs()
        .iter()
        .map(|input| {
            let shape = format!("{:?}", input.shape);
            [input.name.clone(), "input".to_owned(), String::new(), shape, String::new(), String::new()]
        })
        .collect();
    for node in graph.nodes() {
        let parameters: i64 = node.parameters.iter().map(|tensor| tensor.shape.iter().product::<i64>()).sum();
        rows.push([
            node.name.clone(),
            node.op.name().to_owned(),
            node.inputs.join(", "),
            format!("{:?}", node.shape),
            parameters.to_string(),
            graph.node_flops(node).to_string(),
        ]);
    }
    let mut text = Vec::new();
    table::write(
        ["NODE", "OPERATOR", "READS", "SHAPE", "PARAMETERS", "FLOPS"],
        &rows,
        terminal::stdout_width(),
        &mut text,
    )
    .map_err(|error| cannot("write the table", &error))?;
    print(&String::from_utf8_lossy(&text))?;
    let (parameters, flops) = (graph.parameter_count(), graph.flops_per_sample());
    print(&format!(
        "{} nodes, {parameters} parameters ({:.1} KiB); {:.3} MFLOP forward for a sample, {:.1} for a batch of {batch_size}\n",
        graph.nodes().len(),
        parameters as f64 * 4.0 / 1024.0,
        flops as f64 / 1e6,
        flops as f64 * batch_size as f64 / 1e6,
    ))?;
    if let Some(lora) = model.lora() {
        print(&format!("{lora}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows the tensors of a model without a graph, and why it has none.
fn show_tensors(network: &Network, inputs: &str, error: &ModelError, json: bool) -> Result<ExitCode, Problems> {
    if json {
        return Err(cannot("write the graph", error));
    }
    let mut rows = Vec::new();
    for named in network.tensors() {
        let shape = named.tensor.size();
        let is_parameter = network.parameters().iter().any(|parameter| parameter.name == named.name);
        let role = match (is_parameter, named.tensor.requires_grad()) {
            (true, true) => "parameter",
            (true, false) => "frozen",
            (false, _) => "buffer",
        };
        rows.push([named.name.clone(), role.to_owned(), format!("{shape:?}"), named.tensor.numel().to_string()]);
    }
    let mut text = Vec::new();
    table::write(["TENSOR", "ROLE", "SHAPE", "VALUES"], &rows, terminal::stdout_width(), &mut text)
        .map_err(|error| cannot("write the table", &error))?;
    print(&String::from_utf8_lossy(&text))?;
    let parameters: usize = network.parameters().iter().map(|named| named.tensor.numel()).sum();
    let output = network.output_shape().unwrap_or_default();
    print(&format!("{parameters} parameters; inputs {inputs} and output {output:?} for a sample; {error}\n"))?;
    if let Some(lora) = network.lora() {
        print(&format!("{}\n", lora.summary(network)))?;
    }
    Ok(ExitCode::SUCCESS)
}
