//! One stream's file: opened, mended, appended to, put aside when it is large.
//!
//! What is appended is appended wholly or not at all. Another replica may have written the file before,
//! and may still be about to: appending is done under a lock on the file, and a file that was put aside
//! by somebody else is let go of.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::rotate;
use crate::sinks::url::{FileOptions, Fsync};

/// A lock is held for one append. 40 tries of 25 ms are a second: then its holder is frozen or the disk stands.
const LOCK_TRIES: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// An open file.
#[derive(Debug)]
pub(super) struct Appender {
    path: PathBuf,
    file: File,
    /// Its length after our last append; `None` when it has not been looked at yet.
    len: Option<u64>,
    /// Whether something was appended and not forced to the disk since.
    dirty: bool,
    fsync: Fsync,
    /// When it was last used, in groups; for letting go of files that are not.
    pub(super) used: u64,
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
            used: 0,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends whole records. On an error the file is as it was, or is mended by the next append.
    pub(super) fn append(&mut self, records: &[u8], options: &FileOptions) -> io::Result<()> {
        let mut before = self.enter()?;
        if before > 0 && before + records.len() as u64 > options.max_size {
            self.put_aside(options)?;
            before = self.enter()?;
        }
        let done = self.put(records, before);
        // Closing the file would unlock it too, so a failure here keeps nobody out.
        self.file.unlock().ok();
        done
    }

    fn put(&mut self, records: &[u8], before: u64) -> io::Result<()> {
        // Unknown until it has gone well, so that the next append looks and mends.
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

    /// Locks the file that is at the path now, mends its end, and answers its length.
    fn enter(&mut self) -> io::Result<u64> {
        loop {
            lock(&self.file)?;
            let ours = self.file.metadata()?;
            match fs::metadata(&self.path) {
                Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => {
                    if self.len == Some(ours.len()) {
                        return Ok(ours.len());
                    }
                    return mend(&self.file, ours.len());
                }
                // Put aside or deleted by somebody else.
                _ => {
                    self.len = None;
                    self.file = create(&self.path, self.fsync)?;
                }
            }
        }
    }

    fn put_aside(&mut self, options: &FileOptions) -> io::Result<()> {
        if self.fsync != Fsync::Never {
            self.file.sync_data()?;
        }
        self.dirty = false;
        rotate::rotate(&self.path, options.keep, options.gzip)?;
        self.file = create(&self.path, self.fsync)?;
        self.len = None;
        Ok(())
    }

    /// Forces what was appended to the disk.
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
        // Best effort: nobody is left to tell.
        self.sync().ok();
    }
}

/// Opens for appending. A symbolic link in place of the file is followed: who may make one may write anyway.
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
        // A new name is on the disk only when its directory is.
        File::open(parent)?.sync_all()?;
    }
    Ok(file)
}

fn lock(file: &File) -> io::Result<()> {
    for _ in 0..LOCK_TRIES {
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

/// Cuts off an incomplete last line and answers the length. The writer that left it crashed within a
/// write that was never answered, so its records come again.
fn mend(mut file: &File, len: u64) -> io::Result<u64> {
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
            "cut off an incomplete record that a crashed writer had left"
        );
        file.set_len(end)?;
    }
    Ok(end)
}
