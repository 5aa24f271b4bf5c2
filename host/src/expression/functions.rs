//! The functions and operators of the language.

use std::ops::RangeInclusive;

/// A function: how many arguments it takes, how it is written, and what it does.
pub(super) struct Function<M> {
    pub(super) name: &'static str,
    pub(super) arguments: RangeInclusive<usize>,
    pub(super) form: &'static str,
    pub(super) meaning: M,
}

const fn function<M>(
    name: &'static str,
    arguments: RangeInclusive<usize>,
    form: &'static str,
    meaning: M,
) -> Function<M> {
    Function { name, arguments, form, meaning }
}

/// What a function that gives a number does.
#[derive(Clone, Copy)]
pub(super) enum Meaning {
    /// The present value of a metric.
    Metric,
    /// One number of a metric's values.
    Best,
    Mean,
    Last,
    Round,
    /// Of one number.
    One(fn(f64) -> f64),
    /// Of two numbers, neither of which is NaN; of more, from left to right.
    Two(fn(f64, f64) -> f64),
}

/// The functions that give a number.
pub(super) const FUNCTIONS: [Function<Meaning>; 16] = [
    function("metric", 1..=1, "metric('val/accuracy')", Meaning::Metric),
    function("best", 1..=2, "best(val_loss) or best(val_loss, 'min')", Meaning::Best),
    function("mean", 1..=2, "mean(val_loss) or mean(val_loss, 5)", Meaning::Mean),
    function("last", 1..=2, "last(val_loss) or last(val_loss, 2)", Meaning::Last),
    function("min", 2..=8, "min(a, b)", Meaning::Two(f64::min)),
    function("max", 2..=8, "max(a, b)", Meaning::Two(f64::max)),
    function("pow", 2..=2, "pow(base, exponent)", Meaning::Two(f64::powf)),
    function("round", 1..=2, "round(x) or round(x, digits)", Meaning::Round),
    function("floor", 1..=1, "floor(x)", Meaning::One(f64::floor)),
    function("ceil", 1..=1, "ceil(x)", Meaning::One(f64::ceil)),
    function("abs", 1..=1, "abs(x)", Meaning::One(f64::abs)),
    function("sqrt", 1..=1, "sqrt(x)", Meaning::One(f64::sqrt)),
    function("exp", 1..=1, "exp(x)", Meaning::One(f64::exp)),
    function("log", 1..=1, "log(x)", Meaning::One(f64::ln)),
    function("log2", 1..=1, "log2(x)", Meaning::One(f64::log2)),
    function("log10", 1..=1, "log10(x)", Meaning::One(f64::log10)),
];

/// What an action asks for.
#[derive(Clone, Copy)]
pub(super) enum Ask {
    Stop,
    Checkpoint,
    Log,
    Put,
    Set,
}

/// The actions.
pub(super) const ACTIONS: [Function<Ask>; 5] = [
    function("stop", 1..=1, "stop('reason')", Ask::Stop),
    function("checkpoint", 0..=0, "checkpoint()", Ask::Checkpoint),
    function("log", 1..=1, "log('text')", Ask::Log),
    function("put", 2..=2, "put('name', value)", Ask::Put),
    function("set", 2..=3, "set('learning_rate', value) or set('learning_rate', value, 'group')", Ask::Set),
];

/// An operator on two numbers, neither of which is NaN.
pub(super) fn operation(name: &str) -> Option<fn(f64, f64) -> f64> {
    Some(match name {
        "+" => |left, right| left + right,
        "-" => |left, right| left - right,
        "*" => |left, right| left * right,
        "/" => |left, right| left / right,
        "%" => |left, right| left % right,
        _ => return None,
    })
}

/// A comparison of two numbers.
pub(super) fn comparison(name: &str) -> Option<fn(f64, f64) -> bool> {
    Some(match name {
        "<" => |left, right| left < right,
        "<=" => |left, right| left <= right,
        ">" => |left, right| left > right,
        ">=" => |left, right| left >= right,
        "==" => |left, right| left == right,
        "!=" => |left, right| left != right,
        _ => return None,
    })
}

/// Half away from zero, at so many digits after the point.
pub(super) fn rounded(value: f64, digits: f64) -> f64 {
    // More digits than a double has would only add the error of the multiplication.
    let factor = 10_f64.powi(digits.clamp(-300.0, 15.0) as i32);
    let scaled = (value * factor).round() / factor;
    if scaled.is_finite() { scaled } else { value }
}
