//! Logging: tracing events to stderr, as text or as JSON, and panics among them.
//!
//! Set up once at the start. Nothing here knows any secret, and no event may carry one.

use std::fmt::{self, Write as _};
use std::io::IsTerminal;

use tracing::field::{Field, Visit};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

use crate::config::LogFormat;
use crate::domain::text::EscapingWriter;
use crate::exit::Failure;

/// What libraries may say when nothing else is asked for.
const LIBRARIES: &str = "warn,sqlx=error";

/// Starts logging. `level` is a word or a list of filters; without it the variable `RUST_LOG`
/// counts, and without that `info`. Fails when the filters cannot be read.
pub fn start(level: Option<&str>, format: LogFormat) -> Result<(), Failure> {
    let variable = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let filter = match (level, &variable) {
        (Some(level), _) => filter(level).map_err(|e| wrong("--log-level", level, &e))?,
        (None, Some(text)) => filter(text).map_err(|e| wrong("RUST_LOG", text, &e))?,
        (None, None) => filter("info").map_err(|e| wrong("--log-level", "info", &e))?,
    };
    let logger = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => logger.fmt_fields(Fields).try_init(),
        LogFormat::Json => logger
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .try_init(),
    };
    started.map_err(|e| Failure::unclean(format!("logging is started already ({e}); start it once per process")))?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// A single word is podlog's own level; anything else is filters as tracing has them.
fn filter(text: &str) -> Result<EnvFilter, ParseError> {
    let word = ["error", "warn", "info", "debug", "trace", "off"].contains(&text);
    if word {
        EnvFilter::try_new(format!("{LIBRARIES},podlog={text}"))
    } else {
        EnvFilter::try_new(text)
    }
}

fn wrong(setting: &str, text: &str, error: &ParseError) -> Failure {
    Failure::usage(format!(
        "{setting} {text:?}: {error}; use error, warn, info, debug, trace or filters"
    ))
}

/// Writes fields as `name=value`. Values come from API servers, databases and containers, so what could break a line
/// or command a terminal is escaped in them.
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
            // Italic names and dim signs, as tracing has them.
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
        // What the `log` crate says of itself.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_podlogs_own_level_and_filters_are_taken_as_they_are() {
        let shown = |text| filter(text).map(|f| f.to_string()).unwrap_or_default();
        let mut parts: Vec<String> = shown("debug").split(',').map(str::to_owned).collect();
        parts.sort_unstable();
        assert_eq!(parts, ["podlog=debug", "sqlx=error", "warn"]);
        assert_eq!(shown("kube=trace"), "kube=trace");
        assert!(filter("podlog=loud").is_err());
    }
}
