//! Frames over a channel: a ring or a socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::messages::LONGEST;
use super::ring::{LOOK_EVERY, Ring};

/// Why a message did not cross.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError<E> {
    /// The other side is gone.
    #[error("the other side is gone")]
    Gone,
    /// Who waited gave up.
    #[error("nobody waits any more")]
    GaveUp(E),
    /// What came is no message.
    #[error("what came is no message: {0}")]
    Malformed(String),
    /// What should be sent is too long, in bytes.
    #[error("a message of {0} bytes is too long")]
    TooLong(usize),
    /// The system refused.
    #[error(transparent)]
    Io(io::Error),
}

/// A channel for frames, with the memory that they need.
pub(super) struct Link {
    channel: Channel,
    /// What is sent, and what has come and was not read.
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

enum Channel {
    Ring(Ring),
    Socket(UnixStream),
}

/// The most memory that a link keeps between messages, in bytes.
const KEPT: usize = 1 << 20;

impl Link {
    pub(super) fn ring(ring: Ring) -> Self {
        Self::over(Channel::Ring(ring))
    }

    /// # Errors
    ///
    /// When the socket takes no time limits.
    pub(super) fn socket(socket: UnixStream) -> io::Result<Self> {
        socket.set_read_timeout(Some(LOOK_EVERY))?;
        socket.set_write_timeout(Some(LOOK_EVERY))?;
        Ok(Self::over(Channel::Socket(socket)))
    }

    fn over(channel: Channel) -> Self {
        Self { channel, outgoing: Vec::new(), incoming: Vec::new() }
    }

    /// Sends a message. `waits` is asked again and again while there is no room, and ends it with its error.
    pub(super) fn send<E>(
        &mut self,
        message: &impl Serialize,
        mut waits: impl FnMut() -> Result<(), E>,
    ) -> Result<(), LinkError<E>> {
        self.outgoing.clear();
        encode(message, &mut self.outgoing)?;
        match &mut self.channel {
            Channel::Ring(ring) => ring.write(&self.outgoing, waits).map_err(LinkError::GaveUp)?,
            Channel::Socket(socket) => {
                let mut rest = self.outgoing.as_slice();
                while !rest.is_empty() {
                    match socket.write(rest) {
                        Ok(0) => return Err(LinkError::Gone),
                        Ok(count) => rest = &rest[count..],
                        Err(error) => again(error, &mut waits)?,
                    }
                }
            }
        }
        self.outgoing.shrink_to(KEPT);
        Ok(())
    }

    /// Waits for a message; `waits` is as in [`Self::send`].
    pub(super) fn receive<M: DeserializeOwned, E>(
        &mut self,
        mut waits: impl FnMut() -> Result<(), E>,
    ) -> Result<M, LinkError<E>> {
        self.fill(size_of::<u32>(), &mut waits)?;
        let length = length_of(&self.incoming)?;
        let end = size_of::<u32>() + length;
        self.fill(end, &mut waits)?;
        let message = decode(&self.incoming[size_of::<u32>()..end])?;
        self.incoming.drain(..end);
        self.incoming.shrink_to(KEPT);
        Ok(message)
    }

    /// Reads until `length` bytes have come. Memory is taken for what has come, not for what is promised.
    fn fill<E>(&mut self, length: usize, waits: &mut impl FnMut() -> Result<(), E>) -> Result<(), LinkError<E>> {
        while self.incoming.len() < length {
            match &mut self.channel {
                Channel::Ring(ring) => {
                    let most = length - self.incoming.len();
                    ring.read(&mut self.incoming, most, &mut *waits).map_err(LinkError::GaveUp)?;
                }
                Channel::Socket(socket) => {
                    let mut part = [0; 16 << 10];
                    let most = (length - self.incoming.len()).min(part.len());
                    match socket.read(&mut part[..most]) {
                        Ok(0) => return Err(LinkError::Gone),
                        Ok(count) => self.incoming.extend_from_slice(&part[..count]),
                        Err(error) => again(error, waits)?,
                    }
                }
            }
            // One that sends a little again and again has no more time for it.
            if self.incoming.len() < length {
                waits().map_err(LinkError::GaveUp)?;
            }
        }
        Ok(())
    }
}

/// Whether a read or a write of a socket is tried again.
fn again<E>(error: io::Error, waits: &mut impl FnMut() -> Result<(), E>) -> Result<(), LinkError<E>> {
    match error.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => waits().map_err(LinkError::GaveUp),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Err(LinkError::Gone),
        _ => Err(LinkError::Io(error)),
    }
}

