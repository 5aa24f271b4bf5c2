//! Requests to a tracking server, over its REST API (`mlflow/protos/service.proto`).

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value as Json;
use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, AsSendBody, Body};

/// The most bytes that are read of an answer; one about a run with thousands of metrics is smaller.
const LONGEST_ANSWER: u64 = 1 << 24;

/// The characters of a path that are not percent-encoded.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.');

/// The credentials. Without `Debug`, so that no message can contain them.
#[derive(Clone, Default)]
pub(crate) enum Credentials {
    #[default]
    None,
    Token(String),
    User(String, String),
}

/// Why a request did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server is unreachable or busy: the same request may succeed later, not before the given time.
    Unavailable(String, Option<Duration>),
    /// It will never succeed.
    Refused(String),
    /// Nothing of that name exists.
    Missing(String),
}

/// A server and the credentials for it.
pub(crate) struct Client {
    agent: Agent,
    base: String,
    authorization: Option<String>,
}

impl Client {
    pub(crate) fn new(base: String, credentials: &Credentials, timeout: Duration) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            // No redirects: another server's answer does not count, and it must not get the secrets.
            .max_redirects(0)
            .build();
        let authorization = match credentials {
            Credentials::None => None,
            Credentials::Token(token) => Some(format!("Bearer {token}")),
            Credentials::User(user, password) => {
                Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
            }
        };
        Self { agent: config.into(), base, authorization }
    }

    /// `POST` to a method of the API.
    pub(crate) fn post(&self, method: &str, body: &Json) -> Result<Json, Failure> {
        let request = self.agent.post(self.method(method));
        let request = match &self.authorization {
            Some(authorization) => request.header(header::AUTHORIZATION, authorization),
            None => request,
        };
        json(method, request.send_json(body))
    }

    /// `GET` from a method of the API.
    pub(crate) fn get(&self, method: &str, query: (&str, &str)) -> Result<Json, Failure> {
        let request = self.agent.get(self.method(method)).query(query.0, query.1);
        let request = match &self.authorization {
            Some(authorization) => request.header(header::AUTHORIZATION, authorization),
            None => request,
        };
        json(method, request.call())
    }

    /// Uploads a file through the server, to a path under its artifacts.
    pub(crate) fn upload(&self, path: &str, file: &Path) -> Result<(), Failure> {
        let shown = file.display();
        let open = File::open(file).map_err(|error| Failure::Refused(format!("cannot read `{shown}`: {error}")))?;
        self.put(path, &shown.to_string(), open)
    }

    /// Uploads what `shown` names to people, to a path under the artifacts.
    pub(crate) fn put(&self, path: &str, shown: &str, content: impl AsSendBody) -> Result<(), Failure> {
        let address = format!("{}/api/2.0/mlflow-artifacts/artifacts/{}", self.base, utf8_percent_encode(path, PATH));
        let request = self.agent.put(address).content_type("application/octet-stream");
        let request = match &self.authorization {
            Some(authorization) => request.header(header::AUTHORIZATION, authorization),
            None => request,
        };
        json(&format!("the upload of `{shown}`"), request.send(content)).map(drop)
    }

    fn method(&self, method: &str) -> String {
        format!("{}/api/2.0/mlflow/{method}", self.base)
    }
}

/// The answer's JSON, or the reason of the failure.
fn json(what: &str, answer: Result<Response<Body>, ureq::Error>) -> Result<Json, Failure> {
    let mut answer = match answer {
        Ok(answer) => answer,
        Err(ureq::Error::BadUri(error)) => return Err(Failure::Refused(format!("{what}: {error}"))),
        Err(ureq::Error::Rustls(error)) => return Err(Failure::Refused(format!("{what}: {error}"))),
        Err(error) => return Err(Failure::Unavailable(format!("{what}: {error}"), None)),
    };
    let status = answer.status();
    let wait = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let text = answer.body_mut().with_config().limit(LONGEST_ANSWER).read_to_string();
    let text = text.map_err(|error| Failure::Unavailable(format!("{what}: {error}"), None))?;
    let json: Json = serde_json::from_str(&text).unwrap_or_default();
    if status.is_success() {
        return Ok(json);
    }
    let code = json["error_code"].as_str().unwrap_or_default();
    let message: String = json["message"].as_str().unwrap_or_default().chars().take(300).collect();
    let reason = format!("{what}: the server says {status} {code} {message}").trim_end().to_owned();
    Err(match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            Failure::Unavailable(reason, wait.map(Duration::from_secs))
        }
        status if status.is_server_error() => Failure::Unavailable(reason, wait.map(Duration::from_secs)),
        StatusCode::NOT_FOUND if code == "RESOURCE_DOES_NOT_EXIST" => Failure::Missing(reason),
        _ => Failure::Refused(reason),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::server::{Server, usual};

    #[test]
    fn credentials_go_to_the_server_alone() {
        let other = Server::start(|request, _| usual(request));
        let (known, moved) = (other.uri(), format!("location: {}/elsewhere\r\n", other.uri()).leak() as &'static str);
        let server = Server::start(move |request, before| match before {
            0 | 1 => ("403 Forbidden", "", json!({ "error_code": "PERMISSION_DENIED", "message": "no" })),
            2 => ("307 Temporary Redirect", moved, json!({})),
            _ => usual(request),
        });
        let user = Credentials::User("ada".to_owned(), "secret".to_owned());
        for (credentials, expected) in
            [(Credentials::Token("secret".to_owned()), "Bearer secret"), (user.clone(), "Basic YWRhOnNlY3JldA==")]
        {
            let client = Client::new(server.uri(), &credentials, Duration::from_secs(5));
            let Err(Failure::Refused(reason)) = client.get("runs/get", ("run_id", "a b")) else {
                panic!("not refused")
            };
            assert_eq!(reason, "runs/get: the server says 403 Forbidden PERMISSION_DENIED no");
            assert_eq!(server.requests().pop().map(|request| request.authorization).as_deref(), Some(expected));
        }
        let client = Client::new(server.uri(), &user, Duration::from_secs(5));
        assert!(matches!(client.post("runs/create", &json!({})), Err(Failure::Refused(_))));
        assert!(other.lines().is_empty(), "{known} was asked");
    }
}
