//! Which frames of a stack belong to the program, and which are the road from its call to us, or
//! the inside of an interpreter.

use super::Process;
use super::merge::{Loops, Part, merge};
use rustc_hash::FxHashMap;
use vramtrace_format::stacks::{
    self, Frame, NO_STACK, NOT_SAMPLED, OTHER_STACKS, STACK_SKIPPED, STACK_TABLE_FULL, TRUNCATED,
};

/// What a module is to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// libvramtrace.so: never shown.
    Ours,
    /// The CUDA driver or runtime: hidden above the call into it.
    Cuda,
    /// PyTorch's caching allocator: what it takes from the driver are its segments. Hidden above the
    /// call into it, which is where its blocks are from, whichever way it went inside.
    TorchAllocator,
    /// The Python interpreter: hidden where Python frames say what it did.
    Python,
    /// Anything else.
    #[default]
    Program,
}

/// Which of the frames that are usually hidden are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unhidden {
    /// Those inside the CUDA driver and runtime.
    pub cuda: bool,
    /// The interpreter's, between Python frames.
    pub native: bool,
}

/// What reports say instead of the stack of allocations that were not sampled.
const WITHOUT_SAMPLE: &str = "not sampled: the estimates of other stacks stand for these";

/// A stack without the frames that nobody asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct VisibleStack {
    /// Frames, innermost first.
    pub frames: Vec<Frame>,
    /// The outermost frames are missing.
    pub truncated: bool,
    /// Why there are none, if there are none.
    pub missing: Option<&'static str>,
}

impl VisibleStack {
    /// Whether it stands for all that was not sampled.
    pub fn is_not_sampled(&self) -> bool {
        self.missing == Some(WITHOUT_SAMPLE)
    }
}

impl Role {
    fn of(path: &str) -> Role {
        let name = path.rsplit('/').next().unwrap_or(path);
        if name.starts_with("libvramtrace") {
            Role::Ours
        } else if name.starts_with("libcuda.so")
            || name.starts_with("libcudart.so")
            || name.starts_with("libcudart-")
            || name.starts_with("libcuda-")
        {
            Role::Cuda
        } else if name.starts_with("libc10_cuda") {
            Role::TorchAllocator
        } else if name.starts_with("libpython") || is_python(name) {
            Role::Python
        } else {
            Role::Program
        }
    }
}

/// `python`, `python3`, `python3.12`, `python3.13t`: the interpreter as a program.
fn is_python(name: &str) -> bool {
    name.strip_prefix("python").is_some_and(|version| {
        let version = version.trim_end_matches(['t', 'd']);
        version.chars().all(|c| c.is_ascii_digit() || c == '.')
    })
}

impl Process {
    /// Works out roles, and which modules are the same file loaded again.
    pub(super) fn name_modules(&mut self) {
        let mut first: FxHashMap<(&str, &[u8]), u32> = FxHashMap::default();
        let mut modules: Vec<_> = self.modules.values().collect();
        modules.sort_by_key(|module| module.id);
        for module in modules {
            self.roles.insert(module.id, Role::of(&module.path));
            let same = first
                .entry((&module.path, &module.build_id))
                .or_insert(module.id);
            self.same_module.insert(module.id, *same);
        }
    }

    /// What a module is to us.
    pub fn role(&self, module: u32) -> Role {
        self.roles.get(&module).copied().unwrap_or_default()
    }

    /// The frames of a stack that reports show, native and Python ones in one order.
    pub fn visible(&self, stack: u32, unhidden: Unhidden, loops: &mut dyn Loops) -> VisibleStack {
        let missing = match stack {
            NO_STACK => Some("no stack was taken"),
            OTHER_STACKS => Some("sum of stacks that found no row of their own"),
            STACK_TABLE_FULL => Some("the stack table was full"),
            STACK_SKIPPED => Some("recorded without stack while the recorder was busy"),
            NOT_SAMPLED => Some(WITHOUT_SAMPLE),
            _ => None,
        };
        let found = stacks::lookup(&self.trace.stacks, stack).filter(|_| missing.is_none());
        let Some(found) = found else {
            return VisibleStack {
                missing: missing.or(Some("the trace does not have this stack")),
                ..VisibleStack::default()
            };
        };
        let decoded: Vec<Frame> = found
            .frames
            .iter()
            .filter_map(|&w| Frame::decode(w))
            .collect();
        let hidden = |frame: &&Frame| match frame {
            Frame::Native { module, .. } => match self.role(*module) {
                Role::Ours => true,
                Role::Cuda | Role::TorchAllocator => !unhidden.cuda,
                _ => false,
            },
            _ => false,
        };
        let skip = decoded.iter().take_while(hidden).count();
        loops.meet(self);
        let frames = self.in_one_order(&decoded[skip..], unhidden.native, loops);
        let frames: Vec<Frame> = frames.into_iter().map(|f| self.canonical(f)).collect();
        VisibleStack {
            missing: frames
                .is_empty()
                .then_some("no frame of the program was found"),
            frames,
            truncated: found.flags & TRUNCATED != 0,
        }
    }

