//! The sink that all replicas of a fleet share. It records breaches of rules: writes after a deadline, writes under an
//! old fence, and two replicas that may write the same pod.
//!
//! It behaves like a database or like a file. A database uses the code of the SQL sinks to decide which lines of a
//! chunk are new. A file stores every line that it gets, and uses the code of the file sink to recognise a write that is
//! sent again because it was not answered in time. It never repairs anything.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::repeats::Repeats;
use super::rule::{Breaches, Rule};
use crate::clock::Clock;
use crate::domain::{Chunk, Deadline, Fence, Gap, Origin, PodUid, Position, StreamId};
use crate::sinks::dedup::{StreamRow, plan};
use crate::sinks::unacked::{EncodedChunk, Unacked};
use crate::sinks::{Sink, SinkError};
use crate::sync::lock;
use kube_sim::{WrittenLine, WrittenLog};

/// Timers fire up to a millisecond late.
pub(super) const TIMER_SLACK: Duration = Duration::from_millis(2);

/// The maximum length of a message in bytes. No message of a simulation is longer.
const LONGEST: usize = 1 << 20;

/// One entry of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LedgerEntry {
    /// A line that is stored.
    Line(String),
    /// A gap record.
    Gap(Gap),
    /// A line that was rejected permanently.
    Rejected(String),
}

/// What is stored of one stream.
#[derive(Debug, Default)]
pub(super) struct LedgerStream {
    fence: Fence,
    position: Option<Position>,
    /// Its entries, in the order in which they were stored.
    pub(super) entries: Vec<LedgerEntry>,
}

#[derive(Debug, Default)]
struct LedgerState {
    streams: BTreeMap<StreamId, LedgerStream>,
    /// For each pod, the deadline until which each replica may write.
    deadlines: BTreeMap<PodUid, BTreeMap<String, Deadline>>,
    writes: u64,
    panics: u32,
}

/// Everything that was stored. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Ledger {
    state: Arc<Mutex<LedgerState>>,
    fencing: bool,
    /// Which lines may be stored again if the ledger behaves like a file.
    pub(super) repeats: Repeats,
    breaches: Breaches,
}

/// The faults of the sink for one replica. They last until they are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinkFaults {
    /// How long a write takes.
    pub write_duration: Duration,
    /// Whether writes fail and must be tried again.
    pub down: bool,
    /// Whether lines are rejected permanently.
    pub rejects: bool,
}

impl Default for SinkFaults {
    fn default() -> Self {
        let write_duration = Duration::from_millis(10);
        let (down, rejects) = (false, false);
        Self {
            write_duration,
            down,
            rejects,
        }
    }
}

/// The sink of one replica.
#[derive(Clone, Debug)]
pub struct LedgerSink {
    ledger: Ledger,
    name: String,
    faults: Arc<Mutex<SinkFaults>>,
    unacked: Arc<Mutex<Unacked>>,
}

impl Ledger {
    /// An empty ledger. With `fencing` it behaves like a database, without like a file.
    #[must_use]
    pub fn new(fencing: bool, breaches: Breaches) -> Self {
        let state = Arc::default();
        Self {
            state,
            fencing,
            repeats: Repeats::default(),
            breaches,
        }
    }

    /// The sink of the replica with this name.
    #[must_use]
    pub fn sink(&self, name: &str) -> LedgerSink {
        LedgerSink {
            ledger: self.clone(),
            name: name.to_owned(),
            faults: Arc::default(),
            unacked: Arc::default(),
        }
    }

    /// Makes the next `times` writes panic.
    pub fn panic(&self, times: u32) {
        lock(&self.state).panics = times;
    }

    /// Sets the largest fence on all streams of this pod, as if a later holder had written. Further writes are fenced.
    pub fn fence_all_streams(&self, uid: &str) {
        let mut state = lock(&self.state);
        let streams = state.streams.iter_mut().filter(|(id, _)| id.uid.as_str() == uid);
        streams.for_each(|(_, stream)| stream.fence = Fence(u64::MAX));
    }

    /// Records a breach for each pod that more than one replica may write at the time `now`.
    pub fn check(&self, now: Duration) {
        let mut state = lock(&self.state);
        for (uid, deadlines) in &mut state.deadlines {
            deadlines.retain(|_, deadline| deadline.get() > now + TIMER_SLACK);
            if deadlines.len() > 1 {
                let what = format!("{uid} is held by {:?} at {now:?}", deadlines.keys());
                self.breaches.record(Rule::OneHolder, what);
            }
        }
    }

