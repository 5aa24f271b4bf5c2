//! Exported programs as a flat list of operators, which libtorch's dispatcher calls as eager PyTorch does.

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::NonNull;

use tch::{Device, Kind, Tensor};

use super::{TorchError, device_index, error::check, shim};

/// The place of a value in a program.
pub type Slot = i64;

/// No value.
pub const NO_SLOT: Slot = -1;

/// A program. Belongs to the training thread.
#[derive(Debug)]
pub struct Program {
    program: NonNull<shim::Program>,
}

/// An argument of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    /// `None`.
    None,
    /// The value of a slot.
    Slot(Slot),
    /// A list of tensors; [`NO_SLOT`] for one that is not given.
    Slots(Vec<Slot>),
    /// A number, or the number of an enumeration of libtorch.
    Integer(i64),
    /// A list of numbers or sizes.
    Integers(Vec<Size>),
    /// A number with a fraction.
    Double(f64),
    /// A list of such numbers.
    Doubles(Vec<f64>),
    /// A truth value.
    Bool(bool),
    /// A list of truth values.
    Bools(Vec<bool>),
    /// A text.
    Text(String),
    /// The device that the program runs on.
    Device,
}

/// A size: a number, or the value of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// A number.
    Fixed(i64),
    /// The value of a slot.
    Slot(Slot),
}

/// What a call returns in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// One value; [`NO_SLOT`] if nobody reads it.
    One(Slot),
    /// A list of tensors.
    List(Vec<Slot>),
}

/// Arithmetic with sizes, as in `program.cpp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Symbol {
    /// `a + b`
    Add = 0,
    /// `a - b`
    Subtract,
    /// `a * b`
    Multiply,
    /// `a // b`, as Python rounds
    FloorDivide,
    /// `a % b`, as Python's sign
    Modulo,
    /// `-a`
    Negate,
    /// `a == b`
    Equal,
    /// `a != b`
    NotEqual,
    /// `a < b`
    Less,
    /// `a <= b`
    LessEqual,
    /// `a > b`
    Greater,
    /// `a >= b`
    GreaterEqual,
}

/// A step that is no computation, as in `program.cpp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A region begins in which gradients are recorded, or not, up to its `Leave`.
    Gradients {
        /// Whether they are. In evaluation they never are.
        enabled: bool,
    },
    /// A region begins with autocast, or without, up to its `Leave`.
    Autocast {
        /// The number of the dtype; that of before if not given.
        dtype: Option<i64>,
        /// Whether operators cast.
        enabled: bool,
        /// Whether cast weights are kept to the end of the outermost region.
        cache: bool,
    },
    /// The innermost region ends.
    Leave,
    /// What follows up to `Else` is done if the value of this slot, one truth value, is true; else what follows that, up to
    /// `End`.
    If(Slot),
    /// See `If`.
    Else,
    /// See `If`.
    End,
    /// The value of the first slot goes to the second, too.
    Copy(Slot, Slot),
}

impl Program {
    /// An empty program on `device`.
    ///
    /// # Errors
    ///
    /// A device that libtorch does not have.
    pub fn new(device: Device) -> Result<Self, TorchError> {
        let mut program = std::ptr::null_mut();
        let device = device_index(device)?;
        // SAFETY: `program` is a place to write to.
        check(unsafe { shim::host_torch_program_new(device, &mut program) }, "Program")?;
        let none = TorchError::Operation { operation: "Program", message: "no program was made".to_owned() };
        Ok(Self { program: NonNull::new(program).ok_or(none)? })
    }

    /// Gives a slot a tensor of the model for good; before the calls that use it.
    ///
    /// # Errors
    ///
    /// A slot that there is not.
    pub fn bind(&mut self, slot: Slot, tensor: &Tensor, is_buffer: bool) -> Result<(), TorchError> {
        // SAFETY: a live program and tensor.
        let status = unsafe { shim::host_torch_program_bind(self.program.as_ptr(), slot, tensor.as_ptr(), is_buffer) };
        check(status, "bind")
    }

