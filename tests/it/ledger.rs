//! A sink shared by several replicas that judges those who write: their deadlines, their fences, and
//! whether two of them believe at once that a pod is theirs. It fences like a transactional sink, or not at all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use podlog::clock::Clock;
use podlog::domain::{Chunk, Fence, GoodUntil, Origin, PodUid, Position, StreamId};
use podlog::sim::Truth;
use podlog::sinks::{Sink, SinkError};

use crate::flaky::Wrongs;

/// Timers fire up to a millisecond late.
const TICK: Duration = Duration::from_millis(2);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Line(String),
    Gap,
}

#[derive(Debug, Default)]
struct Stream {
    fence: Fence,
    position: Option<Position>,
    entries: Vec<Entry>,
}

#[derive(Debug, Default)]
struct Book {
    streams: BTreeMap<StreamId, Stream>,
    /// Until when each writer believes that a pod is its own.
    leave: BTreeMap<PodUid, BTreeMap<String, GoodUntil>>,
    writes: u64,
    panics: u32,
}

/// All that was stored.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    book: Arc<Mutex<Book>>,
    fencing: bool,
    wrongs: Wrongs,
}

/// The ledger in one replica's hand.
#[derive(Clone, Debug)]
pub(crate) struct Pen {
    ledger: Ledger,
    name: String,
    /// How long a write takes.
    pub(crate) takes: Arc<Mutex<Duration>>,
}

/// How what was stored compares with what was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reckoning {
    pub(crate) lost: usize,
    pub(crate) twice: usize,
    pub(crate) disordered: usize,
    pub(crate) gaps: usize,
    pub(crate) stored: usize,
}

impl Ledger {
    pub(crate) fn new(fencing: bool, wrongs: Wrongs) -> Self {
        Self {
            book: Arc::default(),
            fencing,
            wrongs,
        }
    }

    pub(crate) fn pen(&self, name: &str) -> Pen {
        Pen {
            ledger: self.clone(),
            name: name.to_owned(),
            takes: Arc::new(Mutex::new(Duration::from_millis(10))),
        }
    }

    /// Lets the next writes panic.
    pub(crate) fn panic(&self, times: u32) {
        self.book.lock().unwrap().panics = times;
    }

    /// Makes the sink believe that somebody later has written of this pod: nothing is taken of it any more.
    pub(crate) fn outbid(&self, uid: &str) {
        let mut book = self.book.lock().unwrap();
        let streams = book.streams.iter_mut().filter(|(id, _)| id.uid.as_str() == uid);
        streams.for_each(|(_, stream)| stream.fence = Fence(u64::MAX));
    }

    fn wrong(&self, what: String) {
        self.wrongs.lock().unwrap().push(what);
    }

    /// Notes pods that more than one replica believes to hold at `now`.
    pub(crate) fn check(&self, now: Duration) {
        let mut book = self.book.lock().unwrap();
        let mut wrongs = Vec::new();
        for (uid, leave) in &mut book.leave {
            leave.retain(|_, good_until| good_until.deadline() > now + TICK);
            if leave.len() > 1 {
                wrongs.push(format!("{uid} is held by {:?} at {now:?}", leave.keys()));
            }
        }
        drop(book);
        for wrong in wrongs {
            self.wrong(wrong);
        }
    }

    /// How many lines of this pod are stored, repeats included.
    pub(crate) fn count(&self, uid: &str) -> usize {
        let book = self.book.lock().unwrap();
        let streams = book.streams.iter().filter(|(id, _)| id.uid.as_str() == uid);
        let lines = |stream: &Stream| stream.entries.iter().filter(|entry| **entry != Entry::Gap).count();
        streams.map(|(_, stream)| lines(stream)).sum()
    }

