//! The `vramtrace` command.

fn main() {
    std::process::exit(vramtrace_reader::cli::main());
}
