//! Records as JSON: one line of text per log line, for every sink that writes JSON.
//!
//! The encoder is written by hand because it runs once per line; what all records of a chunk have in common is encoded
//! once. It never fails and never drops a line: bytes that are not UTF-8 become U+FFFD, and the record has
//! `"lossy":true`.

use std::str;

use serde::Serialize;

use crate::domain::{Chunk, Gap, Line, Origin, Time};

/// A buffer of records that has grown beyond this is freed after the write, so that one large group does not use memory
/// from then on.
pub(super) const LARGEST_KEPT_BUFFER: usize = 4 << 20;

/// Encodes the records of one chunk. Has the encoded parts that they have in common.
#[derive(Debug)]
pub struct Encoder {
    /// `"id":"<uid>/<container>/<container id, 12>/`
    id: Vec<u8>,
    /// `"kubernetes":{…}}` and the line end.
    tail: Vec<u8>,
    timestamps: TimestampWriter,
}

/// The part of a record that names its origin.
#[derive(Serialize)]
struct KubernetesFields<'a> {
    namespace: &'a str,
    pod: &'a str,
    uid: &'a str,
    container: &'a str,
    container_id: &'a str,
    #[serde(rename = "restart")]
    restart_count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    labels: std::collections::BTreeMap<&'a str, &'a str>,
}

/// Bytes of a record beside its message and the common parts, at most: `{"time":"` 9, timestamp 30, quotes and names 14,
/// time 20, ordinal 10, cut 28, lossy 13 make 124, rounded up.
const FRAME: usize = 160;

impl Encoder {
    /// An encoder for the records of this stream.
    #[must_use]
    pub fn new(origin: &Origin) -> Self {
        let stream = &origin.stream;
        let mut id = b"\"id\":\"".to_vec();
        for part in [stream.uid.as_str(), &stream.container, stream.container_id.short()] {
            escape(&mut id, part);
            id.push(b'/');
        }
        let kubernetes = KubernetesFields {
            namespace: &origin.namespace,
            pod: &origin.pod,
            uid: stream.uid.as_str(),
            container: &stream.container,
            container_id: stream.container_id.as_str(),
            restart_count: origin.restart_count,
            node: origin.node.as_deref(),
            labels: origin.labels.iter().map(|(k, v)| (&**k, &**v)).collect(),
        };
        let mut tail = b"\"kubernetes\":".to_vec();
        // Text and numbers always serialise into memory.
        tail.extend(serde_json::to_vec(&kubernetes).unwrap_or_default());
        tail.extend_from_slice(b"}\n");
        let timestamps = TimestampWriter::default();
        Self { id, tail, timestamps }
    }

    /// Appends all records of a chunk: its gap, then its lines.
    pub fn chunk(&mut self, chunk: &Chunk, out: &mut Vec<u8>) {
        out.reserve(chunk.text.len() + (chunk.lines.len() + 1) * (FRAME + self.id.len() + self.tail.len()));
        if let Some(gap) = &chunk.gap {
            self.gap(gap, out);
        }
        for line in &chunk.lines {
            self.line(line, chunk.message(line), out);
        }
    }

    /// Appends the record of one line.
    pub fn line(&mut self, line: &Line, message: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        self.timestamps.write(line.time, out);
        out.extend_from_slice(b"\",");
        out.extend_from_slice(&self.id);
        if line.time.0 < 0 {
            out.push(b'-');
        }
        decimal(out, line.time.0.unsigned_abs());
        out.push(b'/');
        decimal(out, u64::from(line.ordinal));
        out.extend_from_slice(b"\",\"message\":\"");
        let lossy = escape_bytes(out, message);
        out.extend_from_slice(b"\",");
        if line.cut > 0 {
            out.extend_from_slice(b"\"cut\":");
            decimal(out, line.cut);
            out.push(b',');
        }
        if lossy {
            out.extend_from_slice(b"\"lossy\":true,");
        }
        out.extend_from_slice(&self.tail);
    }

