//! For tests: a server on loopback that answers as the test says. It stops when it is dropped.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value as Json, json};

/// A request that was received.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// `POST runs/create`: the method, and the path without their common prefix.
    pub(crate) line: String,
    pub(crate) authorization: String,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

pub(crate) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Status line, further headers, and body.
pub(crate) type Answer = (&'static str, &'static str, Json);

/// The answer of a tracking server.
pub(crate) fn usual(request: &Request) -> Answer {
    let missing = json!({ "error_code": "RESOURCE_DOES_NOT_EXIST", "message": "gone" });
    let info = json!({ "run_id": "r1", "artifact_uri": "mlflow-artifacts:/7/r1/artifacts" });
    match request.line.as_str() {
        line if line.starts_with("GET experiments/get-by-name") => ("404 Not Found", "", missing),
        "POST experiments/create" => ("200 OK", "", json!({ "experiment_id": "7" })),
        "POST runs/create" => ("200 OK", "", json!({ "run": { "info": info } })),
        line if line.starts_with("GET runs/get?run_id=r1") => {
            let metrics = json!([{ "key": "train_loss", "step": "20", "value": 0.5 }]);
            ("200 OK", "", json!({ "run": { "info": info, "data": { "metrics": metrics } } }))
        }
        line if line.starts_with("GET runs/get") => ("404 Not Found", "", missing),
        _ => ("200 OK", "", json!({})),
    }
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Request, usize) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, stop) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::<AtomicBool>::default());
        let (seen, stopped) = (Arc::clone(&requests), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Some((mut stream, request)) = stream.ok().and_then(read) else { continue };
                let mut seen = seen.lock().unwrap();
                let (status, headers, body) = answer(&request, seen.len());
                seen.push(request);
                let body = body.to_string();
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}"
                );
            }
        });
        Self { address, requests, stop, thread: Some(thread) }
    }

    pub(crate) fn uri(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.requests().into_iter().map(|request| request.line).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read(stream: TcpStream) -> Option<(TcpStream, Request)> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.rsplit_once(' ')?.0.replace("/api/2.0/mlflow-artifacts/artifacts/", "artifacts/");
    let (mut length, mut authorization, mut chunked) = (0, String::new(), false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "authorization" => authorization = value.to_owned(),
            "transfer-encoding" => chunked = value == "chunked",
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    while chunked {
        let mut size = String::new();
        reader.read_line(&mut size).ok()?;
        let size = usize::from_str_radix(size.trim_end(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk).ok()?;
        body.extend_from_slice(&chunk[..size]);
        chunked = size > 0;
    }
    let line = path.replace("/api/2.0/mlflow/", "");
    Some((reader.into_inner(), Request { line, authorization, body: String::from_utf8_lossy(&body).into_owned() }))
}
