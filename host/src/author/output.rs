//! The standard output of these commands.

use crate::report::{Problem, Problems};

/// Output that cannot be written. A reader that stopped reading (`… | head`) is not an error.
pub(super) fn cannot_write(error: std::io::Error) -> Problems {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    Problem::new("cannot write the output").with_cause(&error).into()
}
