//! NVTX: the names that programs give to what they do, without linking anything of ours.
//!
//! At its first call each copy of NVTX's header in a process loads the library that
//! `NVTX_INJECTION64_PATH` names and has it fill in its tables of functions. [`place`] sees that this
//! is us unless it is somebody else, [`injection`] fills the tables, [`callbacks`] are what is put
//! there, and [`message`] reads what they are handed. What ranges and marks mean is the recorder's
//! business.
//!
//! Numbers and layouts are those of NVTX 3 (nvtxDetail/nvtxTypes.h and nvToolsExt.h), which have not
//! changed since its first release, and of its payload extension 1.3 and 1.4 (nvToolsExtPayload.h).

mod callbacks;
mod injection;
mod message;
pub mod place;