    /// Appends the record of a gap. Its `time` is that of the first line after the gap, else of the last line before it,
    /// else null. Its id contains both ends, so it is the same when the gap is found again.
    fn gap(&mut self, gap: &Gap, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":");
        self.instant(gap.to.or(gap.from), out);
        out.push(b',');
        out.extend_from_slice(&self.id);
        let end = |time: Option<Time>, none: &str| time.map_or_else(|| none.to_owned(), |t| t.0.to_string());
        let id = format!("gap/{}/{}\",", end(gap.from, "start"), end(gap.to, "end"));
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(b"\"gap\":{\"from\":");
        self.instant(gap.from, out);
        out.extend_from_slice(b",\"to\":");
        self.instant(gap.to, out);
        out.extend_from_slice(b",\"reason\":\"");
        out.extend_from_slice(gap.reason.as_str().as_bytes());
        out.extend_from_slice(b"\"},");
        out.extend_from_slice(&self.tail);
    }

    fn instant(&mut self, time: Option<Time>, out: &mut Vec<u8>) {
        let Some(time) = time else {
            out.extend_from_slice(b"null");
            return;
        };
        out.push(b'"');
        self.timestamps.write(time, out);
        out.push(b'"');
    }
}

/// Writes timestamps. It remembers the text of the last second, because most lines share it with the line before.
#[derive(Debug, Default)]
struct TimestampWriter {
    second: Option<i64>,
    /// `2026-11-20T10:47:01.`
    text: Vec<u8>,
}

impl TimestampWriter {
    fn write(&mut self, time: Time, out: &mut Vec<u8>) {
        let second = time.floor_seconds();
        if self.second != Some(second) {
            self.text.clear();
            time.write_rfc3339(&mut self.text);
            self.text.truncate(self.text.len() - "312773573Z".len());
            self.second = Some(second);
        }
        out.extend_from_slice(&self.text);
        let mut digits = *b"000000000Z";
        let mut rest = time.0.rem_euclid(1_000_000_000) as u32;
        for digit in digits[..9].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        out.extend_from_slice(&digits);
    }
}