    /// Adds a call of the operator `name.overload`; `label` names it in errors. Returns whether it draws random numbers in
    /// evaluation, too.
    ///
    /// # Errors
    ///
    /// An operator that libtorch does not have, or arguments that are not its own.
    pub fn call(
        &mut self,
        label: &str,
        (name, overload): (&str, &str),
        arguments: &[(String, Argument)],
        outputs: &[Output],
    ) -> Result<bool, TorchError> {
        let [label, name, overload] = [label, name, overload].map(text);
        let encoded: Vec<Encoded> = arguments.iter().map(|(_, argument)| Encoded::of(argument)).collect();
        let passed: Vec<shim::ProgramArgument> = arguments
            .iter()
            .zip(&encoded)
            .map(|((name, _), encoded)| shim::ProgramArgument {
                name: name.as_ptr().cast::<c_char>(),
                name_length: name.len(),
                tag: encoded.tag,
                count: encoded.count,
                integers: encoded.integers.as_ptr(),
                are_slots: encoded.are_slots.as_ptr(),
                doubles: encoded.doubles.as_ptr(),
                text: encoded.text.as_ptr().cast::<c_char>(),
            })
            .collect();
        let returned: Vec<shim::ProgramOutput> = outputs
            .iter()
            .map(|output| match output {
                Output::One(slot) => shim::ProgramOutput { count: 1, is_list: false, slots: slot },
                Output::List(slots) => shim::ProgramOutput { count: slots.len(), is_list: true, slots: slots.as_ptr() },
            })
            .collect();
        let mut is_random = false;
        // SAFETY: a live program; texts that end with 0, and lists of the given lengths, borrowed for the call.
        let status = unsafe {
            shim::host_torch_program_call(
                self.program.as_ptr(),
                label.as_ptr(),
                name.as_ptr(),
                overload.as_ptr(),
                passed.as_ptr(),
                passed.len(),
                returned.as_ptr(),
                returned.len(),
                &mut is_random,
            )
        };
        check(status, "call")?;
        Ok(is_random)
    }

    /// Adds arithmetic with sizes.
    ///
    /// # Errors
    ///
    /// Those of libtorch.
    pub fn symbol(&mut self, label: &str, symbol: Symbol, operands: &[Size], output: Slot) -> Result<(), TorchError> {
        let label = text(label);
        let operands = Argument::Integers(operands.to_vec());
        let encoded = Encoded::of(&operands);
        // SAFETY: a live program; lists of the given length, borrowed for the call.
        let status = unsafe {
            shim::host_torch_program_symbol(
                self.program.as_ptr(),
                label.as_ptr(),
                symbol as c_int,
                encoded.integers.as_ptr(),
                encoded.are_slots.as_ptr(),
                encoded.count,
                output,
            )
        };
        check(status, "symbol")
    }

    /// Adds a step that is no computation. Regions and branches must have ends, which the caller sees to.
    ///
    /// # Errors
    ///
    /// Those of libtorch.
    pub fn step(&mut self, label: &str, step: Step) -> Result<(), TorchError> {
        let (number, operands) = match step {
            Step::Gradients { enabled } => (2, vec![i64::from(enabled)]),
            Step::Autocast { dtype, enabled, cache } => {
                (3, vec![dtype.unwrap_or(-1), i64::from(enabled), i64::from(cache)])
            }
            Step::Leave => (4, Vec::new()),
            Step::If(slot) => (5, vec![slot]),
            Step::Else => (6, Vec::new()),
            Step::End => (7, Vec::new()),
            Step::Copy(from, to) => (8, vec![from, to]),
        };
        let label = text(label);
        // SAFETY: a live program, a text that ends with 0, and a list of the given length, borrowed for the call.
        let status = unsafe {
            shim::host_torch_program_step(
                self.program.as_ptr(),
                label.as_ptr(),
                number,
                operands.as_ptr(),
                operands.len(),
            )
        };
        check(status, "step")
    }

