//! Well-behaved: asks for every service in every hook, permitted or not, and writes down the answers.

mod matrix;

use plugin_api::{Kind, plugin};

use crate::matrix::Matrix;

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Matrix<false>>(), Kind::of::<Matrix<true>>()];
