//! Which module made a call, as far as its return address tells.
//!
//! The return address lies in the module that executed a call instruction; but if that called a
//! function which ends with a jump to us (a tail call), the reference to us is that function's.
//! The instruction before the return address tells the cases apart, where it names what it calls;
//! a function that only passes on is short, and its jump is seen.

use super::modules::{Module, module_of};
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

/// Functions that jump on to another, one after the other, are followed no further than this.
const MOST_JUMPS: usize = 8;
/// A function that only passes on sets a few parameters before it jumps.
const SHORT: usize = 64;

/// The module whose function jumps to `ours`, if a call of `function` is seen to come there by
/// jumps alone.
pub fn jumps_to(function: usize, ours: usize) -> Option<Module> {
    let mut function = function;
    for _ in 0..MOST_JUMPS {
        let module = module_of(function as *mut c_void)?;
        match first_jump(&module, function)? {
            to if to == ours => return Some(module),
            to => function = to,
        }
    }
    None
}

/// Where a short function jumps to: through a slot of its module's table, or else to another
/// function of its module. Looks at bytes, not at instructions: a jump that is none leads nowhere.
fn first_jump(module: &Module, function: usize) -> Option<usize> {
    let mut within = None;
    for at in function..function + SHORT {
        let Some(code) = module.bytes::<6>(at) else {
            break;
        };
        if let Some(to) = through_stub(module, at) {
            return Some(to);
        }
        if code[0] == 0xe9 {
            let offset = i32::from_le_bytes([code[1], code[2], code[3], code[4]]);
            let to = (at + 5).wrapping_add_signed(offset as isize);
            if let Some(beyond) = through_stub(module, to) {
                return Some(beyond);
            }
            let other = !(function..function + SHORT).contains(&to) && module.is_code(to);
            within = within.or(other.then_some(to));
        }
    }
    within
}
