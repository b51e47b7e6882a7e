//! The sink that writes records to files.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tracing::warn;

use super::appender::Appender;
use super::directory::{FileOptions, Fsync, OPEN_FILES, explain, is_full, try_to_create_file};
use super::path;
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
}

/// The files that are open, and the buffer for the next group.
#[derive(Debug, Default)]
struct OpenFiles {
    appenders: HashMap<StreamId, Appender>,
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
        Ok(Self { files, options, clock })
    }

    /// Flushes records to the disk every second, if the settings ask for it. Never resolves.
    pub(in crate::sinks) async fn sync_forever(&self) -> BackendError {
        if self.options.fsync != Fsync::Interval {
            std::future::pending::<()>().await;
        }
        loop {
            tokio::time::sleep(SYNC_INTERVAL).await;
            let mut files = self.files.clone().lock_owned().await;
            let task = tokio::task::spawn_blocking(move || files.sync());
            if let Err(error) = task.await {
                warn!(%error, "flushing log files to the disk was interrupted");
            }
        }
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
        let (options, clock) = (self.options.clone(), self.clock);
        let task = tokio::task::spawn_blocking(move || {
            let results = files.write(&buffer, &encoded, &options, clock);
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

impl OpenFiles {
    /// Writes a group, one chunk after another. When a chunk fails, later ones of its stream are not written either:
    /// its records would be out of order.
    fn write(&mut self, buffer: &[u8], encoded: &[FileChunk], options: &FileOptions, clock: Clock) -> WriteResults {
        self.groups += 1;
        let mut failed: HashMap<&StreamId, SinkError> = HashMap::new();
        let mut results = Vec::with_capacity(encoded.len());
        for FileChunk { chunk, path } in encoded {
            let result = if let Some(error) = failed.get(&chunk.stream) {
                Err(error.clone())
            } else if self.unacked.contains(chunk) {
                Ok(())
            } else if chunk.deadline.allows(clock.now(), Duration::ZERO) {
                self.append(&buffer[chunk.start..chunk.end], &chunk.stream, path, options)
            } else {
                Err(SinkError::Fenced)
            };
            match &result {
                Ok(()) => self.unacked.insert(chunk),
                Err(error) => {
                    failed.insert(&chunk.stream, error.clone());
                }
            }
            results.push(result);
        }
        results
    }

    fn append(
        &mut self,
        records: &[u8],
        stream: &StreamId,
        path: &Path,
        options: &FileOptions,
    ) -> Result<(), SinkError> {
        let done = self
            .appender(stream, path, options.fsync)
            .and_then(|file| file.append(records, options));
        done.map_err(|error| {
            // The next attempt opens the file again.
            self.appenders.remove(stream);
            let why = explain(path, &error).to_string().into();
            SinkError::Again { after: None, why }
        })
    }

    fn appender(&mut self, stream: &StreamId, path: &Path, fsync: Fsync) -> io::Result<&mut Appender> {
        if !self.appenders.contains_key(stream) {
            self.make_room();
            let appender = Appender::open(path.to_owned(), fsync)?;
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
            self.appenders.remove(&oldest);
        }
    }

    fn sync(&mut self) {
        for file in self.appenders.values_mut() {
            if let Err(error) = file.sync() {
                warn!(file = %file.path().display(), %error, "a log file could not be flushed to the disk");
            }
        }
    }
}
