//! What kind of executable a program is, as far as tracing it goes.

use object::ReadCache;
use object::read::elf::{ElfFile32, ElfFile64, FileHeader, ProgramHeader};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A script may name a script as its interpreter; the kernel follows this many.
const MOST_INTERPRETERS: usize = 4;

/// An executable file, after following scripts to their interpreters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executable {
    /// The program that the user named.
    pub path: PathBuf,
    /// The file that the kernel executes in the end: the interpreter, for a script.
    pub binary: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// What gives it more rights than its caller has.
    pub privileged: Option<Privilege>,
}

/// What sort of file an executable is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Linked dynamically; preloading works if everything else fits.
    Dynamic {
        /// Its dynamic linker.
        linker: PathBuf,
        /// The machine it is for.
        machine: Machine,
    },
    /// Linked statically: nothing can be preloaded.
    Static {
        /// The machine it is for.
        machine: Machine,
    },
    /// Neither ELF nor a script with `#!`.
    Unknown,
}

/// The machine a program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// `e_machine`.
    pub number: u16,
    /// Whether it has 64-bit addresses.
    pub wide: bool,
}

impl Machine {
    /// The machine that this program itself is for, and so the recorder beside it.
    pub const OWN: Machine = Machine {
        number: if cfg!(target_arch = "aarch64") {
            object::elf::EM_AARCH64.0
        } else {
            object::elf::EM_X86_64.0
        },
        wide: cfg!(target_pointer_width = "64"),
    };

    /// Its name.
    pub fn name(self) -> String {
        match (object::elf::Machine(self.number), self.wide) {
            (object::elf::EM_X86_64, true) => "x86-64".into(),
            (object::elf::EM_X86_64, false) => "x32".into(),
            (object::elf::EM_386, _) => "32-bit x86".into(),
            (object::elf::EM_AARCH64, _) => "aarch64".into(),
            (object::elf::EM_ARM, _) => "32-bit ARM".into(),
            _ => format!("machine {}", self.number),
        }
    }
}

/// Why the dynamic linker would run in secure mode, where it ignores `LD_PRELOAD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// The set-user-ID bit, and another owner.
    SetUser,
    /// The set-group-ID bit, and another group.
    SetGroup,
    /// File capabilities.
    Capabilities,
}

impl Kind {
    /// Whether its C library is musl.
    pub fn is_musl(&self) -> bool {
        matches!(self, Kind::Dynamic { linker, .. } if file_name(linker).contains("ld-musl"))
    }
}

impl Executable {
    /// Looks at `path`.
    pub fn of(path: &Path) -> std::io::Result<Executable> {
        let mut binary = path.to_path_buf();
        let mut privileged = None;
        for _ in 0..MOST_INTERPRETERS {
            // A script's own bits mean nothing to the kernel; those of its interpreter do.
            privileged = privilege(&binary)?;
            match shebang(&binary)? {
                Some(next) => binary = next,
                None => break,
            }
        }
        let kind = elf_kind(&File::open(&binary)?);
        Ok(Executable {
            path: path.into(),
            binary,
            kind,
            privileged,
        })
    }

    /// One line for a program that runs, but cannot be traced.
    pub fn obstacle(&self) -> Option<String> {
        let name = self.binary.display();
        if let Some(privilege) = self.privileged {
            let why = match privilege {
                Privilege::SetUser => "is set-user-ID",
                Privilege::SetGroup => "is set-group-ID",
                Privilege::Capabilities => "has file capabilities",
            };
            return Some(format!(
                "{name} {why}: the dynamic linker ignores LD_PRELOAD, so it cannot be traced"
            ));
        }
        match &self.kind {
            Kind::Static { .. } => Some(format!(
                "{name} is statically linked: it cannot be traced itself (programs it starts can)"
            )),
            Kind::Dynamic { machine, .. } if *machine != Machine::OWN => Some(format!(
                "{name} is for {}, the recorder for {}: it cannot be traced",
                machine.name(),
                Machine::OWN.name()
            )),
            kind if kind.is_musl() => Some(format!(
                "{name} uses the C library musl, the recorder needs glibc: it cannot be traced"
            )),
            _ => None,
        }
    }
}

