//! What must hold of the source tree as text: sizes, opening words, who imports whom. It reads files and runs nothing.

mod documents;
mod lexer;

use std::path::{Path, PathBuf};

pub(crate) use documents::agree;

/// Lines of a file, and of a function from `fn` to its closing brace.
const FILE: usize = 400;
const FUNCTION: usize = 60;

/// A source file: its path from the root, with `/`, and its text.
struct Source {
    path: String,
    text: String,
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files with this ending below some folders of the project, sorted.
fn files(folders: &[&str], ending: &str) -> Vec<Source> {
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == ending) {
                let text = std::fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push(Source { path, text });
            }
        }
    }
    assert!(!found.is_empty(), "no {ending} files");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn files_and_functions_are_short() {
    let mut faults = Vec::new();
    for Source { path, text } in files(&["src", "tests", "benches"], "rs") {
        let lines = text.lines().count();
        if lines > FILE {
            faults.push(format!("{path} has {lines} lines; at most {FILE}"));
        }
        let long = lexer::functions(&lexer::code(&text))
            .into_iter()
            .filter(|(_, lines)| *lines > FUNCTION);
        faults.extend(long.map(|(name, lines)| format!("{path}: {name} has {lines} lines; at most {FUNCTION}")));
    }
    none(&faults);
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let silent = files(&["src", "tests", "benches"], "rs")
        .into_iter()
        .filter(|file| !file.text.starts_with("//! "));
    none(
        &silent
            .map(|file| format!("{} does not open with //!", file.path))
            .collect::<Vec<_>>(),
    );
}

/// The top module a file under src belongs to.
fn part(path: &str) -> &str {
    let inner = path.strip_prefix("src/").unwrap_or(path);
    inner
        .split_once('/')
        .map_or(inner.trim_end_matches(".rs"), |(part, _)| part)
}

/// How far below the crate's root the module of a file is.
fn depth(path: &str) -> usize {
    path.matches('/').count() - usize::from(path.ends_with("/mod.rs"))
}

/// The modules of the crate's root.
fn parts(sources: &[Source]) -> Vec<&str> {
    let mut parts: Vec<&str> = sources.iter().map(|file| part(&file.path)).collect();
    parts.dedup();
    parts.retain(|part| !["lib", "main"].contains(part));
    parts
}

/// The list in ARCHITECTURE.md: each part with those it may import.
fn allowed() -> Vec<(String, Vec<String>)> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, list) = text.split_once("```imports\n").expect("the list of imports");
    let (list, _) = list.split_once("```").unwrap();
    let row = |line: &str| {
        let (part, imports) = line.split_once(" -> ").unwrap_or_else(|| panic!("{line:?} is no row"));
        let imports = imports.split_whitespace().map(str::to_owned).collect();
        (part.trim().to_owned(), imports)
    };
    list.lines().map(row).collect()
}

#[test]
fn parts_import_what_the_list_says_and_nothing_else() {
    let sources = files(&["src"], "rs");
    let parts = parts(&sources);
    let mut unused: Vec<(String, String)> = allowed()
        .into_iter()
        .flat_map(|(part, imports)| imports.into_iter().map(move |to| (part.clone(), to)))
        .filter(|(_, to)| to != "nothing")
        .collect();
    let allowed = unused.clone();
    let mut faults = Vec::new();
    for file in sources.iter().filter(|file| parts.contains(&part(&file.path))) {
        let from = part(&file.path);
        let imports = lexer::modules(&lexer::code(&file.text), depth(&file.path));
        for to in imports
            .into_iter()
            // Nothing is left of defects in a program that is shipped.
            .filter(|to| parts.contains(&to.as_str()) && to != from && to != "defect")
        {
            let import = (from.to_owned(), to);
            if !allowed.contains(&import) {
                faults.push(format!("{} imports {}", file.path, import.1));
            }
            unused.retain(|row| *row != import);
        }
    }
    faults.extend(
        unused
            .iter()
            .map(|(part, to)| format!("{part} may import {to} and does not")),
    );
    none(&faults);
}

#[test]
fn libraries_are_named_only_where_they_belong() {
    let mut faults = Vec::new();
    for Source { path, text } in files(&["src"], "rs") {
        let (from, code) = (part(&path), lexer::code(&text));
        let mut refuse = |code: &str, words: &[&str], why: &str| {
            let named = words.iter().filter(|word| lexer::names(code, word));
            faults.extend(named.map(|word| format!("{path} names {word}: {why}")));
        };
        if from == "domain" {
            let waiting = ["async", "await", "tokio", "futures", "kube", "sqlx", "hyper"];
            refuse(&code, &waiting, "nothing in domain waits or talks to anybody");
            // A test may draw numbers, from a seed.
            let code = code.split("#[cfg(test)]").next().unwrap_or_default();
            let chance = ["Instant::now", "SystemTime", "HashMap", "HashSet", "fastrand"];
            refuse(code, &chance, "the same values must always give the same decision");
        }
        if path != "src/clock.rs" {
            refuse(&code, &["SystemTime"], "the time of day is clock::wall()");
        }
        // The simulated cluster hands out a client of itself, and nothing else of kube.
        if !["cluster", "sim"].contains(&from) {
            refuse(&code, &["kube"], "only cluster speaks Kubernetes");
        }
        if !["locks", "sinks", "demo"].contains(&from) {
            refuse(&code, &["sqlx"], "only locks and sinks speak SQL");
        }
    }
    none(&faults);
}
