//! Wrong: does to its process what can be done to one, in the hook of its choice, once or each time.

use std::fs::File;
use std::hint::black_box;
use std::time::Duration;

use plugin_api::event::At;
use plugin_api::{Callback, Creation, Error, Kind, Result, Run, plugin};

/// What it does.
#[plugin]
struct Options {
    /// `segfault`, `abort`, `exit`, `stack`, `memory`, `descriptors`, `panic`, `double_panic`, `hang`, `talk`, `orphan`, `rounding`, `niceness`,
    /// `print` or `nothing`.
    how: String,
    /// `setup`, `step_end`, `epoch_end` or `teardown`.
    hook: String,
    /// After which of its hooks; the ones before do nothing.
    at: u64,
    /// Whether it does it only while this file is not there, and makes it first.
    once: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { how: "nothing".to_owned(), hook: "epoch_end".to_owned(), at: 1, once: None }
    }
}

struct BreaksProcess {
    options: Options,
    hooks: u64,
}

impl BreaksProcess {
    fn break_it(&mut self, run: &Run<'_>, hook: &str) -> Result<()> {
        if hook != self.options.hook {
            return Ok(());
        }
        self.hooks += 1;
        if self.hooks < self.options.at {
            return Ok(());
        }
        if let Some(once) = &self.options.once
            && File::create_new(once).is_err()
        {
            return Ok(());
        }
        match self.options.how.as_str() {
            "segfault" => {
                // SAFETY: none: this is the fault.
                unsafe { std::ptr::without_provenance::<u8>(8).read_volatile() };
            }
            "abort" => std::process::abort(),
            "exit" => std::process::exit(0),
            "stack" => {
                deeper(0);
            }
            "memory" => {
                let mut all = Vec::new();
                loop {
                    all.push(black_box(vec![1u8; 16 << 20]));
                }
            }
            "descriptors" => loop {
                let file = File::open("/dev/null").map_err(|error| Error::new(error.to_string()))?;
                std::mem::forget(file);
            },
            "panic" => panic!("on purpose"),
            "double_panic" => {
                let _guard = PanicsInDrop;
                panic!("the first of two");
            }
            "orphan" => {
                let sleeps = std::process::Command::new("sleep").arg("1000").spawn()?;
                println!("started {}", sleeps.id());
                std::process::abort();
            }
            "hang" => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            // It answers each time at once, and never returns.
            "talk" => loop {
                run.info()?;
            },
            "rounding" => set_rounding(),
            "niceness" => {
                // The 19th word of the line, after the name in parentheses, which may hold spaces.
                let line = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
                let after = line.rsplit(") ").next().unwrap_or_default();
                println!("niceness {}", after.split(' ').nth(16).unwrap_or_default());
            }
            "print" => {
                for number in 0..50 {
                    println!("printed {number}");
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Rounds toward zero from now on, and takes denormal numbers for zero.
fn set_rounding() {
    #[cfg(target_arch = "x86_64")]
    {
        let control: u32 = 0x1f80 | 0x6000 | 0x8040;
        // SAFETY: loads the register from a number; that others do not expect it is the fault.
        unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const control) };
    }
}

struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic!("the second of two");
    }
}

#[expect(unconditional_recursion, reason = "this is the fault")]
fn deeper(depth: u64) -> u64 {
    let space = black_box([depth; 512]);
    deeper(depth + 1) + space[0]
}

#[plugin]
impl Callback for BreaksProcess {
    const KIND: &'static str = "breaks-process";
    const SUMMARY: &'static str = "Breaks its process";
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        Ok(Self { options, hooks: 0 })
    }

    fn on_teardown(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.break_it(run, "teardown")
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.break_it(run, "setup")
    }

    fn on_step_end(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.break_it(run, "step_end")
    }

    fn on_epoch_end(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        self.break_it(run, "epoch_end")
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
        Ok(self.hooks.to_string().into_bytes())
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        self.hooks = std::str::from_utf8(state).ok().and_then(|text| text.parse().ok()).unwrap_or_default();
        println!("went on after {} hooks", self.hooks);
        Ok(())
    }
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<BreaksProcess>()];
