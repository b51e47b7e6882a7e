//! The sink that writes records to files.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::appender::Appender;
use super::directory::{FileOptions, Fsync, OPEN_FILES, explain, is_full, try_to_create_file};
use super::path;
use super::sync::{Disk, Unsynced};
use crate::clock::Clock;
use crate::domain::{BackendError, Chunk, StreamId};
use crate::sinks::json::{Encoder, LARGEST_KEPT_BUFFER};
use crate::sinks::sink::{Sink, SinkError, WriteResults};
use crate::sinks::unacked::{EncodedChunk, Unacked};

/// How often `fsync=interval` flushes records to the disk.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The sink.
#[derive(Debug)]
pub(in crate::sinks) struct FileSink {
    /// Locked by a group until it is written, also when its caller no longer waits.
    files: Arc<Mutex<OpenFiles>>,
    options: FileOptions,
    clock: Clock,
    disk: Disk,
}

/// The files that are open, and the buffer for the next group.
#[derive(Debug, Default)]
struct OpenFiles {
    appenders: HashMap<StreamId, Appender>,
    /// Files that were closed before they were flushed.
    closed: BTreeSet<PathBuf>,
    unacked: Unacked,
    buffer: Vec<u8>,
    /// Groups written so far.
    groups: u64,
}

/// An encoded chunk and the file it is appended to.
struct FileChunk {
    chunk: EncodedChunk,
    path: PathBuf,
}

impl FileSink {
    /// Creates the directory and checks that files can be created in it.
    pub(in crate::sinks) async fn open(options: FileOptions, clock: Clock) -> Result<Self, BackendError> {
        Self::open_on(options, clock, Disk::default()).await
    }

    async fn open_on(options: FileOptions, clock: Clock, disk: Disk) -> Result<Self, BackendError> {
        let dir = options.dir.clone();
        let tried = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&dir)?;
            try_to_create_file(&dir)
        });
        match tried.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let message = explain(&options.dir, &error);
                return Err(if is_full(&error) {
                    BackendError::Unavailable(message)
                } else {
                    BackendError::Refused(message)
                });
            }
            Err(error) => return Err(BackendError::unavailable(error.to_string(), "please report it")),
        }
        let files = Arc::default();
        Ok(Self {
            files,
            options,
            clock,
            disk,
        })
    }

    /// Flushes records to the disk every second, if the settings ask for it. Never resolves.
    pub(in crate::sinks) async fn sync_forever(&self) -> BackendError {
        if self.options.fsync != Fsync::Interval {
            std::future::pending::<()>().await;
        }
        // A failure is said when it begins.
        let mut failing_since = None;
        loop {
            tokio::time::sleep(SYNC_INTERVAL).await;
            let done = self.sync().await;
            if let Err(why) = &done
                && failing_since.is_none()
            {
                failing_since = Some(self.clock.now());
                warn!(
                    why,
                    "log files cannot be flushed to the disk; a crash of the machine would lose their last lines; podlog goes on trying"
                );
            } else if done.is_ok()
                && let Some(since) = failing_since.take()
            {
                let seconds = self.clock.now().saturating_sub(since).as_secs();
                info!(seconds, "log files are flushed to the disk again");
            }
        }
    }

    /// Flushes what was written until now. Meanwhile more is written. Says which file failed first.
    async fn sync(&self) -> Result<(), String> {
        let unsynced = self.files.lock().await.take_unsynced();
        let (files, disk) = (unsynced.clone(), self.disk.clone());
        let task = tokio::task::spawn_blocking(move || disk.sync_all(&files)).await;
        let results = task.map_err(|error| error.to_string())?;
        let failed = unsynced.into_iter().zip(results);
        let failed: Vec<_> = failed
            .filter_map(|(file, done)| Some((file.path, done.err()?)))
            .collect();
        let why = failed.first().map(|(path, error)| explain(path, error).to_string());
        // They are flushed again with the next.
        self.files
            .lock()
            .await
            .closed
            .extend(failed.into_iter().map(|(path, _)| path));
        why.map_or(Ok(()), Err)
    }
}

#[async_trait]
impl Sink for FileSink {
    async fn write(&self, chunks: &[Arc<Chunk>]) -> WriteResults {
        let mut files = self.files.clone().lock_owned().await;
        let mut buffer = std::mem::take(&mut files.buffer);
        let mut encoded = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let start = buffer.len();
            Encoder::new(&chunk.origin).chunk(chunk, &mut buffer);
            encoded.push(FileChunk {
                chunk: EncodedChunk::new(chunk, start, buffer.len()),
                path: path::of(&self.options.dir, &chunk.origin),
            });
        }
        let (options, clock, disk) = (self.options.clone(), self.clock, self.disk.clone());
        let task = tokio::task::spawn_blocking(move || {
            let results = files.write(&buffer, &encoded, &options, clock, &disk);
            buffer.clear();
            if buffer.capacity() <= LARGEST_KEPT_BUFFER {
                files.buffer = buffer;
            }
            (files, encoded, results)
        });
        let Ok((mut files, encoded, results)) = task.await else {
            let why = "writing log files was interrupted".into();
            return vec![Err(SinkError::Again { after: None, why }); chunks.len()];
        };
        files.unacked.acknowledge(encoded.iter().map(|one| &one.chunk));
        results
    }
}

