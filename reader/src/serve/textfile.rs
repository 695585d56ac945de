//! The metrics in a file, for node_exporter's textfile collector: there whole or not at all.

use super::metrics;
use crate::live::Sample;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

/// Writes the metrics of a sample. The file's old content stays where that fails.
pub fn write(path: &Path, sample: &Arc<Sample>) -> io::Result<()> {
    let text = metrics::openmetrics(sample).map_err(io::Error::other)?;
    let text = metrics::text_format(&text);
    let Some(name) = path.file_name() else {
        return Err(io::Error::other("it is no name of a file"));
    };
    // Beside it, and not called *.prom: what reads the directory must not see half of it.
    let mut own = OsString::from(".");
    own.push(name);
    own.push(format!(".{}.tmp", std::process::id()));
    let own = path.with_file_name(own);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(libc::O_NOFOLLOW)
            // node_exporter is another user.
            .mode(0o644)
            .open(&own)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&own, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&own);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_whole_and_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vramtrace.prom");
        for _ in 0..2 {
            write(&path, &Arc::new(Sample::default())).unwrap();
        }
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("vramtrace_directory_up{} 1"), "{text}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(
            write(
                Path::new("/nowhere/at/all.prom"),
                &Arc::new(Sample::default())
            )
            .is_err()
        );
    }
}
