//! Logging: writes tracing events and panics to stderr, as text or as JSON.
//!
//! It is set up once, at the start of the process. It never masks secrets, so no event may contain one.

use std::fmt::{self, Write as _};
use std::io::IsTerminal;

use tracing::field::{Field, Visit};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

use crate::cli::flags::LogFormat;
use crate::domain::text::EscapingWriter;
use crate::exit::Failure;

/// The filters for libraries, unless the user sets filters.
const LIBRARIES: &str = "warn,sqlx=error";

/// Starts logging. `level` is a level or a list of filters; the default is the variable `RUST_LOG`, or else `info`.
/// Fails when the filters cannot be parsed.
pub(crate) fn start(level: Option<&str>, format: LogFormat) -> Result<(), Failure> {
    let variable = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let filter = match (level, &variable) {
        (Some(level), _) => filter(level).map_err(|e| invalid_filter("--log-level", level, &e))?,
        (None, Some(text)) => filter(text).map_err(|e| invalid_filter("RUST_LOG", text, &e))?,
        (None, None) => filter("info").map_err(|e| invalid_filter("--log-level", "info", &e))?,
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
    started.map_err(|e| {
        Failure::failed(format!("logging is started already ({e})")).with_remedy("start it once per process")
    })?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// A single level applies to podlog itself; anything else is a list of filters in the syntax of tracing.
fn filter(text: &str) -> Result<EnvFilter, ParseError> {
    let word = ["error", "warn", "info", "debug", "trace", "off"].contains(&text);
    if word {
        EnvFilter::try_new(format!("{LIBRARIES},podlog={text}"))
    } else {
        EnvFilter::try_new(text)
    }
}

fn invalid_filter(setting: &str, text: &str, error: &ParseError) -> Failure {
    Failure::usage(format!("{setting} {text:?}: {error}")).with_remedy("use error, warn, info, debug, trace or filters")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_applies_to_podlog_itself_and_filters_are_used_unchanged() {
        let shown = |text| filter(text).map(|f| f.to_string()).unwrap_or_default();
        let mut parts: Vec<String> = shown("debug").split(',').map(str::to_owned).collect();
        parts.sort_unstable();
        assert_eq!(parts, ["podlog=debug", "sqlx=error", "warn"]);
        assert_eq!(shown("kube=trace"), "kube=trace");
        assert!(filter("podlog=loud").is_err());
    }
}
