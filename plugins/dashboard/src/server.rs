//! The server: one thread, a limited number of connections, ended with the run.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use plugin_api::{Error, Result};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::site::Site;

/// The time limit for the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// The time limit for the last updates when the server ends.
const LAST_NEWS_WITHIN: Duration = Duration::from_secs(1);

/// A page needs two connections: one for its updates, one for its buttons.
const CONNECTIONS_OF_A_PAGE: u32 = 2;

/// The server's thread; dropping this value ends it.
pub(crate) struct Server {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `site` to at most `pages` pages at once.
    pub(crate) fn start(listener: TcpListener, site: Site, pages: u32) -> Result<Self> {
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name("dashboard".to_owned()).spawn(move || {
            if let Err(error) = runtime.block_on(serve(listener, Arc::new(site), pages, ended)) {
                plugin_api::tracing::warn!("the dashboard is no longer served: {error}");
            }
        });
        let thread = thread.map_err(|error| Error::from(error).context("cannot start the dashboard's thread"))?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Without a receiver, the thread has ended by itself.
        let _ = self.end.take().map(|end| end.send(()));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            plugin_api::tracing::warn!("the dashboard's thread panicked");
        }
    }
}

async fn serve(
    listener: TcpListener,
    site: Arc<Site>,
    pages: u32,
    mut ended: oneshot::Receiver<()>,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let most = pages.saturating_mul(CONNECTIONS_OF_A_PAGE);
    let free = Arc::new(Semaphore::new(most as usize));
    loop {
        let stream = tokio::select! {
            _ = &mut ended => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // The peer has gone, or too many files are open: both are temporary.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        match Arc::clone(&free).try_acquire_owned() {
            Ok(place) => drop(tokio::spawn(connection(stream, Arc::clone(&site), place))),
            Err(_) => refuse(&stream),
        }
    }
    // Each page's updates end by themselves, after the last one is sent.
    let _ = tokio::time::timeout(LAST_NEWS_WITHIN, free.acquire_many(most)).await;
    Ok(())
}

async fn connection(stream: TcpStream, site: Arc<Site>, _place: OwnedSemaphorePermit) {
    let answer = service_fn(move |request| {
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(site.answer(request).await) }
    });
    let mut http = http1::Builder::new();
    // A connection that waits for another request would delay the end of the run.
    http.keep_alive(false);
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(16 * 1024);
    // A closed connection does not matter to the run.
    let _ = http.serve_connection(TokioIo::new(stream), answer).await;
}

/// Answers that too many pages are open; a peer that does not read it at once gets nothing.
fn refuse(stream: &TcpStream) {
    let message = "too many pages of this dashboard are open; the option `pages` sets the limit\n";
    let length = message.len();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{message}"
    );
    let _ = stream.try_write(answer.as_bytes());
}
