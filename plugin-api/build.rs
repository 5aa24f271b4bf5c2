//! Tells the SDK what it is built by and for: a host shows both when it refuses a library.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let compiler = std::env::var_os("RUSTC")
        .and_then(|rustc| std::process::Command::new(rustc).arg("--version").output().ok())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .unwrap_or_else(|| "an unknown compiler".to_owned());
    println!("cargo::rustc-env=PLUGIN_API_COMPILER={}", compiler.trim());
    let target = std::env::var("TARGET").unwrap_or_else(|_| "an unknown target".to_owned());
    println!("cargo::rustc-env=PLUGIN_API_TARGET={target}");
}
