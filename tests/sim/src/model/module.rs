//! Modules, libraries, functions and kernels. No code runs; names, globals and sizes are real.

use super::State;
use super::live::Kind;
use super::slab::Slab;
use crate::abi::error::{INVALID_HANDLE, NOT_FOUND, R};

/// All loaded code.
pub struct Modules {
    pub modules: Slab<Module>,
    pub functions: Slab<Function>,
    pub libraries: Slab<Library>,
    pub kernels: Slab<Kernel>,
    /// Linker states in progress: the text added so far.
    pub links: Slab<Link>,
}

/// What a linker state collected; the finished image lives here until the state is destroyed.
#[derive(Default)]
pub struct Link {
    pub image: Vec<u8>,
}

/// The names in an image.
#[derive(Clone, Default)]
pub struct Image {
    /// Entry names; None when the image is a binary, where any name is taken to exist.
    pub entries: Option<Vec<String>>,
    /// Global variables with their sizes in bytes.
    pub globals: Vec<(String, u64)>,
    /// Bytes that loading takes of the device.
    pub bytes: u64,
}

/// A module: an image loaded into a context.
pub struct Module {
    pub ctx: u64,
    pub image: Image,
    /// Name and address of each global that was loaded, and the code under an empty name.
    pub globals: Vec<(String, u64)>,
}

/// A function of a module.
pub struct Function {
    pub module: u64,
    /// NUL-terminated, for cuFuncGetName.
    pub name: String,
}

/// A library: an image that is loaded into each context on demand.
pub struct Library {
    pub image: Image,
    /// Context and module.
    pub loaded: Vec<(u64, u64)>,
}

/// A kernel of a library.
pub struct Kernel {
    pub library: u64,
    /// NUL-terminated, for cuKernelGetName.
    pub name: String,
}

impl Modules {
    pub const fn new() -> Self {
        Modules {
            modules: Slab::new(10),
            functions: Slab::new(11),
            libraries: Slab::new(12),
            kernels: Slab::new(13),
            links: Slab::new(14),
        }
    }
}

impl Image {
    /// Reads entries and globals of PTX text.
    pub fn of_ptx(text: &str) -> Image {
        let words: Vec<&str> = text
            .split(|c: char| c.is_whitespace() || c == '(' || c == ';')
            .filter(|w| !w.is_empty())
            .collect();
        let mut entries = Vec::new();
        let mut globals = Vec::new();
        for (i, word) in words.iter().enumerate() {
            if *word == ".entry"
                && let Some(name) = words.get(i + 1)
            {
                entries.push((*name).to_owned());
            }
            if *word == ".global" {
                globals.extend(Self::ptx_global(&words[i + 1..]));
            }
        }
        Image {
            entries: Some(entries),
            globals,
            bytes: text.len() as u64,
        }
    }

    /// `.align 4 .b8 name[64]` → name and bytes.
    fn ptx_global(words: &[&str]) -> Option<(String, u64)> {
        let mut element = None;
        let mut skip = false;
        for word in words {
            if skip {
                skip = false;
            } else if *word == ".align" {
                skip = true;
            } else if let Some(attribute) = word.strip_prefix('.') {
                let bits: String = attribute.chars().skip(1).collect();
                element = bits.parse::<u64>().ok().map(|b| b / 8).or(element);
            } else {
                let (name, count) = match word.split_once('[') {
                    Some((name, rest)) => (name, rest.trim_end_matches(']').parse().ok()?),
                    None => (*word, 1),
                };
                return Some((name.to_owned(), count * element?));
            }
        }
        None
    }

    /// A binary image, whose content is not looked at.
    pub fn binary(bytes: u64) -> Image {
        Image {
            entries: None,
            globals: Vec::new(),
            bytes,
        }
    }

    /// Whether it has an entry of that name.
    pub fn has(&self, name: &str) -> bool {
        self.entries
            .as_ref()
            .is_none_or(|e| e.iter().any(|n| n == name))
    }
}

