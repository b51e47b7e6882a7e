//! Nanoseconds since the epoch, and the timestamps that begin each line of a pod's log.
//!
//! The usual form is parsed by hand because this happens once per line. Parsing never guesses: text that does not
//! start with a complete timestamp and a space is not a line of the container.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An instant in nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub i64);

const SECOND: i64 = 1_000_000_000;

/// A duration in nanoseconds; 64 bits hold 584 years.
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Time {
    /// Whole seconds, rounded down. The log API takes times in whole seconds only.
    #[must_use]
    pub fn floor_seconds(self) -> i64 {
        self.0.div_euclid(SECOND)
    }

    /// This instant plus `nanos`, or the first or last instant that fits if the sum does not.
    #[must_use]
    pub fn plus_nanos(self, nanos: i64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// Splits a log line at the space after its timestamp. `None` if it has no timestamp.
    #[must_use]
    pub fn split_line(line: &[u8]) -> Option<(Self, &[u8])> {
        if let Some(time) = fixed_width(line) {
            return Some((time, &line[FIXED + 1..]));
        }
        let space = memchr::memchr(b' ', &line[..line.len().min(LONGEST + 1)])?;
        let time = std::str::from_utf8(&line[..space])
            .ok()?
            .parse::<jiff::Timestamp>()
            .ok()?;
        // 64 bits of nanoseconds reach from 1677 to 2262. Lines of a node whose clock is outside are kept too.
        let nanos = time.as_nanosecond().clamp(i64::MIN.into(), i64::MAX.into());
        Some((Self(nanos as i64), &line[space + 1..]))
    }

    /// Appends the instant as RFC 3339 with nine digits and `Z`.
    pub fn write_rfc3339(self, out: &mut Vec<u8>) {
        let (days, rest) = (self.0.div_euclid(86_400 * SECOND), self.0.rem_euclid(86_400 * SECOND));
        let (year, month, day) = civil(days);
        let (seconds, nanos) = (rest / SECOND, rest % SECOND);
        digits(out, year, 4);
        out.push(b'-');
        digits(out, month, 2);
        out.push(b'-');
        digits(out, day, 2);
        out.push(b'T');
        digits(out, seconds / 3600, 2);
        out.push(b':');
        digits(out, seconds / 60 % 60, 2);
        out.push(b':');
        digits(out, seconds % 60, 2);
        out.push(b'.');
        digits(out, nanos, 9);
        out.push(b'Z');
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(FIXED);
        self.write_rfc3339(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `2026-11-20T10:47:01.312773573Z`
const FIXED: usize = 30;
/// The longest RFC 3339 form: nine digits and a zone offset, `…573+02:00`.
const LONGEST: usize = 35;

/// Parses the form that nearly every container runtime writes: UTC, nine digits.
fn fixed_width(line: &[u8]) -> Option<Time> {
    let text = line.get(..=FIXED)?;
    let marks = text[4] == b'-'
        && text[7] == b'-'
        && text[10] == b'T'
        && text[13] == b':'
        && text[16] == b':'
        && text[19] == b'.'
        && text[29] == b'Z'
        && text[30] == b' ';
    if !marks {
        return None;
    }
    let number = |from: usize, to: usize| {
        text[from..to].iter().try_fold(0_i64, |sum, b| {
            b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0'))
        })
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    seconds.checked_mul(SECOND)?.checked_add(number(20, 29)?).map(Time)
}

/// Days from the epoch to a date of the Gregorian calendar. Years begin in March here, so that the leap day is the
/// last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a number of days since the epoch: the inverse of [`days`].
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn digits(out: &mut Vec<u8>, value: i64, width: u32) {
    for place in (0..width).rev() {
        out.push(b'0' + (value / 10_i64.pow(place) % 10) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Option<(i64, &str)> {
        Time::split_line(line.as_bytes()).map(|(t, rest)| (t.0, std::str::from_utf8(rest).unwrap()))
    }

    #[test]
    fn a_timestamp_is_parsed_to_the_nanosecond() {
        assert_eq!(
            split("2026-11-20T10:47:01.312773573Z hello"),
            Some((1_795_171_621_312_773_573, "hello"))
        );
        assert_eq!(split("1970-01-01T00:00:00.000000000Z "), Some((0, "")));
    }

    #[test]
    fn other_rfc3339_forms_are_parsed_too() {
        assert_eq!(split("1970-01-01T02:00:00.5+02:00 x"), Some((500_000_000, "x")));
        assert_eq!(split("1970-01-01T00:00:01Z x y"), Some((1_000_000_000, "x y")));
    }

    #[test]
    fn text_without_a_timestamp_is_not_a_line() {
        for text in [
            "",
            " ",
            "hello",
            "unable to retrieve container logs for containerd://1",
            "2026-11-20T10:47:01.312773573Z",
        ] {
            assert_eq!(split(text), None, "{text:?}");
        }
        assert_eq!(split("2026-13-20T10:47:01.312773573Z x"), None);
    }

    #[test]
    fn a_written_time_parses_to_the_same_time() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..10_000 {
            let time = Time(rng.i64(0..4_000_000_000_000_000_000));
            let line = format!("{time} x");
            assert_eq!(Time::split_line(line.as_bytes()), Some((time, &b"x"[..])), "{line}");
            assert_eq!(
                jiff::Timestamp::from_nanosecond(i128::from(time.0)).unwrap(),
                time.to_string().parse().unwrap()
            );
        }
    }
}
