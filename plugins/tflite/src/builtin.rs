//! Operators of the runtime: their numbers, the tables of their options, and the versions that introduced them.
//!
//! The numbers are from the format's schema; versions and the runtimes that support them are from the format's own
//! versioning tables (`op_version`, `runtime_version`).

use crate::program::{Element, Operator, Tensor};

/// A scalar in a table of options.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scalar {
    I8(i8),
    I32(i32),
    F32(f32),
    Bool(bool),
}

/// The activation that an operator applies to its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Activation {
    #[default]
    None,
    Relu,
    /// From 0 to 6.
    Relu6,
}

impl Activation {
    pub(crate) fn code(self) -> i8 {
        match self {
            Activation::None => 0,
            Activation::Relu => 1,
            Activation::Relu6 => 3,
        }
    }
}

/// How a window handles the border.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Padding {
    Same,
    Valid,
}

impl Padding {
    pub(crate) fn scalar(self) -> Scalar {
        Scalar::I8(match self {
            Padding::Same => 0,
            Padding::Valid => 1,
        })
    }
}

macro_rules! builtins {
    ($($name:ident = $code:literal, options $table:literal, activation $slot:expr;)*) => {
        /// An operator of the runtime.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Builtin { $($name,)* }

        impl Builtin {
            /// Its name in this crate.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Builtin::$name => stringify!($name),)* }
            }

            /// Its number.
            pub(crate) fn code(self) -> i32 {
                match self { $(Builtin::$name => $code,)* }
            }

            /// The number of its options in their union; 0 if it has none.
            pub(crate) fn options_table(self) -> u8 {
                match self { $(Builtin::$name => $table,)* }
            }

            /// The slot of the fused activation in its options.
            pub(crate) fn activation_slot(self) -> Option<u16> {
                match self { $(Builtin::$name => $slot,)* }
            }
        }
    };
}

builtins! {
    Add = 0, options 11, activation Some(0);
    AveragePool2d = 1, options 5, activation Some(5);
    Concatenation = 2, options 10, activation None;
    Conv2d = 3, options 1, activation Some(3);
    DepthwiseConv2d = 4, options 2, activation Some(4);
    DepthToSpace = 5, options 94, activation None;
    Dequantize = 6, options 38, activation None;
    FullyConnected = 9, options 8, activation Some(0);
    Logistic = 14, options 0, activation None;
    MaxPool2d = 17, options 5, activation Some(5);
    Mul = 18, options 21, activation Some(0);
    Relu = 19, options 0, activation None;
    Relu6 = 21, options 0, activation None;
    Reshape = 22, options 17, activation None;
    ResizeBilinear = 23, options 15, activation None;
    Softmax = 25, options 9, activation None;
    Tanh = 28, options 0, activation None;
    Pad = 34, options 22, activation None;
    Gather = 36, options 23, activation None;
    Transpose = 39, options 26, activation None;
    Mean = 40, options 27, activation None;
    Sub = 41, options 28, activation None;
    Div = 42, options 29, activation Some(0);
    StridedSlice = 45, options 32, activation None;
    Split = 49, options 35, activation None;
    Cast = 53, options 37, activation None;
    Maximum = 55, options 39, activation None;
    ArgMax = 56, options 40, activation None;
    Minimum = 57, options 39, activation None;
    PadV2 = 60, options 43, activation None;
    Greater = 61, options 44, activation None;
    Slice = 65, options 48, activation None;
    Sqrt = 75, options 0, activation None;
    Rsqrt = 76, options 0, activation None;
    Pow = 78, options 56, activation None;
    Pack = 83, options 59, activation None;
    Unpack = 88, options 64, activation None;
    ResizeNearestNeighbor = 97, options 74, activation None;
    LeakyRelu = 98, options 75, activation None;
    SquaredDifference = 99, options 76, activation None;
    Elu = 111, options 0, activation None;
    Quantize = 114, options 89, activation None;
    HardSwish = 117, options 91, activation None;
    BatchMatmul = 126, options 101, activation None;
    Gelu = 150, options 116, activation None;
}

