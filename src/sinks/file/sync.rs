//! Flushing files to the disk: many at the same time, because each takes milliseconds and the disk serves them together.
//!
//! Nothing here writes to a file, and nothing decides when files are flushed.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

/// Files that are flushed at the same time. A disk that takes 5 ms for each flushes 16 / 5 ms = 3200 a second.
const THREADS: usize = 16;

/// Flushes one file.
type SyncFile = dyn Fn(&File) -> io::Result<()> + Send + Sync;

/// The disk. Tests put another one in its place.
#[derive(Clone)]
pub(super) struct Disk(Arc<SyncFile>);

impl Default for Disk {
    fn default() -> Self {
        Self(Arc::new(File::sync_data))
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}

/// A file with records that may not be on the disk.
#[derive(Clone, Debug)]
pub(super) struct Unsynced {
    pub(super) path: PathBuf,
    /// The open file. Without it, the path is opened: what others have written is flushed through any handle.
    pub(super) file: Option<Arc<File>>,
}

impl Disk {
    #[cfg(test)]
    pub(super) fn of(sync: impl Fn(&File) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(sync))
    }

    /// Flushes one file.
    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        (self.0)(file)
    }

    /// Flushes all of these. One result for each, in order.
    pub(super) fn sync_all(&self, files: &[Unsynced]) -> Vec<io::Result<()>> {
        if files.is_empty() {
            return Vec::new();
        }
        thread::scope(|scope| {
            let parts = files.chunks(files.len().div_ceil(THREADS));
            let part = |part: &[Unsynced]| part.iter().map(|one| self.sync_one(one)).collect::<Vec<_>>();
            let running: Vec<_> = parts
                .map(|files| (files.len(), scope.spawn(move || part(files))))
                .collect();
            let ended = running.into_iter().flat_map(|(count, thread)| {
                let panicked = |_| (0..count).map(|_| Err(io::Error::other("flushing panicked"))).collect();
                thread.join().unwrap_or_else(panicked)
            });
            ended.collect()
        })
    }

    fn sync_one(&self, one: &Unsynced) -> io::Result<()> {
        if let Some(file) = &one.file {
            return self.sync(file);
        }
        match File::open(&one.path) {
            Ok(file) => self.sync(&file),
            // It was deleted, or rotated, which flushes it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}
