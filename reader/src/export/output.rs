//! Where an export goes: a file that is there whole or not at all, or standard output.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

/// Bytes that are collected before they are written.
const BUFFER: usize = 1 << 20;
/// Buffers that wait to be written.
const WAITING: usize = 2;

/// An export that is being written.
pub struct Output {
    to: Behind,
    /// Of a file: its name for now, and its name in the end; none where it has its own from the start.
    names: Option<(PathBuf, PathBuf)>,
}

/// Refuses what would be lost or useless: a file that exists, bytes for a terminal.
pub fn refuse(path: &Path, force: bool, is_text: bool) -> Result<(), String> {
    if path == Path::new("-") {
        return if is_text || !io::stdout().is_terminal() {
            Ok(())
        } else {
            Err("this format is not for a terminal; name a file with -o, or use a pipe".to_owned())
        };
    }
    if !force && path.symlink_metadata().is_ok() {
        let path = path.display();
        return Err(format!(
            "{path} exists already; use -f to overwrite it, or another name with -o"
        ));
    }
    Ok(())
}

impl Output {
    /// Opens one; `-` is standard output. Makes the directories that the file is to be in.
    pub fn create(path: &Path) -> io::Result<Output> {
        if path == Path::new("-") {
            return Output::over(io::stdout(), None);
        }
        if path.is_dir() {
            return Err(io::Error::other("is a directory"));
        }
        // A pipe or a device is written to as it is.
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return Output::over(OpenOptions::new().write(true).open(path)?, None);
        }
        let directory = path.parent().unwrap_or(Path::new(""));
        if !directory.as_os_str().is_empty() {
            fs::create_dir_all(directory)?;
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let temporary = directory.join(name);
        let file = File::create(&temporary)?;
        Output::over(file, Some((temporary, path.to_owned())))
    }

    fn over(
        out: impl Write + Send + 'static,
        names: Option<(PathBuf, PathBuf)>,
    ) -> io::Result<Output> {
        let to = Behind::of(out)?;
        Ok(Output { to, names })
    }

    /// It is whole.
    pub fn finish(mut self) -> io::Result<()> {
        self.to.end()?;
        if let Some((temporary, path)) = &self.names {
            fs::rename(temporary, path)?;
            self.names = None;
        }
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    /// Hands on what is collected; [`Output::finish`] says whether it was written.
    fn flush(&mut self) -> io::Result<()> {
        self.to.hand_over()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // What is not whole is of no use.
        if let Some((temporary, _)) = &self.names {
            let _ = fs::remove_file(temporary);
        }
    }
}

/// Writes in a thread of its own: copying into the system's cache takes about as long as making what is copied.
struct Behind {
    buffer: Vec<u8>,
    full: Option<SyncSender<Vec<u8>>>,
    empty: Receiver<Vec<u8>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Behind {
    fn of(mut out: impl Write + Send + 'static) -> io::Result<Behind> {
        let (full, buffers) = sync_channel::<Vec<u8>>(WAITING);
        let (used, empty) = channel();
        let write = move || {
            for mut buffer in buffers {
                out.write_all(&buffer)?;
                buffer.clear();
                // It has ended if it does not want its memory back.
                let _ = used.send(buffer);
            }
            out.flush()
        };
        Ok(Behind {
            buffer: Vec::with_capacity(BUFFER),
            full: Some(full),
            empty,
            thread: Some(thread::Builder::new().name("output".into()).spawn(write)?),
        })
    }

    fn hand_over(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let next = self.empty.try_recv();
        let next = next.unwrap_or_else(|_| Vec::with_capacity(BUFFER));
        let buffer = std::mem::replace(&mut self.buffer, next);
        match &self.full {
            Some(full) if full.send(buffer).is_ok() => Ok(()),
            _ => Err(self.why()),
        }
    }

    /// Why the thread takes nothing any more.
    fn why(&mut self) -> io::Error {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => error,
            _ => io::Error::other("what could not be written before is missing"),
        }
    }

    /// Waits until all of it is written.
    fn end(&mut self) -> io::Result<()> {
        self.hand_over()?;
        self.full = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(written)) => written,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Err(self.why()),
        }
    }
}

impl Write for Behind {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER {
            self.hand_over()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_over()
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        // What is under way is let through: a reader that went away ends it, and a file has no name any more.
        self.full = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
