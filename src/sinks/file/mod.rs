//! Records as JSON lines in files, one file per stream.
//!
//! A file knows no fences: replicas with a shared directory are kept apart by their claims alone. Each chunk is appended
//! as a whole or not at all. After a crash the last chunk may be in the file twice, with the same ids. A chunk is never
//! split, so a file may exceed its size limit by one chunk.

mod appender;
mod diagnose;
mod directory;
mod file_sink;
mod path;
mod rotate;
mod sync;

pub(super) use diagnose::diagnose;
pub(super) use directory::{FileOptions, Fsync, OPEN_FILES};
pub(super) use file_sink::FileSink;
