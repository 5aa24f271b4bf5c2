//! Optimizers against PyTorch, and their state in checkpoints.

use std::collections::BTreeSet;

use serde_json::Value;
use tch::{Device, Kind};

use super::*;
use crate::report::Report;
use crate::train::figures;

const STEPS: usize = 50;

/// Two parameters; the gradient of an element is a fixed function of its value and place.
fn parameters() -> Vec<NamedTensor> {
    [("fc1.weight", vec![2i64, 3]), ("fc1.bias", vec![3])]
        .into_iter()
        .map(|(name, shape)| {
            let tensor = Tensor::linspace(-1.0, 1.0, shape.iter().product(), (Kind::Float, Device::Cpu));
            NamedTensor { name: name.to_owned(), tensor: tensor.reshape(shape).set_requires_grad(true) }
        })
        .collect()
}

/// Gradient `0.3 x + 0.5`, which is far from zero at every start: AdamW divides small gradients by themselves.
fn backward(parameters: &[NamedTensor]) {
    for parameter in parameters {
        let x = &parameter.tensor;
        let loss = (x.square() * 0.15 + x * 0.5).sum(Kind::Float);
        loss.backward();
    }
}

fn values(parameters: &[NamedTensor]) -> Vec<f64> {
    parameters
        .iter()
        .flat_map(|parameter| Vec::<f64>::try_from(parameter.tensor.detach().reshape([-1])).unwrap())
        .collect()
}

fn train(optimizer: &mut Optimizer, parameters: &[NamedTensor], steps: usize) {
    for _ in 0..steps {
        optimizer.clear_gradients().unwrap();
        backward(parameters);
        optimizer.step().unwrap();
    }
}

fn options(text: &str) -> OptimizerOptions {
    toml::from_str(text).unwrap()
}

fn adamw() -> OptimizerOptions {
    options("type = \"adamw\"\nlearning_rate = 0.01")
}

fn sgd(momentum: f64, nesterov: bool) -> OptimizerOptions {
    options(&format!(
        "type = \"sgd\"\nlearning_rate = 0.05\nmomentum = {momentum}\nnesterov = {nesterov}\nweight_decay = 0.1"
    ))
}

/// The net of two layers that PyTorch's figures are of, trained for as many steps as they have losses.
fn trained_as_in(figures: &Value, options: &OptimizerOptions) -> (Vec<f64>, Vec<NamedTensor>, Optimizer) {
    let problem = &figures["problem"];
    let tensor =
        |value: &Value, shape: &[i64]| Tensor::from_slice(&figures::numbers(value)).reshape(shape).to_kind(Kind::Float);
    let start = problem["start"].as_array().unwrap().iter().map(|named| {
        let shape: Vec<i64> = serde_json::from_value(named[1].clone()).unwrap();
        let name = named[0].as_str().unwrap().to_owned();
        NamedTensor { name, tensor: tensor(&named[2], &shape).set_requires_grad(true) }
    });
    let parameters: Vec<NamedTensor> = start.collect();
    let [weight1, bias1, weight2, bias2] = [0, 1, 2, 3].map(|index| &parameters[index].tensor);
    let mut optimizer = Optimizer::new(options, &parameters).unwrap();
    let batches: Vec<_> = problem["inputs"]
        .as_array()
        .unwrap()
        .iter()
        .zip(problem["targets"].as_array().unwrap())
        .map(|(inputs, targets)| (tensor(inputs, &[8, 3]), tensor(targets, &[8, 2])))
        .collect();
    let mut losses = Vec::new();
    for step in 0..STEPS {
        let (inputs, targets) = &batches[step % batches.len()];
        optimizer.clear_gradients().unwrap();
        let outputs = inputs.linear(weight1, Some(bias1)).tanh().linear(weight2, Some(bias2));
        let loss = outputs.mse_loss(targets, tch::Reduction::Mean);
        loss.backward();
        optimizer.step().unwrap();
        losses.push(loss.double_value(&[]));
    }
    (losses, parameters, optimizer)
}

/// The greatest difference, in units of the tolerance: 1e-5 of the greatest number, or of 1.
fn distance(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let greatest = expected.iter().fold(1.0, |greatest: f64, number| greatest.max(number.abs()));
    let differences = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs());
    differences.fold(0.0, f64::max) / (1e-5 * greatest)
}