/// The version of an operator that `operator` needs: with a lower one, an old runtime would compute something else.
pub(crate) fn version(operator: &Operator, tensors: &[Tensor]) -> i32 {
    let input = |place: usize| operator.inputs.get(place).and_then(|input| tensors.get((*input)?));
    let rank = input(0).map_or(0, |tensor| tensor.shape.len());
    let is_integer = input(0).is_some_and(|tensor| tensor.element == Element::I8);
    match operator.builtin {
        Builtin::Conv2d => {
            let channels = |place: usize| input(place).and_then(|tensor| tensor.shape.last().copied());
            match (channels(0) == channels(1), is_integer) {
                (false, _) => 6,
                (true, true) => 3,
                (true, false) => 1,
            }
        }
        Builtin::DepthwiseConv2d if is_integer => 3,
        Builtin::DepthwiseConv2d => {
            let dilated = operator.options.iter().any(|(slot, value)| *slot >= 5 && *value != Scalar::I32(1));
            if dilated { 2 } else { 1 }
        }
        Builtin::FullyConnected if operator.inputs.get(2).copied().flatten().is_none() => 6,
        Builtin::FullyConnected if operator.options.contains(&(2, Scalar::Bool(true))) => 5,
        Builtin::FullyConnected if is_integer => 4,
        Builtin::Transpose if rank > 5 => 6,
        Builtin::Transpose if rank > 4 => 4,
        Builtin::Pad | Builtin::PadV2 if rank > 4 => 4,
        Builtin::Slice if rank > 4 => 5,
        Builtin::StridedSlice if rank > 4 => 4,
        Builtin::ResizeBilinear | Builtin::ResizeNearestNeighbor => 3,
        Builtin::Quantize | Builtin::Dequantize if is_integer => 2,
        Builtin::Dequantize if input(0).is_some_and(|tensor| tensor.element == Element::F16) => 3,
        Builtin::Add
        | Builtin::AveragePool2d
        | Builtin::Concatenation
        | Builtin::DepthToSpace
        | Builtin::Gather
        | Builtin::Logistic
        | Builtin::MaxPool2d
        | Builtin::Mul
        | Builtin::Pad
        | Builtin::PadV2
        | Builtin::Relu
        | Builtin::Relu6
        | Builtin::Slice
        | Builtin::Softmax
        | Builtin::StridedSlice
        | Builtin::Tanh
        | Builtin::Transpose
            if is_integer =>
        {
            2
        }
        _ => 1,
    }
}

/// The first runtime that supports an operator in a version, as `[major, minor, patch]`.
pub(crate) fn first_runtime(builtin: Builtin, version: i32) -> [u8; 3] {
    match (builtin, version) {
        (Builtin::Gelu, _) | (Builtin::Conv2d, 6) => [2, 9, 0],
        (Builtin::Pad | Builtin::PadV2, 4) | (Builtin::Transpose, 6) => [2, 6, 0],
        (Builtin::Slice, 5) => [2, 5, 0],
        (Builtin::BatchMatmul, _) | (Builtin::ResizeNearestNeighbor, 3) | (Builtin::Transpose, 4) => [2, 3, 0],
        (Builtin::ResizeBilinear, 3) => [2, 2, 0],
        (Builtin::FullyConnected, 6) | (Builtin::DepthToSpace, _) | (Builtin::StridedSlice, 4) => [2, 1, 0],
        (Builtin::FullyConnected, 5) => [2, 0, 0],
        (Builtin::HardSwish, _) | (Builtin::Dequantize, 3) | (Builtin::Quantize, 2) => [1, 15, 0],
        (Builtin::Conv2d | Builtin::DepthwiseConv2d, 3) | (Builtin::FullyConnected, 4) => [1, 14, 0],
        (Builtin::Quantize | Builtin::Dequantize, _) => [1, 14, 0],
        (Builtin::DepthwiseConv2d, 2) => [1, 12, 0],
        // Operators with eight bits that had only floats before.
        (_, 2) => [1, 14, 0],
        (Builtin::Logistic | Builtin::Tanh | Builtin::Elu | Builtin::Slice | Builtin::Greater, _) => [1, 14, 0],
        (Builtin::LeakyRelu | Builtin::SquaredDifference, _) => [1, 13, 1],
        (Builtin::Pack | Builtin::Unpack, _) => [1, 11, 0],
        (Builtin::Rsqrt | Builtin::Sqrt | Builtin::Pow, _) => [1, 10, 0],
        (Builtin::PadV2 | Builtin::ArgMax, _) => [1, 9, 0],
        (Builtin::Transpose | Builtin::Mean | Builtin::Sub | Builtin::Div | Builtin::Gather, _) => [1, 6, 0],
        (Builtin::StridedSlice, _) => [1, 6, 0],
        _ => [1, 5, 0],
    }
}
