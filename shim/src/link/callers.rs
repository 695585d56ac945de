//! Which module made a call, as far as its return address tells.
//!
//! The return address lies in the module that executed a call instruction; but if that called a
//! function which ends with a jump to us (a tail call), the reference to us is that function's.
//! The instruction before the return address tells the cases apart, where it names what it calls.

use super::modules::Module;
use std::ffi::c_void;

/// What the call instruction before a return address calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callee {
    /// This function, named by the instruction itself or by a slot that the loader filled.
    Function(usize),
    /// Whatever a register or an object said.
    Unknown,
}

/// What the instruction before `return_address` calls, in this module.
pub fn callee(module: &Module, return_address: *mut c_void) -> Callee {
    let after = return_address as usize;
    let Some(code) = module.bytes::<6>(after.wrapping_sub(6)) else {
        return Callee::Unknown;
    };
    let offset = i32::from_le_bytes([code[2], code[3], code[4], code[5]]);
    let named = after.wrapping_add_signed(offset as isize);
    let function = match code {
        // call *offset(%rip)
        [0xff, 0x15, ..] => module.word(named),
        // call offset: a function of this module, or a stub that jumps on through a slot.
        [_, 0xe8, ..] if module.bytes::<1>(named).is_some() => {
            Some(through_stub(module, named).unwrap_or(named))
        }
        _ => None,
    };
    function.map_or(Callee::Unknown, Callee::Function)
}

/// Where a stub of the procedure linkage table jumps to: `endbr64` perhaps, `bnd` perhaps, then
/// `jmp *offset(%rip)`.
fn through_stub(module: &Module, stub: usize) -> Option<usize> {
    let mut at = stub;
    if module.bytes(at) == Some([0xf3, 0x0f, 0x1e, 0xfa]) {
        at += 4;
    }
    if module.bytes(at) == Some([0xf2]) {
        at += 1;
    }
    let [0xff, 0x25, offset @ ..] = module.bytes::<6>(at)? else {
        return None;
    };
    module.word((at + 6).wrapping_add_signed(i32::from_le_bytes(offset) as isize))
}