/// Appends a number in decimal.
fn decimal(out: &mut Vec<u8>, mut number: u64) {
    // The largest has 20 digits.
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends bytes as the content of a JSON string. Returns whether some were not UTF-8 and were replaced.
fn escape_bytes(out: &mut Vec<u8>, bytes: &[u8]) -> bool {
    if let Ok(text) = str::from_utf8(bytes) {
        escape(out, text);
        return false;
    }
    for part in bytes.utf8_chunks() {
        escape(out, part.valid());
        if !part.invalid().is_empty() {
            out.extend_from_slice("\u{FFFD}".as_bytes());
        }
    }
    true
}

/// Appends text as the content of a JSON string.
fn escape(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    loop {
        let plain = plain_len(rest);
        out.extend_from_slice(&rest[..plain]);
        let Some(&byte) = rest.get(plain) else { return };
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                let hex = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[hex[usize::from(byte >> 4)], hex[usize::from(byte & 15)]]);
            }
        }
        rest = &rest[plain + 1..];
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// The number of leading bytes that need no escape. Eight bytes at a time: subtracting 0x20 from a byte sets its high bit
/// only if the byte was smaller, and a byte equal to a mark becomes 0 when xored with the mark. The lowest flag is exact;
/// higher flags may be wrong and are not used.
fn plain_len(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let below = |value: u64, limit: u64| value.wrapping_sub(ONES * limit) & !value;
        let marks =
            below(word, 0x20) | below(word ^ (ONES * u64::from(b'"')), 1) | below(word ^ (ONES * u64::from(b'\\')), 1);
        let marks = marks & HIGHS;
        if marks != 0 {
            return at * 8 + marks.trailing_zeros() as usize / 8;
        }
    }
    let tail = rest.iter().position(|b| matches!(b, 0..0x20 | b'"' | b'\\'));
    words.len() * 8 + tail.unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::GapReason;
    use crate::sinks::fixtures::{chunk, origin};
    use serde_json::Value;

    fn encode(chunk: &Chunk) -> Vec<Value> {
        let mut out = Vec::new();
        Encoder::new(&chunk.origin).chunk(chunk, &mut out);
        assert_eq!(out.last(), Some(&b'\n'));
        let text = str::from_utf8(&out).expect("records are UTF-8");
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }

    #[test]
    fn a_record_has_the_line_and_its_origin() {
        let mut chunk = chunk(
            &origin("7e2a", "app"),
            1,
            &[(1_795_171_621_312_773_573, b"hello \"you\"")],
        );
        chunk.lines[0].cut = 17;
        let record = &encode(&chunk)[0];
        let expected = serde_json::json!({
            "time": "2026-11-20T10:47:01.312773573Z",
            "id": "7e2a/app/0123456789ab/1795171621312773573/0",
            "message": "hello \"you\"", "cut": 17,
            "kubernetes": {"namespace": "shop", "pod": "cart-0", "uid": "7e2a", "container": "app",
                "container_id": "0123456789abcdef", "restart": 2, "node": "n1", "labels": {"app": "cart"}},
        });
        assert_eq!(*record, expected);
    }

    #[test]
    fn a_gap_is_a_record_with_a_stable_id_and_without_a_message() {
        let mut chunk = chunk(&origin("7e2a", "app"), 1, &[]);
        chunk.gap = Some(Gap {
            from: Some(Time(5)),
            to: None,
            reason: GapReason::Rotated,
        });
        let record = &encode(&chunk)[0];
        assert_eq!(record["id"], "7e2a/app/0123456789ab/gap/5/end");
        let gap = serde_json::json!({"from": "1970-01-01T00:00:00.000000005Z", "to": null, "reason": "rotated"});
        assert_eq!(record["gap"], gap);
        assert_eq!(record["time"], "1970-01-01T00:00:00.000000005Z");
        assert!(record.get("message").is_none());
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced_and_marked() {
        let record = &encode(&chunk(&origin("u", "c"), 1, &[(1, b"a\xff\xfe\"b\xc3")]))[0];
        assert_eq!(record["message"], "a\u{FFFD}\u{FFFD}\"b\u{FFFD}");
        assert_eq!(record["lossy"], true);
    }

    #[test]
    fn every_record_is_valid_json_and_contains_its_text_unchanged() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let special = [
            "\"", "\\", "\0", "\u{1f}", "\u{7f}", "\n", "é", "\u{2028}", "𝄞", "a", " ", "\u{80}",
        ];
        for _ in 0..3000 {
            let text: String = (0..rng.usize(0..40))
                .map(|_| special[rng.usize(0..special.len())])
                .collect();
            let bytes: Vec<u8> = (0..rng.usize(0..40)).map(|_| rng.u8(..)).collect();
            let time = rng.i64(-2_000_000_000_000_000_000..4_000_000_000_000_000_000);
            let chunk = chunk(&origin("u", "c"), 1, &[(time, text.as_bytes()), (time + 1, &bytes)]);
            let records = encode(&chunk);
            assert_eq!(records[0]["message"], text.as_str());
            assert_eq!(records[0]["time"], Time(time).to_string());
            assert_eq!(records[1]["message"], &*String::from_utf8_lossy(&bytes));
            assert_eq!(records[1].get("lossy").is_some(), str::from_utf8(&bytes).is_err());
        }
    }

    #[test]
    fn names_are_escaped() {
        let mut origin = (*origin("u\"1", "c\\")).clone();
        origin.pod = "p\n".into();
        let record = &encode(&chunk(&std::sync::Arc::new(origin), 1, &[(1, b"x")]))[0];
        assert_eq!(record["id"], "u\"1/c\\/0123456789ab/1/0");
        assert_eq!(record["kubernetes"]["pod"], "p\n");
    }
}
