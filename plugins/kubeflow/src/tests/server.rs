//! A controller on loopback, with a certificate of a CA of its own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use plugin_api::testing::Value;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// No test waits longer for anything.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A CA like the one of a cluster.
pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its certificate as a file of the folder.
    pub(crate) fn write(&self, folder: &Path) -> PathBuf {
        let (file, text) = (folder.join("ca.crt"), STANDARD.encode(self.0.der()));
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"));
        std::fs::write(&file, pem).unwrap();
        file
    }

    fn config(&self) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![Ipv4Addr::LOCALHOST.to_string()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap())
    }
}

/// A request, and when it came.
pub(crate) struct Request {
    pub(crate) line: String,
    /// By their names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
    pub(crate) came: Instant,
}

impl Request {
    /// The status in it.
    pub(crate) fn status(&self) -> Value {
        let mut body: Value = serde_json::from_str(&self.body).unwrap();
        body["trainerStatus"].take()
    }
}

/// A server that gives each request the answer that a function says, from the number of the requests before it:
/// without one, it never answers.
pub(crate) struct Server {
    pub(crate) port: u16,
    requests: Receiver<Request>,
}

impl Server {
    pub(crate) fn start(ca: &Ca, answer: impl Fn(usize) -> Option<&'static str> + Send + 'static) -> Self {
        let listener = TcpListener::bind((IpAddr::from(Ipv4Addr::LOCALHOST), 0)).unwrap();
        let (port, config) = (listener.local_addr().unwrap().port(), ca.config());
        let (sender, requests) = channel();
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            let mut number = 0;
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let Some((request, mut stream)) = read(stream, &config) else { continue };
                if sender.send(request).is_err() {
                    return;
                }
                match answer(number) {
                    Some(status) => {
                        let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                        stream.conn.send_close_notify();
                        let _ = stream.flush();
                    }
                    None => silent.push(stream),
                }
                number += 1;
            }
        });
        Self { port, requests }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}/apis/trainer.kubeflow.org/v1alpha1/namespaces/n/trainjobs/t/status", self.port)
    }

    /// The next request.
    pub(crate) fn request(&self) -> Request {
        self.requests.recv_timeout(LONG).expect("a request comes")
    }

    /// The requests that came and were not read.
    pub(crate) fn others(&self) -> Vec<Request> {
        self.requests.try_iter().collect()
    }
}

type Stream = StreamOwned<ServerConnection, TcpStream>;

/// A request, unless the client does not like the certificate.
fn read(stream: TcpStream, config: &Arc<ServerConfig>) -> Option<(Request, Stream)> {
    stream.set_read_timeout(Some(LONG)).ok()?;
    let stream = StreamOwned::new(ServerConnection::new(Arc::clone(config)).ok()?, stream);
    let mut reader = BufReader::new(stream);
    let (mut line, came) = (String::new(), Instant::now());
    reader.read_line(&mut line).ok()?;
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    let request = Request { line: line.trim_end().to_owned(), headers, body: String::from_utf8(body).ok()?, came };
    Some((request, reader.into_inner()))
}