impl State {
    /// Loads an image into a context.
    pub fn load_module(&mut self, ctx: u64, image: Image) -> R<u64> {
        let mut globals = Vec::new();
        let sizes: Vec<(String, u64)> = std::iter::once((String::new(), image.bytes.max(1)))
            .chain(image.globals.iter().cloned())
            .collect();
        for (name, bytes) in sizes {
            match self.alloc_linear(ctx, bytes.max(1), false) {
                Ok(base) => {
                    if let Some(alloc) = self.live.get_mut(base) {
                        alloc.kind = Kind::Global;
                    }
                    globals.push((name, base));
                }
                Err(error) => {
                    for (_, base) in globals {
                        self.end(base);
                    }
                    return Err(error);
                }
            }
        }
        Ok(self.modules.modules.insert(Module {
            ctx,
            image,
            globals,
        }))
    }

    /// cuModuleUnload.
    pub fn unload_module(&mut self, handle: u64) -> R {
        let module = self.modules.modules.remove(handle).ok_or(INVALID_HANDLE)?;
        for (_, base) in module.globals {
            self.end(base);
        }
        for function in self.modules.functions.select(|f| f.module == handle) {
            self.modules.functions.remove(function);
        }
        Ok(())
    }

    /// A context is ending: its modules' memory ended already.
    pub fn end_modules(&mut self, ctx: u64) {
        for module in self.modules.modules.select(|m| m.ctx == ctx) {
            for function in self.modules.functions.select(|f| f.module == module) {
                self.modules.functions.remove(function);
            }
            self.modules.modules.remove(module);
        }
        for (_, library) in self.modules.libraries.iter_mut() {
            library.loaded.retain(|&(c, _)| c != ctx);
        }
    }

    /// cuModuleGetFunction: the same handle each time.
    pub fn function(&mut self, module: u64, name: &str) -> R<u64> {
        let m = self.modules.modules.get(module).ok_or(INVALID_HANDLE)?;
        if !m.image.has(name) {
            return Err(NOT_FOUND);
        }
        let full = format!("{name}\0");
        let known = self
            .modules
            .functions
            .iter()
            .find(|(_, f)| f.module == module && f.name == full);
        if let Some((handle, _)) = known {
            return Ok(handle);
        }
        Ok(self
            .modules
            .functions
            .insert(Function { module, name: full }))
    }

    /// cuModuleGetGlobal: address and bytes.
    pub fn global(&self, module: u64, name: &str) -> R<(u64, u64)> {
        let m = self.modules.modules.get(module).ok_or(INVALID_HANDLE)?;
        let (_, base) = m
            .globals
            .iter()
            .find(|(n, _)| !n.is_empty() && n == name)
            .ok_or(NOT_FOUND)?;
        let size = self.live.get(*base).map_or(0, |a| a.size);
        Ok((*base, size))
    }

    /// The module that a library is in this context; loaded on first use.
    pub fn library_module(&mut self, ctx: u64, library: u64) -> R<u64> {
        let lib = self.modules.libraries.get(library).ok_or(INVALID_HANDLE)?;
        if let Some(&(_, module)) = lib.loaded.iter().find(|&&(c, _)| c == ctx) {
            return Ok(module);
        }
        let module = self.load_module(ctx, lib.image.clone())?;
        if let Some(lib) = self.modules.libraries.get_mut(library) {
            lib.loaded.push((ctx, module));
        }
        Ok(module)
    }

    /// cuLibraryUnload.
    pub fn unload_library(&mut self, library: u64) -> R {
        let lib = self
            .modules
            .libraries
            .remove(library)
            .ok_or(INVALID_HANDLE)?;
        for (_, module) in lib.loaded {
            // A module of a live library is live.
            let _ = self.unload_module(module);
        }
        for kernel in self.modules.kernels.select(|k| k.library == library) {
            self.modules.kernels.remove(kernel);
        }
        Ok(())
    }
}
