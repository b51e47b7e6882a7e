//! How many records one INSERT statement takes, and the texts of these statements.
//!
//! There are few texts, because each is prepared on each connection. No statement is sent from here.

use crate::sinks::dedup::NewRecord;

/// The largest statement has 2^9 = 512 records, and each statement a power of two, so that there are ten texts and not
/// 512. 512 records of 6 values are far below the 32,766 values that SQLite takes and the 65,535 of MySQL.
const LARGEST_POWER: u32 = 9;

/// Bytes of a record in a statement beside its message: five numbers, and the lengths and types of six values.
const RECORD_BYTES: usize = 64;

/// Values of a record: stream, seq, time, ordinal, message, cut.
pub(super) const VALUES: usize = 6;

/// Statements that insert 1, 2, 4 … 512 records. `placeholder` writes a value by its number in the statement, from 1.
pub(super) fn inserts(placeholder: impl Fn(usize) -> String) -> Vec<String> {
    let row = |row: usize| {
        let values: Vec<String> = (1..=VALUES).map(|value| placeholder(row * VALUES + value)).collect();
        format!("({})", values.join(","))
    };
    let rows = |power| (0..1_usize << power).map(row).collect::<Vec<_>>().join(",");
    let head = "INSERT INTO log_record (stream, seq, time_ns, ordinal, message, cut) VALUES ";
    (0..=LARGEST_POWER)
        .map(|power| format!("{head}{}", rows(power)))
        .collect()
}

/// How many of the records go into the next statement, so that it has at most `limit` bytes: a power of two, so at
/// least 1. There must be a record.
pub(super) fn size(records: &[NewRecord<'_>], limit: usize) -> usize {
    let mut bytes = 0;
    let fit = records.iter().take(1 << LARGEST_POWER).take_while(|record| {
        bytes += record.message.len() + RECORD_BYTES;
        bytes <= limit
    });
    1 << fit.count().max(1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(sizes: &[usize]) -> Vec<NewRecord<'static>> {
        const TEXT: [u8; 4096] = [b'x'; 4096];
        let record = |len: &usize| NewRecord {
            stream: 1,
            seq: 1,
            time: 1,
            ordinal: 0,
            message: &(const { &TEXT })[..*len],
            cut: 0,
        };
        sizes.iter().map(record).collect()
    }

    #[test]
    fn a_statement_has_a_placeholder_for_each_value() {
        let texts = inserts(|number| format!("${number}"));
        assert!(
            texts[1].ends_with(" VALUES ($1,$2,$3,$4,$5,$6),($7,$8,$9,$10,$11,$12)"),
            "{}",
            texts[1]
        );
        assert_eq!(texts[9].matches('$').count(), 512 * VALUES);
    }

    #[test]
    fn a_statement_takes_a_power_of_two_of_records_within_the_limit_and_at_least_one() {
        assert_eq!(size(&records(&[10; 3]), 1 << 20), 2);
        assert_eq!(size(&records(&[10; 1000]), 1 << 20), 512);
        assert_eq!(size(&records(&[4000; 100]), 4064 * 5), 4);
        assert_eq!(size(&records(&[4000]), 10), 1);
    }
}
