//! A sink shared by several replicas. It checks its writers: their deadlines, their fences, and whether two of them
//! act on one pod at the same time.
//!
//! As a database it decides with the code of the SQL sinks what of a chunk is new; otherwise it takes what comes, as a
//! file does. It never repairs anything.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::rule::{Breaches, Rule};
use crate::clock::Clock;
use crate::domain::{Chunk, Deadline, Fence, Gap, Origin, PodUid, Position, StreamId};
use crate::sinks::dedup::{StreamRow, plan};
use crate::sinks::{Sink, SinkError};
use crate::sync::lock;
use kube_sim::WrittenLog;

/// Timers fire up to a millisecond late.
pub(super) const TIMER_SLACK: Duration = Duration::from_millis(2);

/// The longest message in bytes; none here is so long.
const LONGEST: usize = 1 << 20;

/// One entry of a stream, in the order of writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LedgerEntry {
    /// A line that is stored.
    Line(String),
    /// A gap record.
    Gap(Gap),
    /// A line that was refused for good.
    Rejected(String),
}

/// A stream as it is stored.
#[derive(Debug, Default)]
pub(super) struct LedgerStream {
    fence: Fence,
    position: Option<Position>,
    pub(super) entries: Vec<LedgerEntry>,
}

#[derive(Debug, Default)]
struct LedgerState {
    streams: BTreeMap<StreamId, LedgerStream>,
    /// Per pod, the deadline up to which each replica may write.
    deadlines: BTreeMap<PodUid, BTreeMap<String, Deadline>>,
    writes: u64,
    panics: u32,
}

/// All that was stored.
#[derive(Clone, Debug)]
pub struct Ledger {
    state: Arc<Mutex<LedgerState>>,
    fencing: bool,
    breaches: Breaches,
}

/// The faults between a replica and the sink, until they are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinkFaults {
    /// How long a write takes.
    pub takes: Duration,
    /// Whether writes fail and are to be tried again.
    pub down: bool,
    /// Whether writes are refused for good.
    pub rejects: bool,
}

impl Default for SinkFaults {
    fn default() -> Self {
        let takes = Duration::from_millis(10);
        let (down, rejects) = (false, false);
        Self { takes, down, rejects }
    }
}

/// The sink as one replica has it.
#[derive(Clone, Debug)]
pub struct LedgerSink {
    ledger: Ledger,
    name: String,
    faults: Arc<Mutex<SinkFaults>>,
}

impl Ledger {
    /// An empty one that fences like a transactional sink, or not at all.
    #[must_use]
    pub fn new(fencing: bool, breaches: Breaches) -> Self {
        let state = Arc::default();
        Self {
            state,
            fencing,
            breaches,
        }
    }

    /// The ledger as the replica of this name has it.
    #[must_use]
    pub fn sink(&self, name: &str) -> LedgerSink {
        LedgerSink {
            ledger: self.clone(),
            name: name.to_owned(),
            faults: Arc::default(),
        }
    }

    /// Lets the next writes panic.
    pub fn panic(&self, times: u32) {
        lock(&self.state).panics = times;
    }

    /// Sets the largest fence on all streams of this pod, as if a later holder had written: further writes are refused.
    pub fn fence_off(&self, uid: &str) {
        let mut state = lock(&self.state);
        let streams = state.streams.iter_mut().filter(|(id, _)| id.uid.as_str() == uid);
        streams.for_each(|(_, stream)| stream.fence = Fence(u64::MAX));
    }

    /// Records a breach for each pod that more than one replica may write at `now`.
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

    /// How many lines of this pod are stored, repeats included.
    #[must_use]
    pub fn count(&self, uid: &str) -> usize {
        let state = lock(&self.state);
        let streams = state.streams.iter().filter(|(id, _)| id.uid.as_str() == uid);
        let is_line = |entry: &&LedgerEntry| matches!(entry, LedgerEntry::Line(_));
        streams
            .map(|(_, stream)| stream.entries.iter().filter(is_line).count())
            .sum()
    }

