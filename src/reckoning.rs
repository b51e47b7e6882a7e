//! Compares what containers wrote with what was stored: lost, duplicated, out of order.
//!
//! Pure, and ignorant of how either came about: it knows nothing of podlog's counters, claims or
//! positions. A lost line counts as a gap only when a stored gap record of its stream covers it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;

use serde::Serialize;

/// One line, written or stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its timestamp in nanoseconds since the epoch; 0 where it is not known.
    pub time: i64,
    /// A hash of its bytes.
    pub hash: u64,
}

impl Entry {
    /// The entry of a line.
    #[must_use]
    pub fn of(time: i64, message: &[u8]) -> Self {
        Self {
            time,
            hash: xxhash_rust::xxh3::xxh3_64(message),
        }
    }
}

/// A range that was reported as no longer to be had; open ends reach to the end of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Its first nanosecond.
    pub from: i64,
    /// Its last nanosecond.
    pub to: i64,
}

/// What is stored of one stream, in the order in which it is stored.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// The lines.
    pub lines: Vec<Entry>,
    /// The gap records.
    pub gaps: Vec<Range>,
}

/// The outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reckoning {
    /// Lines that containers wrote.
    pub written: u64,
    /// Lines that are stored, each as often as it is stored.
    pub delivered: u64,
    /// Lines that are not stored, and that no gap record covers.
    pub lost: u64,
    /// Lines stored more often than they were written.
    pub duplicated: u64,
    /// Lines stored after a line of the same stream that was written later.
    pub out_of_order: u64,
    /// Lines that are not stored and that a gap record covers.
    pub gaps: u64,
    /// Stored lines that nobody wrote.
    pub foreign: u64,
}

impl Reckoning {
    /// Whether every line was stored once, in order, or reported.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.out_of_order == 0 && self.foreign == 0
    }
}

impl fmt::Display for Reckoning {
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

/// Compares all streams, by a key that both sides use.
#[must_use]
pub fn reckon<K: Ord>(written: &BTreeMap<K, Vec<Entry>>, stored: &BTreeMap<K, Stored>) -> Reckoning {
    let mut sum = Reckoning::default();
    let nothing = Stored::default();
    for (stream, lines) in written {
        compare(lines, stored.get(stream).unwrap_or(&nothing), &mut sum);
    }
    for (_, stored) in stored.iter().filter(|(stream, _)| !written.contains_key(stream)) {
        compare(&[], stored, &mut sum);
    }
    sum
}

fn compare(written: &[Entry], stored: &Stored, sum: &mut Reckoning) {
    sum.written += written.len() as u64;
    sum.delivered += stored.lines.len() as u64;
    // Where each line was written. The k-th storing of identical lines is taken for the k-th writing.
    let mut places: HashMap<(i64, u64), VecDeque<usize>> = HashMap::new();
    for (place, entry) in written.iter().enumerate() {
        places.entry((entry.time, entry.hash)).or_default().push_back(place);
    }
    let mut highest = None;
    for entry in &stored.lines {
        let Some(left) = places.get_mut(&(entry.time, entry.hash)) else {
            sum.foreign += 1;
            continue;
        };
        match left.pop_front() {
            None => sum.duplicated += 1,
            Some(place) if highest.is_some_and(|highest| place < highest) => sum.out_of_order += 1,
            Some(place) => highest = Some(place),
        }
    }
    for place in places.into_values().flatten() {
        let time = written[place].time;
        if stored.gaps.iter().any(|gap| (gap.from..=gap.to).contains(&time)) {
            sum.gaps += 1;
        } else {
            sum.lost += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<Entry> {
        text.bytes().map(|b| Entry::of(i64::from(b), &[b])).collect()
    }

    fn compare_texts(written: &str, stored: &str, gaps: &[(u8, u8)]) -> Reckoning {
        let range = |(from, to): &(u8, u8)| Range {
            from: i64::from(*from),
            to: i64::from(*to),
        };
        let stored = Stored {
            lines: lines(stored),
            gaps: gaps.iter().map(range).collect(),
        };
        reckon(&[((), lines(written))].into(), &[((), stored)].into())
    }

    #[test]
    fn what_was_written_once_and_stored_once_in_order_is_clean() {
        let clean = compare_texts("abcaab", "abcaab", &[]);
        assert_eq!((clean.written, clean.delivered), (6, 6));
        assert!(clean.is_clean());
    }

    #[test]
    fn each_sort_of_fault_is_told_apart() {
        let faults = |written, stored| {
            let r = compare_texts(written, stored, &[]);
            assert!(!r.is_clean());
            (r.lost, r.duplicated, r.out_of_order, r.foreign)
        };
        assert_eq!(faults("abc", "ac"), (1, 0, 0, 0));
        assert_eq!(faults("abc", "abbc"), (0, 1, 0, 0));
        assert_eq!(faults("abc", "acb"), (0, 0, 1, 0));
        assert_eq!(faults("abc", "abcx"), (0, 0, 0, 1));
        assert_eq!(faults("aab", "ab"), (1, 0, 0, 0));
    }

    #[test]
    fn a_line_is_a_gap_only_where_a_gap_record_covers_it() {
        let r = compare_texts("abcdef", "aef", &[(b'b', b'c')]);
        assert_eq!((r.gaps, r.lost), (2, 1));
    }

    #[test]
    fn a_stream_that_was_never_stored_is_lost_and_one_nobody_wrote_is_foreign() {
        let written = [("w", lines("ab"))].into();
        let stored = [(
            "s",
            Stored {
                lines: lines("xyz"),
                gaps: vec![],
            },
        )]
        .into();
        let r = reckon(&written, &stored);
        assert_eq!((r.lost, r.foreign), (2, 3));
    }
}
