//! Gives the simulated driver the name that every CUDA program asks the loader for, and keeps its
//! export list to the driver's functions (and `vramtrace_sim_waiting`, for tests).

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");
    // As NVIDIA's: its references to its own functions are its own (DT_SYMBOLIC, driver 580).
    println!("cargo:rustc-cdylib-link-arg=-Wl,-Bsymbolic");
    // The bounds of the symbol section (see src/gate.rs) are for the library itself.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,start-stop-visibility=hidden");
}
