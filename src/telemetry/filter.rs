//! The filter of the log, parsed from `--log-level` or `RUST_LOG`. It never lets a misspelt level turn the log off.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// What applies to libraries, unless the user sets filters for them.
const LIBRARIES: &str = "warn,sqlx=error";

/// Parses a level or a list of filters in the syntax of tracing. A single level applies to podlog itself. A list without a
/// level of its own adds to the default, so that it does not hide warnings of other parts.
pub(super) fn parse(text: &str) -> Result<EnvFilter, String> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let is_filter = |part: &&str| part.contains(['=', '[']);
    let mut levels = Vec::new();
    for part in parts.iter().filter(|part| !is_filter(part)) {
        // An empty text would be a level for the library.
        match part.parse::<LevelFilter>() {
            Ok(level) if !part.is_empty() => levels.push(level),
            _ => return Err(format!("{part:?} is not a level")),
        }
    }
    let directives = match (levels.as_slice(), parts.len()) {
        ([level], 1) => format!("{LIBRARIES},podlog={level}"),
        ([], _) => format!("{LIBRARIES},podlog=info,{text}"),
        _ => text.to_owned(),
    };
    EnvFilter::try_new(directives).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let filter = parse(text).unwrap().to_string();
        let mut parts: Vec<String> = filter.split(',').map(str::to_owned).collect();
        parts.sort_unstable();
        parts
    }

    #[test]
    fn a_single_level_applies_to_podlog_itself() {
        for text in ["debug", "DEBUG", "4"] {
            assert_eq!(shown(text), ["podlog=debug", "sqlx=error", "warn"], "{text}");
        }
        assert_eq!(shown("off"), ["podlog=off", "sqlx=error", "warn"]);
    }

    #[test]
    fn a_list_with_a_level_is_used_unchanged() {
        assert_eq!(shown("info,podlog::locks=debug"), ["info", "podlog::locks=debug"]);
    }

    #[test]
    fn a_list_without_a_level_leaves_the_default_for_all_other_parts() {
        assert_eq!(shown("kube=trace"), ["kube=trace", "podlog=info", "sqlx=error", "warn"]);
        assert_eq!(shown("podlog=debug"), ["podlog=debug", "sqlx=error", "warn"]);
    }

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for text in [
            "wran",
            "",
            " ",
            "info,",
            "kube",
            "info,wran",
            "wran,podlog=debug",
            "podlog=wran",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert!(parse("info,podlog[pod]=trace").is_ok());
    }
}
