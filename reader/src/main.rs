//! The `vramtrace` command.

fn main() {
    vramtrace_reader::nvml::end_process(vramtrace_reader::cli::main());
}
