//! Symbols of programs compiled here and now, against what is known about their sources and what
//! binutils' addr2line says.

mod debug_files;
mod hostile;
mod program;
mod sources;