    /// Compares with the truth. Every message must be different.
    pub(crate) fn reckon(&self, truth: &[Truth]) -> Reckoning {
        let book = self.book.lock().unwrap();
        let mut all = Reckoning::default();
        for log in truth {
            let id = book.streams.iter().find(|(id, _)| {
                id.uid.as_str() == log.instance.uid && log.instance.container_id.ends_with(id.container_id.as_str())
            });
            let entries = id.map_or(&[][..], |(_, stream)| &stream.entries);
            let lost = all.lost;
            reckon(log, entries, &mut all);
            if all.lost > lost {
                // Seen when the test fails.
                println!("lost of {:?}: {:?}; stored {entries:?}", log.instance, log.lines);
            }
        }
        all
    }
}

fn reckon(log: &Truth, entries: &[Entry], all: &mut Reckoning) {
    let places: BTreeMap<&[u8], usize> = log
        .lines
        .iter()
        .enumerate()
        .map(|(at, line)| (&line.message[..], at))
        .collect();
    let mut seen = vec![false; log.lines.len()];
    let (mut next, mut gap) = (0, false);
    for entry in entries {
        let Entry::Line(message) = entry else {
            gap = true;
            all.gaps += 1;
            continue;
        };
        let at = places[message.as_bytes()];
        all.stored += 1;
        if seen[at] {
            all.twice += 1;
        } else if at < next {
            all.disordered += 1;
        } else if at > next && !gap {
            all.lost += at - next;
        }
        seen[at] = true;
        next = next.max(at + 1);
        gap = false;
    }
    if next < log.lines.len() && !gap {
        all.lost += log.lines.len() - next;
    }
}

impl Pen {
    /// Stores a chunk, or says why not.
    fn store(&self, chunk: &Chunk) -> Result<(), SinkError> {
        let now = Clock::tokio().now();
        let ledger = &self.ledger;
        if now > chunk.good_until.deadline() + TICK {
            ledger.wrong(format!(
                "{} wrote {:?} after its deadline",
                self.name, chunk.origin.stream
            ));
            return Err(SinkError::Fenced);
        }
        let mut book = ledger.book.lock().unwrap();
        let stream = book.streams.entry(chunk.origin.stream.clone()).or_default();
        if ledger.fencing && (chunk.fence != stream.fence || chunk.begin != stream.position) {
            return Err(SinkError::Fenced);
        }
        if chunk.fence < stream.fence {
            let (name, id, fence) = (&self.name, &chunk.origin.stream, stream.fence);
            ledger.wrong(format!("{name} wrote {id:?} under {}, seen {fence}", chunk.fence));
        }
        stream.fence = chunk.fence.max(stream.fence);
        stream.position = chunk.end;
        stream.entries.extend(chunk.gap.map(|_| Entry::Gap));
        let line = |line| Entry::Line(String::from_utf8_lossy(chunk.message(line)).into_owned());
        stream.entries.extend(chunk.lines.iter().map(line));
        let leave = book.leave.entry(chunk.origin.stream.uid.clone()).or_default();
        leave.insert(self.name.clone(), chunk.good_until.clone());
        drop(book);
        ledger.check(now);
        Ok(())
    }
}

#[async_trait]
impl Sink for Pen {
    async fn open(&self, origin: &Arc<Origin>, fence: Fence) -> Result<Option<Position>, SinkError> {
        if !self.ledger.fencing {
            return Ok(None);
        }
        let mut book = self.ledger.book.lock().unwrap();
        let stream = book.streams.entry(origin.stream.clone()).or_default();
        if fence < stream.fence {
            return Err(SinkError::Fenced);
        }
        stream.fence = fence;
        Ok(stream.position)
    }

    async fn write(&self, chunks: &[Chunk]) -> Vec<Result<(), SinkError>> {
        let takes = *self.takes.lock().unwrap();
        let early = {
            let mut book = self.ledger.book.lock().unwrap();
            if book.panics > 0 {
                book.panics -= 1;
                drop(book);
                panic!("told to");
            }
            book.writes += 1;
            book.writes.is_multiple_of(2)
        };
        // Every other write takes effect long before its answer.
        tokio::time::sleep(if early { Duration::ZERO } else { takes }).await;
        let answers = chunks.iter().map(|chunk| self.store(chunk)).collect();
        tokio::time::sleep(if early { takes } else { Duration::ZERO }).await;
        answers
    }
}