#[test]
fn losses_weights_and_states_are_those_of_torch() {
    let figures = figures::pytorch();
    for case in figures["optimizers"].as_array().unwrap() {
        let (losses, parameters, optimizer) = trained_as_in(&figures, &options(case["options"].as_str().unwrap()));
        assert!(distance(&losses, &figures::numbers(&case["losses"])) < 1.0, "losses of {}", case["options"]);
        let weights = parameters.iter().map(|named| (named.name.clone(), named.tensor.detach()));
        for (part, tensors) in [("parameters", weights.collect()), ("state", optimizer.state())] {
            for (name, tensor) in tensors {
                let found = Vec::<f64>::try_from(tensor.to_kind(Kind::Double).reshape([-1])).unwrap();
                let expected = figures::numbers(&case[part][&name]);
                assert!(distance(&found, &expected) < 1.0, "`{name}` of {}: {found:?} {expected:?}", case["options"]);
            }
        }
    }
}

#[test]
fn states_have_torchs_names_apart_from_the_step_that_rmsprop_never_reads() {
    let figures = figures::pytorch();
    for case in figures["optimizers"].as_array().unwrap() {
        let options = options(case["options"].as_str().unwrap());
        let (_, _, optimizer) = trained_as_in(&figures, &options);
        let names: BTreeSet<String> = optimizer.state().into_iter().map(|(name, _)| name).collect();
        let of_torch = case["state"].as_object().unwrap().keys();
        let is_rmsprop = matches!(options, OptimizerOptions::Rmsprop { .. });
        let expected = of_torch.filter(|name| !(is_rmsprop && name.starts_with("step."))).cloned().collect();
        assert_eq!(names, expected, "{}", case["options"]);
    }
}

#[test]
fn groups_have_their_own_values_and_the_rest_those_of_the_optimizer() {
    let options = options(
        "type = \"adamw\"\nlearning_rate = 0.1\n[[groups]]\npattern = \"*.bias\"\nlearning_rate_factor = 0.5\n\
         weight_decay = 0.3",
    );
    let mut optimizer = Optimizer::new(&options, &parameters()).unwrap();
    let values = |optimizer: &Optimizer| -> Vec<(String, Vec<usize>, f64, f64)> {
        let value = |group: &ParameterGroup| {
            let decay = group.get("weight_decay").unwrap();
            (group.name().to_owned(), group.indices().to_vec(), group.learning_rate(), decay)
        };
        optimizer.groups().iter().map(value).collect()
    };
    let expected =
        |rate: f64| [("bias".to_owned(), vec![1], rate / 2.0, 0.3), ("rest".to_owned(), vec![0], rate, 0.01)];
    assert_eq!(values(&optimizer), expected(0.1));
    optimizer.schedule(0.5);
    assert_eq!(values(&optimizer), expected(0.05));
}

#[test]
fn decay_leaves_what_has_one_dimension_alone_unless_it_is_for_all() {
    let moved = |decay: &str| -> [bool; 2] {
        let parameters = parameters();
        let text = format!("type = \"sgd\"\nlearning_rate = 0.5\nweight_decay = 0.5\ndecay = \"{decay}\"");
        let mut optimizer = Optimizer::new(&options(&text), &parameters).unwrap();
        let before = values(&parameters);
        // Gradients of zero: only the decay moves anything.
        parameters.iter().for_each(|parameter| (&parameter.tensor * 0.0).sum(Kind::Float).backward());
        optimizer.step().unwrap();
        let after = values(&parameters);
        [before[..6] != after[..6], before[6..] != after[6..]]
    };
    assert_eq!(moved("weights"), [true, false]);
    assert_eq!(moved("all"), [true, true]);
}