    /// From now on, normalizations whose buffers are in these slots compute as in evaluation, and leave them as they are; the
    /// others do as the mode says.
    ///
    /// # Errors
    ///
    /// Those of libtorch.
    pub fn set_still(&mut self, slots: &[Slot]) -> Result<(), TorchError> {
        // SAFETY: a live program, and a list of the given length, borrowed for the call.
        let status = unsafe { shim::host_torch_program_still(self.program.as_ptr(), slots.as_ptr(), slots.len()) };
        check(status, "still")
    }

    /// From now on, the tensors of these slots are given to each run, as inputs.
    ///
    /// # Errors
    ///
    /// A slot that there is not.
    pub fn unbind(&mut self, slots: &[Slot]) -> Result<(), TorchError> {
        // SAFETY: a live program, and a list of the given length, borrowed for the call.
        let status = unsafe { shim::host_torch_program_unbind(self.program.as_ptr(), slots.as_ptr(), slots.len()) };
        check(status, "unbind")
    }

    /// Ends the program: these slots are its outputs.
    ///
    /// # Errors
    ///
    /// A slot that there is not.
    pub fn finish(&mut self, outputs: &[Slot]) -> Result<(), TorchError> {
        // SAFETY: a live program, and a list of the given length.
        let status = unsafe { shim::host_torch_program_finish(self.program.as_ptr(), outputs.as_ptr(), outputs.len()) };
        check(status, "finish")
    }

    /// Its outputs for `inputs`, each with its slot, and copies of the values of the slots `wanted`, as they are made, in that
    /// order.
    ///
    /// # Errors
    ///
    /// When an operator fails, an evaluation changes a buffer, or a wanted slot gets no tensor.
    pub fn run(
        &self,
        inputs: &[(Slot, &Tensor)],
        training: bool,
        wanted: &[Slot],
    ) -> Result<(Vec<Tensor>, Vec<Tensor>), TorchError> {
        let slots: Vec<Slot> = inputs.iter().map(|(slot, _)| *slot).collect();
        let tensors: Vec<_> = inputs.iter().map(|(_, tensor)| tensor.as_ptr()).collect();
        let mut outputs: Vec<Tensor> = Vec::new();
        // SAFETY: a live program, which no other thread uses; lists of the given lengths; `visit` gets the vector that
        // outlives the call, and nothing else refers to it.
        let status = unsafe {
            shim::host_torch_program_run(
                self.program.as_ptr(),
                slots.as_ptr(),
                tensors.as_ptr(),
                slots.len(),
                wanted.as_ptr(),
                wanted.len(),
                training,
                (&raw mut outputs).cast::<c_void>(),
                visit,
            )
        };
        check(status, "run")?;
        let inner = outputs.split_off(outputs.len().saturating_sub(wanted.len()));
        Ok((outputs, inner))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program is this value's own.
        unsafe { shim::host_torch_program_free(self.program.as_ptr()) }
    }
}

/// Whether libtorch has the operator `name.overload`.
pub fn knows(name: &str, overload: &str) -> bool {
    let [name, overload] = [name, overload].map(text);
    // SAFETY: two texts that end with 0.
    unsafe { shim::host_torch_program_knows(name.as_ptr(), overload.as_ptr()) }
}

/// A leaf that is a view of a storage's values and shares its memory.
///
/// # Errors
///
/// A view that reaches beyond the storage.
pub fn view(
    storage: &Tensor,
    sizes: &[i64],
    strides: &[i64],
    offset: i64,
    requires_grad: bool,
) -> Result<Tensor, TorchError> {
    if sizes.len() != strides.len() {
        let message = format!("it has {} sizes and {} strides", sizes.len(), strides.len());
        return Err(TorchError::Operation { operation: "as_strided", message });
    }
    let mut view = std::ptr::null_mut();
    // SAFETY: a live tensor, lists of the given length, and a place to write to.
    let status = unsafe {
        shim::host_torch_program_view(
            storage.as_ptr(),
            sizes.as_ptr(),
            strides.as_ptr(),
            sizes.len(),
            offset,
            requires_grad,
            &mut view,
        )
    };
    check(status, "as_strided")?;
    // SAFETY: on success the shim returns a new tensor.
    Ok(unsafe { Tensor::from_ptr(view) })
}