/// Where the shell would find `program`.
pub fn find_program(program: &OsStr) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        let path = PathBuf::from(program);
        return path.exists().then_some(path);
    }
    let executable = |path: &PathBuf| {
        path.metadata()
            .is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|directory| directory.join(program))
        .find(executable)
}

/// The interpreter of a script, or the dynamic linker of a binary, that is not there.
pub fn missing_interpreter(path: &Path) -> Option<PathBuf> {
    let interpreter = match shebang(path).ok()? {
        Some(interpreter) => interpreter,
        None => match elf_kind(&File::open(path).ok()?) {
            Kind::Dynamic { linker, .. } => linker,
            _ => return None,
        },
    };
    (!interpreter.exists()).then_some(interpreter)
}

/// The program behind `#!`. `env` is looked through: what counts is the program it starts.
fn shebang(path: &Path) -> std::io::Result<Option<PathBuf>> {
    let mut start = Vec::new();
    // The kernel reads no more either (BINPRM_BUF_SIZE).
    File::open(path)?.take(256).read_to_end(&mut start)?;
    let Some(line) = start.strip_prefix(b"#!") else {
        return Ok(None);
    };
    let line = line.split(|&byte| byte == b'\n').next().unwrap_or(line);
    let mut words = line
        .split(|byte| byte.is_ascii_whitespace())
        .filter(|word| !word.is_empty())
        .map(OsStr::from_bytes);
    let Some(interpreter) = words.next().map(Path::new) else {
        return Ok(None);
    };
    if file_name(interpreter) == "env" {
        let program = words.find(|word| {
            let bytes = word.as_bytes();
            !bytes.starts_with(b"-") && !bytes.contains(&b'=')
        });
        if let Some(found) = program.and_then(find_program) {
            return Ok(Some(found));
        }
    }
    Ok(Some(interpreter.into()))
}

fn file_name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

fn elf_kind(file: &File) -> Kind {
    let cache = ReadCache::new(file);
    match object::FileKind::parse(&cache) {
        Ok(object::FileKind::Elf64) => ElfFile64::<object::Endianness, _>::parse(&cache)
            .map_or(Kind::Unknown, |elf| kind_of(&elf, true)),
        Ok(object::FileKind::Elf32) => ElfFile32::<object::Endianness, _>::parse(&cache)
            .map_or(Kind::Unknown, |elf| kind_of(&elf, false)),
        _ => Kind::Unknown,
    }
}

fn kind_of<'data, E: FileHeader, R: object::ReadRef<'data>>(
    elf: &object::read::elf::ElfFile<'data, E, R>,
    wide: bool,
) -> Kind {
    let endian = elf.endian();
    let machine = Machine {
        number: elf.elf_header().e_machine(endian).0,
        wide,
    };
    let linker = elf
        .elf_program_headers()
        .iter()
        .find_map(|segment| segment.interpreter(endian, elf.data()).ok().flatten());
    match linker {
        Some(linker) => Kind::Dynamic {
            linker: OsStr::from_bytes(linker).into(),
            machine,
        },
        None => Kind::Static { machine },
    }
}

/// Whether executing `path` makes this user's process more than it is. Somebody who has these
/// rights already (root, most often) gains nothing, and the linker stays in normal mode.
fn privilege(path: &Path) -> std::io::Result<Option<Privilege>> {
    let facts = path.metadata()?;
    let mode = facts.mode();
    // SAFETY: these calls have no preconditions and cannot fail.
    let (user, group) = unsafe { (libc::getuid(), libc::getgid()) };
    if mode & libc::S_ISUID != 0 && facts.uid() != user {
        return Ok(Some(Privilege::SetUser));
    }
    if mode & libc::S_ISGID != 0 && mode & libc::S_IXGRP != 0 && facts.gid() != group {
        return Ok(Some(Privilege::SetGroup));
    }
    let has_capabilities = || {
        let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
            return false;
        };
        // SAFETY: both names are NUL-terminated; a size of 0 only asks whether it is there.
        let size = unsafe {
            libc::getxattr(
                path.as_ptr(),
                c"security.capability".as_ptr(),
                std::ptr::null_mut(),
                0,
            )
        };
        size > 0
    };
    Ok((user != 0 && has_capabilities()).then_some(Privilege::Capabilities))
}
