//! The settings file: TOML whose keys are the names of flags.
//!
//! It is converted into arguments, so that a value in the file is parsed and refused exactly like one on the command
//! line. Nothing here knows the meaning of a flag.

use std::ffi::OsString;
use std::path::Path;

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::commands;
use crate::exit::Failure;

/// Flags that a file cannot set.
const NOT_IN_FILE: [&str; 2] = ["config", "print-config"];

/// A settings file, with known keys only.
#[derive(Debug)]
pub struct SettingsFile {
    name: String,
    values: Vec<(String, Vec<String>)>,
}

impl SettingsFile {
    /// Reads a file. Fails when it cannot be read, is not TOML, or has a key that is not a flag.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| {
            Failure::usage(format!("settings file {name}: {e}")).with_remedy("correct --config or PODLOG_CONFIG")
        })?;
        Self::parse(name, &text)
    }

    /// Parses the text of the file `name`. Fails when it is not TOML or has a key that is not a flag.
    pub fn parse(name: String, text: &str) -> Result<Self, Failure> {
        // The full text of the error quotes the file, which may contain a password.
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            let at = e
                .span()
                .map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            match key_without_value(text.lines().nth(at - 1).unwrap_or_default()) {
                Some(key) => Failure::usage(format!("{name}: line {at}: {key} has no value"))
                    .with_remedy("write one behind the =, or delete the line"),
                None => Failure::usage(format!("{name}: line {at} is not TOML: {}", e.message()))
                    .with_remedy("correct the file"),
            }
        })?;
        let known = keys();
        let mut values = Vec::new();
        for (key, value) in table {
            if !known.contains(&key) {
                let hint = nearest(&key, &known).map_or_else(String::new, |near| format!(" (did you mean {near:?}?)"));
                return Err(Failure::usage(format!("{name}: unknown key {key:?}{hint}"))
                    .with_remedy("use the names of the flags of podlog run"));
            }
            let Some(texts) = texts(&value) else {
                let kind = value.type_str();
                return Err(Failure::usage(format!("{name}: {key} is a {kind}"))
                    .with_remedy("write it as on the command line, in quotes"));
            };
            values.push((key, texts));
        }
        Ok(Self { name, values })
    }

    /// The name of the file, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the file sets a flag.
    pub(crate) fn sets(&self, flag: &str) -> bool {
        self.values.iter().any(|(key, _)| key == flag)
    }

    /// The arguments that the file adds: its values for the flags of the chosen command that were
    /// given neither on the command line nor as a variable.
    pub(crate) fn args(&self, command: &clap::Command, typed: &ArgMatches) -> Vec<OsString> {
        let mut innermost = command;
        let mut matches = typed;
        let mut flags: Vec<&clap::Arg> = command.get_arguments().collect();
        while let Some((name, inner)) = matches.subcommand() {
            let Some(next) = innermost.find_subcommand(name) else {
                break;
            };
            (innermost, matches) = (next, inner);
            flags.extend(next.get_arguments());
        }
        let mut args = Vec::new();
        for (key, texts) in &self.values {
            let Some(flag) = flags.iter().find(|flag| flag.get_long() == Some(key)) else {
                continue;
            };
            if !is_overridden(matches, flag.get_id().as_str()) {
                args.extend(texts.iter().map(|text| format!("--{key}={text}").into()));
            }
        }
        args
    }
}

/// The key of a line that has nothing behind its `=`, if it is the name of a flag: nothing else may be quoted.
fn key_without_value(line: &str) -> Option<String> {
    let (key, value) = line.split_once('=')?;
    let value = value.trim_start();
    let known = keys().into_iter().find(|known| known == key.trim());
    known.filter(|_| value.is_empty() || value.starts_with('#'))
}

/// Whether a flag was given on the command line or as a variable.
pub(crate) fn is_overridden(matches: &ArgMatches, id: &str) -> bool {
    let source = matches.try_contains_id(id).ok().and_then(|_| matches.value_source(id));
    matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

/// The keys that a file may have: the flags of `run`. They include the flags of `check`, `migrate` and `locks` for a
/// cluster or a store.
fn keys() -> Vec<String> {
    let command = commands::command();
    let run = command
        .find_subcommand("run")
        .map(commands::all_flags)
        .unwrap_or_default();
    let general = command.get_arguments().cloned();
    run.into_iter()
        .chain(general)
        .filter_map(|flag| flag.get_long().map(str::to_owned))
        .filter(|name| !NOT_IN_FILE.contains(&name.as_str()) && name != "help" && name != "version")
        .collect()
}

/// A value as on the command line, or several values for an array. `None` for a type that has no form there.
fn texts(value: &toml::Value) -> Option<Vec<String>> {
    let text = match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Boolean(truth) => truth.to_string(),
        toml::Value::Array(items) => {
            let lists: Option<Vec<_>> = items.iter().map(texts).collect();
            return Some(lists?.concat());
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => return None,
    };
    Some(vec![text])
}

/// The known key most similar to a wrong one, if it is similar enough.
fn nearest<'a>(wrong: &str, known: &'a [String]) -> Option<&'a str> {
    known
        .iter()
        .map(|word| (distance(wrong, word), word.as_str()))
        .min()
        .filter(|(distance, word)| *distance <= word.len() / 3 + 1)
        .map(|(_, word)| word)
}

/// The Levenshtein distance of two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let cost = (diagonal + usize::from(from != *to))
                .min(row[j] + 1)
                .min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], cost);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let failure = SettingsFile::parse("podlog.toml".into(), text).unwrap_err();
        assert_eq!(failure.code(), 2);
        failure.to_string()
    }

    #[test]
    fn an_unknown_key_is_reported_with_the_most_similar_known_key() {
        assert_eq!(
            refusal("poll_interval = '3s'"),
            "podlog.toml: unknown key \"poll_interval\" (did you mean \"poll-interval\"?); use the names of the flags of podlog run"
        );
        assert!(!refusal("banana = 1").contains("did you mean"));
        assert!(refusal("config = 'x'").contains("unknown key"));
    }

    #[test]
    fn broken_toml_is_refused_without_quoting_it() {
        let line = refusal("cluster = 'c'\nlock = 'mysql://u:hunter2@h/d\n");
        assert!(
            line.starts_with("podlog.toml: line 2 is not TOML") && !line.contains("hunter2"),
            "{line}"
        );
        assert!(!line.contains('\n'), "{line}");
    }

    #[test]
    fn a_key_without_a_value_is_named() {
        for text in ["ttl =", "ttl=\nrenew = '4s'", "ttl = # later"] {
            assert_eq!(
                refusal(text),
                "podlog.toml: line 1: ttl has no value; write one behind the =, or delete the line"
            );
        }
        assert!(refusal("hunter2 =").contains("line 1 is not TOML"));
        assert!(!refusal("hunter2 =").contains("hunter2"));
    }

    #[test]
    fn a_value_of_a_wrong_type_is_refused() {
        assert!(refusal("[ttl]\nvalue = 1").contains("ttl is a table"));
    }

    #[test]
    fn distances_count_edits() {
        assert_eq!(distance("ttl", "ttl"), 0);
        assert_eq!(distance("tll", "ttl"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("renews", "renew"), 1);
    }
}
