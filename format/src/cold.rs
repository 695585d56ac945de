//! Cold records: the rare facts of variable size (what process this is, its devices, modules,
//! contexts, the names behind ids).
//!
//! The section is a sequence of frames: payload length (u32), record type (u32), payload, zero
//! padding to 8 bytes. A payload is bincode 2 with little-endian fixed-width integers: numbers at
//! their own width, strings and lists as a u64 length and their content, options as one byte and
//! the value. Nothing is ever changed in place; later records of the same id win. A reader skips
//! types that it does not know, so new facts become new types, never new fields.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bincode::{Decode, Encode};

/// Longest payload; longer strings are cut by the recorder.
pub const MAX_PAYLOAD: usize = 16 << 10;

const CONFIG: Configuration<LittleEndian, Fixint, Limit<MAX_PAYLOAD>> = bincode::config::standard()
    .with_fixed_int_encoding()
    .with_limit::<MAX_PAYLOAD>();

/// The process. No environment and no arguments: tokens live there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Process {
    /// Process id as the process sees it.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// Path of its executable.
    pub program: String,
    /// Its short name (comm).
    pub name: String,
    /// Which of several ranks it is, as RANK, SLURM_PROCID, OMPI_COMM_WORLD_RANK … say.
    pub rank: Option<u32>,
    /// Name of the variable that said so.
    pub rank_from: Option<String>,
    /// Name of the machine.
    pub host: String,
    /// Kernel release.
    pub kernel: String,
    /// When it started, in clock ticks since boot (`/proc/PID/stat`, field 22): with the pid, who
    /// it is for as long as the machine is up.
    pub start_ticks: u64,
    /// Inode of its pid namespace: a pid means nothing in another one.
    pub pid_namespace: u64,
    /// Where the trace belongs when the process has ended, if not where it is.
    pub final_path: Option<String>,
}

/// How the recorder was set up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Config {
    /// Version of libvramtrace.so.
    pub version: String,
    /// Every setting in force, as `NAME=value`.
    pub settings: Vec<String>,
}

/// A CUDA device of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Device {
    /// Ordinal in this process.
    pub index: u8,
    /// UUID, as nvidia-smi prints it (`GPU-…`).
    pub uuid: String,
    /// PCI bus id (`0000:01:00.0`).
    pub pci: String,
    /// Product name.
    pub name: String,
    /// Bytes of memory; 0 unknown.
    pub total_bytes: u64,
}

/// A CUDA context.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Context {
    /// Id in events.
    pub id: u16,
    /// Its device.
    pub device: u8,
    /// The driver's handle.
    pub handle: u64,
    /// Whether it is the device's primary context.
    pub primary: bool,
}

/// A stream that memory was allocated or freed on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Stream {
    /// Id in events.
    pub id: u32,
    /// The driver's handle.
    pub handle: u64,
    /// Context id.
    pub context: u16,
}

/// A loaded program or library.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Module {
    /// Id in stack frames.
    pub id: u32,
    /// Path it was loaded from.
    pub path: String,
    /// GNU build id; empty if it has none.
    pub build_id: Vec<u8>,
    /// What was added to its ELF addresses.
    pub bias: u64,
    /// First mapped address.
    pub start: u64,
    /// End of its last mapped segment.
    pub end: u64,
}

/// A name behind an id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Name {
    /// The id.
    pub id: u32,
    /// Its name.
    pub text: String,
}

/// An NVTX range that memory was allocated in, inside another or not: one of these for each way in
/// which ranges were nested, however often they were entered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Range {
    /// Its number in `Record::range`, and its row in the section of ranges.
    pub id: u32,
    /// The range around it; 0 none.
    pub parent: u32,
    /// Name of its domain; empty for the default domain.
    pub domain: String,
    /// Its message, at most [`crate::ranges::LONGEST`] bytes of it.
    pub text: String,
    /// Whether it stands for all messages that differ from `text` in numbers only, each of which is
    /// a `#` there.
    pub numbers: bool,
}

/// Something the reports should say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Note {
    /// Short machine-readable word.
    pub code: String,
    /// One sentence.
    pub text: String,
}

/// A function, method or module body written in Python.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct PythonCode {
    /// Id in stack frames.
    pub id: u32,
    /// File it was compiled from, as the code object says.
    pub file: String,
    /// Its qualified name; before Python 3.11, which has none in code objects, its name.
    pub function: String,
    /// Line where it begins; 0 unknown.
    pub first_line: u32,
}

/// A Python interpreter in the process, and whether its stacks are recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Interpreter {
    /// Its version (`3.12.1`), with ` free-threaded` where it is that.
    pub version: String,
    /// Address of a function of the module that it is in.
    pub address: u64,
    /// One of the numbers in [`stacks_of`].
    pub stacks: u8,
    /// Why its stacks are not recorded, where they are not.
    pub reason: String,
}

