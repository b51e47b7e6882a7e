//! The rules for the source tree as text: sizes, opening paragraphs, and which part imports which. It reads files and
//! runs nothing.

mod documents;
mod graph;
mod links;
mod source;

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use documents::agree;
use graph::Graph;
pub(crate) use source::root;
use source::{files, sources};

/// Lines of a file, and of a function from `fn` to its closing brace.
const FILE: usize = 500;
const FUNCTION: usize = 60;

/// Methods and associated functions of a type, without those of traits.
const METHODS: usize = 25;

/// Folders with Rust files, and those of them that are the root of a crate.
const FOLDERS: [&str; 4] = ["src", "crates", "tests", "benches"];
const CRATES: [&str; 6] = [
    "src",
    "crates/kube-sim/src",
    "tests/it",
    "tests/e2e",
    "tests/faults",
    "tests/model",
];

fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn files_and_functions_are_short() {
    let mut faults = Vec::new();
    for source in sources(&FOLDERS) {
        let (path, lines) = (&source.path, source.text.lines().count());
        if lines > FILE {
            faults.push(format!("{path} has {lines} lines; at most {FILE}"));
        }
        let long = source
            .functions()
            .into_iter()
            .filter(|function| function.lines > FUNCTION);
        faults.extend(long.map(|function| {
            format!(
                "{path}: {} has {} lines; at most {FUNCTION}",
                function.name, function.lines
            )
        }));
    }
    none(&faults);
}

#[test]
fn every_file_begins_with_a_paragraph_that_describes_it() {
    let silent = files(&FOLDERS, "rs")
        .into_iter()
        .filter(|file| !file.text.starts_with("//! "));
    let faults: Vec<String> = silent
        .map(|file| format!("{} does not open with //!", file.path))
        .collect();
    none(&faults);
}

#[test]
fn no_two_files_import_each_other() {
    let sources = sources(&FOLDERS);
    let mut faults = Vec::new();
    for folder in CRATES {
        let graph = Graph::new(&sources, folder);
        for circle in graph.circles() {
            let inside = graph
                .uses()
                .filter(|(from, to, _)| circle.contains(from) && circle.contains(to));
            let uses = inside.map(|(from, to, names)| {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                format!("  {from} uses of {to}: {}", names.join(", "))
            });
            faults.push(format!(
                "a circle of {} files:\n{}",
                circle.len(),
                uses.collect::<Vec<_>>().join("\n")
            ));
        }
    }
    none(&faults);
}

#[test]
fn a_type_has_few_methods_and_all_of_them_in_one_file() {
    let sources = sources(&FOLDERS);
    let mut faults = Vec::new();
    for folder in CRATES {
        let graph = Graph::new(&sources, folder);
        // Type -> file with an `impl` of it -> methods there.
        let mut methods: BTreeMap<(String, String), BTreeMap<&str, usize>> = BTreeMap::new();
        for source in sources
            .iter()
            .filter(|source| source.path.starts_with(&format!("{folder}/")))
        {
            for item in source.product_items() {
                let syn::Item::Impl(item) = item else { continue };
                let (None, syn::Type::Path(of)) = (&item.trait_, &*item.self_ty) else {
                    continue;
                };
                let path: Vec<String> = of
                    .path
                    .segments
                    .iter()
                    .map(|segment| segment.ident.to_string())
                    .collect();
                let Some(of) = graph.type_of(&source.path, &path) else {
                    continue;
                };
                let count = item
                    .items
                    .iter()
                    .filter(|item| matches!(item, syn::ImplItem::Fn(_)))
                    .count();
                *methods.entry(of).or_default().entry(&source.path).or_default() += count;
            }
        }
        for ((file, name), places) in methods {
            let count: usize = places.values().sum();
            if count > METHODS {
                faults.push(format!("{name} of {file} has {count} methods; at most {METHODS}"));
            }
            if places.len() > 1 {
                let places: Vec<&str> = places.into_keys().collect();
                faults.push(format!(
                    "{name} of {file} has methods in several files: {}",
                    places.join(", ")
                ));
            }
        }
    }
    none(&faults);
}

/// The top module that a file under src belongs to.
fn part(path: &str) -> &str {
    let inner = path.strip_prefix("src/").unwrap_or(path);
    inner
        .split_once('/')
        .map_or(inner.trim_end_matches(".rs"), |(part, _)| part)
}

/// The list in imports.txt: each part with those that it may import.
fn allowed() -> BTreeSet<(String, String)> {
    let text = std::fs::read_to_string(root().join("tests/it/tidy/imports.txt")).unwrap();
    let row = |line: &str| -> Vec<(String, String)> {
        let (part, imports) = line.split_once(" -> ").unwrap_or_else(|| panic!("{line:?} is no row"));
        let imports = imports.split_whitespace().filter(|to| *to != "nothing");
        imports.map(|to| (part.trim().to_owned(), to.to_owned())).collect()
    };
    text.lines().flat_map(row).collect()
}

#[test]
fn parts_import_what_the_list_says_and_nothing_else() {
    let sources = sources(&["src"]);
    let graph = Graph::new(&sources, "src");
    let mut found: BTreeMap<(String, String), &str> = BTreeMap::new();
    for (from, to, _) in graph.uses() {
        let (part, import) = (part(from), part(to));
        // Nothing is left of deliberate defects in a program that is shipped. The root hands everything out.
        if part != import && import != "defect" && !["lib", "main"].contains(&part) {
            found.insert((part.to_owned(), import.to_owned()), from);
        }
    }
    let allowed = allowed();
    let refused = found.iter().filter(|(import, _)| !allowed.contains(*import));
    let mut faults: Vec<String> = refused.map(|((_, to), file)| format!("{file} imports {to}")).collect();
    let unused = allowed.iter().filter(|import| !found.contains_key(*import));
    faults.extend(unused.map(|(part, to)| format!("{part} may import {to} and does not")));
    none(&faults);
}

#[test]
fn libraries_are_named_only_where_they_belong() {
    let mut faults = Vec::new();
    for source in sources(&["src"]) {
        let (path, from) = (&source.path, part(&source.path));
        let mut refuse = |paths: &[source::CodePath], words: &[&str], why: &str| {
            let named = words.iter().filter(|word| source::names(paths, word));
            faults.extend(named.map(|word| format!("{path} names {word}: {why}")));
        };
        let paths = source.paths();
        if from == "domain" {
            let waiting = ["async", "await", "tokio", "futures", "kube", "sqlx", "hyper"];
            refuse(&paths, &waiting, "nothing in domain waits or talks to anybody");
            // A test may draw numbers, from a seed.
            let chance = ["Instant::now", "SystemTime", "HashMap", "HashSet", "fastrand"];
            let why = "the same values must always give the same decision";
            refuse(&source.product_paths(), &chance, why);
        }
        if path != "src/clock.rs" {
            refuse(&paths, &["SystemTime"], "the time of day is clock::wall()");
        }
        if from != "cluster" {
            refuse(&paths, &["kube"], "only cluster speaks Kubernetes");
        }
        if !["db", "locks", "sinks", "lab"].contains(&from) {
            refuse(&paths, &["sqlx"], "only db, locks and sinks speak SQL");
        }
    }
    none(&faults);
}
