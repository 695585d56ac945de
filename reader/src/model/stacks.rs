//! Which frames of a stack belong to the program, and which are the road from its call to us.

use super::Process;
use rustc_hash::FxHashMap;
use vramtrace_format::stacks::{
    self, Frame, NO_STACK, OTHER_STACKS, STACK_SKIPPED, STACK_TABLE_FULL, TRUNCATED,
};

/// What a module is to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// libvramtrace.so: never shown.
    Ours,
    /// The CUDA driver or runtime: hidden above the call into it.
    Cuda,
    /// PyTorch's caching allocator: what it takes from the driver are its segments.
    TorchAllocator,
    /// Anything else.
    #[default]
    Program,
}

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
        } else {
            Role::Program
        }
    }
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

    /// The frames of a stack that reports show. `all` keeps those inside the driver and runtime.
    pub fn visible(&self, stack: u32, all: bool) -> VisibleStack {
        let missing = match stack {
            NO_STACK => Some("no stack was taken"),
            OTHER_STACKS => Some("sum of stacks that found no row of their own"),
            STACK_TABLE_FULL => Some("the stack table was full"),
            STACK_SKIPPED => Some("recorded without stack while the recorder was busy"),
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
                Role::Cuda => !all,
                _ => false,
            },
            _ => false,
        };
        let skip = decoded.iter().take_while(hidden).count();
        let frames = decoded[skip..]
            .iter()
            .map(|frame| self.canonical(*frame))
            .collect::<Vec<_>>();
        VisibleStack {
            missing: frames
                .is_empty()
                .then_some("no frame of the program was found"),
            frames,
            truncated: found.flags & TRUNCATED != 0,
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
