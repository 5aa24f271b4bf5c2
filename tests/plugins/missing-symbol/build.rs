//! Lets the linker leave the missing function to the dynamic loader.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let argument = match std::env::var("CARGO_CFG_TARGET_VENDOR").as_deref() {
        Ok("apple") => "-Wl,-undefined,dynamic_lookup",
        _ => "-Wl,--unresolved-symbols=ignore-all",
    };
    println!("cargo::rustc-cdylib-link-arg={argument}");
}
