//! Link options of the library.

fn main() {
    // Addresses of our own functions are ours, also where another preloaded library that comes
    // before us exports the same names.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-Bsymbolic");
    println!("cargo:rerun-if-changed=build.rs");
}
