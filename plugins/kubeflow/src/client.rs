//! Requests to the controller.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::http::{HeaderValue, StatusCode, Uri, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use crate::options::{NamedFile, Target};

/// The most bytes that are read of a file: tokens have some thousands, bundles of certificates some hundred thousands.
const LONGEST_FILE: u64 = 1 << 22;

/// Why the server is not trusted.
const NO_TLS: &str = "the server has no certificate that the CA file vouches for, or does not use TLS";

/// The controller, and what is needed to be heard by it.
pub(crate) struct Client {
    target: Target,
    timeout: Duration,
    /// The agent, and the content of the CA file that it was made from: a long run may outlive a certificate.
    agent: Option<(Vec<u8>, Agent)>,
}

impl Client {
    pub(crate) fn new(target: Target, timeout: Duration) -> Self {
        Self { target, timeout, agent: None }
    }

    /// Sends the body of a status, or says why it did not. What it says is written here, since the client's own
    /// messages and the server's could repeat parts of the request.
    pub(crate) fn send(&mut self, body: &str) -> Result<(), String> {
        let authorization = authorization(&self.target.token)?;
        let (uri, timeout) = (self.target.uri.clone(), self.timeout);
        let request = self.agent()?.post(uri).config().timeout_global(Some(timeout)).build();
        let request = request.header(header::CONTENT_TYPE, "application/json");
        match request.header(header::AUTHORIZATION, authorization).send(body) {
            Ok(response) => judged(response.status()),
            Err(error) => Err(failed(&error)),
        }
    }

    fn agent(&mut self) -> Result<&Agent, String> {
        let pem = read(&self.target.ca)?;
        let agent = match self.agent.take().filter(|(known, _)| *known == pem) {
            Some((_, agent)) => agent,
            None => trusting(&pem, is_loopback(&self.target.uri))
                .ok_or_else(|| format!("{} contains no certificate in PEM", self.target.ca.place))?,
        };
        Ok(&self.agent.insert((pem, agent)).1)
    }
}

/// Whether the address is on this machine: then no proxy is used.
fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// An agent that trusts these certificates alone.
fn trusting(pem: &[u8], is_loopback: bool) -> Option<Agent> {
    let certificates = parse_pem(pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let certificates: Vec<_> = certificates.collect();
    if certificates.is_empty() {
        return None;
    }
    let tls = TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(certificates))).build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .https_only(true)
        .http_status_as_error(false)
        // No redirects: another server must not get the token.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("host-kubeflow/", env!("CARGO_PKG_VERSION")));
    let config = if is_loopback { config.proxy(None) } else { config };
    Some(config.build().new_agent())
}

/// The header with the token, which is read anew: it is valid for an hour or less.
fn authorization(file: &NamedFile) -> Result<HeaderValue, String> {
    let content = read(file)?;
    let token = std::str::from_utf8(&content).unwrap_or_default().trim();
    // A token is Base64 with dots. Neither a broken file nor a second line may become part of a request.
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{} does not contain exactly one token", file.place));
    }
    let header = HeaderValue::from_str(&format!("Bearer {token}"));
    let mut header = header.map_err(|_| format!("{} contains no valid token", file.place))?;
    header.set_sensitive(true);
    Ok(header)
}

fn read(file: &NamedFile) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let read = File::open(&file.path).and_then(|open| open.take(LONGEST_FILE).read_to_end(&mut content));
    read.map_err(|error| format!("cannot read {}: {error}", file.place))?;
    Ok(content)
}

/// What an answer means.
fn judged(status: StatusCode) -> Result<(), String> {
    let meaning = match status {
        status if status.is_success() => return Ok(()),
        status if status.is_redirection() => "; redirects are not followed",
        StatusCode::FORBIDDEN => "; the token must be of a pod of this TrainJob",
        StatusCode::NOT_FOUND => "; is there a TrainJob of this name, and is the feature gate `TrainJobStatus` on?",
        _ => "",
    };
    Err(format!("the server answered `{status}`{meaning}"))
}

/// Why there is no answer.
fn failed(error: &ureq::Error) -> String {
    use ureq::Error;
    match error {
        Error::Timeout(_) => "the server took too long".to_owned(),
        Error::HostNotFound => "the server's name cannot be resolved".to_owned(),
        Error::ConnectionFailed => "the server cannot be reached".to_owned(),
        // The client's error for bytes that are not TLS.
        Error::Io(error) if error.kind() == ErrorKind::InvalidData => NO_TLS.to_owned(),
        Error::Io(error) => format!("the connection failed: {}", error.kind()),
        Error::Protocol(_) | Error::LargeResponseHeader(..) => "the answer is not HTTP".to_owned(),
        Error::Tls(_) | Error::Rustls(_) | Error::Pem(_) => NO_TLS.to_owned(),
        Error::InvalidProxyUrl => "the proxy's URL is not valid".to_owned(),
        Error::ConnectProxyFailed(_) => "the proxy cannot be reached".to_owned(),
        _ => "the request could not be made".to_owned(),
    }
}