/// The most bytes of memory that are handed out at once for reading. They are zeroed first, and are still in the processor's
/// cache when they are read into; zeroing half a gigabyte as a whole takes as long as reading it.
const CHUNK: usize = 256 * 1024;

/// Fills a new tensor on the CPU, of one dimension, from `read`, which gets its memory in parts, in order.
///
/// # Errors
///
/// Those of `read`.
pub fn storage<E: From<TorchError>>(
    kind: Kind,
    count: usize,
    mut read: impl FnMut(&mut [u8]) -> Result<(), E>,
) -> Result<Tensor, E> {
    let tensor = Tensor::f_empty([count as i64], (kind, Device::Cpu)).map_err(TorchError::from)?;
    let length = tensor.numel() * kind.elt_size_in_bytes();
    for start in (0..length).step_by(CHUNK) {
        let size = CHUNK.min(length - start);
        // SAFETY: a part of a new contiguous tensor on the CPU of `length` bytes, which nothing else refers to; it is
        // initialized before a reference to it is made.
        let bytes = unsafe {
            let part = tensor.data_ptr().cast::<u8>().add(start);
            part.write_bytes(0, size);
            std::slice::from_raw_parts_mut(part, size)
        };
        read(bytes)?;
    }
    Ok(tensor)
}

/// An argument as the shim takes it.
#[derive(Default)]
struct Encoded<'a> {
    tag: c_int,
    count: usize,
    integers: Vec<i64>,
    are_slots: Vec<u8>,
    doubles: Vec<f64>,
    text: &'a str,
}

impl<'a> Encoded<'a> {
    fn of(argument: &'a Argument) -> Self {
        let integers = |tag, integers: Vec<i64>| Self { tag, count: integers.len(), integers, ..Self::default() };
        match argument {
            Argument::None => Self::default(),
            Argument::Slot(slot) => integers(1, vec![*slot]),
            Argument::Slots(slots) => integers(2, slots.clone()),
            Argument::Integer(value) => integers(3, vec![*value]),
            Argument::Integers(sizes) => {
                let (values, are_slots) = sizes
                    .iter()
                    .map(|size| match *size {
                        Size::Fixed(value) => (value, 0),
                        Size::Slot(slot) => (slot, 1),
                    })
                    .unzip();
                Self { tag: 4, count: sizes.len(), integers: values, are_slots, ..Self::default() }
            }
            Argument::Double(value) => Self { tag: 5, count: 1, doubles: vec![*value], ..Self::default() },
            Argument::Doubles(values) => {
                Self { tag: 6, count: values.len(), doubles: values.clone(), ..Self::default() }
            }
            Argument::Bool(value) => integers(7, vec![i64::from(*value)]),
            Argument::Bools(values) => integers(8, values.iter().map(|&value| i64::from(value)).collect()),
            Argument::Text(text) => Self { tag: 9, count: text.len(), text, ..Self::default() },
            Argument::Device => Self { tag: 10, ..Self::default() },
        }
    }
}

/// A text that ends with 0. One that holds a 0 ends there, and is then no operator's name.
fn text(text: &str) -> CString {
    CString::new(text.split('\0').next().unwrap_or_default()).unwrap_or_default()
}

/// Adds an output to the vector at `context`.
unsafe extern "C" fn visit(context: *mut c_void, _: usize, tensor: *mut torch_sys::C_tensor) {
    // SAFETY: `context` is the vector of `Program::run`, which waits for this call.
    let outputs = unsafe { &mut *context.cast::<Vec<Tensor>>() };
    // SAFETY: the shim returns a new tensor.
    outputs.push(unsafe { Tensor::from_ptr(tensor) });
}
