//! Sends notices: attempts, waits between them, and when to give up.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::ErrorKind;
use std::time::Duration;

use jiff::Timestamp;
use notice::{Deadline, Notice, Template};
use ureq::Agent;
use ureq::http::{HeaderMap, StatusCode, Uri};

use crate::endpoint::Endpoint;
use crate::payload::Format;
use crate::signature::Signer;

/// The longest wait between two attempts, unless the server asks for more.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// The longest wait that a server may ask for. Other notices wait for as long.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(600);

/// Why nothing is sent to a server that cannot prove who it is.
const NO_TLS: &str = "the server has no trusted certificate for its name, or does not use TLS";

/// The most redirects that are followed in a row.
const MOST_REDIRECTS: usize = 3;

/// Sends notices to one server.
pub struct Delivery {
    pub(crate) endpoint: Endpoint,
    pub(crate) signer: Option<Signer>,
    pub(crate) format: Format,
    pub(crate) text: Option<Template>,
    pub(crate) timeout: Duration,
    pub(crate) retries: u32,
    pub(crate) backoff: Duration,
    pub(crate) agent: Agent,
    /// Warn once only: a server that is down for a night would fill the log.
    pub(crate) warned: bool,
    /// The server has said that this address no longer exists.
    pub(crate) gone: bool,
}

/// The result of an attempt. Its texts contain nothing of the address.
enum Attempt {
    Delivered,
    /// Another attempt may succeed; the server may have said when.
    Again(String, Option<Duration>),
    Never(String),
}

/// The same in each attempt, so that a receiver recognizes a message that it has already seen.
struct Message {
    id: String,
    body: String,
}

/// An agent that follows no redirect by itself, and uses no proxy for addresses of this machine.
pub(crate) fn agent(endpoint: &Endpoint) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("host-webhook/", env!("CARGO_PKG_VERSION")));
    let config = if endpoint.is_loopback() { config.proxy(None) } else { config };
    config.build().new_agent()
}

impl Delivery {
    /// Delivers a notice, or warns once why notices are not delivered; returns whether it did.
    pub fn deliver(&mut self, notice: &Notice, deadline: &Deadline) -> bool {
        match self.attempts(notice, deadline) {
            Ok(()) => true,
            Err(why) => {
                if !self.warned {
                    let (event, place) = (notice.event.name(), &self.endpoint.place);
                    plugin_api::tracing::warn!(
                        "the notice `{event}` was not delivered to the URL in {place}: {why}; this is logged only once"
                    );
                    self.warned = true;
                }
                false
            }
        }
    }

    fn attempts(&mut self, notice: &Notice, deadline: &Deadline) -> Result<(), String> {
        let id = format!("msg_{:016x}{:016x}", random(), random());
        let text = self.text.as_ref().map(|text| text.render(notice));
        let message = Message { body: self.format.payload(notice, text, &id).to_string(), id };
        let mut attempt = 0;
        loop {
            if self.gone {
                return Err("the server answered `410 Gone` earlier".to_owned());
            }
            let (why, retry_after) = match self.attempt(&message, deadline) {
                Attempt::Delivered => return Ok(()),
                Attempt::Never(why) => return Err(why),
                Attempt::Again(why, _) if attempt == self.retries => {
                    return Err(format!("{why}, in the last of {} attempts", attempt + 1));
                }
                Attempt::Again(why, retry_after) => (why, retry_after.unwrap_or_default()),
            };
            if retry_after > LONGEST_RETRY_AFTER {
                return Err(format!("{why} and asks to wait for {} s", retry_after.as_secs()));
            }
            if !deadline.sleep(self.wait(attempt).max(retry_after)) {
                return Err(format!("{why}, and the run ended before the next attempt"));
            }
            attempt += 1;
        }
    }

    /// The wait after an attempt, counted from 0: it doubles each time, less a random part of up to a half, so that
    /// runs that failed together do not retry together.
    fn wait(&self, attempt: u32) -> Duration {
        let full = self.backoff.saturating_mul(1 << attempt.min(16)).min(LONGEST_BACKOFF);
        full.mul_f64(1.0 - 0.5 * (random() as f64 / u64::MAX as f64))
    }

