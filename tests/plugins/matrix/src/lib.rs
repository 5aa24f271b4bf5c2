//! Well-behaved: calls every service in every hook, permitted or not, and records the answers.

mod matrix;

use plugin_api::{Kind, plugin};

use crate::matrix::Matrix;

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Matrix<false>>(), Kind::of::<Matrix<true>>()];
