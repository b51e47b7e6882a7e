//! Writes the events of the log. An event that cannot be written is counted, and the log says so when it can be written
//! again.
//!
//! It never reports a failure to the caller: the caller could only print it to stderr, which cannot be written either.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::fmt::MakeWriter;

use crate::cli::flags::LogFormat;
use crate::clock;

/// Writes each event to `out` as a whole. Clones share the state.
#[derive(Clone, Debug)]
pub(super) struct EventWriter<W> {
    out: W,
    format: LogFormat,
    lost: Counter,
    outage: Arc<Mutex<Outage>>,
}

/// Events that were not written since the last one that was.
#[derive(Debug, Default)]
struct Outage {
    lost: u64,
    /// The first failure.
    error: String,
    /// Whether a part of the last event was written, so that its line has no end.
    is_torn: bool,
}

impl<W> EventWriter<W> {
    /// A writer that counts the events it could not write in `lost`.
    pub(super) fn new(out: W, format: LogFormat, lost: Counter) -> Self {
        let outage = Arc::default();
        Self {
            out,
            format,
            lost,
            outage,
        }
    }
}

impl<W: Write> EventWriter<W> {
    fn write_event(&mut self, event: &[u8]) {
        let outage = self.outage.clone();
        let mut outage = outage.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.try_write(&mut outage, event) {
            if outage.lost == 0 {
                outage.error = error.to_string();
            }
            outage.lost += 1;
            self.lost.inc();
        }
    }

    /// Writes what is due after an outage, and the event.
    fn try_write(&mut self, outage: &mut Outage, event: &[u8]) -> io::Result<()> {
        if outage.is_torn {
            self.out.write_all(b"\n")?;
            outage.is_torn = false;
        }
        if outage.lost > 0 {
            let end = end_of_outage(self.format, outage);
            write_whole(&mut self.out, end.as_bytes(), &mut outage.is_torn)?;
            outage.lost = 0;
        }
        write_whole(&mut self.out, event, &mut outage.is_torn)
    }
}

/// Writes all bytes. After a failure `is_torn` tells whether some of them were written.
fn write_whole(out: &mut impl Write, bytes: &[u8], is_torn: &mut bool) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                *is_torn = true;
                rest = rest.get(count..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    *is_torn = false;
    Ok(())
}

/// The event that says how many events are missing. The library cannot write it: it is in the middle of another event.
fn end_of_outage(format: LogFormat, outage: &Outage) -> String {
    const TEXT: &str = "events are missing here, because the log could not be written";
    let time = clock::wall().to_string();
    let (missing, error) = (outage.lost, &outage.error);
    let target = module_path!();
    match format {
        LogFormat::Text => format!("{time}  WARN {target}: {TEXT} missing={missing} error={error}\n"),
        LogFormat::Json => {
            let event = serde_json::json!({
                "timestamp": time, "level": "WARN", "message": TEXT, "missing": missing, "error": error,
                "target": target,
            });
            format!("{event}\n")
        }
    }
}

impl<W: Write> Write for EventWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.write_event(event);
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().ok();
        Ok(())
    }
}

impl<W: Write + Clone> MakeWriter<'_> for EventWriter<W> {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with this much space.
    #[derive(Debug, Default)]
    struct Disk {
        text: Vec<u8>,
        space: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.space == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let count = bytes.len().min(self.space);
            self.space -= count;
            self.text.extend(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Writes `before`, which fits, and two events while there is space for `partly` bytes, and one when there is space
    /// again. Returns the lines, and how many events were counted as lost.
    fn outage(format: LogFormat, partly: usize) -> (Vec<String>, u64) {
        let lost = Counter::default();
        let mut writer = EventWriter::new(Disk::default(), format, lost.clone());
        writer.out.space = "before\n".len();
        writer.write_all(b"before\n").unwrap();
        writer.out.space = partly;
        writer.write_all(b"first lost\n").unwrap();
        writer.write_all(b"second lost\n").unwrap();
        writer.out.space = usize::MAX;
        writer.write_all(b"after\n").unwrap();
        writer.write_all(b"later\n").unwrap();
        let text = String::from_utf8(writer.out.text).unwrap();
        (text.lines().map(str::to_owned).collect(), lost.get())
    }

    #[test]
    fn the_log_says_once_after_an_outage_how_many_events_are_missing_and_why() {
        let (lines, lost) = outage(LogFormat::Text, 0);
        assert_eq!((lines.len(), lost), (4, 2), "{lines:?}");
        assert_eq!(
            [&lines[0], &lines[2], &lines[3]],
            ["before", "after", "later"],
            "{lines:?}"
        );
        assert!(
            lines[1].contains("WARN") && lines[1].ends_with("missing=2 error=no storage space"),
            "{lines:?}"
        );
    }

    #[test]
    fn after_an_outage_within_an_event_the_next_event_begins_a_line() {
        let (lines, lost) = outage(LogFormat::Text, 5);
        assert_eq!(lost, 2);
        assert_eq!([&lines[0], &lines[1], &lines[3]], ["before", "first", "after"]);
    }

    #[test]
    fn the_end_of_an_outage_is_an_event_in_json_too() {
        let (lines, _) = outage(LogFormat::Json, 0);
        let event: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
        assert_eq!(
            (&event["level"], &event["missing"]),
            (&"WARN".into(), &2.into()),
            "{event}"
        );
    }
}
