//! The page's news as server-sent events (HTML Standard, 9.2).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame};
use tokio::time::{Instant, Sleep, sleep};

use crate::board::{Board, Told};

/// News come no closer together than this.
const EVERY: Duration = Duration::from_millis(250);

/// So long without news, a comment is sent: whoever is gone is noticed by it.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// An answer that goes on until the run is over. A slow reader is told less often, and holds up nobody: what is new is put
/// together when there is room for it.
pub(crate) struct Feed {
    board: Arc<Board>,
    told: Told,
    next: Pin<Box<Sleep>>,
    last: Instant,
    over: bool,
}

impl Feed {
    pub(crate) fn new(board: Arc<Board>) -> Self {
        let (next, last) = (Box::pin(sleep(Duration::ZERO)), Instant::now());
        Self { board, told: Told::default(), next, last, over: false }
    }

    fn message(&mut self) -> Option<String> {
        // Looked at first: what is over has nothing new afterwards.
        self.over = self.board.is_over();
        if let Some(news) = self.board.news(&mut self.told) {
            return Some(format!("data: {news}\n\n"));
        }
        (self.last.elapsed() >= SIGN_OF_LIFE).then(|| ":\n\n".to_owned())
    }
}

impl Body for Feed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            if self.over {
                return Poll::Ready(None);
            }
            ready!(self.next.as_mut().poll(context));
            let now = Instant::now();
            self.next.as_mut().reset(now + EVERY);
            if let Some(message) = self.message() {
                self.last = now;
                return Poll::Ready(Some(Ok(Frame::data(message.into()))));
            }
        }
    }
}
