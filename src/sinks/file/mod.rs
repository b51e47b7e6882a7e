//! Records as JSON lines in files, one per stream.
//!
//! A file sink knows no claim numbers: two replicas on a shared directory are kept apart by their
//! claims alone. Each chunk is appended wholly or not at all; after a crash the last chunk may be there
//! twice, with the same ids. A chunk is never split, so a file may exceed its limit by one chunk.

mod append;
mod diagnose;
mod path;
mod rotate;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tracing::warn;

use self::append::Appender;
pub(super) use self::diagnose::diagnose;
use super::SinkOpenError;
use super::json::Encoder;
use super::sink::{Sink, SinkError};
use super::stdout::KEPT;
use super::unacked::{Part, Unacked};
use super::url::{FileOptions, Fsync};
use crate::clock::Clock;
use crate::domain::{Chunk, Message, StreamId};

/// Files kept open: a quarter of the usual limit of 1024, which streams and connections need as well.
pub(super) const OPEN_FILES: usize = 256;
/// How often `fsync=interval` forces records to the disk.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// The sink.
#[derive(Debug)]
pub(super) struct FileSink {
    /// Held by a group until it is written, also when nobody waits for it any more.
    files: Arc<Mutex<Files>>,
    options: FileOptions,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Files {
    open: HashMap<StreamId, Appender>,
    unacked: Unacked,
    buffer: Vec<u8>,
    /// Counts groups.
    turn: u64,
}

/// A part and the file it belongs to.
type Job = (Part, std::path::PathBuf);
type Answers = Vec<Result<(), SinkError>>;

impl FileSink {
    /// Makes the directory and tries whether files can be made in it.
    pub(super) async fn open(options: FileOptions, clock: Clock) -> Result<Self, SinkOpenError> {
        let dir = options.dir.clone();
        let tried = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&dir)?;
            try_out(&dir)
        });
        match tried.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let message = failure(&options.dir, &error);
                return Err(match error.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SinkOpenError::Unavailable(message),
                    _ => SinkOpenError::Refused(message),
                });
            }
            Err(error) => return Err(SinkOpenError::unavailable(error.to_string(), "please report it")),
        }
        let files = Arc::default();
        Ok(Self { files, options, clock })
    }

    /// Forces records to the disk every second, when the sink is told to. Never resolves.
    pub(super) async fn sync_for_ever(&self) -> SinkOpenError {
        if self.options.fsync != Fsync::Interval {
            std::future::pending::<()>().await;
        }
        loop {
            tokio::time::sleep(SYNC_EVERY).await;
            let mut files = self.files.clone().lock_owned().await;
            let task = tokio::task::spawn_blocking(move || files.sync());
            if let Err(error) = task.await {
                warn!(%error, "forcing log files to the disk was stopped");
            }
        }
    }
}

#[async_trait]
impl Sink for FileSink {
    async fn write(&self, chunks: &[Arc<Chunk>]) -> Answers {
        let mut files = self.files.clone().lock_owned().await;
        let mut buffer = std::mem::take(&mut files.buffer);
        let mut jobs: Vec<Job> = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let start = buffer.len();
            Encoder::new(&chunk.origin).chunk(chunk, &mut buffer);
            jobs.push((
                Part::new(chunk, start, buffer.len()),
                path::of(&self.options.dir, &chunk.origin),
            ));
        }
        let (options, clock) = (self.options.clone(), self.clock);
        let task = tokio::task::spawn_blocking(move || {
            let answers = files.write(&buffer, &jobs, &options, clock);
            buffer.clear();
            if buffer.capacity() <= KEPT {
                files.buffer = buffer;
            }
            (files, jobs, answers)
        });
        let Ok((mut files, jobs, answers)) = task.await else {
            let why = "writing log files was stopped".into();
            return vec![Err(SinkError::Again { after: None, why }); chunks.len()];
        };
        let parts: Vec<Part> = jobs.into_iter().map(|(part, _)| part).collect();
        files.unacked.answered(&parts);
        answers
    }
}

impl Files {
    /// Writes a group, one chunk after another. When a chunk of a stream fails, later ones of that
    /// stream are not written either: its records would be out of order.
    fn write(&mut self, buffer: &[u8], jobs: &[Job], options: &FileOptions, clock: Clock) -> Answers {
        self.turn += 1;
        let mut failed: HashMap<&StreamId, SinkError> = HashMap::new();
        let mut answers = Vec::with_capacity(jobs.len());
        for (part, path) in jobs {
            let answer = if let Some(error) = failed.get(&part.stream) {
                Err(error.clone())
            } else if self.unacked.has(part) {
                Ok(())
            } else if part.deadline.allows(clock.now(), Duration::ZERO) {
                self.append(&buffer[part.start..part.end], part, path, options)
            } else {
                Err(SinkError::Fenced)
            };
            match &answer {
                Ok(()) => self.unacked.put(part),
                Err(error) => {
                    failed.insert(&part.stream, error.clone());
                }
            }
            answers.push(answer);
        }
        answers
    }

    fn append(&mut self, records: &[u8], part: &Part, path: &Path, options: &FileOptions) -> Result<(), SinkError> {
        let done = self
            .appender(&part.stream, path, options.fsync)
            .and_then(|file| file.append(records, options));
        done.map_err(|error| {
            // Whatever is wrong with it, the next try opens it anew.
            self.open.remove(&part.stream);
            let why = failure(path, &error).to_string().into();
            SinkError::Again { after: None, why }
        })
    }

    fn appender(&mut self, stream: &StreamId, path: &Path, fsync: Fsync) -> io::Result<&mut Appender> {
        if !self.open.contains_key(stream) {
            self.make_room();
            self.open
                .insert(stream.clone(), Appender::open(path.to_owned(), fsync)?);
        }
        let turn = self.turn;
        let file = self.open.get_mut(stream).ok_or(io::ErrorKind::NotFound)?;
        file.used = turn;
        Ok(file)
    }

    /// Lets go of the file that has not been used for longest.
    fn make_room(&mut self) {
        if self.open.len() >= OPEN_FILES
            && let Some(oldest) = self
                .open
                .iter()
                .min_by_key(|(_, file)| file.used)
                .map(|(stream, _)| stream.clone())
        {
            self.open.remove(&oldest);
        }
    }

    fn sync(&mut self) {
        for file in self.open.values_mut() {
            if let Err(error) = file.sync() {
                warn!(file = %file.path().display(), %error, "a log file could not be forced to the disk");
            }
        }
    }
}

/// Makes a file in a directory and removes it.
fn try_out(dir: &Path) -> io::Result<()> {
    let probe = dir.join(format!(".podlog-{:x}", fastrand::u64(..)));
    std::fs::write(&probe, b"")?;
    std::fs::remove_file(&probe)
}

/// Path, cause and remedy.
fn failure(path: &Path, error: &io::Error) -> Message {
    use io::ErrorKind as Kind;
    let remedy = match error.kind() {
        Kind::StorageFull | Kind::QuotaExceeded => "free some space",
        Kind::FileTooLarge => "raise the limit on file sizes, or lower max_size",
        Kind::PermissionDenied => "let podlog's user write there",
        Kind::ReadOnlyFilesystem => "mount it writable, or choose another directory",
        Kind::NotADirectory | Kind::IsADirectory | Kind::AlreadyExists => "something else is in the way; move it",
        Kind::ResourceBusy => "look for a frozen podlog that writes the same directory",
        _ if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => "raise the limit on open files",
        _ => "look at the system log for failures of the disk",
    };
    Message {
        text: format!("{} cannot be written: {error}", path.display()),
        remedy: remedy.into(),
    }
}