/// How much of a device the process had, as the system's management library (NVML) said from outside:
/// what nvidia-smi shows. Written after the process has ended, by whoever ran it; never by the
/// recorder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct DeviceUse {
    /// Ordinal in this process, as in [`Device::index`].
    pub device: u8,
    /// UUID as NVML has it (`GPU-…`, or `MIG-…` of a part of a GPU).
    pub uuid: String,
    /// Bytes of memory of the device.
    pub total_bytes: u64,
    /// Bytes of it that the driver keeps for itself; `None` where NVML does not tell them from what
    /// is used, and [`UseSample::used_bytes`] includes them.
    pub reserved_bytes: Option<u64>,
    /// When and how much, oldest first. Further records of the device continue the list.
    pub samples: Vec<UseSample>,
}

/// One answer of NVML.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct UseSample {
    /// Nanoseconds since the header's start time, as in events.
    pub time: u64,
    /// Bytes that NVML counts for the process; `None` where it does not say.
    pub process_bytes: Option<u64>,
    /// How the process was found among those that use the device: one of the numbers in
    /// [`found_by`].
    pub found_by: u8,
    /// Bytes in use on the device, by whomever.
    pub used_bytes: u64,
}

/// This file is not the trace that a process writes, but a copy of its tables at one moment. The
/// last record of such a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Snapshot {
    /// Which of the process's snapshots, from 1; 0 for a copy that was made from outside.
    pub number: u32,
    /// The event of the failed allocation that it was taken for; 0 for a copy made from outside.
    pub failure: u64,
    /// The last event that is in it.
    pub seq: u64,
    /// Unix time when it was complete, nanoseconds.
    pub unix_ns: u64,
    /// File name of the trace it is of.
    pub trace: String,
}

/// How many allocations of a device were tried once more after its pools were trimmed, up to an
/// event: written at the first ones, and from time to time. Events of that kind after it come on top.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Rescues {
    /// Ordinal in this process.
    pub device: u8,
    /// The last of those events that is counted.
    pub seq: u64,
    /// How many.
    pub tried: u64,
    /// How many of them then succeeded.
    pub saved: u64,
    /// Bytes that pools gave back.
    pub bytes: u64,
}

/// What [`UseSample::found_by`] says.
pub mod found_by {
    /// It is not among them, or there is no list.
    pub const NOTHING: u8 = 0;
    /// By its process id.
    pub const PID: u8 = 1;
    /// By its process id in an inner pid namespace.
    pub const INNER_PID: u8 = 2;
    /// Assumed: NVML knows one process, by a number that means nothing here, and one traced process
    /// uses the device.
    pub const ASSUMED: u8 = 3;
}

/// What [`Interpreter::stacks`] says.
pub mod stacks_of {
    /// No thread with Python frames has allocated so far.
    pub const NOT_SEEN: u8 = 0;
    /// They are recorded.
    pub const RECORDED: u8 = 1;
    /// They cannot be read.
    pub const UNREADABLE: u8 = 2;
}

