//! Wrong: each way in which a plugin can harm the process that it lives in, one at a time.

use std::ffi::{c_char, c_int, c_void};
use std::time::{Duration, Instant};

use plugin_api::event::At;
use plugin_api::protocol::{Control, RecordValue, TensorSet};
use plugin_api::{Callback, Creation, Error, Kind, Need, Remote, Result, Run, Tensor, plugin};

/// What it does.
#[plugin]
#[derive(Default)]
struct Options {
    /// See the hooks below.
    how: String,
    /// In which step of the run; 0 for every one.
    at_step: u64,
}

struct Harms {
    how: String,
    at_step: u64,
    flooded: Option<Flood>,
}

/// What a flood found.
struct Flood {
    remote: Remote,
    done: bool,
}

#[plugin]
impl Callback for Harms {
    const KIND: &'static str = "harms";
    const SUMMARY: &'static str = "Harms\u{1b}]0;owned\u{7} the \u{1b}[2Jprocess";
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        if options.how == "new" {
            round_upward();
            set_threads(3);
        }
        Ok(Self { how: options.how, at_step: options.at_step, flooded: None })
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        match self.how.as_str() {
            "print" => {
                println!("{{\"event\":\"forged\"}}");
                print_from_c(c"from C \x1b[2J");
            }
            "print much" => {
                let line = "x".repeat(1000);
                for _ in 0..20_000 {
                    println!("{line}");
                }
            }
            "terminal" => {
                const STEER: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}1;1H\u{202e}\r\u{8}";
                run.console_line(&format!("a line{STEER} of \u{1b}[31mred\u{1b}[0m"))?;
                run.console_status("status", &format!("a status{STEER}"), Some(0.5))?;
                run.put_metric(&format!("metric{STEER}"), 1.0)?;
                run.put_record(&format!("record{STEER}"), RecordValue::Text { text: STEER.to_owned() })?;
                plugin_api::tracing::warn!("a record of the log{STEER}");
                return Err(Error::new(format!("it fails{STEER}")));
            }
            "flood controls" | "flood records" => {
                self.flooded = Some(Flood { remote: run.remote()?, done: false });
            }
            _ => {}
        }
        Ok(())
    }

    fn on_step_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        if self.at_step != 0 && event.global_step != self.at_step {
            return Ok(());
        }
        match self.how.as_str() {
            "round upward" => round_upward(),
            "flush to zero" => flush_to_zero(),
            "set threads" => set_threads(3),
            "exit" => std::process::exit(0),
            // SAFETY: none: this is the fault.
            "_exit" => unsafe { _exit(0) },
            "exit on a thread" => {
                std::thread::spawn(|| std::process::exit(0));
                // It does not return before the process has ended.
                std::thread::sleep(Duration::from_secs(60));
            }
            "overflow the stack" => {
                std::hint::black_box(deeper(0));
            }
            "panic twice" => {
                let _second = Second;
                panic!("the first");
            }
            "take all memory" => {
                // Never touched, so that only the process runs out of it. What cannot be had ends the process.
                let mut all: Vec<Vec<u8>> = Vec::new();
                loop {
                    all.push(Vec::with_capacity(1 << 30));
                    std::hint::black_box(&all);
                }
            }
            "take all files" => {
                let mut files = Vec::new();
                while let Ok(file) = std::fs::File::open("/dev/null") {
                    files.push(file);
                }
                std::mem::forget(files);
            }
            "leave records" => {
                for number in 0..200_000 {
                    run.put_record("flood", RecordValue::Scalar { value: f64::from(number) })?;
                }
            }
            _ => {}
        }
        let Some(flood) = self.flooded.as_mut().filter(|flood| !flood.done) else { return Ok(()) };
        flood.done = true;
        let (before, began) = (resident(), Instant::now());
        let mut refused = 0u32;
        for number in 0..1_000_000 {
            let asked = match self.how.as_str() {
                "flood controls" => {
                    let control = if number % 2 == 0 { Control::Pause } else { Control::Resume };
                    flood.remote.request(control, &format!("number {number}"))
                }
                _ => flood.remote.put_record("flood", RecordValue::Scalar { value: f64::from(number) }),
            };
            refused += u32::from(asked.is_err());
        }
        let grown = resident().saturating_sub(before) >> 20;
        run.console_line(&format!("flooded: {grown} MiB, {refused} refused, {:.1} s", began.elapsed().as_secs_f64()))
    }
}