    /// All frames of a stack but ours, as they are stored: native ones, then Python's.
    pub fn stored(&self, stack: u32) -> Vec<Frame> {
        let found = stacks::lookup(&self.trace.stacks, stack);
        let words = found.map(|found| found.frames).unwrap_or_default();
        let ours = |frame: &Frame| match frame {
            Frame::Native { module, .. } => self.role(*module) == Role::Ours,
            _ => false,
        };
        let decoded = words.iter().filter_map(|&word| Frame::decode(word));
        decoded.filter(|frame| !ours(frame)).collect()
    }

    fn in_one_order(&self, stored: &[Frame], native: bool, loops: &mut dyn Loops) -> Vec<Frame> {
        let is_native = |frame: &Frame| !matches!(frame, Frame::Python { .. });
        let (natives, python) = stored.split_at(stored.iter().take_while(|f| is_native(f)).count());
        if natives.is_empty() || python.is_empty() {
            return stored.to_vec();
        }
        let natives: Vec<(Frame, Part)> = natives
            .iter()
            .map(|frame| (*frame, self.part(frame, loops)))
            .collect();
        merge(&natives, python, native)
    }

    /// What a native frame is to the interpreter. One that is part of a program that embeds it is
    /// known by its loop only: everything else there may be the program's.
    fn part(&self, frame: &Frame, loops: &mut dyn Loops) -> Part {
        let Frame::Native { module, offset } = *frame else {
            return Part::Outside;
        };
        let python = self.role(module) == Role::Python;
        let Some(module) = self.modules.get(&module) else {
            return Part::Outside;
        };
        let address = self.interpreter.as_ref().map(|found| found.address);
        let embeds = address.is_some_and(|at| (module.start..module.end).contains(&at));
        if (python || embeds) && loops.is_loop(module, offset) {
            Part::Loop
        } else if python {
            Part::Inside
        } else {
            Part::Outside
        }
    }

    /// Whether PyTorch's caching allocator made an allocation with this stack.
    pub fn is_torch_allocator(&self, stack: u32) -> bool {
        let Some(found) = stacks::lookup(&self.trace.stacks, stack) else {
            return false;
        };
        // Its frames come first after ours and the runtime's.
        let native = found.frames.iter().filter_map(|&word| Frame::decode(word));
        native
            .filter_map(|frame| match frame {
                Frame::Native { module, .. } => Some(self.role(module)),
                _ => None,
            })
            .find(|role| !matches!(role, Role::Ours | Role::Cuda))
            == Some(Role::TorchAllocator)
    }

    /// The same frame in the first loading of its module.
    fn canonical(&self, frame: Frame) -> Frame {
        match frame {
            Frame::Native { module, offset } => Frame::Native {
                module: self.same_module.get(&module).copied().unwrap_or(module),
                offset,
            },
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_known_by_their_file_names() {
        for (path, role) in [
            ("/opt/lib/libvramtrace.so", Role::Ours),
            ("/usr/lib/libcuda.so.1", Role::Cuda),
            ("/x/torch/lib/libc10_cuda.so", Role::TorchAllocator),
            ("/usr/lib/libpython3.11.so.1.0", Role::Python),
            ("/opt/conda/bin/python3.13t", Role::Python),
            ("/usr/bin/python", Role::Python),
            ("/usr/bin/pythonic", Role::Program),
            ("/home/me/app", Role::Program),
        ] {
            assert_eq!(Role::of(path), role, "{path}");
        }
    }
}
