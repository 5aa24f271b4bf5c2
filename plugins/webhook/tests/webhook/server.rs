//! A server on loopback that answers as a test says, and keeps the requests.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// No test waits longer for anything.
pub const LONG: Duration = Duration::from_secs(30);

/// What a server does with a connection.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Reads the request and writes this, as it is.
    Raw(String),
    /// Reads the request and closes the connection without an answer.
    Close,
    /// Reads the request and never answers.
    Hang,
}

impl Answer {
    /// A status line, more headers, and no body.
    pub fn status(status: &str, headers: &str) -> Self {
        Self::Raw(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n{headers}\r\n"))
    }
}

/// What was sent.
#[derive(Clone, Debug)]
pub struct Request {
    pub line: String,
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// Answers as many connections as it has answers for, and refuses the others.
pub struct Server {
    pub address: SocketAddr,
    requests: Receiver<Request>,
}

impl Server {
    /// A server with these answers, one a connection.
    pub fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = channel();
        std::thread::spawn(move || {
            let mut hanging = Vec::new();
            for answer in answers {
                let Ok((mut stream, _)) = listener.accept() else { return };
                stream.set_read_timeout(Some(LONG)).unwrap();
                let Some(request) = read(&stream) else { continue };
                if sender.send(request).is_err() {
                    return;
                }
                match answer {
                    Answer::Raw(text) => drop(stream.write_all(text.as_bytes())),
                    Answer::Close => {}
                    Answer::Hang => hanging.push(stream),
                }
            }
            drop(listener);
            // Until the other side has had enough.
            for mut stream in hanging {
                let _ = stream.read(&mut [0]);
            }
        });
        Self { address, requests }
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The next request.
    ///
    /// # Panics
    ///
    /// When none comes.
    pub fn request(&self) -> Request {
        self.requests.recv_timeout(LONG).expect("a request comes")
    }

    /// The requests that arrived and were not read.
    pub fn others(&self) -> Vec<Request> {
        self.requests.try_iter().collect()
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
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
    Some(Request { line: line.trim_end().to_owned(), headers, body: String::from_utf8(body).ok()? })
}
