//! Logging: tracing events to stderr, as text or as JSON, and panics among them.
//!
//! Set up once at the start. Nothing here knows any secret, and no event may carry one.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::LogFormat;
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
        LogFormat::Text => logger.try_init(),
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
