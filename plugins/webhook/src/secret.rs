//! Secrets, and where they come from. No message contains one: errors name the place instead.

use plugin_api::{Error, Result};

/// A secret. It has no `Debug`, so that nothing prints it by accident.
pub(crate) struct Secret {
    /// The secret itself.
    pub value: String,
    /// Where it was found, for messages: `the environment variable ‹name›`.
    pub place: String,
}

/// Reads the secret that the options `<what>_env` or `<what>_file` name, if one does.
///
/// # Errors
///
/// When both do; when they contain the secret itself; when it is missing, empty or has several lines.
pub(crate) fn read(what: &str, env: Option<&str>, file: Option<&str>) -> Result<Option<Secret>> {
    let (value, place) = match (env, file) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(Error::new(format!("`{what}_env` and `{what}_file` are both given: remove one")));
        }
        (Some(name), None) => {
            if !is_variable(name) {
                let message = format!("`{what}_env` takes the name of an environment variable, not its value");
                return Err(Error::new(message));
            }
            let place = format!("the environment variable `{name}`");
            let value = std::env::var_os(name);
            let value = value.ok_or_else(|| Error::new(format!("{place} of `{what}_env` is not set")))?;
            // The error of `into_string` is the text itself.
            (value.into_string().map_err(|_| Error::new(format!("{place} is not UTF-8")))?, place)
        }
        (None, Some(path)) => {
            if path.contains("://") || looks_like_a_key(path) {
                return Err(Error::new(format!("`{what}_file` takes the path of a file, not its content")));
            }
            let place = format!("the file `{path}`");
            let value = std::fs::read_to_string(path);
            let problem = |error| Error::from(error).context(format!("cannot read {place} of `{what}_file`"));
            (value.map_err(problem)?, place)
        }
    };
    let value = value.trim();
    if value.is_empty() || value.contains(char::is_whitespace) {
        return Err(Error::new(format!("{place} must contain exactly one word")));
    }
    Ok(Some(Secret { value: value.to_owned(), place }))
}

fn is_variable(name: &str) -> bool {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    !name.is_empty() && name.chars().all(is_part) && !looks_like_a_key(name)
}

fn looks_like_a_key(text: &str) -> bool {
    text.starts_with(crate::signature::PREFIX)
}
