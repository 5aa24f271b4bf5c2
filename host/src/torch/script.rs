//! TorchScript modules, with their buffers, which tch does not expose.

use std::ffi::{c_char, c_void};
use std::ptr::NonNull;

use tch::{Device, Tensor};

use super::{TorchError, device_index, error::check, shim};

/// A TorchScript module (`torch.jit.ScriptModule`). Belongs to the training thread.
///
/// Its tensors stay the same objects for its whole life. The operators of its graph run as they are written, without
/// the optimizations of libtorch's executor, which would round differently from the second or third call on.
#[derive(Debug)]
pub struct ScriptModule {
    script: NonNull<shim::Script>,
}

/// The source of the classes of a TorchScript module, in a file's `bytes`, each with its place in the archive. Nothing is
/// executed.
///
/// # Errors
///
/// When the bytes are not such a module.
pub fn script_code(bytes: &[u8]) -> Result<Vec<(String, String)>, TorchError> {
    let mut code: Vec<(String, String)> = Vec::new();
    // SAFETY: the bytes are borrowed for the call; `add_code` gets the vector that outlives it, and nothing else refers to it.
    let status = unsafe {
        let context = (&raw mut code).cast::<c_void>();
        shim::host_torch_script_code(bytes.as_ptr().cast::<c_char>(), bytes.len(), context, add_code)
    };
    check(status, "torch.jit.load")?;
    Ok(code)
}

/// Adds a source to the vector at `context`.
unsafe extern "C" fn add_code(
    context: *mut c_void,
    name: *const c_char,
    name_length: usize,
    text: *const c_char,
    text_length: usize,
) {
    // SAFETY: `context` is the vector of `script_code`, which waits for this call.
    let code = unsafe { &mut *context.cast::<Vec<(String, String)>>() };
    let [name, text] = [(name, name_length), (text, text_length)].map(|(bytes, length)| {
        if length == 0 {
            return String::new();
        }
        // SAFETY: the shim lends that many bytes for the call.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), length) };
        String::from_utf8_lossy(bytes).into_owned()
    });
    code.push((name, text));
}

impl ScriptModule {
    /// The module in a file's `bytes`, with its tensors on `device`.
    ///
    /// # Errors
    ///
    /// When the bytes are not such a module, or it has no method `forward`.
    pub fn load(bytes: &[u8], device: Device) -> Result<ScriptModule, TorchError> {
        const OPERATION: &str = "torch.jit.load";
        let mut script = std::ptr::null_mut();
        let device = device_index(device)?;
        // SAFETY: the bytes are borrowed for the call, and `script` is a place to write to.
        let status =
            unsafe { shim::host_torch_script_load(bytes.as_ptr().cast::<c_char>(), bytes.len(), device, &mut script) };
        check(status, OPERATION)?;
        let script = NonNull::new(script)
            .ok_or(TorchError::Operation { operation: OPERATION, message: "no module was made".to_owned() })?;
        Ok(ScriptModule { script })
    }

    /// Its parameters and buffers by the names of PyTorch's state dict, sharing its memory. One that has several names
    /// is listed once, under the first.
    ///
    /// # Errors
    ///
    /// Those of libtorch.
    pub fn tensors(&self) -> Result<Vec<(String, Tensor)>, TorchError> {
        let mut tensors: Vec<(String, Tensor)> = Vec::new();
        // SAFETY: a live module; `visit` gets the vector that outlives the call, and nothing else refers to it.
        let status = unsafe {
            shim::host_torch_script_tensors(self.script.as_ptr(), (&raw mut tensors).cast::<c_void>(), visit)
        };
        check(status, "named_parameters")?;
        Ok(tensors)
    }

    /// The output of its `forward` for `input`, in training or in evaluation mode.
    ///
    /// # Errors
    ///
    /// When it fails, or returns anything other than one tensor.
    pub fn forward(&self, input: &Tensor, training: bool) -> Result<Tensor, TorchError> {
        let mut output = std::ptr::null_mut();
        // SAFETY: a live module, which no other thread uses; a live tensor, and a place to write to.
        let status =
            unsafe { shim::host_torch_script_forward(self.script.as_ptr(), input.as_ptr(), training, &mut output) };
        check(status, "forward")?;
        // SAFETY: on success the shim returns a new tensor.
        Ok(unsafe { Tensor::from_ptr(output) })
    }
}

/// Adds a tensor to the vector at `context`.
unsafe extern "C" fn visit(context: *mut c_void, name: *const c_char, length: usize, tensor: *mut torch_sys::C_tensor) {
    // SAFETY: `context` is the vector of `ScriptModule::tensors`, which waits for this call.
    let tensors = unsafe { &mut *context.cast::<Vec<(String, Tensor)>>() };
    // SAFETY: the shim lends that many bytes for the call.
    let name = unsafe { std::slice::from_raw_parts(name.cast::<u8>(), length) };
    // SAFETY: the shim returns a new tensor.
    let tensor = unsafe { Tensor::from_ptr(tensor) };
    tensors.push((String::from_utf8_lossy(name).into_owned(), tensor));
}

impl Drop for ScriptModule {
    fn drop(&mut self) {
        // SAFETY: made by `host_torch_script_load`, freed once.
        unsafe { shim::host_torch_script_free(self.script.as_ptr()) }
    }
}
