//! Where an export goes: a file that is there whole or not at all, or standard output.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Bytes that are collected before they are written.
const BUFFER: usize = 1 << 18;

/// An export that is being written.
pub enum Output {
    /// Standard output.
    Stdout(BufWriter<io::Stdout>),
    /// A file, under another name until it is whole.
    File {
        /// The file.
        file: BufWriter<File>,
        /// Its name for now; none where it has its own from the start.
        temporary: PathBuf,
        /// Its name in the end.
        path: PathBuf,
    },
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
            return Ok(Output::Stdout(BufWriter::with_capacity(
                BUFFER,
                io::stdout(),
            )));
        }
        if path.is_dir() {
            return Err(io::Error::other("is a directory"));
        }
        // A pipe or a device is written to as it is.
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            let file = OpenOptions::new().write(true).open(path)?;
            return Ok(Output::File {
                file: BufWriter::with_capacity(BUFFER, file),
                temporary: PathBuf::new(),
                path: path.to_owned(),
            });
        }
        let directory = path.parent().unwrap_or(Path::new(""));
        if !directory.as_os_str().is_empty() {
            fs::create_dir_all(directory)?;
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let temporary = directory.join(name);
        let file = File::create(&temporary)?;
        Ok(Output::File {
            file: BufWriter::with_capacity(BUFFER, file),
            temporary,
            path: path.to_owned(),
        })
    }

    /// It is whole.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        if let Output::File {
            temporary, path, ..
        } = &mut self
            && !temporary.as_os_str().is_empty()
        {
            fs::rename(&*temporary, &*path)?;
            *temporary = PathBuf::new();
        }
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Output::Stdout(out) => out.write(bytes),
            Output::File { file, .. } => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Output::Stdout(out) => out.flush(),
            Output::File { file, .. } => file.flush(),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // What is not whole is of no use.
        if let Output::File { temporary, .. } = self
            && !temporary.as_os_str().is_empty()
        {
            let _ = fs::remove_file(temporary);
        }
    }
}
