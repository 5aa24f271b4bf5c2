//! Options of `mlflow`.

use std::time::Duration;

use plugin_api::{Error, Result, plugin};

use crate::client::Credentials;

/// Options of `mlflow`.
#[plugin]
pub struct Options {
    /// The tracking server, such as `http://127.0.0.1:5000`; if not given, the environment's `MLFLOW_TRACKING_URI`.
    /// Secrets do not belong here: they come only from `MLFLOW_TRACKING_TOKEN`, or from `MLFLOW_TRACKING_USERNAME` and
    /// `MLFLOW_TRACKING_PASSWORD`.
    pub tracking_uri: Option<String>,
    /// The experiment, created if it does not exist; if not given, the run's name.
    pub experiment: Option<String>,
    /// The name of the run on the server; if not given, the name of its folder.
    pub run_name: Option<String>,
    /// The kinds of published files to upload when the run has ended, as `status.json` lists them.
    pub artifacts: Vec<String>,
    /// The model of the server's registry that gets a version for each ONNX file that is published, once the run has ended;
    /// it is created if it does not exist. Without it, none is registered.
    pub register: Option<String>,
    /// Seconds after which a request has failed; it is then retried.
    #[schemars(range(min = 0.1))]
    pub timeout: f64,
    /// The most seconds that the end of the run waits for unsent messages and files.
    #[schemars(range(min = 0.0))]
    pub drain: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tracking_uri: None,
            experiment: None,
            run_name: None,
            artifacts: ["export", "metrics", "report"].map(str::to_owned).to_vec(),
            register: None,
            timeout: 10.0,
            drain: 30.0,
        }
    }
}

/// The values of the environment variables, read once.
#[derive(Default)]
pub(crate) struct Environment {
    pub(crate) uri: Option<String>,
    pub(crate) credentials: Credentials,
}

impl Environment {
    pub(crate) fn read() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let credentials = match (variable("MLFLOW_TRACKING_TOKEN"), variable("MLFLOW_TRACKING_USERNAME")) {
            (Some(token), _) => Credentials::Token(token),
            (None, Some(user)) => Credentials::User(user, variable("MLFLOW_TRACKING_PASSWORD").unwrap_or_default()),
            (None, None) => Credentials::None,
        };
        Self { uri: variable("MLFLOW_TRACKING_URI"), credentials }
    }
}

impl Options {
    /// The server's address, without a trailing slash.
    pub(crate) fn uri(&self, environment: Option<&str>) -> Result<String> {
        let uri = self.tracking_uri.as_deref().or(environment).ok_or_else(|| {
            Error::new("no tracking server is given: set `tracking_uri`, or `MLFLOW_TRACKING_URI` in the environment")
        })?;
        // The address may contain a password, so the message does not repeat it.
        let Some((scheme, rest)) = uri.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
        else {
            return Err(Error::new(
                "the tracking server's address starts with neither `http://` nor `https://`: for a folder or a \
                 database, run `mlflow server --backend-store-uri …`",
            ));
        };
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if host.contains('@') {
            return Err(Error::new(
                "the tracking server's address contains a user: set `MLFLOW_TRACKING_USERNAME` and \
                 `MLFLOW_TRACKING_PASSWORD` in the environment instead",
            ));
        }
        if host.is_empty() || rest.contains(['?', '#']) {
            return Err(Error::new("the tracking server's address is not `http://HOST:PORT`"));
        }
        Ok(format!("{scheme}://{}", rest.trim_end_matches('/')))
    }

    /// Refuses a name that the server would refuse when the run is over (`_validate_model_name`).
    pub(crate) fn check_register(&self) -> Result<()> {
        match self.register.as_deref() {
            Some(name) if name.trim().is_empty() => {
                Err(Error::new("`register` is empty: name a model of the registry, or leave it out"))
            }
            Some(name) if name.contains(['/', ':']) || name.chars().all(|letter| letter == '.') => {
                Err(Error::new(format!(
                    "`register` = `{name}` is no name for a model: MLflow accepts neither `/` nor `:` in it, nor dots alone"
                )))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn limits(&self) -> Result<[Duration; 2]> {
        let seconds = |name: &str, value| {
            Duration::try_from_secs_f64(value).map_err(|error| Error::from(error).context(format!("`{name}`")))
        };
        Ok([seconds("timeout", self.timeout)?, seconds("drain", self.drain)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_the_registry_would_refuse_is_refused() {
        let check = |name: &str| Options { register: Some(name.to_owned()), ..Options::default() }.check_register();
        check("small digits").unwrap();
        for (name, expected) in [
            (" ", "`register` is empty: name a model of the registry, or leave it out"),
            ("a/b", "`register` = `a/b` is no name for a model: MLflow accepts neither"),
            ("a:b", "`register` = `a:b` is no name for a model"),
            ("..", "`register` = `..` is no name for a model"),
        ] {
            let told = check(name).unwrap_err().message().to_owned();
            assert!(told.starts_with(expected), "{told}");
        }
    }

    #[test]
    fn addresses_are_checked_and_never_repeated() {
        let uri = |uri: &str| Options { tracking_uri: Some(uri.to_owned()), ..Options::default() }.uri(None);
        assert_eq!(uri("https://host:1/path/").unwrap(), "https://host:1/path");
        assert_eq!(Options::default().uri(Some("http://other")).unwrap(), "http://other");
        for (address, expected) in [
            ("file:///secret", "starts with neither"),
            ("secret", "starts with neither"),
            ("http://user:secret@host", "contains a user"),
            ("http:///secret", "is not `http://HOST:PORT`"),
            ("http://host?key=secret", "is not `http://HOST:PORT`"),
        ] {
            let told = uri(address).unwrap_err().message().to_owned();
            assert!(told.contains(expected) && !told.contains("secret"), "{told}");
        }
        assert!(Options::default().uri(None).unwrap_err().message().contains("MLFLOW_TRACKING_URI"));
    }
}
