//! Reading the interpreter's objects: at first in a way that cannot fault, later plainly.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// Reads memory of this process.
pub trait Memory {
    /// Fills `into` from an address; false if it cannot be read.
    fn read(&self, address: u64, into: &mut [u8]) -> bool;

    /// A word.
    #[inline(always)]
    fn word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)
            .then(|| u64::from_le_bytes(bytes))
    }

    /// Half a word.
    #[inline(always)]
    fn half(&self, address: u64) -> Option<u32> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes)
            .then(|| u32::from_le_bytes(bytes))
    }

    /// A byte.
    #[inline(always)]
    fn byte(&self, address: u64) -> Option<u8> {
        let mut bytes = [0; 1];
        self.read(address, &mut bytes).then_some(bytes[0])
    }
}

/// Where something lies in an object; what an object's address is nobody vouches for.
#[inline(always)]
pub fn at_offset(object: u64, offset: u16) -> u64 {
    object.wrapping_add(u64::from(offset))
}

/// Through the kernel: what is not mapped is an error, not a crash.
pub struct Checked {
    /// For where process_vm_readv is not allowed.
    file: Option<File>,
}

impl Checked {
    /// `None` where the kernel lets a process read itself in no such way.
    pub fn new() -> Option<Checked> {
        let probe = 0x7472_6163u32;
        let at = &raw const probe as u64;
        for file in [None, File::open("/proc/self/mem").ok()] {
            let memory = Checked { file };
            if memory.half(at) == Some(probe) {
                return Some(memory);
            }
        }
        None
    }
}

impl Memory for Checked {
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        if let Some(file) = &self.file {
            return file.read_exact_at(into, address).is_ok();
        }
        let local = libc::iovec {
            iov_base: into.as_mut_ptr().cast(),
            iov_len: into.len(),
        };
        let remote = libc::iovec {
            iov_base: address as *mut libc::c_void,
            iov_len: into.len(),
        };
        // SAFETY: `local` is the buffer; of `remote` the kernel finds out itself what is there.
        let read = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
        usize::try_from(read) == Ok(into.len())
    }
}

/// Plain reads.
pub struct Plain(());

impl Plain {
    /// # Safety
    /// Only for the objects that the frames of the calling thread hold, where a
    /// [`super::check`] of this process has found them to lie as the layout says.
    pub unsafe fn new() -> Plain {
        Plain(())
    }
}

impl Memory for Plain {
    #[inline(always)]
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        // SAFETY: the contract of `new`.
        unsafe {
            std::ptr::copy_nonoverlapping(address as *const u8, into.as_mut_ptr(), into.len());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_mapped_is_an_error() {
        let value = 0x0123_4567_89ab_cdefu64;
        let at = &raw const value as u64;
        let by_file = Checked {
            file: File::open("/proc/self/mem").ok(),
        };
        for memory in [Checked::new().expect("one way to read"), by_file] {
            assert_eq!(memory.word(at), Some(value));
            assert_eq!(memory.byte(at + 1), Some(0xcd));
            for nowhere in [0, 8, 4096, 1 << 62, u64::MAX - 7] {
                assert_eq!(memory.word(nowhere), None, "{nowhere:#x}");
            }
        }
    }
}
