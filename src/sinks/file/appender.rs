//! One stream's file: opened, repaired, appended to, rotated when it is large.
//!
//! Records are appended as a whole or not at all. Another replica may have written the file before, and may still try
//! to: appending needs a lock on the file, and a file that another process has rotated is closed.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::directory::{FileOptions, Fsync};
use super::rotate;

/// A lock is held for one append. After 40 attempts with pauses of 25 ms, one second, its holder is paused or the disk
/// hangs.
const LOCK_ATTEMPTS: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// An open file.
#[derive(Debug)]
pub(super) struct Appender {
    path: PathBuf,
    file: File,
    /// Its length after the last append of this process, bytes; `None` if unknown.
    len: Option<u64>,
    /// Whether records were appended since the last flush to the disk.
    dirty: bool,
    fsync: Fsync,
    /// Number of the group that last used it; the file with the smallest number is closed first.
    pub(super) last_group: u64,
}

impl Appender {
    /// Opens or creates the file and its directories.
    pub(super) fn open(path: PathBuf, fsync: Fsync) -> io::Result<Self> {
        let file = create(&path, fsync)?;
        Ok(Self {
            path,
            file,
            len: None,
            dirty: false,
            fsync,
            last_group: 0,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends whole records. After an error the file is as it was, or the next append repairs it.
    pub(super) fn append(&mut self, records: &[u8], options: &FileOptions) -> io::Result<()> {
        let mut before = self.lock_current()?;
        if before > 0 && before + records.len() as u64 > options.max_size {
            self.rotate(options)?;
            before = self.lock_current()?;
        }
        let done = self.append_locked(records, before);
        // If this fails, closing the file unlocks it.
        self.file.unlock().ok();
        done
    }

    fn append_locked(&mut self, records: &[u8], before: u64) -> io::Result<()> {
        // Unknown until the write succeeds, so that the next append checks and repairs the file.
        self.len = None;
        let mut written = self.file.write_all(records);
        if written.is_ok() && self.fsync == Fsync::Always {
            written = self.file.sync_data();
        }
        if let Err(error) = written {
            self.file.set_len(before).ok();
            return Err(error);
        }
        self.len = Some(before + records.len() as u64);
        self.dirty = self.fsync == Fsync::Interval;
        Ok(())
    }

    /// Locks the file that is at the path now, repairs its end, and returns its length.
    fn lock_current(&mut self) -> io::Result<u64> {
        loop {
            lock(&self.file)?;
            let ours = self.file.metadata()?;
            match fs::metadata(&self.path) {
                Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => {
                    if self.len == Some(ours.len()) {
                        return Ok(ours.len());
                    }
                    return repair(&self.file, ours.len());
                }
                // Another process has rotated or deleted it.
                _ => {
                    self.len = None;
                    self.file = create(&self.path, self.fsync)?;
                }
            }
        }
    }

    fn rotate(&mut self, options: &FileOptions) -> io::Result<()> {
        if self.fsync != Fsync::Never {
            self.file.sync_data()?;
        }
        self.dirty = false;
        rotate::rotate(&self.path, options.keep, options.gzip)?;
        self.file = create(&self.path, self.fsync)?;
        self.len = None;
        Ok(())
    }

    /// Flushes appended records to the disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.dirty {
            self.file.sync_data()?;
            self.dirty = false;
        }
        Ok(())
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        // A failure here cannot be reported to anybody.
        self.sync().ok();
    }
}

/// Opens the file for appending. A symbolic link is followed: a user that can create one can write there anyway.
fn create(path: &Path, fsync: Fsync) -> io::Result<File> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let open = || OpenOptions::new().read(true).append(true).create(true).open(path);
    let file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(parent)?;
            open()?
        }
        other => other?,
    };
    if fsync == Fsync::Always {
        // A new file name is on the disk only after its directory is.
        File::open(parent)?.sync_all()?;
    }
    Ok(file)
}

fn lock(file: &File) -> io::Result<()> {
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            // Some network file systems have no locks; there the claims alone keep replicas apart.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::ResourceBusy,
        "another process holds the lock on the file",
    ))
}

/// Removes an incomplete last line and returns the length. Its writer crashed during a write that was never answered, so
/// the records are written again.
fn repair(mut file: &File, len: u64) -> io::Result<u64> {
    const BLOCK: u64 = 64 << 10;
    let mut end = len;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        file.take(end - start).read_to_end(&mut block)?;
        if let Some(at) = memchr::memrchr(b'\n', &block) {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < len {
        tracing::warn!(
            bytes = len - end,
            "removed an incomplete record of a writer that crashed"
        );
        file.set_len(end)?;
    }
    Ok(end)
}
