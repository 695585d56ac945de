//! Is this interpreter as we think? Looked at on the first real stack, by reads that cannot fault;
//! only an interpreter that passes is read plainly from then on.

use super::code::describe;
use super::interpreter::Interpreter;
use super::memory::Checked;
use super::walk::{Frames, walk};

/// What a look at one thread said.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is where it should be.
    Passed,
    /// This thread has no Python frames; nothing can be said.
    NothingToSee,
    /// Something is not; what.
    Failed(String),
}

/// Looks at the frames of the calling thread, whose state is at `thread`.
#[cold]
#[inline(never)]
pub fn check(interpreter: &Interpreter, thread: u64) -> Verdict {
    let Some(memory) = Checked::new() else {
        return Verdict::Failed("this process may not read its own memory safely".to_owned());
    };
    let mut frames = Box::new(Frames::default());
    let looked_at = walk(&memory, interpreter, thread, &mut frames);
    let failed =
        |what: &str| Verdict::Failed(format!("its frames are not where they should be: {what}"));
    if let Err(broken) = looked_at {
        return failed(broken.0);
    }
    if frames.len == 0 {
        return Verdict::NothingToSee;
    }
    for frame in frames.get() {
        if let Err(broken) = describe(&memory, interpreter, frame) {
            return failed(broken.0);
        }
    }
    Verdict::Passed
}