#[test]
fn groups_that_mean_nothing_are_refused() {
    let with = |groups: &str| {
        let options = options(&format!("type = \"sgd\"\nlearning_rate = 0.1\ngroups = [{groups}]"));
        Optimizer::new(&options, &parameters()).unwrap_err()
    };
    for (groups, message) in [
        (r#"{ pattern = "fc9.*" }"#, "no parameter is in the group `fc9`: none has a name like `fc9.*`"),
        (
            r#"{ pattern = "fc*" }, { pattern = "*.bias" }"#,
            "no parameter is in the group `bias`: earlier groups have all of the names like `*.bias`",
        ),
        (
            r#"{ pattern = "*.bias", learning_rate = 1, learning_rate_factor = 1 }"#,
            "the parameter group `bias` has both `learning_rate` and `learning_rate_factor`",
        ),
        (r#"{ pattern = "a", name = "x" }, { pattern = "b", name = "x" }"#, "another parameter group has the name `x`"),
    ] {
        let error = with(groups);
        assert_eq!(error.to_string(), message);
        assert!(error.hint().is_some());
        assert_eq!(error.key(), Some("groups"));
    }
    let error = with(r#"{ pattern = "*.bias", weight_decay = nan }"#);
    assert_eq!(error.to_string(), "hyper-parameter `weight_decay` = `NaN` must be at least 0 and finite");
}

#[test]
fn momentum_that_begins_in_mid_run_keeps_the_other_state() {
    let parameters = parameters();
    let mut optimizer = Optimizer::new(&options("type = \"rmsprop\""), &parameters).unwrap();
    train(&mut optimizer, &parameters, 3);
    let squares = |optimizer: &Optimizer| -> Vec<Tensor> {
        optimizer.state().into_iter().filter(|(name, _)| name.starts_with("square")).map(|(_, t)| t.copy()).collect()
    };
    let before = squares(&optimizer);
    optimizer.set("all", "momentum", 0.9).unwrap();
    assert_eq!(squares(&optimizer), before);
    train(&mut optimizer, &parameters, 1);
    assert_ne!(squares(&optimizer), before);
}

#[test]
fn a_restored_state_goes_on_bit_for_bit() {
    let others =
        ["type = \"adam\"", "type = \"rmsprop\"\ncentered = true\nmomentum = 0.5", "type = \"adagrad\""].map(options);
    for options in [adamw(), sgd(0.9, true), sgd(0.0, false)].into_iter().chain(others) {
        let unbroken = parameters();
        let mut optimizer = Optimizer::new(&options, &unbroken).unwrap();
        train(&mut optimizer, &unbroken, 5);
        optimizer.schedule(0.5);
        let saved: Vec<_> = optimizer.state().into_iter().map(|(name, tensor)| (name, tensor.copy())).collect();
        let groups = optimizer.group_states();
        let resumed: Vec<_> = unbroken
            .iter()
            .map(|parameter| NamedTensor {
                name: parameter.name.clone(),
                tensor: parameter.tensor.detach().copy().set_requires_grad(true),
            })
            .collect();
        train(&mut optimizer, &unbroken, 5);

        let mut optimizer = Optimizer::new(&options, &resumed).unwrap();
        optimizer.load_group_states(&groups).unwrap();
        optimizer.load_state(&saved).unwrap();
        train(&mut optimizer, &resumed, 5);
        assert_eq!(values(&unbroken), values(&resumed));
    }
}

#[test]
fn a_state_that_does_not_fit_is_refused_whole() {
    let parameters = parameters();
    let mut optimizer = Optimizer::new(&adamw(), &parameters).unwrap();
    let state = || -> Vec<(String, Tensor)> {
        optimizer.state().into_iter().map(|(name, tensor)| (name, tensor.ones_like())).collect()
    };
    let (mut missing, mut unknown, mut reshaped) = (state(), state(), state());
    missing.pop();
    unknown.push(("exp_avg.fc2.weight".to_owned(), Tensor::from(0f32)));
    reshaped[1].1 = Tensor::from(0f32);
    for (state, what) in [
        (missing, "lacks `step.fc1.bias`"),
        (unknown, "has an unknown `exp_avg.fc2.weight`"),
        (reshaped, "has another shape or dtype for `exp_avg.fc1.bias`"),
    ] {
        let error = optimizer.load_state(&state).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
    assert!(optimizer.state().iter().all(|(_, tensor)| tensor.sum(Kind::Float).double_value(&[]) == 0.0));
}

#[test]
fn a_parameter_without_a_gradient_is_left_alone() {
    let parameters = parameters();
    let mut optimizer = Optimizer::new(&adamw(), &parameters).unwrap();
    let before = values(&parameters);
    backward(&parameters[1..]);
    optimizer.step().unwrap();
    let after = values(&parameters);
    assert_eq!(before[..6], after[..6]);
    assert_ne!(before[6..], after[6..]);
    let steps: Vec<f64> = optimizer.state()[4..].iter().map(|(_, step)| step.double_value(&[])).collect();
    assert_eq!(steps, [0.0, 1.0]);
}

#[test]
fn the_schedule_owns_the_learning_rate_until_it_is_set() {
    let mut optimizer = Optimizer::new(&adamw(), &parameters()).unwrap();
    optimizer.schedule(0.5);
    assert_eq!(optimizer.group("all").unwrap().learning_rate(), 0.005);
    optimizer.set("all", "weight_decay", 0.2).unwrap();
    assert!(optimizer.groups()[0].scheduled());
    optimizer.set("all", "learning_rate", 0.3).unwrap();
    optimizer.schedule(0.1);
    assert_eq!(optimizer.groups()[0].get("learning_rate"), Ok(0.3));
    assert_eq!(optimizer.groups()[0].get("weight_decay"), Ok(0.2));
}

#[test]
fn momentum_may_begin_in_mid_run() {
    let parameters = parameters();
    let mut optimizer = Optimizer::new(&sgd(0.0, false), &parameters).unwrap();
    train(&mut optimizer, &parameters, 1);
    optimizer.set("all", "momentum", 0.9).unwrap();
    train(&mut optimizer, &parameters, 1);
    let buffers = optimizer.state();
    assert_eq!(buffers.len(), 2);
    assert!(buffers[0].1.abs().sum(Kind::Float).double_value(&[]) > 0.0);
    optimizer.set("all", "momentum", 0.0).unwrap();
    train(&mut optimizer, &parameters, 1);
    assert!(optimizer.state().is_empty());
}

#[test]
fn names_and_ranges_are_checked() {
    let mut optimizer = Optimizer::new(&adamw(), &parameters()).unwrap();
    let mut message = |group: &str, name: &str, value| optimizer.set(group, name, value).unwrap_err().to_string();
    assert_eq!(message("some", "eps", 0.1), "the optimizer has no parameter group `some`; it has `all`");
    assert_eq!(
        message("all", "momentum", 0.1),
        "the optimizer has no hyper-parameter `momentum`; it has `learning_rate`, `beta1`, `beta2`, `weight_decay`, `eps`"
    );
    assert_eq!(message("all", "beta1", 1.0), "hyper-parameter `beta1` = `1` must be at least 0 and below 1");
    assert!(message("all", "learning_rate", f64::NAN).contains("`NaN`"));
    assert!(Optimizer::new(&sgd(0.0, true), &parameters()).is_err());
}

#[test]
fn earlier_layers_take_smaller_steps() {
    let names = ["embed.weight", "blocks.0.fc.weight", "blocks.0.fc.bias", "blocks.1.fc.weight", "head.weight"];
    let parameters: Vec<NamedTensor> = names
        .iter()
        .map(|name| {
            let tensor = Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
            NamedTensor { name: (*name).to_owned(), tensor }
        })
        .collect();
    let rates = |text: &str| -> Vec<(String, f64)> {
        let options = options(&format!("type = \"sgd\"\nlearning_rate = 0.8\nlayer_decay = 0.5\n{text}"));
        let optimizer = Optimizer::new(&options, &parameters).unwrap();
        let names = options.learning_rate_names(&names);
        names.into_iter().zip(optimizer.groups().iter().map(ParameterGroup::learning_rate)).collect()
    };
    let expected = [("layer_0", 0.1), ("layer_1", 0.2), ("layer_2", 0.4), ("layer_3", 0.8)];
    assert_eq!(rates(""), expected.map(|(name, rate)| (format!("learning_rate_{name}"), rate)));
    let expected = [
        ("bias_layer_1", 0.02),
        ("rest_layer_0", 0.1),
        ("rest_layer_1", 0.2),
        ("rest_layer_2", 0.4),
        ("rest_layer_3", 0.8),
    ];
    let with_group = rates("[[groups]]\npattern = \"*.bias\"\nlearning_rate_factor = 0.1");
    assert_eq!(with_group.len(), expected.len());
    for ((found, rate), (name, expected)) in with_group.into_iter().zip(expected) {
        assert!(found == format!("learning_rate_{name}") && (rate - expected).abs() < 1e-12, "{found} {rate}");
    }

    // One step of each, whose gradients are equal, moves it as far as its rate says.
    let options = options("type = \"sgd\"\nlearning_rate = 0.8\nlayer_decay = 0.5");
    let mut optimizer = Optimizer::new(&options, &parameters).unwrap();
    train(&mut optimizer, &parameters, 1);
    let moved: Vec<f64> = parameters.iter().map(|parameter| 1.0 - parameter.tensor.double_value(&[0])).collect();
    for (moved, rate) in moved.iter().zip([0.1, 0.2, 0.2, 0.4, 0.8]) {
        assert!((moved - rate * 0.8).abs() < 1e-6, "{moved} {rate}");
    }
}

#[test]
fn a_layer_decay_needs_layers_and_a_number() {
    let error =
        Optimizer::new(&options("type = \"sgd\"\nlearning_rate = 0.1\nlayer_decay = 0.5"), &parameters()).unwrap_err();
    assert_eq!(error.key(), Some("layer_decay"));
    assert_eq!(
        error.hint().unwrap(),
        "the model has `fc1.weight`, `fc1.bias`; a layer is named like `blocks.0`, or has a group with its own factor"
    );
    for decay in ["0.0", "1.5", "nan"] {
        let text = format!("type = \"sgd\"\nlearning_rate = 0.1\nlayer_decay = {decay}");
        assert!(options(&text).check().unwrap_err().to_string().contains("layer_decay"), "{decay}");
    }
}
