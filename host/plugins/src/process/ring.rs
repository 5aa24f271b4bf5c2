//! Bytes between two processes, through memory that they share: a ring for each direction.
//!
//! Who finds nothing to read, or no room, looks again for a moment and then sleeps on a futex. A system call is made only
//! where somebody sleeps.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::{Duration, Instant};

use rustix::thread::futex;

use super::memory::{Access, Mapping, MemoryFile};

/// Bytes of each direction; a power of two.
const CAPACITY: usize = 1 << 16;

/// Where each direction's bytes begin; its counters are in a page of their own.
const PAGE: usize = 4096;

/// Bytes of the shared memory.
const LENGTH: usize = 2 * (PAGE + CAPACITY);

/// The counters of a direction, in shared memory. Both only grow, and wrap.
#[repr(C, align(64))]
struct Counters {
    /// Bytes that were written.
    written: AtomicU32,
    /// Whether the reader sleeps until it changes.
    reader_sleeps: AtomicU32,
    _apart: [u32; 14],
    /// Bytes that were read.
    read: AtomicU32,
    /// Whether the writer sleeps until it changes.
    writer_sleeps: AtomicU32,
}

/// One end of two rings.
pub(super) struct Ring {
    mapping: Mapping,
    end: End,
    /// How long it looks before it sleeps.
    spin: Duration,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Host,
    Child,
}

impl Ring {
    /// The end of the host, and the memory that the child needs for its own.
    pub(super) fn create(spin: Duration) -> io::Result<(Self, MemoryFile)> {
        let file = MemoryFile::new("host-plugin-ring", LENGTH)?;
        Ok((Self { mapping: file.map(LENGTH, Access::Write)?, end: End::Host, spin }, file))
    }

    /// The end of the child.
    pub(super) fn open(file: OwnedFd, spin: Duration) -> io::Result<Self> {
        let file = MemoryFile::of(file);
        if file.length()? < LENGTH {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Self { mapping: file.map(LENGTH, Access::Write)?, end: End::Child, spin })
    }

    /// The ring to or from the child, by where it lies.
    fn ring(&self, to_child: bool) -> (&Counters, *mut u8) {
        let first = self.mapping.first().wrapping_add(if to_child { 0 } else { PAGE + CAPACITY });
        // SAFETY: the mapping has two pages of counters, aligned; they consist of atomics, which another process may change.
        (unsafe { &*first.cast::<Counters>() }, first.wrapping_add(PAGE))
    }

