//! Prints the settings: as TOML with the source of each, and as the table of the manual.
//!
//! Both are made from clap's definition of the flags, so they cannot disagree with it. Secrets are always masked.

use std::fmt::Write as _;

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::commands;
use super::file::{self, SettingsFile};
use crate::config::SecretUrl;

/// Flags whose values are URLs that may carry a password.
const SECRET: [&str; 2] = ["lock", "sink"];

/// The settings of the chosen command as TOML, one per line, each with its source. `file` is the settings file,
/// with the flags and variables as they were before the file was read.
pub(crate) fn settings(matches: &ArgMatches, file: Option<(&SettingsFile, &ArgMatches)>) -> String {
    let matches = commands::innermost(matches);
    let mut toml = String::new();
    for flag in commands::all_flags(&commands::command()) {
        let (id, Some(name)) = (flag.get_id().as_str(), flag.get_long()) else {
            continue;
        };
        if name == "print-config" || name == "config" || matches.try_contains_id(id).is_err() {
            continue;
        }
        let from_file =
            file.filter(|(file, typed)| file.sets(name) && !file::is_overridden(commands::innermost(typed), id));
        let source = match (from_file, matches.value_source(id)) {
            (Some((file, _)), _) => file.name().to_owned(),
            (None, Some(ValueSource::CommandLine)) => format!("--{name}"),
            (None, Some(ValueSource::EnvVariable)) => flag
                .get_env()
                .map(|env| env.to_string_lossy().into_owned())
                .unwrap_or_default(),
            (None, _) => "default".to_owned(),
        };
        let values: Vec<String> = matches
            .get_raw(id)
            .into_iter()
            .flatten()
            .map(|value| quoted(name, &value.to_string_lossy()))
            .collect();
        let line = match values.as_slice() {
            [] => format!("# {name} is not set"),
            [one] => format!("{name} = {one} # {source}"),
            many => format!("{name} = [{}] # {source}", many.join(", ")),
        };
        toml.push_str(&line);
        toml.push('\n');
    }
    toml
}

/// A value as TOML.
fn quoted(name: &str, value: &str) -> String {
    let masked = if SECRET.contains(&name) {
        SecretUrl::parse(value).map_or_else(|_| "***".to_owned(), |url| url.to_string())
    } else {
        value.to_owned()
    };
    // TOML reads `+7` as 7 and refuses `007`, so only numbers in their shortest form are written without quotes.
    let number = masked.parse::<i64>().is_ok_and(|number| number.to_string() == masked);
    if masked == "true" || masked == "false" || number {
        return masked;
    }
    toml::Value::String(masked).to_string()
}

/// The table of all settings for the manual, in Markdown.
#[must_use]
pub fn table() -> String {
    let mut text = String::from("| flag | variable | default | meaning |\n|---|---|---|---|\n");
    let command = commands::command();
    let run = command
        .find_subcommand("run")
        .map(commands::all_flags)
        .unwrap_or_default();
    let general = command
        .get_arguments()
        .filter(|arg| arg.get_long().is_some_and(|n| n != "help" && n != "version"))
        .cloned();
    for flag in run.into_iter().chain(general) {
        let default = flag
            .get_default_values()
            .first()
            .map_or_else(|| "-".to_owned(), |value| format!("`{}`", value.to_string_lossy()));
        let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
        // Writing to a string cannot fail.
        writeln!(
            text,
            "| `--{}` | `{}` | {default} | {} |",
            flag.get_long().unwrap_or_default(),
            flag.get_env().unwrap_or_default().to_string_lossy(),
            help.replace('|', "\\|"),
        )
        .ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::read;

    #[test]
    fn a_number_that_toml_would_change_is_quoted() {
        assert_eq!(quoted("max-pods", "70"), "70");
        for text in ["007", "+7", "-0"] {
            assert_eq!(quoted("replica-id", text), format!("\"{text}\""));
        }
    }

    #[test]
    fn settings_are_toml_with_their_sources_and_without_secrets() {
        let url = "mysql://u:hunter2@db/podlog";
        let shown = read([
            "podlog",
            "run",
            "--lock",
            url,
            "--ttl=30s",
            "--namespace=a,b",
            "--opt-in",
        ])
        .unwrap()
        .settings;
        assert!(!shown.contains("hunter2"), "{shown}");
        for line in [
            "lock = \"mysql://u:***@db/podlog\" # --lock",
            "ttl = \"30s\" # --ttl",
            "opt-in = true # --opt-in",
            "max-pods = 4000 # default",
            "# retain is not set",
        ] {
            assert!(shown.lines().any(|l| l == line), "{line} not in\n{shown}");
        }
        assert!(shown.parse::<toml::Table>().is_ok());
    }

    #[test]
    fn printed_settings_used_as_a_file_give_the_same_settings() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("podlog.toml");
        let plain = |text: &str| -> Vec<String> {
            text.lines()
                .map(|line| line.rsplit_once(" # ").map_or(line, |(value, _)| value).to_owned())
                .collect()
        };
        let first = read(["podlog", "run", "--ttl=30s", "--opt-in", "--namespace=a,b"])
            .unwrap()
            .settings;
        std::fs::write(&path, &first).unwrap();
        let file = path.to_str().unwrap();
        let again = read(["podlog", "run", "--config", file]).unwrap().settings;
        assert_eq!(plain(&first), plain(&again));
        assert!(again.contains(&format!("ttl = \"30s\" # {file}")), "{again}");
        let typed = read(["podlog", "run", "--config", file, "--ttl=40s", "--opt-in=false"])
            .unwrap()
            .settings;
        assert!(
            typed.contains("ttl = \"40s\" # --ttl\n") && typed.contains("opt-in = false # --opt-in\n"),
            "{typed}"
        );
    }

    #[test]
    fn an_error_in_a_value_from_a_file_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("podlog.toml");
        std::fs::write(&path, "ttl = 'soon'").unwrap();
        let file = path.to_str().unwrap();
        let line = read(["podlog", "run", "--config", file]).unwrap_err().to_string();
        assert!(
            line.starts_with(file) && line.contains("--ttl") && !line.contains('\n'),
            "{line}"
        );
        std::fs::write(&path, "sink = 'stdout'").unwrap();
        assert!(
            read(["podlog", "locks", "list", "--config", file]).is_ok(),
            "a key may be a flag of another command"
        );
    }

    #[test]
    fn the_table_has_a_row_for_every_flag_of_run() {
        let table = table();
        assert!(table.contains("| `--ttl` | `PODLOG_TTL` | `20s` |"), "{table}");
        assert!(table.contains("| `--config` | `PODLOG_CONFIG` | - |"), "{table}");
        assert!(table.lines().all(|line| line.starts_with('|') && line.ends_with('|')));
    }
}
