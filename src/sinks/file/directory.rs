//! The directory of a file sink: how files in it are written, whether files can be created there, and what a failure means.

use std::io;
use std::path::{Path, PathBuf};

use crate::domain::Message;

/// Files kept open: a quarter of the usual limit of 1024, which streams and connections need as well.
pub(in crate::sinks) const OPEN_FILES: usize = 256;

/// How files are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sinks) struct FileOptions {
    pub(in crate::sinks) dir: PathBuf,
    /// Size at which a file is rotated, bytes.
    pub(in crate::sinks) max_size: u64,
    /// Rotated files that are kept, per stream.
    pub(in crate::sinks) keep: u32,
    pub(in crate::sinks) fsync: Fsync,
    /// Whether rotated files are compressed.
    pub(in crate::sinks) gzip: bool,
}

/// When written records are flushed to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sinks) enum Fsync {
    /// When the operating system does it: a crash of the machine loses the last seconds, a crash of podlog nothing.
    Never,
    /// Once a second.
    Interval,
    /// Before a write is answered.
    Always,
}

/// Creates a file in a directory and removes it.
pub(super) fn try_to_create_file(dir: &Path) -> io::Result<()> {
    let file = dir.join(format!(".podlog-{:x}", fastrand::u64(..)));
    std::fs::write(&file, b"")?;
    std::fs::remove_file(&file)
}

/// A failure to write, and its remedy.
pub(super) fn explain(path: &Path, error: &io::Error) -> Message {
    use io::ErrorKind as Kind;
    let remedy = match error.kind() {
        Kind::StorageFull | Kind::QuotaExceeded => "free some space",
        Kind::FileTooLarge => "raise the limit on file sizes, or lower max_size",
        Kind::PermissionDenied => "let podlog's user write there",
        Kind::ReadOnlyFilesystem => "mount it writable, or choose another directory",
        Kind::NotADirectory | Kind::IsADirectory | Kind::AlreadyExists => "something else is in the way; move it",
        // What is missing is created, so a file system refuses to: /proc does.
        Kind::NotFound => "this file system takes no files there; choose another directory",
        Kind::ResourceBusy => "check for a paused podlog that writes to the same directory",
        _ if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => "raise the limit on open files",
        _ => "check the system log for disk failures",
    };
    Message {
        text: format!("{} cannot be written: {error}", path.display()),
        remedy: remedy.into(),
    }
}

/// Whether a later attempt may succeed without a change of settings or permissions: the disk is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_below_which_nothing_can_be_created_is_no_failure_of_the_disk() {
        for path in ["/proc/nope", "/proc/a/b"] {
            let error = std::fs::create_dir_all(path).unwrap_err();
            let said = explain(Path::new(path), &error).to_string();
            assert!(said.ends_with("choose another directory"), "{said}");
        }
        let broken = explain(Path::new("/logs"), &io::Error::from_raw_os_error(5)).remedy;
        assert_eq!(&*broken, "check the system log for disk failures");
    }
}