    fn attempt(&mut self, message: &Message, deadline: &Deadline) -> Attempt {
        let mut uri = self.endpoint.uri.clone();
        for _ in 0..=MOST_REDIRECTS {
            let (status, headers) = match self.post(uri, message, deadline) {
                Ok(response) => response,
                Err(error) => return failed(&error),
            };
            if status.is_success() {
                return Attempt::Delivered;
            }
            if !status.is_redirection() {
                self.gone |= status == StatusCode::GONE;
                return refused(status, &headers);
            }
            let location = headers.get("location").and_then(|location| location.to_str().ok()).unwrap_or_default();
            uri = match self.endpoint.redirected(location) {
                Some(uri) => uri,
                None => {
                    return Attempt::Never(format!(
                        "{} redirects to another server, which is not followed",
                        shown(status)
                    ));
                }
            };
        }
        Attempt::Never(format!("the server redirected more than {MOST_REDIRECTS} times"))
    }

    fn post(&self, uri: Uri, message: &Message, deadline: &Deadline) -> Result<(StatusCode, HeaderMap), ureq::Error> {
        let timeout = deadline.remaining().map_or(self.timeout, |remaining| remaining.min(self.timeout));
        let timestamp = Timestamp::now().as_second();
        let mut request = self
            .agent
            .post(uri)
            .config()
            .timeout_global(Some(timeout))
            .build()
            .header("content-type", self.format.content_type())
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", timestamp.to_string());
        if let Some(signer) = &self.signer {
            request = request.header("webhook-signature", signer.sign(&message.id, timestamp, &message.body));
        }
        // Do not read the rest of the answer: it may repeat the address.
        let (head, _) = request.send(&message.body)?.into_parts();
        Ok((head.status, head.headers))
    }
}

/// Random bits of the system, which seed the hashers of `std`.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// An answer that is neither a success nor a redirect.
fn refused(status: StatusCode, headers: &HeaderMap) -> Attempt {
    let why = format!("the server answered {}", shown(status));
    let is_passing =
        matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS);
    if !is_passing && !status.is_server_error() {
        return Attempt::Never(why);
    }
    let retry_after = headers.get("retry-after").and_then(|value| value.to_str().ok());
    Attempt::Again(why, retry_after.and_then(|value| wait_of(value, Timestamp::now())))
}

/// No answer. The texts are written here: the client's may name the server.
fn failed(error: &ureq::Error) -> Attempt {
    use ureq::Error;
    let why = match error {
        Error::Timeout(_) => "the server took too long".to_owned(),
        Error::HostNotFound => "the server's name cannot be resolved".to_owned(),
        Error::ConnectionFailed => "the server cannot be reached".to_owned(),
        // The client's error for bytes that are not TLS.
        Error::Io(error) if error.kind() == ErrorKind::InvalidData => return Attempt::Never(NO_TLS.to_owned()),
        Error::Io(error) => format!("the connection failed: {}", error.kind()),
        Error::Protocol(_) | Error::LargeResponseHeader(..) => "the answer is not HTTP".to_owned(),
        Error::Tls(_) | Error::Rustls(_) | Error::Pem(_) => return Attempt::Never(NO_TLS.to_owned()),
        Error::InvalidProxyUrl => return Attempt::Never("the proxy's URL is not valid".to_owned()),
        Error::ConnectProxyFailed(_) => "the proxy cannot be reached".to_owned(),
        _ => return Attempt::Never("the request could not be made".to_owned()),
    };
    Attempt::Again(why, None)
}

fn shown(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("`{} {reason}`", status.as_u16()),
        None => format!("`{}`", status.as_u16()),
    }
}

/// The wait that a `Retry-After` asks for: seconds, or a date (RFC 9110, section 10.2.3).
fn wait_of(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_server_says_when_in_seconds_or_with_a_date() {
        let now: Timestamp = "1994-11-06T08:49:07Z".parse().unwrap();
        for (value, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(wait_of(value, now), seconds.map(Duration::from_secs), "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_value_is_a_wait_or_none(value: String) {
            wait_of(&value, Timestamp::UNIX_EPOCH);
        }
    }
}