    /// Writes all of `bytes`; `waits` is asked again and again while there is no room, and ends it with its error.
    pub(super) fn write<E>(&self, mut bytes: &[u8], mut waits: impl FnMut() -> Result<(), E>) -> Result<(), E> {
        let (counters, data) = self.ring(self.end == End::Host);
        while !bytes.is_empty() {
            let written = counters.written.load(Ordering::Relaxed);
            // The other process may write nonsense into its counter: more than there is room for is none.
            let used = written.wrapping_sub(counters.read.load(Ordering::Acquire)) as usize;
            let room = CAPACITY.saturating_sub(used);
            if room == 0 {
                let has_room = || (written.wrapping_sub(counters.read.load(Ordering::Acquire)) as usize) < CAPACITY;
                self.wait(&counters.read, &counters.writer_sleeps, has_room, &mut waits)?;
                continue;
            }
            let at = written as usize % CAPACITY;
            let count = bytes.len().min(room).min(CAPACITY - at);
            // SAFETY: `count` bytes from `at` are within the ring; the other side reads them only after the store below.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), data.add(at), count) };
            counters.written.store(written.wrapping_add(count as u32), Ordering::Release);
            wake(&counters.written, &counters.reader_sleeps);
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Appends what there is to read, at most `most` bytes and at least one, to `bytes`; `waits` is as in [`Self::write`].
    pub(super) fn read<E>(
        &self,
        bytes: &mut Vec<u8>,
        most: usize,
        mut waits: impl FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        let (counters, data) = self.ring(self.end == End::Child);
        let read = counters.read.load(Ordering::Relaxed);
        let there = || counters.written.load(Ordering::Acquire).wrapping_sub(read) as usize;
        while there() == 0 {
            self.wait(&counters.written, &counters.reader_sleeps, || there() != 0, &mut waits)?;
        }
        let at = read as usize % CAPACITY;
        // Whatever the other process writes into its counter, what is read is within the ring.
        let count = there().min(most).min(CAPACITY - at);
        let before = bytes.len();
        bytes.reserve(count);
        // SAFETY: `count` bytes from `at` are within the ring, and reserved after the vector's own; a byte is a byte,
        // whatever the other process does meanwhile.
        unsafe {
            std::ptr::copy_nonoverlapping(data.add(at), bytes.as_mut_ptr().add(before), count);
            bytes.set_len(before + count);
        }
        counters.read.store(read.wrapping_add(count as u32), Ordering::Release);
        wake(&counters.read, &counters.writer_sleeps);
        Ok(())
    }

    /// Waits until `is_so`, for a while or until somebody wakes it; `word` is what the other side changes for it.
    fn wait<E>(
        &self,
        word: &AtomicU32,
        sleeps: &AtomicU32,
        is_so: impl Fn() -> bool,
        waits: &mut impl FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.spin.is_zero() {
            let since = Instant::now();
            loop {
                for _ in 0..32 {
                    if is_so() {
                        return Ok(());
                    }
                    std::hint::spin_loop();
                }
                if since.elapsed() >= self.spin {
                    break;
                }
            }
        }
        let before = word.load(Ordering::Acquire);
        sleeps.store(1, Ordering::Relaxed);
        // Either the other side sees that we sleep, or we see what it has changed.
        fence(Ordering::SeqCst);
        if is_so() {
            sleeps.store(0, Ordering::Relaxed);
            return Ok(());
        }
        let look_again = rustix::thread::Timespec { tv_sec: 0, tv_nsec: LOOK_EVERY.as_nanos() as _ };
        // Whatever it says, what counts is looked at again.
        let _ = futex::wait(word, futex::Flags::empty(), before, Some(&look_again));
        sleeps.store(0, Ordering::Relaxed);
        if is_so() {
            return Ok(());
        }
        // The last words of one that has ended meanwhile are there.
        waits().or_else(|error| if is_so() { Ok(()) } else { Err(error) })
    }
}

/// How often a wait asks whether it should go on.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Wakes the other side if it sleeps until `word` changes.
fn wake(word: &AtomicU32, sleeps: &AtomicU32) {
    fence(Ordering::SeqCst);
    if sleeps.load(Ordering::Relaxed) != 0 {
        // It has an own time limit, so that a failure costs a moment.
        let _ = futex::wake(word, futex::Flags::empty(), 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Ring, Ring) {
        let (host, file) = Ring::create(Duration::ZERO).unwrap();
        let file = file.map(LENGTH, Access::Write).unwrap();
        (host, Ring { mapping: file, end: End::Child, spin: Duration::from_micros(20) })
    }

    fn patiently() -> Result<(), ()> {
        Ok(())
    }

    #[test]
    fn bytes_arrive_in_order_also_more_than_the_ring_holds() {
        let (host, child) = pair();
        let sent: Vec<u8> = (0..5 * CAPACITY + 17).map(|number| (number % 251) as u8).collect();
        let expected = sent.clone();
        let writer = std::thread::spawn(move || {
            for part in sent.chunks(40_000) {
                host.write(part, patiently).unwrap();
            }
        });
        let mut got = Vec::new();
        while got.len() < expected.len() {
            child.read(&mut got, 30_000, patiently).unwrap();
        }
        writer.join().unwrap();
        assert!(got == expected);
    }

    #[test]
    fn both_directions_go_on_at_once() {
        let (host, child) = pair();
        let echo = std::thread::spawn(move || {
            for _ in 0..1000 {
                let mut bytes = Vec::new();
                child.read(&mut bytes, 1, patiently).unwrap();
                child.write(&bytes, patiently).unwrap();
            }
        });
        for number in 0..1000 {
            let mut bytes = Vec::new();
            host.write(&[number as u8], patiently).unwrap();
            host.read(&mut bytes, 1, patiently).unwrap();
            assert_eq!(bytes, [number as u8]);
        }
        echo.join().unwrap();
    }

    #[test]
    fn a_wait_ends_when_it_is_told() {
        let (host, _child) = pair();
        let mut times = 0;
        let ended = host.read(&mut Vec::new(), 1, || {
            times += 1;
            if times < 3 { Ok(()) } else { Err("enough") }
        });
        assert_eq!((ended, times), (Err("enough"), 3));
        assert_eq!(host.write(&vec![0; CAPACITY], patiently), Ok(()));
        assert_eq!(host.write(&[0], || Err("full")), Err("full"));
    }

    #[test]
    fn counters_that_the_other_side_made_up_lead_nowhere() {
        let (host, child) = pair();
        for nonsense in [u32::MAX, CAPACITY as u32 + 1, 1 << 31] {
            host.ring(false).0.written.store(nonsense, Ordering::Release);
            host.ring(true).0.read.store(nonsense, Ordering::Release);
            let mut bytes = Vec::new();
            let _ = host.read(&mut bytes, usize::MAX, || Err(()));
            assert!(bytes.len() <= CAPACITY);
            let _ = host.write(&vec![1; 2 * CAPACITY], || Err(()));
        }
        drop(child);
    }
}
