//! Options of `kubeflow`, and what the environment says where they do not.

use std::path::PathBuf;

use plugin_api::{Error, Result, plugin};
use ureq::http::Uri;

const URL: &str = "KUBEFLOW_TRAINER_SERVER_URL";
const CA_CERT: &str = "KUBEFLOW_TRAINER_SERVER_CA_CERT";
const TOKEN: &str = "KUBEFLOW_TRAINER_SERVER_TOKEN";

/// Options of `kubeflow`. In a pod of a TrainJob, none is needed.
#[plugin]
pub struct Options {
    /// Where statuses are sent; if not given, the environment's `KUBEFLOW_TRAINER_SERVER_URL`. Only `https` is allowed.
    pub url: Option<String>,
    /// The PEM file with the certificates that the server's is checked against; if not given, the one that the
    /// environment's `KUBEFLOW_TRAINER_SERVER_CA_CERT` names.
    pub ca_file: Option<String>,
    /// The file that contains the token; if not given, the one that the environment's `KUBEFLOW_TRAINER_SERVER_TOKEN`
    /// names. It is read anew for each status.
    #[schemars(extend("pattern" = "^(?!eyJ)"))]
    pub token_file: Option<String>,
    /// The time limit of one request. The end of the run waits at most twice as long for the last status.
    #[schemars(range(min = 0.1, max = 60.0))]
    pub timeout_seconds: f64,
    /// Metrics to send; `*` stands for any characters.
    pub include: Vec<String>,
    /// Metrics not to send, of those; `*` stands for any characters.
    pub exclude: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            url: None,
            ca_file: None,
            token_file: None,
            timeout_seconds: 5.0,
            include: vec!["*".to_owned()],
            exclude: vec!["step_seconds".to_owned(), "data_wait_seconds".to_owned()],
        }
    }
}

/// The values of the environment variables; one that is empty counts as missing.
#[derive(Default)]
pub(crate) struct Environment {
    pub(crate) url: Option<String>,
    pub(crate) ca_cert: Option<PathBuf>,
    pub(crate) token: Option<PathBuf>,
}

impl Environment {
    pub(crate) fn read() -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            url: variable(URL).map(|value| value.to_string_lossy().into_owned()),
            ca_cert: variable(CA_CERT).map(PathBuf::from),
            token: variable(TOKEN).map(PathBuf::from),
        }
    }
}

/// A file, and who named it. Messages say that, and never the path: whoever mistakes the path for the token would find
/// the token in the log.
#[derive(Debug)]
pub(crate) struct NamedFile {
    pub(crate) path: PathBuf,
    pub(crate) place: String,
}

/// Where statuses are sent.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) uri: Uri,
    pub(crate) ca: NamedFile,
    pub(crate) token: NamedFile,
}

/// What the plugin does in this run.
#[derive(Debug)]
pub(crate) enum Plan {
    Send(Target),
    /// Nothing: this is no pod of a TrainJob.
    Nothing,
    /// Nothing, since the environment is wrong: the message says how.
    Warn(String),
}

impl Options {
    /// What options and environment say together.
    ///
    /// # Errors
    ///
    /// When the options are wrong. A wrong environment is no error: it is not the run's own.
    pub(crate) fn plan(&self, environment: &Environment) -> Result<Plan> {
        if self.token_file.as_ref().is_some_and(|path| path.starts_with("eyJ")) {
            return Err(Error::new("`token_file` takes the path of a file, not the token"));
        }
        match (&self.url, &environment.url) {
            (Some(url), _) => self.target("`url`", url, environment).map(Plan::Send).map_err(Error::new),
            (None, Some(url)) => {
                let target = self.target(&format!("the environment variable `{URL}`"), url, environment);
                Ok(target.map_or_else(Plan::Warn, Plan::Send))
            }
            (None, None) => Ok(Plan::Nothing),
        }
    }

    fn target(&self, place: &str, url: &str, environment: &Environment) -> std::result::Result<Target, String> {
        let uri = address(url).map_err(|why| format!("{place} {why}"))?;
        let file = |option: &str, given: &Option<String>, variable: &str, value: &Option<PathBuf>| match (given, value)
        {
            (Some(path), _) => Ok(NamedFile { path: path.into(), place: format!("the file of `{option}`") }),
            (None, Some(path)) => Ok(NamedFile { path: path.clone(), place: format!("the file of `{variable}`") }),
            (None, None) => Err(format!(
                "{place} says where to send the status, but neither the option `{option}` nor the environment variable \
                 `{variable}` is set"
            )),
        };
        let ca = file("ca_file", &self.ca_file, CA_CERT, &environment.ca_cert)?;
        let token = file("token_file", &self.token_file, TOKEN, &environment.token)?;
        Ok(Target { uri, ca, token })
    }
}

