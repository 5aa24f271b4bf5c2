//! One long-lived Python process that runs models in other runtimes.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock};

use export::difference;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

/// What runs a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// onnxruntime, after onnx's checker.
    Onnx,
    /// LiteRT.
    Tflite,
}

/// The process, with its pipes.
pub struct Reader {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    folder: tempfile::TempDir,
}

impl Reader {
    /// The process of this test program; `None`, with a message, if `HOST_TEST_PYTHON` names no Python.
    ///
    /// # Panics
    ///
    /// When Python does not start.
    pub fn shared() -> Option<MutexGuard<'static, Reader>> {
        static READER: OnceLock<Option<Mutex<Reader>>> = OnceLock::new();
        let reader = READER.get_or_init(|| {
            let Some(python) = std::env::var_os("HOST_TEST_PYTHON") else {
                crate::skipped("`HOST_TEST_PYTHON` must name a Python with the packages of tests/requirements.txt");
                return None;
            };
            let mut child = Command::new(python)
                .args(["-c", include_str!("reader.py")])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("Python starts");
            let requests = child.stdin.take().expect("stdin is a pipe");
            let answers = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
            let folder = tempfile::tempdir().expect("a temporary folder");
            Some(Mutex::new(Reader { child, requests, answers, folder }))
        });
        // A test that failed while it held the lock leaves the process between two requests.
        reader.as_ref().map(|reader| reader.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Outputs of `model` for `inputs`, whose dimensions are first reordered by `transpose` unless that is empty.
    ///
    /// # Errors
    ///
    /// The message of the runtime or its checker.
    ///
    /// # Panics
    ///
    /// When the process has ended.
    pub fn run(
        &mut self,
        runtime: Runtime,
        model: &Path,
        inputs: &Tensor,
        transpose: &[usize],
    ) -> Result<Tensor, String> {
        self.run_all(runtime, model, &[inputs], transpose)
    }

    /// The same for a model of several inputs, in the order of the file's.
    ///
    /// # Errors
    ///
    /// Those of [`Reader::run`].
    ///
    /// # Panics
    ///
    /// When the process has ended.
    pub fn run_all(
        &mut self,
        runtime: Runtime,
        model: &Path,
        inputs: &[&Tensor],
        transpose: &[usize],
    ) -> Result<Tensor, String> {
        let inputs: Vec<Value> = inputs.iter().enumerate().map(|(place, input)| self.given(place, input)).collect();
        let taken = self.folder.path().join("outputs");
        let runtime = match runtime {
            Runtime::Onnx => "onnx",
            Runtime::Tflite => "tflite",
        };
        let request = json!({
            "runtime": runtime, "model": model, "inputs": inputs, "outputs": taken, "transpose": transpose,
        });
        let answer = self.ask(&request)?;
        let shape: Vec<i64> = answer["shape"].as_array().into_iter().flatten().filter_map(Value::as_i64).collect();
        let bytes = std::fs::read(&taken).expect("the outputs are written");
        let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
        Ok(Tensor::from_slice(&values).reshape(&shape))
    }

    /// Writes an input for the process.
    fn given(&self, place: usize, inputs: &Tensor) -> Value {
        let path = self.folder.path().join(format!("inputs{place}"));
        let flat = inputs.contiguous().reshape([-1]);
        let (dtype, bytes): (_, Vec<u8>) = match inputs.kind() {
            Kind::Int64 => {
                let values = Vec::<i64>::try_from(flat).expect("integers");
                ("int64", values.iter().flat_map(|value| value.to_le_bytes()).collect())
            }
            _ => {
                let values = Vec::<f32>::try_from(flat).expect("numbers");
                ("float32", values.iter().flat_map(|value| value.to_le_bytes()).collect())
            }
        };
        std::fs::write(&path, bytes).expect("the inputs are written");
        json!({ "path": path, "dtype": dtype, "shape": inputs.size() })
    }

    /// What a file says about its run.
    ///
    /// # Errors
    ///
    /// The message of the runtime about the file.
    ///
    /// # Panics
    ///
    /// When the process has ended.
    pub fn origin(&mut self, runtime: Runtime, model: &Path) -> Result<Value, String> {
        let kind = if runtime == Runtime::Onnx { "onnx" } else { "tflite" };
        let answer = self.ask(&json!({ "runtime": "origin", "kind": kind, "model": model }))?;
        Ok(answer["origin"].clone())
    }

    /// The operators of a TFLite file, by the runtime's names for them.
    ///
    /// # Errors
    ///
    /// The message of the runtime about the file.
    ///
    /// # Panics
    ///
    /// When the process has ended.
    pub fn operators(&mut self, model: &Path) -> Result<Vec<String>, String> {
        let answer = self.ask(&json!({ "runtime": "operators", "model": model }))?;
        let names = answer["operators"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Ok(names.map(str::to_owned).collect())
    }

    fn ask(&mut self, request: &Value) -> Result<Value, String> {
        writeln!(self.requests, "{request}").expect("Python listens");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("Python answers");
        let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
        answer["error"].as_str().map_or(Ok(()), |error| Err(error.to_owned()))?;
        Ok(answer)
    }

    /// Like [`Reader::run`], with the difference between the outputs and `expected`: `max |a - b| / max(1, max |b|)`.
    ///
    /// # Errors
    ///
    /// Those of [`Reader::run`], and outputs of another shape.
    ///
    /// # Panics
    ///
    /// When the process has ended.
    pub fn difference(
        &mut self,
        runtime: Runtime,
        model: &Path,
        inputs: &Tensor,
        expected: &Tensor,
        transpose: &[usize],
    ) -> Result<f64, String> {
        self.difference_of(runtime, model, &[inputs], expected, transpose)
    }

    /// The same for a model of several inputs.
    ///
    /// # Errors
    ///
    /// Those of [`Reader::difference`].
    ///
    /// # Panics
    ///
    /// When the process has ended.
    pub fn difference_of(
        &mut self,
        runtime: Runtime,
        model: &Path,
        inputs: &[&Tensor],
        expected: &Tensor,
        transpose: &[usize],
    ) -> Result<f64, String> {
        let found = self.run_all(runtime, model, inputs, transpose)?;
        if found.size() != expected.size() {
            return Err(format!("outputs of shape {:?} instead of {:?}", found.size(), expected.size()));
        }
        let values = |tensor: &Tensor| Vec::<f32>::try_from(tensor.reshape([-1])).expect("numbers");
        let difference = difference(&values(&found), &values(expected));
        difference.map(|difference| difference.relative).ok_or_else(|| "another number of outputs".to_owned())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // The child of this process ends with it at the latest.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
