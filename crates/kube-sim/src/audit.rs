//! Compares the lines that containers wrote with the lines that a collector stored: which are lost, duplicated or out
//! of order.
//!
//! It only compares values: it reads nothing and trusts no counter of the collector. A missing line counts as a gap
//! only if a gap record of its stream covers it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::ops::Range;

use serde::Serialize;

/// One line, written or stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineDigest {
    /// Its timestamp in nanoseconds since 1970; 0 if it is not known.
    pub time: i64,
    /// A hash of its bytes.
    pub hash: u64,
}

impl LineDigest {
    /// The digest of a line.
    #[must_use]
    pub fn new(time: i64, message: &[u8]) -> Self {
        Self {
            time,
            hash: xxhash_rust::xxh3::xxh3_64(message),
        }
    }
}

/// What is stored of one stream, in the order in which it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredStream {
    /// The lines.
    pub lines: Vec<LineDigest>,
    /// The gap records: for each, the number of lines stored before it.
    pub gaps: Vec<usize>,
}

impl StoredStream {
    /// Appends what another sink has stored of the same stream.
    pub fn append(&mut self, other: &Self) {
        let before = self.lines.len();
        self.gaps.extend(other.gaps.iter().map(|gap| before + gap));
        self.lines.extend(&other.lines);
    }
}

/// What can be wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscrepancyKind {
    /// Not stored, and no gap record covers it.
    Lost,
    /// Stored more often than written.
    Duplicated,
    /// Stored after a line that was written later.
    OutOfOrder,
    /// Stored, but no container wrote it.
    Foreign,
}

/// A line that was not stored as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discrepancy {
    /// What is wrong.
    pub kind: DiscrepancyKind,
    /// The index of the line: among the stored lines if it is duplicated or foreign, among the written lines otherwise.
    pub line: usize,
    /// Its timestamp.
    pub time: i64,
}

/// The number of lines of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Lines that containers wrote.
    pub written: u64,
    /// Stored lines, including duplicates.
    pub delivered: u64,
    /// Lines that are not stored, and that no gap record covers.
    pub lost: u64,
    /// Lines stored more often than they were written.
    pub duplicated: u64,
    /// Lines stored after a line of the same stream that was written later.
    pub out_of_order: u64,
    /// Lines that are not stored and that a gap record covers.
    pub gaps: u64,
    /// Stored lines that no container wrote.
    pub foreign: u64,
}

impl Audit {
    /// Whether every line was stored once and in order, or is covered by a gap record.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.out_of_order == 0 && self.foreign == 0
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            written,
            delivered,
            lost,
            duplicated,
            out_of_order,
            gaps,
            foreign,
        } = self;
        write!(
            f,
            "written={written} delivered={delivered} lost={lost} duplicated={duplicated} "
        )?;
        write!(f, "out_of_order={out_of_order} gaps={gaps}")?;
        if *foreign > 0 {
            write!(f, " foreign={foreign}")?;
        }
        Ok(())
    }
}

/// Compares all streams. `K` identifies a stream on both sides.
#[must_use]
pub fn compare<K: Ord>(written: &BTreeMap<K, Vec<LineDigest>>, stored: &BTreeMap<K, StoredStream>) -> Audit {
    find_discrepancies(written, stored).0
}

