//! One stream's file: opened, repaired, appended to, rotated when it is large.
//!
//! Records are appended as a whole or not at all. Another replica may have written the file before, and may still try
//! to: appending needs a lock on the file, and a file that another process has rotated is closed.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::directory::{FileOptions, Fsync};
use super::rotate;
use super::sync::{Disk, Unsynced};

/// A lock is held for one append. After 40 attempts with pauses of 25 ms, one second, its holder is paused or the disk
/// hangs.
const LOCK_ATTEMPTS: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// An open file.
#[derive(Debug)]
pub(super) struct Appender {
    path: PathBuf,
    file: Arc<File>,
    /// Its length after the last append of this process, bytes; `None` if unknown.
    len: Option<u64>,
    /// Whether records were appended that the caller has not taken over for flushing.
    dirty: bool,
    fsync: Fsync,
    disk: Disk,
    /// Number of the group that last used it; the file with the smallest number is closed first.
    pub(super) last_group: u64,
}

impl Appender {
    /// Opens or creates the file and its directories.
    pub(super) fn open(path: PathBuf, fsync: Fsync, disk: Disk) -> io::Result<Self> {
        let file = create(&path, fsync)?.into();
        Ok(Self {
            path,
            disk,
            file,
            len: None,
            dirty: false,
            fsync,
            last_group: 0,
        })
    }

    /// Appends whole records, which are not on the disk yet. After an error the file is as it was, or the next append
    /// repairs it. Returns the length before.
    pub(super) fn append(&mut self, records: &[u8], options: &FileOptions) -> io::Result<u64> {
        let mut before = self.lock_current()?;
        if before > 0 && before + records.len() as u64 > options.max_size {
            self.rotate(options)?;
            before = self.lock_current()?;
        }
        let done = self.append_locked(records, before);
        // If this fails, closing the file unlocks it.
        self.file.unlock().ok();
        done.map(|()| before)
    }

    fn append_locked(&mut self, records: &[u8], before: u64) -> io::Result<()> {
        // Unknown until the write succeeds, so that the next append checks and repairs the file.
        self.len = None;
        if let Err(error) = (&*self.file).write_all(records) {
            self.file.set_len(before).ok();
            return Err(error);
        }
        self.len = Some(before + records.len() as u64);
        self.dirty = self.fsync != Fsync::Never;
        Ok(())
    }

    /// Takes off what was appended after this length, because it could not be flushed.
    pub(super) fn take_back(&mut self, length: u64) -> io::Result<()> {
        let expected = self.len;
        let found = self.lock_current()?;
        let done = if Some(found) == expected {
            self.file.set_len(length)
        } else {
            Ok(())
        };
        self.len = None;
        self.file.unlock().ok();
        done
    }

    /// The file, if records were appended to it since the last call. The caller flushes it.
    pub(super) fn take_unsynced(&mut self) -> Option<Unsynced> {
        std::mem::take(&mut self.dirty).then(|| Unsynced {
            path: self.path.clone(),
            file: Some(self.file.clone()),
        })
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
                    self.file = create(&self.path, self.fsync)?.into();
                }
            }
        }
    }

    fn rotate(&mut self, options: &FileOptions) -> io::Result<()> {
        if self.fsync != Fsync::Never {
            self.disk.sync(&self.file)?;
        }
        self.dirty = false;
        rotate::rotate(&self.path, options.keep, options.gzip)?;
        self.file = create(&self.path, self.fsync)?.into();
        self.len = None;
        Ok(())
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
