//! What the server answers, and to whom.

use std::borrow::Cow;
use std::sync::Arc;

use chart::Page;
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::{Body, Bytes};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use plugin_api::protocol::Control;
use plugin_api::{ErrorKind, Remote};
use serde::Deserialize;

use crate::board::{Board, WantedRate};
use crate::exposition::{self, Exposition};
use crate::feed::Feed;
use crate::names::Names;
use crate::token::Token;

/// The longest body of a request, in bytes.
const LONGEST_BODY: usize = 1024;

/// An answer: a text, or the page's updates.
pub(crate) type Answer = Response<Either<Full<Bytes>, Feed>>;

/// The site: one page, its updates, and two buttons; and what programs ask for.
pub(crate) struct Site {
    board: Arc<Board>,
    remote: Remote,
    names: Names,
    token: Token,
    page: Bytes,
    policy: HeaderValue,
}

/// The request of the learning-rate box.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateRequest {
    #[serde(default)]
    group: Option<String>,
    value: f64,
}

/// Why a request is rejected.
struct Refusal(StatusCode, &'static str);

const NOT_ALLOWED: Refusal = Refusal(StatusCode::METHOD_NOT_ALLOWED, "this method is not allowed here");

impl Site {
    /// The site, under `names` and protected by `token`; `nonce` is in the policy and in the page's scripts, so that no
    /// others run.
    pub(crate) fn new(
        board: Arc<Board>,
        remote: Remote,
        names: Names,
        token: Token,
        nonce: &Token,
    ) -> plugin_api::Result<Self> {
        let nonce = nonce.text();
        let policy = format!(
            "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        let page = Page {
            title: "Dashboard",
            nonce,
            style: include_str!("live.css"),
            header: include_str!("controls.html"),
            sections: include_str!("console.html"),
            script: include_str!("live.js"),
            footer: if names.is_local() {
                "Served by the callback <code>dashboard</code> while the run continues; nothing leaves this machine."
            } else {
                "Served by the callback <code>dashboard</code> while the run continues."
            },
            ..Page::default()
        };
        let policy = HeaderValue::from_str(&policy).map_err(|error| plugin_api::Error::new(error.to_string()))?;
        Ok(Self { board, remote, names, token, page: page.html().into(), policy })
    }

    /// Answers a request.
    pub(crate) async fn answer<B>(&self, request: Request<B>) -> Answer
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut answer = match self.route(request).await {
            Ok(answer) => answer,
            Err(Refusal(status, message)) => text(status, format!("{message}\n")),
        };
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        for (name, value) in [
            (header::CACHE_CONTROL, "no-store"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::X_FRAME_OPTIONS, "DENY"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        answer
    }

    async fn route<B>(&self, request: Request<B>) -> Result<Answer, Refusal>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.admit(request.headers())?;
        // Before the token: who asks whether the process lives need not know more.
        if request.uri().path() == "/health" {
            return match *request.method() {
                Method::GET | Method::HEAD => Ok(text(StatusCode::OK, "ok")),
                _ => Err(NOT_ALLOWED),
            };
        }
        self.check_token(request.uri(), request.headers())?;
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/") => {
                let page = Response::builder().header(header::CONTENT_TYPE, "text/html; charset=utf-8");
                Ok(complete(page, Either::Left(Full::new(self.page.clone()))))
            }
            (&Method::GET, "/events") => {
                let stream = Response::builder().header(header::CONTENT_TYPE, "text/event-stream");
                Ok(complete(stream, Either::Right(Feed::new(Arc::clone(&self.board)))))
            }
            (&Method::GET, "/metrics") => {
                // Written outside the lock.
                let exposition = Exposition::of(&self.board.shown());
                let metrics = Response::builder().header(header::CONTENT_TYPE, exposition::CONTENT_TYPE);
                Ok(complete(metrics, Either::Left(Full::new(exposition.text().into()))))
            }
            (&Method::POST, "/stop") => self.stop(),
            (&Method::POST, "/learning-rate") => self.set_rate(request).await,
            (_, "/" | "/events" | "/metrics" | "/stop" | "/learning-rate") => Err(NOT_ALLOWED),
            _ => Err(Refusal(StatusCode::NOT_FOUND, "there is no such page")),
        }
    }

    /// Accepts requests that use one of the page's names and come from no other site.
    ///
    /// A site whose name leads to this machine (DNS rebinding) is visible in `Host`; a script of another site in the
    /// user's browser is visible in `Origin`.
    fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = only(headers, header::HOST.as_str()).unwrap_or_default();
        if !self.names.contain(host) {
            return Err(Refusal(StatusCode::FORBIDDEN, self.names.refusal()));
        }
        if headers.contains_key(header::ORIGIN)
            && only(headers, header::ORIGIN.as_str()).and_then(|origin| origin.strip_prefix("http://")) != Some(host)
        {
            return Err(Refusal(StatusCode::FORBIDDEN, "requests from other sites are not allowed"));
        }
        Ok(())
    }

    /// Accepts requests with the token: a browser has it in the address, a program in a header.
    fn check_token(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let bearer = only(headers, header::AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Bearer "));
        let told = bearer.map(|token| Cow::Borrowed(token.as_bytes())).or_else(|| {
            let mut pairs = uri.query().unwrap_or_default().split('&');
            // A token from a file may have characters that must be encoded there.
            pairs.find_map(|pair| pair.strip_prefix("token=")).map(|token| percent_decode_str(token).into())
        });
        if !told.is_some_and(|told| self.token.is(&told)) {
            let message = if self.token.is_from_file() {
                "add `?token=` and the token in the file of the option `token_file` to the address: it is missing or wrong"
            } else {
                "open the whole address that the run printed: the token is missing or wrong"
            };
            return Err(Refusal(StatusCode::UNAUTHORIZED, message));
        }
        Ok(())
    }

    fn stop(&self) -> Result<Answer, Refusal> {
        match self.remote.request(Control::Stop, "the stop button of the dashboard was pressed") {
            Ok(()) => Ok(text(StatusCode::ACCEPTED, "the run stops after this step\n")),
            Err(error) => Err(over(error.kind())),
        }
    }

    async fn set_rate<B>(&self, request: Request<B>) -> Result<Answer, Refusal>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let body = Limited::new(request.into_body(), LONGEST_BODY).collect().await;
        let body = body.map_err(|_| Refusal(StatusCode::PAYLOAD_TOO_LARGE, "the request is too long"))?.to_bytes();
        let RateRequest { group, value } = serde_json::from_slice(&body)
            .map_err(|_| Refusal(StatusCode::BAD_REQUEST, "send `{\"value\": 0.001}`, with or without a `group`"))?;
        if !value.is_finite() || value < 0.0 {
            return Err(Refusal(StatusCode::BAD_REQUEST, "a learning rate must be 0 or more"));
        }
        if self.board.is_over() {
            return Err(over(ErrorKind::Stale));
        }
        self.board.want_rate(WantedRate { group, value });
        Ok(text(StatusCode::ACCEPTED, "it takes effect at the end of this step\n"))
    }
}

fn over(kind: ErrorKind) -> Refusal {
    match kind {
        ErrorKind::Stale => Refusal(StatusCode::CONFLICT, "the run is over"),
        _ => Refusal(StatusCode::INTERNAL_SERVER_ERROR, "the host rejected it"),
    }
}

/// The value of a header that occurs exactly once.
fn only<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn text(status: StatusCode, message: impl Into<Bytes>) -> Answer {
    let answer = Response::builder().status(status).header(header::CONTENT_TYPE, "text/plain; charset=utf-8");
    complete(answer, Either::Left(Full::new(message.into())))
}

/// A response; its parts are valid constants.
fn complete(builder: hyper::http::response::Builder, body: Either<Full<Bytes>, Feed>) -> Answer {
    builder.body(body).unwrap_or_else(|_| Response::new(Either::Left(Full::default())))
}