/// Writes into the batch what cannot be trained on.
struct WritesBatch {
    how: String,
    at_step: u64,
}

#[plugin]
impl Callback for WritesBatch {
    const KIND: &'static str = "writes-batch";
    const SUMMARY: &'static str = "Writes into the batch what cannot be trained on";
    const BY_DEFAULT: bool = false;
    const NEEDS: &'static [Need] = &[Need::WRITES_BATCH];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        Ok(Self { how: options.how, at_step: options.at_step })
    }

    fn on_step_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        if self.at_step != 0 && event.global_step != self.at_step {
            return Ok(());
        }
        let name = if self.how == "inputs as they are" { "inputs" } else { "targets" };
        let batch = run.tensors(TensorSet::Batch)?;
        let of = batch.iter().find(|tensor| tensor.name() == name).ok_or_else(|| Error::new("no such tensor"))?;
        let tensor = match name {
            "targets" => Tensor::new(name, of.shape(), &vec![99i64; of.len()])?,
            _ => of.to_owned()?,
        };
        run.write(TensorSet::Batch, &[tensor.view()])
    }
}

/// Panics while a panic unwinds.
struct Second;

impl Drop for Second {
    fn drop(&mut self) {
        panic!("the second");
    }
}

fn deeper(depth: u64) -> u64 {
    let place = std::hint::black_box([depth; 64]);
    // Never, but nobody who compiles it knows.
    if std::hint::black_box(depth) == u64::MAX { 0 } else { deeper(depth + 1).wrapping_add(place[0]) }
}

/// Bytes of memory that this process has.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() << 10
}

unsafe extern "C" {
    fn _exit(code: c_int) -> !;
    fn puts(text: *const c_char) -> c_int;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

fn print_from_c(text: &std::ffi::CStr) {
    // SAFETY: a text that ends with a null byte.
    unsafe { puts(text.as_ptr()) };
}

/// Changes how many threads libtorch has, as any code with OpenMP can.
fn set_threads(count: c_int) {
    // SAFETY: null stands for all libraries of the process; the function has this type.
    unsafe {
        let set = dlsym(std::ptr::null_mut(), c"omp_set_num_threads".as_ptr());
        if !set.is_null() {
            std::mem::transmute::<*mut c_void, extern "C" fn(c_int)>(set)(count);
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn change_mxcsr(bits: u32) {
    let mut register = 0u32;
    // SAFETY: none: Rust's code expects the default, and this is the fault.
    unsafe {
        std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut register);
        register |= bits;
        std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const register);
    }
}

#[cfg(target_arch = "x86_64")]
fn round_upward() {
    change_mxcsr(2 << 13);
}

#[cfg(target_arch = "x86_64")]
fn flush_to_zero() {
    change_mxcsr(1 << 15 | 1 << 6);
}

#[cfg(target_arch = "aarch64")]
fn change_fpcr(bits: u64) {
    // SAFETY: none: Rust's code expects the default, and this is the fault.
    unsafe {
        let register: u64;
        std::arch::asm!("mrs {}, fpcr", out(reg) register);
        std::arch::asm!("msr fpcr, {}", in(reg) register | bits);
    }
}

#[cfg(target_arch = "aarch64")]
fn round_upward() {
    change_fpcr(1 << 22);
}

#[cfg(target_arch = "aarch64")]
fn flush_to_zero() {
    change_fpcr(1 << 24);
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn round_upward() {}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn flush_to_zero() {}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Harms>(), Kind::of::<WritesBatch>()];
