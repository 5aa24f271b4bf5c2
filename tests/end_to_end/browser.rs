//! Headless Chromium, driven over its DevTools protocol (<https://chromedevtools.github.io/devtools-protocol/>).

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fixture::{TempDir, temporary_folder};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

/// The names of Chromium and its variants.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// The longest that a page may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A page in a browser. It collects the errors of its script, and requests that were blocked.
pub struct Browser {
    process: Child,
    socket: WebSocket<TcpStream>,
    session: Option<String>,
    requests: u64,
    problems: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    /// Starts the browser; `None`, with a message, if there is none.
    ///
    /// # Panics
    ///
    /// When it exists and does not start.
    pub fn start() -> Option<Self> {
        let profile = temporary_folder();
        let Some((mut process, name)) = NAMES.iter().find_map(|name| Some((spawn(name, &profile)?, name))) else {
            fixture::skipped(&format!("there is no browser on the path ({})", NAMES.join(", ")));
            return None;
        };
        let mut stderr = BufReader::new(process.stderr.take().expect("it is piped"));
        let mut said = String::new();
        let address = loop {
            let from = said.len();
            let read = stderr.read_line(&mut said).expect("what it says is text");
            assert!(read > 0, "{name} did not start:\n{said}");
            if let Some(address) = said[from..].trim().strip_prefix("DevTools listening on ") {
                break address.to_owned();
            }
        };
        // The rest of its output is discarded, but must be read.
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(drop));
        let host = address.trim_start_matches("ws://").split('/').next().unwrap_or_default();
        let stream = TcpStream::connect(host).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time can be set");
        let (socket, _) = tungstenite::client(&address, stream).expect("it speaks WebSocket");
        let mut browser = Self { process, socket, session: None, requests: 0, problems: Vec::new(), _profile: profile };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached =
            browser.call("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Sets the page's size and its theme, `light` or `dark`.
    pub fn show_as(&mut self, width: u32, height: u32, theme: &str) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] });
        self.call("Emulation.setEmulatedMedia", features);
    }

    /// Opens a page.
    pub fn open(&mut self, url: &str) {
        let answer = self.call("Page.navigate", json!({ "url": url }));
        assert!(answer.get("errorText").is_none(), "{url}: {answer}");
    }

    /// The value of an expression in the page.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let answer = self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
        assert!(answer.get("exceptionDetails").is_none(), "`{expression}`: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true; one that fails is not true yet.
    ///
    /// # Panics
    ///
    /// When it is not true within a minute.
    pub fn wait_until(&mut self, expression: &str) {
        let began = Instant::now();
        let tolerant = format!("(() => {{ try {{ return Boolean({expression}); }} catch {{ return false; }} }})()");
        while self.evaluate(&tolerant) != true {
            assert!(began.elapsed() < PATIENCE, "`{expression}` did not come true; problems: {:?}", self.problems);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The errors of the page's script and of the browser.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.requests += 1;
        let mut request = json!({ "id": self.requests, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            request["sessionId"] = session.as_str().into();
        }
        self.socket.send(Message::text(request.to_string())).expect("the browser listens");
        loop {
            let Message::Text(text) = self.socket.read().expect("the browser answers") else { continue };
            let mut message: Value = serde_json::from_str(&text).expect("it speaks JSON");
            if message["id"] == self.requests {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].take();
            }
            let is_error = message["params"]["entry"]["level"] == "error";
            if message["method"] == "Runtime.exceptionThrown" || (message["method"] == "Log.entryAdded" && is_error) {
                self.problems.push(message["params"].to_string());
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(name: &str, profile: &TempDir) -> Option<Child> {
    let mut command = Command::new(name);
    // Its sandbox needs rights that a container does not have; the pages are our own.
    command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
    command.args(["--remote-debugging-port=0", "--remote-allow-origins=*", "about:blank"]);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().ok()
}