    /// How many lines of this log are neither stored nor refused for good.
    #[must_use]
    pub fn missing(&self, log: &WrittenLog) -> usize {
        let state = lock(&self.state);
        let mut streams = state.streams.iter();
        let stream = streams.find(|(id, _)| is_of(id, log));
        let seen = stream.into_iter().flat_map(|(_, stream)| &stream.entries);
        let seen: BTreeSet<&[u8]> = seen
            .filter_map(|entry| match entry {
                LedgerEntry::Line(message) | LedgerEntry::Rejected(message) => Some(message.as_bytes()),
                LedgerEntry::Gap(_) => None,
            })
            .collect();
        let missing = log.lines.iter().filter(|line| !seen.contains(&line.message[..]));
        missing.count()
    }

    /// Whether a line of this log is stored, so that the next holder knows how far it was read. Lines refused for good
    /// do not show it until the row of a claim does.
    #[must_use]
    pub fn is_placed(&self, log: &WrittenLog) -> bool {
        let state = lock(&self.state);
        let mut streams = state.streams.iter();
        streams.any(|(id, stream)| is_of(id, log) && stream.position.is_some())
    }

    /// A hash of all that is stored.
    pub(super) fn hash(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(format!("{:?}", lock(&self.state).streams).as_bytes())
    }

    /// Shows what is stored.
    pub(super) fn read<T>(&self, read: impl FnOnce(&BTreeMap<StreamId, LedgerStream>) -> T) -> T {
        read(&lock(&self.state).streams)
    }
}

/// Whether this stream is of this instance.
pub(super) fn is_of(id: &StreamId, log: &WrittenLog) -> bool {
    let of = &log.instance;
    let bare = of.container_id.rsplit_once("//").map_or("", |(_, id)| id);
    id.uid.as_str() == of.uid && *id.container == *of.container && id.container_id.as_str() == bare
}

impl LedgerStream {
    /// Stores what is new of a chunk, as the SQL sinks decide it.
    fn place(&mut self, chunk: &Arc<Chunk>) -> Result<(), SinkError> {
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

    /// Stores a chunk as it comes.
    fn append(&mut self, chunk: &Chunk) {
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
    /// Lets writes take this long.
    pub fn set_duration(&self, takes: Duration) {
        lock(&self.faults).takes = takes;
    }

    /// Replaces the present faults by these.
    pub fn set(&self, faults: SinkFaults) {
        *lock(&self.faults) = faults;
    }

    /// Stores a chunk, or says why not.
    fn store(&self, chunk: &Arc<Chunk>) -> Result<(), SinkError> {
        let (now, id) = (Clock::tokio().now(), &chunk.origin.stream);
        let ledger = &self.ledger;
        let mut state = lock(&ledger.state);
        let stream = state.streams.entry(id.clone()).or_default();
        if lock(&self.faults).rejects {
            // The gap record is refused as well, and podlog logs that.
            stream.entries.extend(chunk.gap.map(LedgerEntry::Gap));
            stream.entries.extend(messages(chunk).map(LedgerEntry::Rejected));
            return Err(SinkError::Rejected("told to".into()));
        }
        let seen = stream.fence;
        if ledger.fencing {
            stream.place(chunk)?;
        } else {
            stream.append(chunk);
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

    /// Stores what comes, and notes what was sent after its deadline. What was sent before may arrive
    /// later, from a process that was frozen meanwhile; then the fence decides.
    fn take_in(&self, chunks: &[Arc<Chunk>], in_time: &[bool]) -> Vec<Result<(), SinkError>> {
        let each = chunks.iter().zip(in_time).map(|(chunk, in_time)| {
            if !in_time {
                let what = format!("{} wrote {:?} after its deadline", self.name, chunk.origin.stream);
                self.ledger.breaches.record(Rule::Deadline, what);
            }
            self.store(chunk)
        });
        each.collect()
    }

    fn refuse_for_now(&self) -> Result<(), SinkError> {
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
        self.refuse_for_now()?;
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
        let takes = lock(&self.faults).takes;
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
        if let Err(error) = self.refuse_for_now() {
            tokio::time::sleep(takes).await;
            return vec![Err(error); chunks.len()];
        }
        // Every second write to a database, and every write to a file, takes effect long before its answer.
        tokio::time::sleep(if early { Duration::ZERO } else { takes }).await;
        let answers = self.take_in(chunks, &in_time);
        tokio::time::sleep(if early { takes } else { Duration::ZERO }).await;
        answers
    }
}
