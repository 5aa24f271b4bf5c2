//! Programs that `torch.export.save` wrote (`.pt2`): their tensors, and a forward pass through libtorch's operators.
//!
//! ```text
//! archive.rs    the zip file: its parts, and the bytes of its tensors
//! document.rs   models/model.json
//! builder.rs    the nodes of the document as a program for libtorch
//! operators.rs  which operators a program may call
//! ```
//!
//! A program is a stranger's file. It is data: nothing in it is executed but operators of a written list, which touch no file,
//! process or network. The format has no specification; it is what PyTorch 2.9 to 2.15 write (`torch/_export/serde/schema.py`,
//! schema 8).

mod archive;
mod builder;
mod document;
mod error;
mod operators;

use std::path::Path;

use tch::{Device, Kind, Tensor};

use crate::torch::program::{Program, Slot};

pub use error::{ExportedError, Refusal};

/// A program with its tensors.
#[derive(Debug)]
pub struct Exported {
    program: Program,
    /// The parameters and the persistent buffers, by PyTorch's names. One with several names is listed under the first.
    pub tensors: Vec<(String, Tensor)>,
    input: Input,
}

/// What the program takes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Input {
    name: String,
    slot: Slot,
    kind: Kind,
    /// Its sizes; `None` for one that may be any, such as the batch.
    sizes: Vec<Option<i64>>,
}

impl Exported {
    /// The program in a file, with its tensors on `device`.
    ///
    /// # Errors
    ///
    /// See [`ExportedError`].
    pub fn open(path: &Path, device: Device) -> Result<Self, ExportedError> {
        let refused = |refusal| ExportedError::Refused { path: path.to_owned(), refusal };
        let file = std::fs::File::open(path).map_err(|source| ExportedError::Read { path: path.to_owned(), source })?;
        let mut archive = archive::Archive::open(file).map_err(refused)?;
        let document =
            document::Document::read(&archive.text("models/model.json").map_err(refused)?).map_err(refused)?;
        builder::build(&document, &mut archive, device).map_err(refused)
    }

    /// The output for a batch, in training or in evaluation.
    ///
    /// # Errors
    ///
    /// An input of another rank, size or type than the program was exported for, and the failure of an operator.
    pub fn forward(&self, input: &Tensor, training: bool) -> Result<Tensor, Refusal> {
        self.input.check(input)?;
        let mut outputs = self.program.run(&[(self.input.slot, input)], training)?;
        outputs.pop().ok_or_else(|| Refusal::new("it returns no tensor"))
    }
}

impl Input {
    fn check(&self, input: &Tensor) -> Result<(), Refusal> {
        let sizes = input.size();
        let fits = sizes.len() == self.sizes.len()
            && sizes.iter().zip(&self.sizes).all(|(size, wanted)| wanted.is_none_or(|wanted| wanted == *size));
        if fits && input.kind() == self.kind {
            return Ok(());
        }
        let wanted: Vec<String> =
            self.sizes.iter().map(|size| size.map_or_else(|| "any".to_owned(), |size| size.to_string())).collect();
        Err(Refusal::new(format!(
            "its input `{}` is {} of the shape [{}], and it is given {} of the shape {sizes:?}",
            self.name,
            document::dtype_name(self.kind),
            wanted.join(", "),
            document::dtype_name(input.kind()),
        )))
    }
}

#[cfg(test)]
mod archives;
#[cfg(test)]
mod tests;