/// Appends a frame.
pub(super) fn encode<E>(message: &impl Serialize, frame: &mut Vec<u8>) -> Result<(), LinkError<E>> {
    let start = frame.len();
    frame.extend_from_slice(&[0; size_of::<u32>()]);
    rmp_serde::encode::write_named(frame, message).map_err(|error| LinkError::Malformed(error.to_string()))?;
    let body = frame.len() - start - size_of::<u32>();
    let length = u32::try_from(body).ok().filter(|length| *length <= LONGEST).ok_or(LinkError::TooLong(body))?;
    frame[start..start + size_of::<u32>()].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// The length of the body that follows.
fn length_of<E>(frame: &[u8]) -> Result<usize, LinkError<E>> {
    let length = frame.first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
    if length > LONGEST {
        return Err(LinkError::Malformed(format!("it promises {length} bytes")));
    }
    Ok(length as usize)
}

/// The message of a frame's body.
pub(super) fn decode<M: DeserializeOwned, E>(body: &[u8]) -> Result<M, LinkError<E>> {
    rmp_serde::from_slice(body).map_err(|error| LinkError::Malformed(error.to_string()))
}

/// Writes a frame to a socket that waits as long as it takes.
pub(super) fn write_frame(mut socket: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut frame = Vec::new();
    encode::<()>(message, &mut frame).map_err(io::Error::other)?;
    socket.write_all(&frame)
}

/// Reads a frame from a socket that waits as long as it takes; `None` at its end.
pub(super) fn read_frame<M: DeserializeOwned>(mut socket: &UnixStream) -> io::Result<Option<M>> {
    let mut length = [0; size_of::<u32>()];
    match socket.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = length_of::<()>(&length).map_err(io::Error::other)?;
    let mut body = Vec::new();
    socket.take(length as u64).read_to_end(&mut body)?;
    if body.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    decode::<_, ()>(&body).map(Some).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::super::messages::{Answer, Call};
    use super::*;

    /// What a link makes of bytes that come over a socket which is closed then.
    fn received(bytes: Vec<u8>) -> Result<Answer, LinkError<()>> {
        let (own, mut other) = UnixStream::pair().unwrap();
        let writer = std::thread::spawn(move || drop(other.write_all(&bytes)));
        let mut link = Link::socket(own).unwrap();
        let answer = link.receive(|| Ok(()));
        drop(link);
        writer.join().unwrap();
        answer
    }

    fn frame(answer: &Answer) -> Vec<u8> {
        let mut frame = Vec::new();
        encode::<()>(answer, &mut frame).unwrap();
        frame
    }

    fn call() -> Answer {
        Answer::Call(Call {
            ticket: 7,
            service: 3,
            payload: plugin_api::protocol::Blob(vec![1, 2, 3]),
            tensors: Vec::new(),
        })
    }

    #[test]
    fn messages_that_come_together_are_told_apart() {
        let (own, mut other) = UnixStream::pair().unwrap();
        let returned = Answer::Returned { status: 1, message: "no".to_owned() };
        other.write_all(&[frame(&call()), frame(&returned)].concat()).unwrap();
        let mut link = Link::socket(own).unwrap();
        let mut next = || link.receive::<Answer, ()>(|| Ok(())).unwrap();
        assert_eq!((next(), next()), (call(), returned));
    }

    #[test]
    fn a_promise_of_more_than_there_is_takes_no_memory() {
        let promised = |length: u32| received([&length.to_le_bytes()[..], b"few"].concat());
        assert!(matches!(promised(LONGEST + 1), Err(LinkError::Malformed(_))));
        assert!(matches!(promised(LONGEST), Err(LinkError::Gone)));
    }

    #[test]
    fn a_wait_for_a_slow_side_ends_when_it_is_told() {
        let (own, _other) = UnixStream::pair().unwrap();
        let mut link = Link::socket(own).unwrap();
        let since = Instant::now();
        let waits = || if since.elapsed() > Duration::from_millis(50) { Err("too long") } else { Ok(()) };
        assert!(matches!(link.receive::<Answer, _>(waits), Err(LinkError::GaveUp("too long"))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = received(bytes);
        }

        #[test]
        fn a_damaged_message_is_a_message_or_an_error(at in any::<prop::sample::Index>(), byte: u8) {
            let mut bytes = frame(&call());
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = received(bytes);
        }
    }
}
