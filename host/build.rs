//! Compiles the C++ shim, tells the linker where libtorch lies, and the host how it was built.
//!
//! Set-up puts libtorch into a folder that no dynamic loader searches. With that folder written into
//! the programs, tests and benches of this package, they run with no environment variable set.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    compile_shim();
    link_libtorch();
    describe_build();
}

/// What tch lacks. libtorch's headers are most of its compile time, so that the sources include few of them, and `-O1`
/// is enough: the work is done inside libtorch's kernels.
fn compile_shim() {
    const SOURCES: [&str; 12] = [
        "src/torch/buckets.cpp",
        "src/torch/c10d.cpp",
        "src/torch/chain.cpp",
        "src/torch/fused.cpp",
        "src/torch/gru.cpp",
        "src/torch/shim.cpp",
        "src/torch/script.cpp",
        "src/torch/sync_batch_norm.cpp",
        "src/torch/operators.cpp",
        "src/torch/products.cpp",
        "src/torch/program.cpp",
        "src/torch/program_run.cpp",
    ];
    const HEADERS: [&str; 14] = [
        "src/torch/autocast.h",
        "src/torch/c10d.h",
        "src/torch/fused.h",
        "src/torch/gloo_stubs/gloo/algorithm.h",
        "src/torch/gloo_stubs/gloo/common/error.h",
        "src/torch/gloo_stubs/gloo/config.h",
        "src/torch/gloo_stubs/gloo/context.h",
        "src/torch/gloo_stubs/gloo/rendezvous/store.h",
        "src/torch/gloo_stubs/gloo/transport/device.h",
        "src/torch/guarded.h",
        "src/torch/products.h",
        "src/torch/program_regions.h",
        "src/torch/program_symbols.h",
        "src/torch/threads.h",
    ];
    for file in SOURCES.iter().chain(&HEADERS) {
        println!("cargo::rerun-if-changed={file}");
    }
    // torch-sys tells its folder on Linux and macOS; elsewhere libtorch is where LIBTORCH says.
    let libraries = env::var_os("DEP_TCH_LIBTORCH_LIB")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("LIBTORCH")?).join("lib")));
    let Some(libraries) = libraries else {
        println!("cargo::error=libtorch is not there: run `cargo xtask setup`, or set LIBTORCH");
        return;
    };
    let include = libraries.with_file_name("include");
    cc::Build::new()
        .cpp(true)
        .pic(true)
        // libtorch's headers warn by the page; they are not ours to fix.
        .warnings(false)
        .opt_level(1)
        .debug(false)
        .std("c++17")
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        // gloo's own headers are not in libtorch.
        .include("src/torch/gloo_stubs")
        .include(include.join("torch/csrc/api/include"))
        .include(include)
        .files(SOURCES)
        .compile("host_torch");
}

/// Writes the run-time search path for libtorch into what this package links, and keeps its CUDA part.
fn link_libtorch() {
    // torch-sys tells its folder on Linux and macOS alone: Windows has no run-time search path, there
    // the DLLs lie beside the program or on PATH.
    let Ok(folder) = env::var("DEP_TCH_LIBTORCH_LIB") else {
        return;
    };
    // `-Xlinker`, since `-Wl,` splits at commas, which a folder's name may hold.
    let beside_program = match env::var("CARGO_CFG_TARGET_VENDOR").as_deref() {
        Ok("apple") => "@loader_path/lib",
        _ => "$ORIGIN/lib",
    };
    for search_path in [folder.as_str(), beside_program] {
        for argument in ["-Xlinker", "-rpath", "-Xlinker", search_path] {
            println!("cargo::rustc-link-arg={argument}");
        }
    }

    // libtorch_cuda registers its kernels when it is loaded, and nothing names a symbol of it: a linker
    // that drops libraries it sees no use for drops it, and then the host sees no GPU.
    if Path::new(&folder).join("libtorch_cuda.so").exists() {
        println!("cargo::rustc-link-arg=-Wl,--push-state,--no-as-needed");
        println!("cargo::rustc-link-arg=-L{folder}");
        println!("cargo::rustc-link-arg=-ltorch_cuda");
        println!("cargo::rustc-link-arg=-Wl,--pop-state");
    }
}

/// Passes on the target and the compiler: the host compares them with those of a plugin that does not fit.
fn describe_build() {
    let target = env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=HOST_TARGET={target}");

    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = match Command::new(&compiler).arg("--version").output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "an unknown rustc".to_owned(),
    };
    println!("cargo::rustc-env=HOST_RUSTC={version}");
}
