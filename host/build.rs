//! Compiles the C++ shim of `src/torch` against the libtorch that tch links, and tells the linker where it lies.

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let library_folder = PathBuf::from(
        std::env::var_os("DEP_TCH_LIBTORCH_LIB").expect("torch-sys reports the folder of libtorch"),
    );
    compile_shim(&library_folder);
    link_libtorch(&library_folder);
}

/// One translation unit; libtorch's headers are most of its compile time, so it includes few and `-O1` is enough:
/// the work is done inside libtorch's kernels.
fn compile_shim(library_folder: &std::path::Path) {
    println!("cargo:rerun-if-changed=src/torch/shim.cpp");
    let include = library_folder.with_file_name("include");
    cc::Build::new()
        .cpp(true)
        .pic(true)
        // libtorch's headers warn by the page; they are not ours to fix.
        .warnings(false)
        .opt_level(1)
        .debug(false)
        .std("c++17")
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .include(include.join("torch/csrc/api/include"))
        .include(include)
        .file("src/torch/shim.cpp")
        .compile("host_torch");
}

fn link_libtorch(library_folder: &std::path::Path) {
    println!(
        "cargo:rustc-link-arg=-Wl,-rpath,{}",
        library_folder.display()
    );
}