/// Like [`compare`], and lists every discrepancy.
#[must_use]
pub fn find_discrepancies<'a, K: Ord>(
    written: &'a BTreeMap<K, Vec<LineDigest>>,
    stored: &'a BTreeMap<K, StoredStream>,
) -> (Audit, Vec<(&'a K, Discrepancy)>) {
    let mut sum = Audit::default();
    let mut findings = Vec::new();
    let nothing = StoredStream::default();
    for (stream, lines) in written {
        let found = compare_stream(lines, stored.get(stream).unwrap_or(&nothing), &mut sum);
        findings.extend(found.into_iter().map(|finding| (stream, finding)));
    }
    for (stream, stored) in stored.iter().filter(|(stream, _)| !written.contains_key(stream)) {
        let found = compare_stream(&[], stored, &mut sum);
        findings.extend(found.into_iter().map(|finding| (stream, finding)));
    }
    (sum, findings)
}

fn compare_stream(written: &[LineDigest], stored: &StoredStream, sum: &mut Audit) -> Vec<Discrepancy> {
    sum.written += written.len() as u64;
    sum.delivered += stored.lines.len() as u64;
    let mut findings = Vec::new();
    let mut add = |kind, line, entry: &LineDigest| {
        let time = entry.time;
        findings.push(Discrepancy { kind, line, time });
    };
    // The indexes of equal lines among those written. The k-th stored copy counts as the k-th written line.
    let mut unmatched: HashMap<(i64, u64), VecDeque<usize>> = HashMap::new();
    for (index, entry) in written.iter().enumerate() {
        unmatched.entry((entry.time, entry.hash)).or_default().push_back(index);
    }
    let mut highest = None;
    // For each stored line, its index among those written.
    let mut origins = Vec::with_capacity(stored.lines.len());
    for (at, entry) in stored.lines.iter().enumerate() {
        let equal = unmatched.get_mut(&(entry.time, entry.hash));
        let index = equal.map(VecDeque::pop_front);
        match index {
            None => add(DiscrepancyKind::Foreign, at, entry),
            Some(None) => add(DiscrepancyKind::Duplicated, at, entry),
            Some(Some(index)) if highest.is_some_and(|highest| index < highest) => {
                add(DiscrepancyKind::OutOfOrder, index, entry);
            }
            Some(Some(index)) => highest = Some(index),
        }
        origins.push(index.flatten());
    }
    let covered = covered(&origins, &stored.gaps, written.len());
    let mut missing: Vec<usize> = unmatched.into_values().flatten().collect();
    missing.sort_unstable();
    for index in missing {
        if covered.iter().any(|range| range.contains(&index)) {
            sum.gaps += 1;
        } else {
            add(DiscrepancyKind::Lost, index, &written[index]);
        }
    }
    for finding in &findings {
        match finding.kind {
            DiscrepancyKind::Lost => sum.lost += 1,
            DiscrepancyKind::Duplicated => sum.duplicated += 1,
            DiscrepancyKind::OutOfOrder => sum.out_of_order += 1,
            DiscrepancyKind::Foreign => sum.foreign += 1,
        }
    }
    findings
}

/// The ranges of written lines that gap records cover. A range lies between the line stored before the gap and the line
/// stored after it. Timestamps cannot tell, because they repeat and go backwards.
fn covered(origins: &[Option<usize>], gaps: &[usize], written: usize) -> Vec<Range<usize>> {
    let cover = |gap: &usize| {
        let (before, after) = origins.split_at((*gap).min(origins.len()));
        let from = before
            .iter()
            .rev()
            .find_map(|index| *index)
            .map_or(0, |index| index + 1);
        from..after.iter().find_map(|index| *index).unwrap_or(written)
    };
    gaps.iter().map(cover).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<LineDigest> {
        text.bytes().map(|b| LineDigest::new(i64::from(b), &[b])).collect()
    }

    fn compare_texts(written: &str, stored: &str, gaps: &[usize]) -> Audit {
        let stored = StoredStream {
            lines: lines(stored),
            gaps: gaps.to_vec(),
        };
        compare(&[((), lines(written))].into(), &[((), stored)].into())
    }

    #[test]
    fn lines_that_are_stored_once_and_in_order_are_clean() {
        let clean = compare_texts("abcaab", "abcaab", &[]);
        assert_eq!((clean.written, clean.delivered), (6, 6));
        assert!(clean.is_clean());
    }

    #[test]
    fn each_kind_of_discrepancy_is_counted_separately() {
        let counts = |written, stored| {
            let r = compare_texts(written, stored, &[]);
            assert!(!r.is_clean());
            (r.lost, r.duplicated, r.out_of_order, r.foreign)
        };
        assert_eq!(counts("abc", "ac"), (1, 0, 0, 0));
        assert_eq!(counts("abc", "abbc"), (0, 1, 0, 0));
        assert_eq!(counts("abc", "acb"), (0, 0, 1, 0));
        assert_eq!(counts("abc", "abcx"), (0, 0, 0, 1));
        assert_eq!(counts("aab", "ab"), (1, 0, 0, 0));
    }

    #[test]
    fn a_gap_record_covers_only_missing_lines_between_its_stored_neighbours() {
        let gaps = |stored, gaps: &[usize]| {
            let r = compare_texts("abcdef", stored, gaps);
            (r.gaps, r.lost)
        };
        assert_eq!(gaps("adf", &[1]), (2, 1));
        assert_eq!(gaps("cd", &[0]), (2, 2));
        assert_eq!(gaps("cd", &[2]), (2, 2));
        assert_eq!(gaps("", &[0]), (6, 0));
        assert_eq!(gaps("abcdef", &[3]), (0, 0));
        // The gap also covers lines whose timestamps go backwards.
        let stored = StoredStream {
            lines: lines("fe"),
            gaps: vec![1],
        };
        let r = compare(&[((), lines("face"))].into(), &[((), stored)].into());
        assert_eq!((r.gaps, r.lost), (2, 0));
    }

    #[test]
    fn a_discrepancy_has_the_index_and_the_time_of_its_line() {
        let stored = [((), StoredStream::default())].into();
        let written = [((), lines("ab"))].into();
        let (_, findings) = find_discrepancies(&written, &stored);
        let lost = |line, time| Discrepancy {
            kind: DiscrepancyKind::Lost,
            line,
            time,
        };
        assert_eq!(findings, [(&(), lost(0, 97)), (&(), lost(1, 98))]);
    }

    #[test]
    fn the_lines_of_a_stream_in_several_sinks_are_counted_together() {
        let mut all = StoredStream {
            lines: lines("ab"),
            gaps: vec![2],
        };
        all.append(&StoredStream {
            lines: lines("abd"),
            gaps: vec![2],
        });
        assert_eq!(all.gaps, [2, 4]);
        let r = compare(&[((), lines("abcd"))].into(), &[((), all)].into());
        assert_eq!((r.delivered, r.duplicated, r.gaps, r.lost), (5, 2, 1, 0));
    }

    #[test]
    fn a_stream_that_is_not_stored_is_lost_and_a_stored_stream_that_nobody_wrote_is_foreign() {
        let written = [("w", lines("ab"))].into();
        let stored = [(
            "s",
            StoredStream {
                lines: lines("xyz"),
                gaps: vec![],
            },
        )]
        .into();
        let r = compare(&written, &stored);
        assert_eq!((r.lost, r.foreign), (2, 3));
    }
}
