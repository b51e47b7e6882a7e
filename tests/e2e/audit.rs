//! Compares the records in MySQL with the lines that containers wrote, and shows where they differ.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use kube_sim::audit::{self, Audit, LineDigest, StoredStream};
use sqlx::{MySqlConnection, Row};

use crate::fixture::print_line;

/// The longest line that podlog stores whole: the default of `--max-line`.
const LONGEST: usize = 256 * 1024;

/// The number of differing streams that are printed.
const SHOWN: usize = 8;

/// One container instance. The node's log files number a container's instances; a separate check proves that each has
/// one container ID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct InstanceKey {
    pub(crate) uid: String,
    pub(crate) container: String,
    pub(crate) restart_count: u32,
}

/// One line, written or stored.
#[derive(Clone, Debug)]
pub(crate) struct LogLine {
    pub(crate) time: i64,
    pub(crate) message: Vec<u8>,
    pub(crate) cut: usize,
    /// For a line of several CRI records: where each later record begins, with its timestamp. Empty for stored lines.
    pub(crate) ends: Vec<(i64, usize)>,
}

impl LogLine {
    /// Whether `stored` is the end of this line, whose beginning was in a file that was rotated away.
    fn ends_with(&self, stored: &Self) -> bool {
        let is_it = |(time, at): &(i64, usize)| *time == stored.time && self.message[*at..] == stored.message;
        self.ends.iter().any(is_it)
    }

    fn entry(&self) -> LineDigest {
        let whole = [&self.message, self.cut.to_string().as_bytes()].concat();
        LineDigest::new(self.time, &whole)
    }

    /// As podlog stores it.
    fn shortened(mut self) -> Self {
        self.cut += self.message.len().saturating_sub(LONGEST);
        self.message.truncate(LONGEST);
        self
    }

    fn show(&self) -> String {
        let text = String::from_utf8_lossy(&self.message[..self.message.len().min(60)]);
        format!(
            "{} {text:?} ({} bytes, {} cut)",
            self.time,
            self.message.len(),
            self.cut
        )
    }
}

/// A stored gap record.
#[derive(Clone, Debug)]
pub(crate) struct GapRecord {
    pub(crate) key: InstanceKey,
    reason: String,
    before_seq: i64,
    from: Option<i64>,
    to: Option<i64>,
}

impl GapRecord {
    /// Whether its reason is that the pod was deleted before its log was known to be complete.
    pub(crate) fn is_of_deletion(&self) -> bool {
        self.reason == "deleted"
    }

    pub(crate) fn show(&self) -> String {
        let InstanceKey {
            container,
            restart_count,
            ..
        } = &self.key;
        let time = |ns: Option<i64>| ns.map_or("open".to_owned(), |ns| ns.to_string());
        let (from, to) = (time(self.from), time(self.to));
        format!(
            "{container} {restart_count}: {}, {from} to {to}, before record {}",
            self.reason, self.before_seq
        )
    }
}

/// All stored records.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) streams: BTreeMap<InstanceKey, Vec<LogLine>>,
    pub(crate) gaps: Vec<GapRecord>,
    /// The pods' names, by UID.
    pub(crate) names: BTreeMap<String, String>,
}

/// The number of lines stored so far.
pub(crate) async fn count(sql: &mut MySqlConnection) -> i64 {
    let all = "SELECT CAST(COALESCE(SUM(seq), 0) AS SIGNED) FROM log_stream";
    sqlx::query_scalar(all).fetch_one(sql).await.unwrap()
}

impl Records {
    /// Reads all records.
    pub(crate) async fn load(sql: &mut MySqlConnection) -> Self {
        let mut records = Self::default();
        let mut keys = BTreeMap::new();
        let streams = "SELECT id, CONVERT(uid USING utf8mb4) AS uid, CONVERT(container USING utf8mb4) AS container, \
            CAST(restart AS SIGNED) AS restart, pod FROM log_stream";
        for row in sqlx::query(streams).fetch_all(&mut *sql).await.unwrap() {
            let key = InstanceKey {
                uid: row.get("uid"),
                container: row.get("container"),
                restart_count: u32::try_from(row.get::<i64, _>("restart")).unwrap(),
            };
            records.names.insert(key.uid.clone(), row.get("pod"));
            let twice = records.streams.insert(key.clone(), Vec::new());
            assert!(
                twice.is_none(),
                "two container IDs are stored for one instance: {key:?}"
            );
            keys.insert(row.get::<i64, _>("id"), key);
        }
        let lines = "SELECT stream, time_ns, message, cut FROM log_record ORDER BY stream, seq";
        let mut rows = sqlx::query(lines).fetch(&mut *sql);
        while let Some(row) = rows.try_next().await.unwrap() {
            let line = LogLine {
                time: row.get("time_ns"),
                message: row.get("message"),
                cut: usize::try_from(row.get::<i64, _>("cut")).unwrap(),
                ends: Vec::new(),
            };
            let stream = records.streams.get_mut(&keys[&row.get::<i64, _>("stream")]);
            stream.unwrap().push(line);
        }
        drop(rows);
        for row in sqlx::query("SELECT * FROM log_gap").fetch_all(sql).await.unwrap() {
            records.gaps.push(GapRecord {
                key: keys[&row.get::<i64, _>("stream")].clone(),
                reason: row.get("reason"),
                before_seq: row.get("seq"),
                from: row.get("from_ns"),
                to: row.get("to_ns"),
            });
        }
        records
    }