/// What a stream was appended to in one group.
struct Appended<'a> {
    path: &'a PathBuf,
    /// The length before.
    before: u64,
    /// Which chunks of the group.
    chunks: Vec<usize>,
}

impl OpenFiles {
    /// Writes a group, one chunk after another. When a chunk fails, later ones of its stream are not written either:
    /// its records would be out of order.
    fn write(
        &mut self,
        buffer: &[u8],
        encoded: &[FileChunk],
        options: &FileOptions,
        clock: Clock,
        disk: &Disk,
    ) -> WriteResults {
        self.groups += 1;
        let mut failed: HashMap<&StreamId, SinkError> = HashMap::new();
        let mut appended: BTreeMap<&StreamId, Appended<'_>> = BTreeMap::new();
        let mut results = Vec::with_capacity(encoded.len());
        for (number, FileChunk { chunk, path }) in encoded.iter().enumerate() {
            let result = if let Some(error) = failed.get(&chunk.stream) {
                Err(error.clone())
            } else if self.unacked.contains(chunk) {
                Ok(())
            } else if chunk.deadline.allows(clock.now(), Duration::ZERO) {
                let records = &buffer[chunk.start..chunk.end];
                self.append(records, &chunk.stream, path, options, disk).map(|before| {
                    let first = Appended {
                        path,
                        before,
                        chunks: Vec::new(),
                    };
                    appended.entry(&chunk.stream).or_insert(first).chunks.push(number);
                })
            } else {
                Err(SinkError::Fenced)
            };
            if let Err(error) = &result {
                failed.insert(&chunk.stream, error.clone());
            }
            results.push(result);
        }
        if options.fsync == Fsync::Always {
            self.flush_group(&appended, &mut results, disk);
        }
        for number in appended.values().flat_map(|appended| &appended.chunks) {
            if results[*number].is_ok() {
                self.unacked.insert(&encoded[*number].chunk);
            }
        }
        results
    }

    /// Flushes what a group has appended. Chunks of a file that cannot be flushed are taken back, and have failed.
    fn flush_group(&mut self, appended: &BTreeMap<&StreamId, Appended<'_>>, results: &mut WriteResults, disk: &Disk) {
        let unsynced = self.take_unsynced();
        let synced = disk.sync_all(&unsynced);
        let failed: BTreeMap<PathBuf, io::Error> = unsynced
            .into_iter()
            .zip(synced)
            .filter_map(|(file, done)| Some((file.path, done.err()?)))
            .collect();
        for (stream, Appended { path, before, chunks }) in appended {
            let Some(error) = failed.get(*path) else { continue };
            // If that is not possible, its records may be there twice, with the same ids.
            if let Some(mut file) = self.appenders.remove(*stream) {
                file.take_back(*before).ok();
            }
            let why: Arc<str> = explain(path, error).to_string().into();
            for number in chunks {
                results[*number] = Err(SinkError::Again {
                    after: None,
                    why: why.clone(),
                });
            }
        }
    }

    fn append(
        &mut self,
        records: &[u8],
        stream: &StreamId,
        path: &Path,
        options: &FileOptions,
        disk: &Disk,
    ) -> Result<u64, SinkError> {
        let done = self
            .appender(stream, path, options.fsync, disk)
            .and_then(|file| file.append(records, options));
        done.map_err(|error| {
            // The next attempt opens the file again.
            self.close(stream);
            let why = explain(path, &error).to_string().into();
            SinkError::Again { after: None, why }
        })
    }

    fn appender(&mut self, stream: &StreamId, path: &Path, fsync: Fsync, disk: &Disk) -> io::Result<&mut Appender> {
        if !self.appenders.contains_key(stream) {
            self.make_room();
            let appender = Appender::open(path.to_owned(), fsync, disk.clone())?;
            self.appenders.insert(stream.clone(), appender);
        }
        let group = self.groups;
        let file = self.appenders.get_mut(stream).ok_or(io::ErrorKind::NotFound)?;
        file.last_group = group;
        Ok(file)
    }

    /// Closes the file that was not used for longest, if too many are open.
    fn make_room(&mut self) {
        if self.appenders.len() >= OPEN_FILES
            && let Some(oldest) = self
                .appenders
                .iter()
                .min_by_key(|(_, file)| file.last_group)
                .map(|(stream, _)| stream.clone())
        {
            self.close(&oldest);
        }
    }

    fn close(&mut self, stream: &StreamId) {
        let unsynced = self.appenders.remove(stream).and_then(|mut file| file.take_unsynced());
        self.closed.extend(unsynced.map(|file| file.path));
    }

    /// The files with records that were not flushed. The caller flushes them.
    fn take_unsynced(&mut self) -> Vec<Unsynced> {
        let closed = std::mem::take(&mut self.closed).into_iter();
        let closed = closed.map(|path| Unsynced { path, file: None });
        let open = self.appenders.values_mut().filter_map(Appender::take_unsynced);
        closed.chain(open).collect()
    }
}

impl Drop for FileSink {
    fn drop(&mut self) {
        // A write that hangs keeps the lock, and a failure cannot be reported to anybody.
        if let Ok(mut files) = self.files.try_lock() {
            self.disk.sync_all(&files.take_unsynced());
        }
    }
}

#[cfg(test)]
#[path = "file_sink_tests.rs"]
mod tests;
