//! The settings of a file sink.

use std::path::PathBuf;

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
