//! Logging: writes tracing events and panics to stderr, as text or as JSON.
//!
//! It is set up once, at the start of the process. It never masks secrets, so no event may contain one. A stderr that
//! cannot be written never stops the process.

mod event_writer;
mod filter;

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

use self::event_writer::EventWriter;
use crate::cli::flags::LogFormat;
use crate::domain::text::EscapingWriter;
use crate::exit::Failure;
use crate::metrics::LOG_EVENTS_LOST;

/// Starts logging. `level` is a level or a list of filters; the default is the variable `RUST_LOG`, or else `info`.
/// Fails when the filters cannot be parsed.
pub(crate) fn start(level: Option<&str>, format: LogFormat) -> Result<(), Failure> {
    let variable = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let (setting, text) = match (level, &variable) {
        (Some(level), _) => ("--log-level", level),
        (None, Some(text)) => ("RUST_LOG", text.as_str()),
        (None, None) => ("--log-level", "info"),
    };
    let filter = filter::parse(text).map_err(|e| {
        Failure::usage(format!("{setting} {text:?}: {e}"))
            .with_remedy("use error, warn, info, debug, trace or off, or filters such as info,podlog::locks=debug")
    })?;
    let writer = EventWriter::new(Stderr, format, LOG_EVENTS_LOST.clone());
    let logger = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        // The library would report a failure to stderr, and panic there.
        .log_internal_errors(false)
        .with_writer(writer);
    let started = match format {
        LogFormat::Text => logger.fmt_fields(Fields).try_init(),
        LogFormat::Json => logger
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .try_init(),
    };
    started.map_err(|e| {
        Failure::failed(format!("logging is started already ({e})")).with_remedy("start it once per process")
    })?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// The stderr of the process.
#[derive(Clone, Copy, Debug)]
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stderr().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Writes fields as `name=value`. Values come from API servers, databases and containers, so characters that could
/// break a line or control a terminal are escaped.
struct Fields;

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = Visitor {
            writer,
            is_first: true,
            result: Ok(()),
        };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct Visitor<'w> {
    writer: Writer<'w>,
    is_first: bool,
    result: fmt::Result,
}

impl Visitor<'_> {
    fn write(&mut self, name: &str, value: &dyn fmt::Debug) -> fmt::Result {
        if !std::mem::take(&mut self.is_first) {
            self.writer.write_char(' ')?;
        }
        if name != "message" {
            // Italic names and dim equals signs, like the default format of tracing.
            let (before, between, after) = if self.writer.has_ansi_escapes() {
                ("\x1b[3m", "\x1b[0m\x1b[2m", "\x1b[0m")
            } else {
                ("", "", "")
            };
            write!(self.writer, "{before}{name}{between}={after}")?;
        }
        write!(EscapingWriter(&mut self.writer), "{value:?}")
    }
}

impl Visit for Visitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Fields that begin with `log.` are metadata of the `log` crate.
        if self.result.is_ok() && !field.name().starts_with("log.") {
            self.result = self.write(field.name(), value);
        }
    }
}

fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("(no text)");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    tracing::error!(place, thread = thread.name().unwrap_or("?"), "panicked: {message}");
}
