//! The stack machine.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::dtype::Dtype;
use super::super::stored::View;
use super::PickleError;
use super::globals::Global;
use super::input::Input;
use super::state::{StateDict, state_dict};

/// The most values on the stack at once. Python's pickler puts a thousand entries of a container there, and a tuple.
pub(super) const MOST_STACKED: usize = 1_000_000;

/// The most tuples, dictionaries, storages and tensors. A tensor of a state dict takes seven.
pub(super) const MOST_MADE: usize = 4_000_000;

/// The most entries of all dictionaries.
pub(super) const MOST_ENTRIES: usize = 2_000_000;

/// The most values that are remembered. Python's pickler remembers all that is not a number.
pub(super) const MOST_REMEMBERED: usize = 4_000_000;

/// The most bytes of the name of a tensor or a storage.
pub(super) const LONGEST_NAME: usize = 4096;

/// The most dimensions of a tensor.
const MOST_DIMENSIONS: usize = 64;

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'p> {
    None,
    Bool(bool),
    Integer(i64),
    Text(&'p str),
    /// The number of a tuple.
    Tuple(usize),
    /// The number of a dictionary.
    Dict(usize),
    /// The number of a storage.
    Storage(usize),
    /// The number of a tensor.
    Tensor(usize),
    /// A list; nobody looks at what it holds.
    List,
    /// A set; nobody looks at what it holds.
    Set,
    /// A name.
    Global(Global),
    /// A value that nobody looks at.
    Other(&'static str),
}

impl Value<'_> {
    /// What it is, in messages.
    pub(super) fn what(self) -> &'static str {
        match self {
            Value::None => "`None`",
            Value::Bool(_) => "a truth value",
            Value::Integer(_) => "a number",
            Value::Text(_) => "a text",
            Value::Tuple(_) => "a tuple",
            Value::Dict(_) => "a dictionary",
            Value::Storage(_) => "a storage",
            Value::Tensor(_) => "a single tensor",
            Value::List => "a list",
            Value::Set => "a set",
            Value::Global(global) => global.name(),
            Value::Other(what) => what,
        }
    }
}

/// Elements that tensors are views of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Storage<'p> {
    /// The name of its file in `data/`.
    pub(in super::super) key: &'p str,
    /// Its dtype; `None` for one that counts bytes.
    dtype: Option<Dtype>,
    /// Its elements, or bytes.
    count: usize,
}

impl Storage<'_> {
    /// Its size in bytes; `None` if that cannot be counted.
    pub(in super::super) fn bytes(&self) -> Option<usize> {
        self.count.checked_mul(self.dtype.map_or(1, Dtype::size))
    }
}

/// A tensor, which lies in its storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Tensor {
    /// The number of its storage.
    pub(in super::super) storage: usize,
    pub(in super::super) dtype: Dtype,
    pub(in super::super) view: View,
    /// Whether its values are stored as they are, not conjugated or negated later.
    pub(in super::super) is_plain: bool,
}

/// What a pickle builds.
#[derive(Debug)]
pub(super) struct Built<'p> {
    pub(super) root: Value<'p>,
    pub(super) dicts: Vec<Vec<(Value<'p>, Value<'p>)>>,
    pub(super) storages: Vec<Storage<'p>>,
    pub(super) tensors: Vec<Arc<Tensor>>,
}

/// The state dict that the pickle describes.
///
/// # Errors
///
/// See [`PickleError`].
pub(in super::super) fn read(pickle: &[u8]) -> Result<StateDict<'_>, PickleError> {
    state_dict(&build(pickle)?)
}

pub(super) fn build(pickle: &[u8]) -> Result<Built<'_>, PickleError> {
    let mut machine = Machine::new(pickle);
    while !machine.step()? {}
    let root = machine.pop()?;
    let Machine { dicts, storages, tensors, .. } = machine;
    Ok(Built { root, dicts, storages, tensors })
}