    /// The deadline of each replica for each pod.
    pub(super) fn deadlines_by_replica(&self) -> Vec<(PodUid, String, Duration)> {
        let state = lock(&self.state);
        let all = state.deadlines.iter().flat_map(|(uid, deadlines)| {
            let each = deadlines.iter();
            each.map(|(name, deadline)| (uid.clone(), name.clone(), deadline.get()))
        });
        all.collect()
    }

    /// How many lines of this pod are stored, including duplicates.
    #[must_use]
    pub fn count(&self, uid: &str) -> usize {
        let state = lock(&self.state);
        let streams = state.streams.iter().filter(|(id, _)| id.uid.as_str() == uid);
        let is_line = |entry: &&LedgerEntry| matches!(entry, LedgerEntry::Line(_));
        streams
            .map(|(_, stream)| stream.entries.iter().filter(is_line).count())
            .sum()
    }

    /// How many lines of this log are neither stored nor rejected. Of a line that began in a file which was rotated away,
    /// the end suffices.
    #[must_use]
    pub fn missing(&self, log: &WrittenLog) -> usize {
        let state = lock(&self.state);
        let mut streams = state.streams.iter();
        let stream = streams.find(|(id, _)| is_stream_of(id, log));
        let seen = stream.into_iter().flat_map(|(_, stream)| &stream.entries);
        let seen: BTreeSet<&[u8]> = seen
            .filter_map(|entry| match entry {
                LedgerEntry::Line(message) | LedgerEntry::Rejected(message) => Some(message.as_bytes()),
                LedgerEntry::Gap(_) => None,
            })
            .collect();
        let is_seen = |line: &WrittenLine| {
            let end = |message: &&[u8]| is_end_of(message, line);
            seen.contains(&line.message[..]) || seen.iter().any(end)
        };
        log.lines.iter().filter(|line| !is_seen(line)).count()
    }

    /// Whether a line of this log is stored, so that the next holder finds a position. Rejected lines have no position
    /// in the sink.
    #[must_use]
    pub fn has_position(&self, log: &WrittenLog) -> bool {
        let state = lock(&self.state);
        let mut streams = state.streams.iter();
        streams.any(|(id, stream)| is_stream_of(id, log) && stream.position.is_some())
    }

    /// A hash of everything that is stored.
    pub(super) fn hash(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(format!("{:?}", lock(&self.state).streams).as_bytes())
    }

    /// Calls `read` with what is stored.
    pub(super) fn read<T>(&self, read: impl FnOnce(&BTreeMap<StreamId, LedgerStream>) -> T) -> T {
        read(&lock(&self.state).streams)
    }
}

/// Whether `id` is the stream of this log.
pub(super) fn is_stream_of(id: &StreamId, log: &WrittenLog) -> bool {
    let of = &log.instance;
    let bare = of.container_id.rsplit_once("//").map_or("", |(_, id)| id);
    id.uid.as_str() == of.uid && *id.container == *of.container && id.container_id.as_str() == bare
}

/// Whether a message is the end of this line, after a beginning that was written separately.
pub(super) fn is_end_of(message: &[u8], line: &WrittenLine) -> bool {
    let begin = line.message.strip_suffix(message);
    !message.is_empty() && begin.is_some_and(|begin| begin.ends_with(b" "))
}

impl LedgerStream {
    /// Stores the new lines of a chunk, like a SQL sink.
    fn store_new(&mut self, chunk: &Arc<Chunk>) -> Result<(), SinkError> {
        let row = StreamRow {
            id: 0,
            fence: self.fence,
            position: self.position,
            seq: 0,
        };
        let mut rows = HashMap::from([(&chunk.origin.stream, row)]);
        let mut plan = plan(&mut rows, std::slice::from_ref(chunk), LONGEST);
        plan.results.pop().unwrap_or(Err(SinkError::Fenced))?;
        self.entries
            .extend(plan.gaps.iter().map(|row| LedgerEntry::Gap(row.gap)));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let lines = plan
            .records
            .iter()
            .map(|record| LedgerEntry::Line(text(record.message)));
        self.entries.extend(lines);
        for row in plan.moved {
            (self.fence, self.position) = (row.fence, row.position);
        }
        Ok(())
    }

    /// Stores all lines of a chunk, like a file.
    fn store_as_sent(&mut self, chunk: &Chunk) {
        self.fence = chunk.fence.max(self.fence);
        self.position = chunk.end;
        self.entries.extend(chunk.gap.map(LedgerEntry::Gap));
        self.entries.extend(messages(chunk).map(LedgerEntry::Line));
    }
}

fn messages(chunk: &Chunk) -> impl Iterator<Item = String> {
    let text = |line| String::from_utf8_lossy(chunk.message(line)).into_owned();
    chunk.lines.iter().map(text)
}

