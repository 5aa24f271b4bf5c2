//! The part of Python's pickle, protocol 2, that a state dict needs (Python's `pickletools` describes the opcodes).

const PROTOCOL: [u8; 2] = [0x80, 2];
const GLOBAL: u8 = b'c';
const BINARY_UNICODE: u8 = b'X';
const BINARY_INTEGER: u8 = b'J';
const LONG_INTEGER: u8 = 0x8a;
const FALSE: u8 = 0x89;
const MARK: u8 = b'(';
const TUPLE: u8 = b't';
const REDUCE: u8 = b'R';
const BINARY_PERSISTENT_ID: u8 = b'Q';
const SET_ITEMS: u8 = b'u';
const STOP: u8 = b'.';

/// A program for the stack machine of an unpickler. Each method leaves one object on the stack, unless it says
/// otherwise.
pub(crate) struct Pickle {
    bytes: Vec<u8>,
}

impl Pickle {
    pub(crate) fn new() -> Self {
        Self { bytes: PROTOCOL.to_vec() }
    }

    /// `module.name`.
    pub(crate) fn global(&mut self, module: &str, name: &str) -> &mut Self {
        self.bytes.push(GLOBAL);
        for part in [module, name] {
            self.bytes.extend_from_slice(part.as_bytes());
            self.bytes.push(b'\n');
        }
        self
    }

    /// A `str` of less than 4 GiB.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes.push(BINARY_UNICODE);
        self.bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
        self
    }

    /// An `int`.
    pub(crate) fn integer(&mut self, value: i64) -> &mut Self {
        if let Ok(value) = i32::try_from(value) {
            self.bytes.push(BINARY_INTEGER);
            self.bytes.extend_from_slice(&value.to_le_bytes());
        } else {
            let bytes = value.to_le_bytes();
            self.bytes.extend_from_slice(&[LONG_INTEGER, bytes.len() as u8]);
            self.bytes.extend_from_slice(&bytes);
        }
        self
    }

    /// `False`.
    pub(crate) fn no(&mut self) -> &mut Self {
        self.bytes.push(FALSE);
        self
    }

    /// A tuple of the objects that `objects` leaves on the stack.
    pub(crate) fn tuple(&mut self, objects: impl FnOnce(&mut Self)) -> &mut Self {
        self.bytes.push(MARK);
        objects(self);
        self.bytes.push(TUPLE);
        self
    }

    /// A tuple of `int`s.
    pub(crate) fn integers(&mut self, values: &[i64]) -> &mut Self {
        self.tuple(|pickle| {
            for value in values {
                pickle.integer(*value);
            }
        })
    }

    /// Takes a function and the tuple of its arguments, and leaves its result.
    pub(crate) fn call(&mut self) -> &mut Self {
        self.bytes.push(REDUCE);
        self
    }

    /// Takes a tuple, and leaves the object that the reader has under this id.
    pub(crate) fn persistent(&mut self) -> &mut Self {
        self.bytes.push(BINARY_PERSISTENT_ID);
        self
    }

    /// Puts the keys and values that `objects` leaves on the stack, alternating, into the dictionary below them.
    pub(crate) fn items(&mut self, objects: impl FnOnce(&mut Self)) -> &mut Self {
        self.bytes.push(MARK);
        objects(self);
        self.bytes.push(SET_ITEMS);
        self
    }

    /// The whole pickle, whose value is the object on the stack.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.push(STOP);
        self.bytes
    }
}