struct Machine<'p> {
    input: Input<'p>,
    /// Where the operation in progress is.
    position: usize,
    stack: Vec<Value<'p>>,
    /// The lengths that the stack had at each mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'p>>,
    tuples: Vec<Box<[Value<'p>]>>,
    dicts: Vec<Vec<(Value<'p>, Value<'p>)>>,
    /// The entries of all dictionaries together.
    entries: usize,
    storages: Vec<Storage<'p>>,
    tensors: Vec<Arc<Tensor>>,
}

impl<'p> Machine<'p> {
    fn new(pickle: &'p [u8]) -> Self {
        Self {
            input: Input::new(pickle),
            position: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            // The empty tuple, which every call without arguments has.
            tuples: vec![Box::default()],
            dicts: Vec::new(),
            entries: 0,
            storages: Vec::new(),
            tensors: Vec::new(),
        }
    }

    /// Does the next operation; whether it is the last one. The codes are those of Python's `pickletools`.
    fn step(&mut self) -> Result<bool, PickleError> {
        self.position = self.input.position();
        let operation = self.input.u8()?;
        match operation {
            // PROTO, FRAME, STOP
            0x80 => match self.input.u8()? {
                2..=5 => {}
                protocol => return Err(PickleError::Protocol(protocol)),
            },
            0x95 => {
                self.input.u64()?;
            }
            b'.' => return Ok(true),
            // MARK, POP, POP_MARK, DUP
            b'(' => self.mark()?,
            b'0' => {
                self.pop()?;
            }
            b'1' => self.drop_to_mark()?,
            b'2' => {
                let value = self.top()?;
                self.push(value)?;
            }
            // NONE, NEWTRUE, NEWFALSE
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            // BININT, BININT1, BININT2, LONG1, LONG4, BINFLOAT
            b'J' => {
                let number = self.input.i32()?;
                self.push(Value::Integer(number.into()))?;
            }
            b'K' => {
                let number = self.input.u8()?;
                self.push(Value::Integer(number.into()))?;
            }
            b'M' => {
                let number = self.input.u16()?;
                self.push(Value::Integer(number.into()))?;
            }
            0x8a => {
                let length = self.input.u8()?;
                self.long(length.into())?;
            }
            0x8b => {
                let length = self.input.u32()?;
                self.long(length.into())?;
            }
            b'G' => {
                self.input.u64()?;
                self.push(Value::Other("a number"))?;
            }
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
            0x8c => {
                let length = self.input.u8()?;
                self.text(length.into())?;
            }
            b'X' => {
                let length = self.input.u32()?;
                self.text(length.into())?;
            }
            0x8d => {
                let length = self.input.u64()?;
                self.text(length)?;
            }
            // SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8
            b'C' => {
                let length = self.input.u8()?;
                self.bytes(length.into())?;
            }
            b'B' => {
                let length = self.input.u32()?;
                self.bytes(length.into())?;
            }
            0x8e | 0x96 => {
                let length = self.input.u64()?;
                self.bytes(length)?;
            }
            // EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3, TUPLE
            b')' => self.push(Value::Tuple(0))?,
            0x85..=0x87 => {
                let from = self.reach(usize::from(operation) - 0x84)?;
                self.tuple(from)?;
            }
            b't' => {
                let from = self.take_mark()?;
                self.tuple(from)?;
            }
            // EMPTY_LIST, APPEND, APPENDS
            b']' => self.push(Value::List)?,
            b'a' => {
                self.pop()?;
                self.holds(Value::List, "appends to something that is no list")?;
            }
            b'e' => {
                self.drop_to_mark()?;
                self.holds(Value::List, "appends to something that is no list")?;
            }
            // EMPTY_SET, ADDITEMS, FROZENSET
            0x8f => self.push(Value::Set)?,
            0x90 => {
                self.drop_to_mark()?;
                self.holds(Value::Set, "adds to something that is no set")?;
            }
            0x91 => {
                self.drop_to_mark()?;
                self.push(Value::Other("a set"))?;
            }
            // EMPTY_DICT, SETITEM, SETITEMS
            b'}' => self.dict()?,
            b's' => {
                let from = self.reach(2)?;
                self.set_items(from)?;
            }
            b'u' => {
                let from = self.take_mark()?;
                self.set_items(from)?;
            }
            // BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET
            b'q' => {
                let index = self.input.u8()?;
                self.remember(index.into())?;
            }
            b'r' => {
                let index = self.input.u32()?;
                self.remember(index)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let index = self.input.u8()?;
                self.recall(index.into())?;
            }
            b'j' => {
                let index = self.input.u32()?;
                self.recall(index)?;
            }
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                self.global(module, name)?;
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => self.global(module, name)?,
                _ => return Err(self.malformed("a name is no text")),
            },
            // BINPERSID, REDUCE, NEWOBJ, BUILD
            b'Q' => self.storage()?,
            b'R' => self.call()?,
            0x81 => {
                let (_, class) = (self.pop()?, self.pop()?);
                return Err(self.used("makes a", class));
            }
            b'b' => {
                self.pop()?;
                match self.top()? {
                    // The `_metadata` of a state dict, which tells the versions of modules.
                    Value::Dict(_) => {}
                    other => return Err(self.used("sets attributes of", other)),
                }
            }
            _ => return Err(PickleError::Operation { operation, position: self.position }),
        }
        Ok(false)
    }

    fn malformed(&self, problem: &'static str) -> PickleError {
        PickleError::Malformed { position: self.position, problem }
    }

    fn used(&self, action: &'static str, what: Value<'_>) -> PickleError {
        PickleError::Use { action, name: what.what().replace('`', ""), position: self.position }
    }

    fn push(&mut self, value: Value<'p>) -> Result<(), PickleError> {
        within(self.stack.len(), "values on its stack", MOST_STACKED)?;
        self.stack.push(value);
        Ok(())
    }

    /// Where the values since the last mark begin; the mark stays.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    /// Where the last `count` values begin, none of which is before a mark.
    fn reach(&self, count: usize) -> Result<usize, PickleError> {
        let from = self.stack.len().checked_sub(count).filter(|from| *from >= self.floor());
        from.ok_or_else(|| self.malformed("its stack is empty"))
    }

    fn top(&self) -> Result<Value<'p>, PickleError> {
        let at = self.reach(1)?;
        self.stack.get(at).copied().ok_or_else(|| self.malformed("its stack is empty"))
    }

    fn pop(&mut self) -> Result<Value<'p>, PickleError> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    fn mark(&mut self) -> Result<(), PickleError> {
        within(self.marks.len(), "marks", MOST_STACKED)?;
        self.marks.push(self.stack.len());
        Ok(())
    }

    /// Takes the last mark: where the values after it begin.
    fn take_mark(&mut self) -> Result<usize, PickleError> {
        self.marks.pop().ok_or_else(|| self.malformed("there is no mark"))
    }

    /// Takes the last mark, and drops the values after it.
    fn drop_to_mark(&mut self) -> Result<(), PickleError> {
        let from = self.take_mark()?;
        self.stack.truncate(from);
        Ok(())
    }

    /// The container on top must be this one.
    fn holds(&self, container: Value<'_>, problem: &'static str) -> Result<(), PickleError> {
        if self.top()? == container { Ok(()) } else { Err(self.malformed(problem)) }
    }

    /// A whole number of so many bytes, in two's complement.
    fn long(&mut self, length: u64) -> Result<(), PickleError> {
        let bytes = self.input.bytes(length)?;
        let fill = if bytes.last().is_some_and(|byte| *byte >= 0x80) { 0xff } else { 0 };
        let mut number = [fill; 8];
        let value = match number.get_mut(..bytes.len()) {
            Some(low) => {
                low.copy_from_slice(bytes);
                Value::Integer(i64::from_le_bytes(number))
            }
            None => Value::Other("a number"),
        };
        self.push(value)
    }

    fn text(&mut self, length: u64) -> Result<(), PickleError> {
        let text = self.input.text(length)?;
        self.push(Value::Text(text))
    }

    fn bytes(&mut self, length: u64) -> Result<(), PickleError> {
        self.input.bytes(length)?;
        self.push(Value::Other("bytes"))
    }

    /// Counts one more tuple, dictionary, storage or tensor.
    fn made(&self) -> Result<(), PickleError> {
        let made = self.tuples.len() + self.dicts.len() + self.storages.len() + self.tensors.len();
        within(made, "containers and tensors", MOST_MADE)
    }

    /// A tuple of the values from a place on the stack.
    fn tuple(&mut self, from: usize) -> Result<(), PickleError> {
        self.made()?;
        let values: Box<[Value<'p>]> = self.stack.get(from..).unwrap_or_default().into();
        self.stack.truncate(from);
        self.tuples.push(values);
        self.push(Value::Tuple(self.tuples.len() - 1))
    }

    fn values(&self, tuple: Value<'p>) -> Result<&[Value<'p>], PickleError> {
        let Value::Tuple(number) = tuple else { return Err(self.malformed("something else is given than a tuple")) };
        Ok(self.tuples.get(number).map(|values| &**values).unwrap_or_default())
    }

    fn dict(&mut self) -> Result<(), PickleError> {
        self.made()?;
        self.dicts.push(Vec::new());
        self.push(Value::Dict(self.dicts.len() - 1))
    }

    /// Moves the keys and values from a place on the stack into the dictionary below.
    fn set_items(&mut self, from: usize) -> Result<(), PickleError> {
        let items = self.stack.get(from..).unwrap_or_default();
        let (pairs, rest) = items.as_chunks::<2>();
        let below = from.checked_sub(1).filter(|below| *below >= self.floor());
        let target = below.and_then(|below| self.stack.get(below).copied());
        let Some(Value::Dict(number)) = target else {
            return Err(self.malformed("it sets an item of something that is no dictionary"));
        };
        if !rest.is_empty() {
            return Err(self.malformed("a key has no value"));
        }
        within(self.entries + pairs.len().saturating_sub(1), "entries of dictionaries", MOST_ENTRIES)?;
        self.entries += pairs.len();
        if let Some(dict) = self.dicts.get_mut(number) {
            dict.extend(pairs.iter().map(|[key, value]| (*key, *value)));
        }
        self.stack.truncate(from);
        Ok(())
    }

    fn remember(&mut self, index: u32) -> Result<(), PickleError> {
        within(self.memo.len(), "values that are remembered", MOST_REMEMBERED)?;
        let value = self.top()?;
        self.memo.insert(index, value);
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<(), PickleError> {
        let value = self.memo.get(&index).copied();
        let value = value.ok_or_else(|| self.malformed("it refers to a value that it does not have"))?;
        self.push(value)
    }

    fn global(&mut self, module: &'p str, name: &'p str) -> Result<(), PickleError> {
        if let Some(global) = Global::named(module, name) {
            return self.push(Value::Global(global));
        }
        let name: String = format!("{module}.{name}").chars().filter(|letter| !letter.is_control()).take(200).collect();
        match self.stack.is_empty() && is_made_next(self.input.rest()) {
            true => Err(PickleError::Object { class: name }),
            false => Err(PickleError::Global { name }),
        }
    }

    /// A persistent id: `("storage", class, key, device, count)`.
    fn storage(&mut self) -> Result<(), PickleError> {
        self.made()?;
        let id = self.pop()?;
        let [Value::Text("storage"), Value::Global(class), Value::Text(key), _, Value::Integer(count)] =
            *self.values(id)?
        else {
            return Err(self.malformed("it refers to something outside of it that is no storage"));
        };
        within(key.len().saturating_sub(1), "bytes in a name", LONGEST_NAME)?;
        let dtype = match class {
            Global::Storage(dtype) => Some(dtype),
            Global::UntypedStorage => None,
            _ => return Err(self.malformed("a storage has a class that is none of storages")),
        };
        let count = usize::try_from(count).map_err(|_| self.malformed("a storage has less than no elements"))?;
        self.storages.push(Storage { key, dtype, count });
        self.push(Value::Storage(self.storages.len() - 1))
    }

    /// Calls what is on the stack below its arguments.
    fn call(&mut self) -> Result<(), PickleError> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Value::Global(global) = function else { return Err(self.used("calls", function)) };
        let values = self.values(arguments)?;
        match global {
            Global::Dict if values.is_empty() => self.dict(),
            Global::Plain => self.push(Value::Other("a plain value")),
            Global::Size => match *values {
                [size @ Value::Tuple(_)] => self.push(size),
                _ => Err(self.used("calls", function)),
            },
            Global::RebuildFromType => match *values {
                [Value::Global(function), Value::Global(Global::TensorClass), arguments, _] => {
                    self.tensor(function, arguments)
                }
                _ => Err(self.used("calls", function)),
            },
            _ => self.tensor(global, arguments),
        }
    }

    /// Calls a function that makes a tensor.
    fn tensor(&mut self, function: Global, arguments: Value<'p>) -> Result<(), PickleError> {
        let values = self.values(arguments)?;
        let (storage, offset, size, stride, dtype, metadata) = match (function, values) {
            (Global::RebuildParameter, [Value::Tensor(tensor), ..]) => {
                let tensor = Value::Tensor(*tensor);
                return self.push(tensor);
            }
            (Global::RebuildTensor, [Value::Storage(storage), offset, size, stride, _, _, metadata @ ..]) => {
                (*storage, *offset, *size, *stride, None, metadata)
            }
            (
                Global::RebuildTensorOfDtype,
                [
                    Value::Storage(storage),
                    offset,
                    size,
                    stride,
                    _,
                    _,
                    Value::Global(Global::Dtype(dtype)),
                    metadata @ ..,
                ],
            ) => (*storage, *offset, *size, *stride, Some(*dtype), metadata),
            _ => return Err(self.used("calls", Value::Global(function))),
        };
        let is_plain = match metadata {
            [] | [Value::None] => true,
            [Value::Dict(number)] => self.dicts.get(*number).is_none_or(Vec::is_empty),
            _ => false,
        };
        self.made()?;
        let view = View { offset: self.length(offset)?, shape: self.lengths(size)?, strides: self.lengths(stride)? };
        let outside = PickleError::View { position: self.position };
        let Some(of) = self.storages.get(storage) else { return Err(outside) };
        // Of an untyped storage, the elements are those of the tensor's dtype.
        let Some(dtype) = dtype.or(of.dtype) else {
            return Err(self.malformed("a tensor has no dtype"));
        };
        let end = view.end().and_then(|end| end.checked_mul(dtype.size()));
        if end.zip(of.bytes()).is_none_or(|(end, bytes)| end > bytes) {
            return Err(outside);
        }
        self.tensors.push(Arc::new(Tensor { storage, dtype, view, is_plain }));
        self.push(Value::Tensor(self.tensors.len() - 1))
    }

    fn length(&self, value: Value<'_>) -> Result<usize, PickleError> {
        let Value::Integer(number) = value else { return Err(self.malformed("a length is no number")) };
        usize::try_from(number).map_err(|_| PickleError::View { position: self.position })
    }

    fn lengths(&self, tuple: Value<'p>) -> Result<Vec<usize>, PickleError> {
        let values = self.values(tuple)?;
        within(values.len().saturating_sub(1), "dimensions of a tensor", MOST_DIMENSIONS)?;
        values.iter().map(|value| self.length(*value)).collect()
    }
}

/// Whether one more than `count` is within a limit.
fn within(count: usize, what: &'static str, limit: usize) -> Result<(), PickleError> {
    if count < limit { Ok(()) } else { Err(PickleError::Limit { what, limit }) }
}

/// Whether the operations after a name make an object of the class that it is: an empty tuple and NEWOBJ, each of which
/// may be remembered.
fn is_made_next(mut rest: &[u8]) -> bool {
    loop {
        rest = match rest {
            [b'q', _, after @ ..] | [b'r', _, _, _, _, after @ ..] | [0x94, after @ ..] | [b')', after @ ..] => after,
            [0x81, ..] => return true,
            _ => return false,
        };
    }
}
