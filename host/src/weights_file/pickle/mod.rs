//! The pickles of `torch.save`: a machine that builds tensors and containers of numbers and texts, and nothing else.
//!
//! ```text
//! machine.rs   the stack machine: protocols 2 to 5 of Python's pickle
//! globals.rs   the names that a pickle may refer to
//! input.rs     its bytes
//! state.rs     the state dict in what was built
//! ```
//!
//! To unpickle is to run a program. This machine has none of the operations that would call something: a name that a
//! pickle refers to is compared with a written list, and a call of one of them is answered here. A pickle that asks for
//! more is refused by that name, as `torch.load(weights_only=True)` does.
//!
//! Values are numbers into lists of the machine, so that nothing here recurses, and what is nested a million levels
//! deep, or holds itself, is as good as any. The lists have limits: see [`PickleError::Limit`].

mod error;
mod globals;
mod input;
mod machine;
mod state;
#[cfg(test)]
mod tests;

pub use error::PickleError;
pub(super) use machine::{Storage, read};