/// Defines [`Cold`], its numbers in the file, and the coding of each.
macro_rules! cold {
    ($($(#[$meta:meta])* $variant:ident($ty:ty) = $number:literal,)*) => {
        /// One cold record.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Cold { $($(#[$meta])* $variant($ty),)* }

        impl Cold {
            /// Its type's number in the file.
            pub const fn number(&self) -> u32 {
                match self { $(Cold::$variant(_) => $number,)* }
            }

            fn encode_payload(&self, into: &mut [u8]) -> Option<usize> {
                match self { $(Cold::$variant(value) => bincode::encode_into_slice(value, into, CONFIG).ok(),)* }
            }

            fn decode_payload(number: u32, payload: &[u8]) -> Option<Cold> {
                match number {
                    $($number => bincode::decode_from_slice(payload, CONFIG).ok().map(|(value, _)| Cold::$variant(value)),)*
                    _ => None,
                }
            }
        }
    };
}

cold! {
    /// The process; once.
    Process(Process) = 1,
    /// The recorder's settings; once.
    Config(Config) = 2,
    /// A device.
    Device(Device) = 3,
    /// A context.
    Context(Context) = 4,
    /// A stream.
    Stream(Stream) = 5,
    /// A module.
    Module(Module) = 6,
    /// Name of an API function (`Record::api`).
    Api(Name) = 7,
    /// Name of a thread (`Record::thread`).
    Thread(Name) = 8,
    /// Text of a mark.
    Mark(Name) = 9,
    /// Something the reports should say.
    Note(Note) = 10,
    /// Version of the CUDA driver, as cuDriverGetVersion counts (13000 is 13.0); `text` empty.
    Driver(Name) = 11,
    /// An NVTX range.
    Range(Range) = 31,
    /// The NVTX domain of a mark that is not in the default one: id of the mark, name of the domain.
    MarkDomain(Name) = 32,
    /// A function written in Python.
    PythonCode(PythonCode) = 20,
    /// The Python interpreter.
    Interpreter(Interpreter) = 21,
    /// How much of a device the process had, as NVML said.
    DeviceUse(DeviceUse) = 30,
    /// The file is a snapshot.
    Snapshot(Snapshot) = 35,
    /// Allocations that were tried once more, by device.
    Rescues(Rescues) = 36,
}

/// Bytes of a frame's head.
const HEAD: usize = 8;

/// Appends a record to `section` after its `used` complete bytes. Returns the new number of
/// complete bytes, which the caller publishes; `None` if there is no room.
pub fn append(section: &mut [u8], used: u64, record: &Cold) -> Option<u64> {
    let start = usize::try_from(used).ok()?;
    let room = section.get_mut(start..)?;
    if room.len() < HEAD {
        return None;
    }
    let (head, body) = room.split_at_mut(HEAD);
    let body_room = body.len().min(MAX_PAYLOAD);
    let length = record.encode_payload(&mut body[..body_room])?;
    let padded = length.next_multiple_of(8);
    if padded > body.len() {
        return None;
    }
    body[length..padded].fill(0);
    head[..4].copy_from_slice(&(length as u32).to_le_bytes());
    head[4..].copy_from_slice(&record.number().to_le_bytes());
    Some(used + (HEAD + padded) as u64)
}

/// The records among a section's complete bytes. Unknown types are skipped; a damaged frame ends
/// the sequence, and [`Records::damaged_at`] tells where.
pub struct Records<'a> {
    section: &'a [u8],
    at: usize,
    damaged_at: Option<usize>,
}

/// Reads the complete bytes of a cold section.
pub fn records(section: &[u8]) -> Records<'_> {
    Records {
        section,
        at: 0,
        damaged_at: None,
    }
}

impl Records<'_> {
    /// Where a frame made no sense, if one did so far.
    pub fn damaged_at(&self) -> Option<usize> {
        self.damaged_at
    }
}

impl Iterator for Records<'_> {
    type Item = Cold;

    fn next(&mut self) -> Option<Cold> {
        loop {
            let rest = self
                .section
                .get(self.at..)
                .filter(|rest| !rest.is_empty())?;
            let frame = rest.first_chunk::<HEAD>().and_then(|head| {
                let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
                let number = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
                let payload = rest.get(HEAD..HEAD.checked_add(length)?)?;
                (length <= MAX_PAYLOAD && number != 0).then_some((number, payload))
            });
            let Some((number, payload)) = frame else {
                self.damaged_at = Some(self.at);
                self.at = self.section.len();
                return None;
            };
            self.at += HEAD + payload.len().next_multiple_of(8);
            if let Some(record) = Cold::decode_payload(number, payload) {
                return Some(record);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn module(id: u32, path: &str) -> Cold {
        Cold::Module(Module {
            id,
            path: path.into(),
            build_id: vec![1, 2, 3],
            ..Module::default()
        })
    }

    #[test]
    fn records_come_back_in_order_until_the_section_is_full() {
        let mut section = vec![0u8; 512];
        let mut used = 0;
        let mut written = Vec::new();
        while let Some(next) = append(
            &mut section,
            used,
            &module(written.len() as u32, "/lib/x.so"),
        ) {
            written.push(module(written.len() as u32, "/lib/x.so"));
            used = next;
        }
        assert!(written.len() > 4);
        let read: Vec<Cold> = records(&section[..used as usize]).collect();
        assert_eq!(read, written);
    }

    #[test]
    fn unknown_types_are_skipped() {
        let mut section = vec![0u8; 512];
        section[..4].copy_from_slice(&5u32.to_le_bytes());
        section[4..8].copy_from_slice(&999u32.to_le_bytes());
        let used = append(&mut section, 16, &module(7, "a")).unwrap();
        let read: Vec<Cold> = records(&section[..used as usize]).collect();
        assert_eq!(read, [module(7, "a")]);
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut all = records(&bytes);
            prop_assert!(all.by_ref().count() <= bytes.len());
        }

        #[test]
        fn plausible_frames_with_foreign_payloads_never_panic(number in 0u32..40, payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = Vec::new();
            bytes.extend((payload.len() as u32).to_le_bytes());
            bytes.extend(number.to_le_bytes());
            bytes.extend(&payload);
            records(&bytes).count();
        }
    }
}
