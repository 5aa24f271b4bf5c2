//! Activations, sums and products.

use std::f64::consts::{PI, SQRT_2};

use plugin_api::Result;
use plugin_api::graph::{Comparison, GeluApproximation, Node, Op};

use super::Lowering;
use crate::options::Opset;
use crate::proto::{Attribute, element};

impl<'a> Lowering<'a, '_> {
    pub(super) fn elementwise(&mut self, node: &'a Node) -> Result<String> {
        let inputs = match &node.op {
            // Values are aligned at their last dimension.
            Op::Add | Op::Subtract | Op::Multiply | Op::Divide => {
                vec![self.of_rank(node, 0, node.shape.len())?, self.of_rank(node, 1, node.shape.len())?]
            }
            _ => self.inputs(node)?,
        };
        let (operator, attributes) = match &node.op {
            Op::Relu => ("Relu", Vec::new()),
            Op::LeakyRelu { negative_slope } => ("LeakyRelu", vec![Attribute::float("alpha", *negative_slope)]),
            Op::Elu { alpha } => ("Elu", vec![Attribute::float("alpha", *alpha)]),
            Op::HardSwish => ("HardSwish", Vec::new()),
            Op::HardSigmoid => {
                ("HardSigmoid", vec![Attribute::float("alpha", 1.0 / 6.0), Attribute::float("beta", 0.5)])
            }
            Op::Tanh => ("Tanh", Vec::new()),
            Op::Sigmoid => ("Sigmoid", Vec::new()),
            Op::Softmax { dim } => ("Softmax", vec![Attribute::int("axis", *dim as i64 + 1)]),
            Op::Add => ("Add", Vec::new()),
            Op::Subtract => ("Sub", Vec::new()),
            Op::Multiply => ("Mul", Vec::new()),
            Op::Divide => ("Div", Vec::new()),
            Op::AddScalar { other } => return Ok(self.with_number(node, "Add", &inputs[0], *other)),
            Op::MultiplyScalar { other } => return Ok(self.with_number(node, "Mul", &inputs[0], *other)),
            Op::Pow { exponent } => return Ok(self.power(node, &inputs[0], *exponent)),
            Op::Clamp { min, max } => {
                let limit = |builder: &mut super::Builder<'_>, name: &str, limit: &Option<f64>| {
                    let name = format!("{}/{name}", node.name);
                    limit.map_or_else(String::new, |limit| builder.constant(&name, &[], vec![limit as f32]))
                };
                let least = limit(&mut self.builder, "min", min);
                let most = limit(&mut self.builder, "max", max);
                return Ok(self.builder.node("Clip", &node.name, &[&inputs[0], &least, &most], Vec::new()));
            }
            Op::ToFloat => ("Cast", vec![Attribute::int("to", i64::from(element::FLOAT))]),
            Op::Compare { comparison, other } => return Ok(self.compared(node, &inputs[0], *comparison, *other)),
            Op::Silu => {
                let gate = self.builder.node("Sigmoid", &format!("{}/gate", node.name), &inputs, Vec::new());
                return Ok(self.builder.node("Mul", &node.name, &[&inputs[0], &gate], Vec::new()));
            }
            Op::Gelu { approximate } if self.opset >= Opset::V20 => {
                let approximate = match approximate {
                    GeluApproximation::None => "none",
                    GeluApproximation::Tanh => "tanh",
                };
                ("Gelu", vec![Attribute::text("approximate", approximate)])
            }
            Op::Gelu { approximate } => return Ok(self.gelu(node, &inputs[0], *approximate)),
            _ => return self.input(node),
        };
        Ok(self.builder.node(operator, &node.name, &inputs, attributes))
    }

    /// A value and a number.
    fn with_number(&mut self, node: &Node, operator: &str, input: &str, number: f64) -> String {
        let number = self.builder.constant(&format!("{}/number", node.name), &[], vec![number as f32]);
        self.builder.node(operator, &node.name, &[input, &number], Vec::new())
    }

    /// 1 where a comparison with a number holds.
    fn compared(&mut self, node: &Node, input: &str, comparison: Comparison, other: f64) -> String {
        let part = |part: &str| format!("{}/{part}", node.name);
        let operator = match comparison {
            Comparison::Equal | Comparison::NotEqual => "Equal",
            Comparison::Less => "Less",
            Comparison::LessEqual => "LessOrEqual",
            Comparison::Greater => "Greater",
            Comparison::GreaterEqual => "GreaterOrEqual",
        };
        let number = self.builder.constant(&part("number"), &[], vec![other as f32]);
        let mut holds = self.builder.node(operator, &part("compared"), &[input, &number], Vec::new());
        if comparison == Comparison::NotEqual {
            holds = self.builder.node("Not", &part("differs"), &[holds], Vec::new());
        }
        let to = vec![Attribute::int("to", i64::from(element::FLOAT))];
        self.builder.node("Cast", &node.name, &[holds], to)
    }

    /// A power: a root, a square or a reciprocal by its own operator, which is more precise.
    fn power(&mut self, node: &Node, input: &str, exponent: f64) -> String {
        if exponent == 2.0 {
            return self.builder.node("Mul", &node.name, &[input, input], Vec::new());
        }
        if exponent == 0.5 {
            return self.builder.node("Sqrt", &node.name, &[input], Vec::new());
        }
        if exponent == -0.5 {
            let root = self.builder.node("Sqrt", &format!("{}/root", node.name), &[input], Vec::new());
            return self.builder.node("Reciprocal", &node.name, &[root], Vec::new());
        }
        if exponent == -1.0 {
            return self.builder.node("Reciprocal", &node.name, &[input], Vec::new());
        }
        self.with_number(node, "Pow", input, exponent)
    }

    /// A mean over dimensions.
    pub(super) fn mean(&mut self, node: &'a Node, dims: &[usize], keepdim: bool) -> Result<String> {
        let input = self.input(node)?;
        let axes: Vec<i64> = dims.iter().map(|dim| *dim as i64 + 1).collect();
        let axes = self.builder.integers(&format!("{}/axes", node.name), &axes);
        let attributes = vec![Attribute::int("keepdims", i64::from(keepdim))];
        Ok(self.builder.node("ReduceMean", &node.name, &[input, axes], attributes))
    }

    /// Before opset 20: `x/2 · (1 + erf(x/√2))`, or with a hyperbolic tangent (Hendrycks and Gimpel 2016).
    fn gelu(&mut self, node: &Node, input: &str, approximate: GeluApproximation) -> String {
        let part = |part: &str| format!("{}/{part}", node.name);
        let number =
            |builder: &mut super::Builder<'_>, name: &str, value: f64| builder.constant(name, &[], vec![value as f32]);
        let one = number(&mut self.builder, &part("one"), 1.0);
        let half = number(&mut self.builder, &part("half"), 0.5);
        let curve = match approximate {
            GeluApproximation::None => {
                let root = number(&mut self.builder, &part("root_two"), SQRT_2);
                let scaled = self.builder.node("Div", &part("scaled"), &[input, &root], Vec::new());
                self.builder.node("Erf", &part("erf"), &[scaled], Vec::new())
            }
            GeluApproximation::Tanh => {
                let cubic = number(&mut self.builder, &part("cubic"), 0.044_715);
                let slope = number(&mut self.builder, &part("slope"), (2.0 / PI).sqrt());
                let square = self.builder.node("Mul", &part("square"), &[input, input], Vec::new());
                let cube = self.builder.node("Mul", &part("cube"), &[square.as_str(), input], Vec::new());
                let bent = self.builder.node("Mul", &part("bent"), &[cube, cubic], Vec::new());
                let sum = self.builder.node("Add", &part("sum"), &[input, &bent], Vec::new());
                let scaled = self.builder.node("Mul", &part("scaled"), &[sum, slope], Vec::new());
                self.builder.node("Tanh", &part("tanh"), &[scaled], Vec::new())
            }
        };
        let raised = self.builder.node("Add", &part("raised"), &[curve, one], Vec::new());
        let halved = self.builder.node("Mul", &part("halved"), &[input, &half], Vec::new());
        self.builder.node("Mul", &node.name, &[halved, raised], Vec::new())
    }
}