    /// Compares the records with what was written.
    pub(crate) fn audit(&self, written: &BTreeMap<InstanceKey, Vec<LogLine>>) -> Audit {
        let keys = self.streams.keys();
        let stored: BTreeMap<&InstanceKey, StoredStream> =
            keys.map(|key| (key, self.stored(key, written.get(key)))).collect();
        let entries = |(key, lines): (_, &Vec<LogLine>)| {
            let lines = lines.iter().map(|line| line.clone().shortened().entry());
            (key, lines.collect())
        };
        let written: BTreeMap<&InstanceKey, Vec<LineDigest>> = written.iter().map(entries).collect();
        audit::compare(&written, &stored)
    }

    /// What is stored of a stream. The end of a line whose beginning a gap covers is part of that gap.
    fn stored(&self, key: &InstanceKey, written: Option<&Vec<LogLine>>) -> StoredStream {
        let gaps = self.gaps.iter().filter(|gap| gap.key == *key);
        let gaps: Vec<usize> = gaps.map(|gap| usize::try_from(gap.before_seq).unwrap()).collect();
        let written = written.map(Vec::as_slice).unwrap_or_default();
        let mut stored = StoredStream::default();
        for (place, line) in self.streams[key].iter().enumerate() {
            let after = gaps.contains(&place);
            if after {
                stored.gaps.push(stored.lines.len());
            }
            if !(after && written.iter().any(|whole| whole.ends_with(line))) {
                stored.lines.push(line.entry());
            }
        }
        let last = gaps.iter().any(|gap| *gap >= self.streams[key].len());
        stored.gaps.extend(last.then_some(stored.lines.len()));
        stored
    }

    /// Prints the gap records and where stored and written lines first differ.
    pub(crate) fn explain(&self, written: &BTreeMap<InstanceKey, Vec<LogLine>>) {
        for gap in &self.gaps {
            print_line(&format!("gap record: {} {}", self.name(&gap.key), gap.show()));
        }
        let nothing = Vec::new();
        let keys: BTreeSet<&InstanceKey> = self.streams.keys().chain(written.keys()).collect();
        let mut shown = 0;
        for key in keys {
            let wrote = written.get(key).unwrap_or(&nothing).iter().cloned();
            let wrote: Vec<LogLine> = wrote.map(LogLine::shortened).collect();
            let stored = self.streams.get(key).unwrap_or(&nothing);
            let same = |(a, b): (&LogLine, &LogLine)| a.entry() == b.entry();
            let first = wrote.iter().zip(stored).take_while(|pair| same(*pair)).count();
            if first == wrote.len() && first == stored.len() {
                continue;
            }
            print_line(&format!(
                "differs: {} {key:?}: {} written, {} stored, the same up to {first}",
                self.name(key),
                wrote.len(),
                stored.len()
            ));
            for (what, lines) in [("written", &wrote), ("stored", stored)] {
                for (place, line) in lines.iter().enumerate().skip(first.saturating_sub(2)).take(5) {
                    print_line(&format!("    {what} {place}: {}", line.show()));
                }
            }
            shown += 1;
            if shown == SHOWN {
                return print_line("    (more streams may differ)");
            }
        }
    }

    /// The number of needless gap records: those of streams of which every line is stored.
    pub(crate) fn needless_gaps(&self, written: &BTreeMap<InstanceKey, Vec<LogLine>>) -> usize {
        let whole = |key: &InstanceKey| written.get(key).map(Vec::len) == self.streams.get(key).map(Vec::len);
        self.gaps.iter().filter(|gap| whole(&gap.key)).count()
    }

    fn name(&self, key: &InstanceKey) -> &str {
        self.names.get(&key.uid).map_or("(nothing stored)", String::as_str)
    }

    /// The streams of a pod, in the order in which they were written.
    pub(crate) fn of_pod(&self, name: &str) -> Vec<(&InstanceKey, &Vec<LogLine>)> {
        let named = |key: &InstanceKey| self.names.get(&key.uid).is_some_and(|own| own == name);
        self.streams.iter().filter(|(key, _)| named(key)).collect()
    }

    /// Checks the numbers of the lines of all streams: each line begins with `n=NUMBER ` and every number from 1 to
    /// the last occurs once in each container instance. Returns what is repeated, and what is missing without a gap
    /// record that explains it. The order is compared with the node's files instead, because two writers write stdout
    /// and stderr to them.
    pub(crate) fn faults_by_number(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let gaps: BTreeSet<&InstanceKey> = self.gaps.iter().map(|gap| &gap.key).collect();
        for (key, lines) in &self.streams {
            let mut numbers: Vec<u64> = lines.iter().filter_map(number).collect();
            numbers.sort_unstable();
            let wrong = (1..).zip(&numbers).find(|(expected, found)| expected != *found);
            let twice = numbers.windows(2).find(|pair| pair[0] == pair[1]);
            if let Some([number, _]) = twice {
                faults.push(format!("{} {key:?}: {number} twice", self.name(key)));
            } else if let Some((expected, found)) = wrong.filter(|_| !gaps.contains(key)) {
                faults.push(format!(
                    "{} {key:?}: {found} where {expected} should be",
                    self.name(key)
                ));
            }
        }
        faults
    }
}

fn number(line: &LogLine) -> Option<u64> {
    let rest = line.message.strip_prefix(b"n=")?;
    let end = rest.iter().position(|b| *b == b' ')?;
    std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
}