impl LedgerSink {
    /// Sets how long a write takes.
    pub fn set_write_duration(&self, write_duration: Duration) {
        lock(&self.faults).write_duration = write_duration;
    }

    /// Replaces the faults.
    pub fn set(&self, faults: SinkFaults) {
        *lock(&self.faults) = faults;
    }

    /// Stores one chunk.
    fn store(&self, chunk: &Arc<Chunk>) -> Result<(), SinkError> {
        let (now, id) = (Clock::tokio().now(), &chunk.origin.stream);
        let ledger = &self.ledger;
        let mut state = lock(&ledger.state);
        let stream = state.streams.entry(id.clone()).or_default();
        if lock(&self.faults).rejects {
            // The gap record is rejected as well, and podlog logs that. So it counts as reported.
            stream.entries.extend(chunk.gap.map(LedgerEntry::Gap));
            stream.entries.extend(messages(chunk).map(LedgerEntry::Rejected));
            return Err(SinkError::Rejected("told to".into()));
        }
        let seen = stream.fence;
        let again = EncodedChunk::new(chunk, 0, 0);
        if ledger.fencing {
            stream.store_new(chunk)?;
        } else if !lock(&self.unacked).contains(&again) {
            lock(&self.unacked).insert(&again);
            stream.store_as_sent(chunk);
            if let Some(what) = ledger.repeats.stored(chunk) {
                ledger.breaches.record(Rule::Repeats, what);
            }
        }
        if chunk.fence < seen {
            let what = format!("{} wrote {id:?} under {}, seen {seen}", self.name, chunk.fence);
            ledger.breaches.record(Rule::StaleFence, what);
        }
        let deadlines = state.deadlines.entry(id.uid.clone()).or_default();
        deadlines.insert(self.name.clone(), chunk.deadline.clone());
        drop(state);
        ledger.check(now);
        Ok(())
    }

    /// Stores chunks, and records a breach for each that was sent after its deadline. A chunk that was sent before may
    /// arrive later, for example from a process that was frozen meanwhile. Then the fence decides.
    fn store_all(&self, chunks: &[Arc<Chunk>], in_time: &[bool]) -> Vec<Result<(), SinkError>> {
        let each = chunks.iter().zip(in_time).map(|(chunk, in_time)| {
            if !in_time {
                let what = format!("{} wrote {:?} after its deadline", self.name, chunk.origin.stream);
                self.ledger.breaches.record(Rule::Deadline, what);
            }
            self.store(chunk)
        });
        each.collect()
    }

    fn check_available(&self) -> Result<(), SinkError> {
        let again = || SinkError::Again {
            after: None,
            why: "the simulated sink is down".into(),
        };
        if lock(&self.faults).down { Err(again()) } else { Ok(()) }
    }
}

#[async_trait]
impl Sink for LedgerSink {
    async fn open(&self, origin: &Arc<Origin>, fence: Fence) -> Result<Option<Position>, SinkError> {
        self.check_available()?;
        if !self.ledger.fencing {
            return Ok(None);
        }
        let mut state = lock(&self.ledger.state);
        let stream = state.streams.entry(origin.stream.clone()).or_default();
        if fence < stream.fence {
            return Err(SinkError::Fenced);
        }
        stream.fence = fence;
        Ok(stream.position)
    }

    async fn write(&self, chunks: &[Arc<Chunk>]) -> Vec<Result<(), SinkError>> {
        let write_duration = lock(&self.faults).write_duration;
        let early = {
            let mut state = lock(&self.ledger.state);
            if state.panics > 0 {
                state.panics -= 1;
                drop(state);
                panic!("told to");
            }
            state.writes += 1;
            !self.ledger.fencing || state.writes.is_multiple_of(2)
        };
        let now = Clock::tokio().now();
        let in_time = |chunk: &Arc<Chunk>| now <= chunk.deadline.get() + TIMER_SLACK;
        let in_time: Vec<bool> = chunks.iter().map(in_time).collect();
        if let Err(error) = self.check_available() {
            tokio::time::sleep(write_duration).await;
            return vec![Err(error); chunks.len()];
        }
        // Every second write to a database, and every write to a file, takes effect long before its answer.
        tokio::time::sleep(if early { Duration::ZERO } else { write_duration }).await;
        let answers = self.store_all(chunks, &in_time);
        tokio::time::sleep(if early { write_duration } else { Duration::ZERO }).await;
        let now = Clock::tokio().now();
        for chunk in chunks {
            self.ledger.repeats.answered(chunk, now);
            lock(&self.unacked).acknowledge([&EncodedChunk::new(chunk, 0, 0)]);
        }
        answers
    }
}
