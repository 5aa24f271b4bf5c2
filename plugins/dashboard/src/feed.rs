//! The updates of a page as server-sent events (HTML Standard, 9.2).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame};
use tokio::time::{Instant, Sleep, sleep};

use crate::board::{Board, Seen};

/// The shortest time between two updates.
const EVERY: Duration = Duration::from_millis(250);

/// After this time without updates, a comment is sent: it reveals that a page is gone.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// An answer that continues until the run is over. A slow reader gets fewer updates, and delays nobody: an update is
/// made when there is room for it.
pub(crate) struct Feed {
    board: Arc<Board>,
    seen: Seen,
    next: Pin<Box<Sleep>>,
    last: Instant,
    over: bool,
}

impl Feed {
    pub(crate) fn new(board: Arc<Board>) -> Self {
        let (next, last) = (Box::pin(sleep(Duration::ZERO)), Instant::now());
        Self { board, seen: Seen::default(), next, last, over: false }
    }

    fn message(&mut self) -> Option<String> {
        // Read first: nothing changes after the end.
        self.over = self.board.is_over();
        if let Some(update) = self.board.update(&mut self.seen) {
            return Some(format!("data: {update}\n\n"));
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
