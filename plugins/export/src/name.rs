//! Names of files.

use plugin_api::{Error, Result};

/// A file name with `{epoch}` and `{step}` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: String,
}

impl Template {
    /// Checks a name of the options.
    ///
    /// # Errors
    ///
    /// When it is empty, leads into another folder, or has other braces.
    pub fn new(text: &str) -> Result<Template> {
        let plain = text.replace("{epoch}", "0").replace("{step}", "0");
        let problem = match plain.as_str() {
            "" | "." | ".." => "is not a file name",
            name if name.contains(['/', '\\', '\0']) => "must not lead into another folder",
            name if name.contains(['{', '}']) => "can only have `{epoch}` and `{step}` in braces",
            name if name.starts_with('.') => "must not be hidden: readers of the folder would not see it",
            _ => return Ok(Template { text: text.to_owned() }),
        };
        Err(Error::new(format!("`name` = `{text}` {problem}")))
    }

    /// The name at a position: the epoch has four digits, the global step eight, as in checkpoints.
    pub fn at(&self, epoch: u64, global_step: u64) -> String {
        let (epoch, step) = (format!("{epoch:04}"), format!("{global_step:08}"));
        self.text.replace("{epoch}", &epoch).replace("{step}", &step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_position_and_stay_in_their_folder() {
        assert_eq!(Template::new("model-{epoch}-{step}").unwrap().at(3, 84), "model-0003-00000084");
        for name in ["", "..", "a/b", "{val_loss}", ".model", "a\\b"] {
            assert!(Template::new(name).is_err(), "{name}");
        }
    }
}
