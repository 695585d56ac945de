//! A simulated NVIDIA driver: `libcuda.so.1` for machines without a GPU.
//!
//! Programs that allocate through the CUDA driver API run on it unchanged: by linking, by `dlopen`,
//! and through `cuGetProcAddress`. It reports CUDA 13.0. What it simulates is memory: who holds how
//! much of which device, for how long, at which address, and what every wrong use answers. Device
//! memory is backed, so that copies give the right bytes. Kernels do nothing.
//!
//! # What is honest
//!
//! The semantics that a memory tool relies on are those of the real driver, checked by one program
//! that runs on both (`tests/programs/conformance.c`): variants and flags of `cuGetProcAddress`;
//! linear, managed and pinned memory; stream-ordered pools with reserve, threshold and trimming;
//! virtual memory whose physical side lives until no handle and no mapping is left; IPC and shareable
//! handles between real processes; graphs with memory nodes; stream capture and the calls that spoil
//! it; contexts and what ends with them; errors that stick. A freed address comes back with the next
//! allocation of its size, as on a GPU.
//!
//! # What is not
//!
//! Streams have no queue: work is done when the call returns. Devices are private to a process: what
//! another process holds does not show in `cuMemGetInfo`. Managed memory is not charged to a device.
//! Graphics interoperation, textures as data, core dumps and logs answer "not supported".
//!
//! # Configuration
//!
//! | Variable | Meaning | Default |
//! |---|---|---|
//! | `VRAMTRACE_SIM_DEVICES` | number of devices, 0 to 16 | 1 |
//! | `VRAMTRACE_SIM_MEMORY` | bytes per device; `KiB`, `MiB`, `GiB` | 8GiB |
//! | `VRAMTRACE_SIM_CONTEXT` | bytes that a context costs | 256MiB, at most 1/8 of the memory |
//! | `VRAMTRACE_SIM_STREAM` | bytes that a stream costs | 0 |
//! | `VRAMTRACE_SIM_FAIL` | calls that fail, see below | none |
//! | `VRAMTRACE_SIM_LATENCY_NS` | least duration of a call, busy | 0 |
//! | `VRAMTRACE_SIM_EXIT` | `deinit`: calls after `exit` began answer 4; `live`: they work | `deinit` |
//! | `VRAMTRACE_SIM_LOG` | 1: every call and its result on stderr | 0 |
//!
//! `VRAMTRACE_SIM_FAIL` is a list of rules separated by commas, each a function's exported name (or a
//! prefix and `*`) and options separated by colons: `cuMemAlloc_v2:3` fails the third call,
//! `name:every=10` every tenth, `name:from=5` the fifth and all later ones, and `code=700` says with
//! what (2, out of memory, if not given; with only a code, all calls fail). With `until=NAME` the
//! failing call answers only when another thread's call of NAME has been answered;
//! `vramtrace_sim_waiting()` tells how many calls wait so. A call that fails this way has no effect.
//! With `code=0` and `until` the call does not fail: it does what it does, and answers late.
//!
//! A kernel whose name is `trap`, or begins with `trap_`, or ends with `_trap`, makes its device
//! fail: from then on every call in a context of it answers 719.
//!
//! # Rooms
//!
//! `abi` what cuda.h fixes · `ffi` the pointers of the edge · `gate` the door of every call · `api`
//! the exported families · `model` the machine, in safe Rust but for `mapping` and the copies.

// The exported names are NVIDIA's.
#![allow(non_snake_case)]

mod abi;
mod api;
mod config;
mod ffi;
mod gate;
mod model;
mod thread;