/// The address, or what is wrong with it. It may contain a password, so the message does not repeat it.
fn address(url: &str) -> std::result::Result<Uri, &'static str> {
    let uri = url.parse::<Uri>().ok();
    let uri = uri.filter(|uri| uri.host().is_some_and(|host| !host.is_empty()) && uri.scheme().is_some());
    let uri = uri.ok_or("is not an address such as `https://HOST:8082/PATH`")?;
    if uri.scheme_str() != Some("https") {
        return Err("must start with `https://`: the token may not be sent unencrypted");
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("contains a user, which a server of Kubeflow Trainer does not take");
    }
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Environment {
        Environment {
            url: Some("https://controller.kubeflow:8082/status".to_owned()),
            ca_cert: Some("/pod/ca.crt".into()),
            token: Some("/pod/token".into()),
        }
    }

    fn options(url: &str) -> Options {
        Options { url: Some(url.to_owned()), ..Options::default() }
    }

    #[test]
    fn a_pod_says_where_to_send_and_options_come_first() {
        let Ok(Plan::Send(target)) = Options::default().plan(&pod()) else { panic!("nothing is sent") };
        assert_eq!(target.uri, "https://controller.kubeflow:8082/status");
        assert_eq!((target.ca.path, target.token.path), ("/pod/ca.crt".into(), "/pod/token".into()));
        assert_eq!(target.token.place, "the file of `KUBEFLOW_TRAINER_SERVER_TOKEN`");
        let own =
            Options { ca_file: Some("ca".to_owned()), token_file: Some("token".to_owned()), ..options("HTTPS://a") };
        for environment in [pod(), Environment::default()] {
            let Ok(Plan::Send(target)) = own.plan(&environment) else { panic!("nothing is sent") };
            assert_eq!(
                (target.uri.host(), target.ca.path, target.token.path),
                (Some("a"), "ca".into(), "token".into())
            );
        }
    }

    #[test]
    fn outside_of_a_pod_nothing_is_sent() {
        let others = Environment { url: None, ..pod() };
        for environment in [Environment::default(), others] {
            assert!(matches!(Options::default().plan(&environment), Ok(Plan::Nothing)));
        }
    }

    #[test]
    fn a_wrong_address_is_an_error_of_the_options_and_a_warning_about_the_environment() {
        for (url, expected) in [
            ("http://secret/", "must start with `https://`"),
            ("ftp://secret/", "must start with `https://`"),
            ("https://ada:secret@host/", "contains a user"),
            ("secret", "is not an address"),
            ("/secret", "is not an address"),
            ("https://", "is not an address"),
            ("", "is not an address"),
        ] {
            let told = options(url).plan(&pod()).unwrap_err().message().to_owned();
            assert!(told.starts_with(&format!("`url` {expected}")) && !told.contains("secret"), "{url}: {told}");
            let environment = Environment { url: Some(url.to_owned()), ..pod() };
            let Ok(Plan::Warn(told)) = Options::default().plan(&environment) else { panic!("{url}: no warning") };
            assert!(told.starts_with(&format!("the environment variable `{URL}` {expected}")), "{told}");
            assert!(!told.contains("secret"), "{told}");
        }
    }

    #[test]
    fn what_else_is_missing_is_named() {
        for (environment, missing) in
            [(Environment { ca_cert: None, ..pod() }, CA_CERT), (Environment { token: None, ..pod() }, TOKEN)]
        {
            let Ok(Plan::Warn(told)) = Options::default().plan(&environment) else { panic!("no warning") };
            assert!(told.ends_with(&format!("nor the environment variable `{missing}` is set")), "{told}");
            assert!(options("https://host").plan(&environment).unwrap_err().message().contains(missing));
        }
    }

    #[test]
    fn a_token_in_place_of_its_file_is_refused_and_not_repeated() {
        let own = Options { token_file: Some("eyJhbGciOi".to_owned()), ..Options::default() };
        let told = own.plan(&pod()).unwrap_err().message().to_owned();
        assert_eq!(told, "`token_file` takes the path of a file, not the token");
    }
}
