use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Output};
use std::time::Duration;

use crate::browser::Browser;
use crate::small_run::{Ran, SmallRun, text};

/// A run that continues until it is stopped, and its page.
struct Live {
    run: Option<SmallRun>,
    process: Child,
    stderr: BufReader<ChildStderr>,
    said: String,
    url: String,
}

impl Live {
    fn start() -> Self {
        let run = SmallRun::with_libraries(&["dashboard", "recorder"])
            .instance("kind = 'dashboard'\noptions = { every = 0.1 }")
            .set("train.epochs=1000000");
        let mut process = run.start();
        let mut stderr = BufReader::new(process.stderr.take().expect("it is piped"));
        let mut said = String::new();
        let url = loop {
            let from = said.len();
            let read = stderr.read_line(&mut said).expect("what the host says is text");
            assert!(read > 0, "the host printed no address:\n{said}");
            if let Some(url) = said[from..].trim().strip_prefix("dashboard: ") {
                break url.to_owned();
            }
        };
        Self { run: Some(run), process, stderr, said, url }
    }

    fn port(&self) -> u16 {
        let port = self.url.split(['/', ':']).find_map(|part| part.parse().ok());
        port.expect("the address has a port")
    }

    fn token(&self) -> &str {
        self.url.split_once("token=").expect("the address has a token").1
    }

    /// The status that a request is answered with.
    fn status(&self, method: &str, path: &str, headers: &str) -> u16 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port())).expect("somebody listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time can be set");
        let request = format!("{method} {path} HTTP/1.1\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it can be asked");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("it answers");
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.unwrap_or_else(|| panic!("no status: {answer}"))
    }

    /// Waits until it ends by itself.
    fn ended(mut self) -> Ran {
        self.stderr.read_to_string(&mut self.said).expect("what the host says is text");
        let status = self.process.wait().expect("it ends");
        let output = Output { status, stdout: Vec::new(), stderr: self.said.clone().into_bytes() };
        self.run.take().expect("it was not taken before").ended(output)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // Otherwise the run would continue after a failed test.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_browser_sees_the_run_and_stops_it() {
    let Some(mut browser) = Browser::start() else { return };
    let live = Live::start();
    browser.show_as(390, 844, "dark");
    browser.open(&live.url);
    let points = "(document.querySelector('[data-curve=val_loss]').getAttribute('d').match(/[ML]/g) ?? []).length";
    browser.wait_until(&format!("{points} >= 3"));
    let before = browser.evaluate("known.progress.step").as_u64().expect("a step");
    browser.wait_until(&format!("known.progress.step > {before} && {points} > 5"));
    browser.wait_until("document.querySelectorAll('#model tbody tr').length === 3");
    browser.wait_until("document.querySelector('#times').textContent.includes('dashboard')");
    browser.wait_until("document.querySelector('#console').textContent.includes('dashboard: http://')");
    assert_eq!(browser.evaluate("document.documentElement.scrollWidth"), 390, "nothing sticks out on a phone");
    browser.evaluate("byId('rate').value = '0.125', byId('controls').requestSubmit()");
    browser.wait_until("byId('notice').textContent.includes('the learning rate is 0.125 from now on')");
    browser.wait_until("byId('rate').placeholder === '0.125'");
    // One click may be an accident.
    browser.evaluate("byId('stop').click()");
    assert_eq!(browser.evaluate("byId('stop').textContent"), "Press again to stop");
    assert_eq!(browser.evaluate("known.progress.state"), "running");
    browser.evaluate("byId('stop').click()");
    browser.wait_until("byId('state').textContent === 'stopped' && byId('stop').disabled");
    assert_eq!(browser.problems(), [""; 0]);
    let ran = live.ended().succeeded();
    let status = ran.status();
    assert_eq!(text(&status, "state"), "stopped");
    let reason = text(&status, "reason");
    assert!(reason.contains("dashboard") && reason.contains("the stop button"), "{reason}");
}

#[test]
fn the_page_is_only_for_this_machine_and_with_the_token() {
    let live = Live::start();
    let (port, token) = (live.port(), live.token());
    let (host, page) = (format!("Host: localhost:{port}\r\n"), format!("/?token={token}"));
    let (events, stop) = (format!("/events?token={}", "0".repeat(32)), format!("/stop?token={token}"));
    assert_eq!(live.status("GET", &page, &host), 200);
    assert_eq!(live.status("GET", "/", &host), 401);
    assert_eq!(live.status("GET", &events, &host), 401);
    assert_eq!(live.status("POST", "/stop", &host), 401);
    assert_eq!(live.status("GET", &page, "Host: evil.example\r\n"), 403);
    assert_eq!(live.status("POST", &stop, &format!("{host}Origin: http://evil.example\r\n")), 403);
    assert_eq!(live.status("GET", &stop, &host), 405);
    // None of that has stopped it; its own origin does.
    assert_eq!(live.status("POST", &stop, &format!("{host}Origin: http://localhost:{port}\r\n")), 202);
    let ran = live.ended().succeeded();
    assert_eq!(text(&ran.status(), "state"), "stopped");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the page ends with the run");
}
