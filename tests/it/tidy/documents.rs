//! Checks that the documents agree with the program: tables are made from the code, and named tests exist.
//!
//! `PODLOG_TEST_WRITE_TABLES=1 cargo test --test it tidy` writes the tables instead of comparing them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use podlog::metrics::{LockCall, Metrics, Reason, Request};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::none;
use super::source::{self, Text, files, root, sources};

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Compares the text between two comments of a document with the expected text.
pub(crate) fn agree(path: &str, name: &str, table: &str) {
    let text = read(path);
    let (begin, end) = (
        format!("<!-- {name}: made by the tests -->\n"),
        format!("<!-- end of {name} -->"),
    );
    let (head, rest) = text
        .split_once(&begin)
        .unwrap_or_else(|| panic!("{path} has no {begin}"));
    let (found, tail) = rest.split_once(&end).unwrap_or_else(|| panic!("{path} has no {end}"));
    if std::env::var("PODLOG_TEST_WRITE_TABLES").as_deref() == Ok("1") {
        std::fs::write(root().join(path), format!("{head}{begin}{table}{end}{tail}")).unwrap();
        return;
    }
    assert_eq!(
        found, table,
        "{path}: write it anew with PODLOG_TEST_WRITE_TABLES=1 cargo test --test it tidy"
    );
}

#[test]
fn the_manual_lists_every_setting() {
    agree("docs/settings.md", "settings", &podlog::cli::show::table());
}

/// Every metric as a scrape shows it: families show nothing before they were counted once.
fn scrape() -> String {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let reason = Reason { reason: "" };
    metrics.gaps.get_or_create(&reason).inc();
    metrics.stream_ends.get_or_create(&reason).inc();
    metrics.streams_unread.get_or_create(&reason).inc();
    metrics.namespaces_unlisted.get_or_create(&reason).inc();
    metrics.rows_unresolved.get_or_create(&reason).inc();
    metrics.claims_lost.get_or_create(&reason).inc();
    metrics.api_requests.get_or_create(&Request { verb: "", code: 0 }).inc();
    let call = LockCall {
        operation: "",
        result: "",
    };
    metrics.lock_calls.get_or_create(&call).inc();
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    text
}

/// The labels of a metric: those of its first sample, but for the bounds of a histogram.
fn labels(scrape: &str, name: &str) -> String {
    let sample = scrape.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    let labels = sample
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map_or("", |(labels, _)| labels);
    let names = labels
        .split(',')
        .filter_map(|label| label.split_once('='))
        .map(|(name, _)| name);
    names.filter(|name| *name != "le").collect::<Vec<_>>().join(", ")
}

#[test]
fn the_manual_lists_every_metric() {
    let scrape = scrape();
    let mut table = String::from("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    let mut count = 0;
    for line in scrape.lines() {
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        let help = scrape
            .lines()
            .find_map(|line| line.strip_prefix(&format!("# HELP {name} ")))
            .unwrap();
        let total = if kind == "counter" { "_total" } else { "" };
        let labels = labels(&scrape, &format!("{name}{total}"));
        writeln!(
            table,
            "| `{name}{total}` | {kind} | {labels} | {} |",
            help.trim_end_matches('.')
        )
        .unwrap();
        count += 1;
    }
    // Three calls are of the functions that group the others.
    let registered = lines_with(&read("src/metrics.rs"), ".register") - 3;
    assert_eq!(registered, count, "a family is not counted once in this test");
    agree("docs/metrics.md", "metrics", &table);
}

/// How many lines of code, without comments, have this text.
fn lines_with(code: &str, text: &str) -> usize {
    let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.filter(|line| line.contains(text)).count()
}

/// Every function there is. Macros make tests of clauses, so each counts.
fn functions() -> BTreeSet<String> {
    let all = sources(&["src", "crates", "tests"]);
    all.iter().flat_map(source::Source::function_names).collect()
}

/// What is wrong with the tests that these rows of a table name.
fn unknown_tests(rows: &[&str]) -> Vec<String> {
    let known = functions();
    let mut faults = Vec::new();
    for row in rows {
        let tests: Vec<&str> = row
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|name| name.contains('_'))
            .collect();
        if tests.is_empty() && !row.contains("no test yet") {
            faults.push(format!("no test named, nor said to be missing: {row}"));
        }
        let missing = tests
            .into_iter()
            .filter(|name| !known.contains(name.rsplit("::").next().unwrap_or(name)));
        faults.extend(missing.map(|name| format!("there is no test {name}")));
    }
    faults
}

#[test]
fn every_promise_names_tests_that_exist() {
    let text = read("tests/PROMISES.md");
    let rows: Vec<&str> = text.split_once("| promise | ").unwrap().1.lines().skip(2).collect();
    let rows: Vec<&str> = rows.into_iter().take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() >= 9, "one row for each promise");
    none(&unknown_tests(&rows));
}

#[test]
fn every_scenario_names_tests_that_exist() {
    let text = read("tests/SCENARIOS.md");
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| |");
    let rows: Vec<&str> = text.lines().filter(is_row).collect();
    assert_eq!(rows.len(), 33 + 9, "33 of claims and nine of the reader");
    none(&unknown_tests(&rows));
}

#[test]
fn every_deliberate_defect_is_in_the_table_of_those_found() {
    let text = read("tests/SIMULATION.md");
    let mut rows: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    rows.sort_unstable();
    let mut all = podlog::defect::Defect::ALL.map(|defect| format!("{defect:?}"));
    all.sort();
    assert_eq!(rows, all, "run tests/defects.rs, which writes the table");
}

#[test]
fn migrations_are_listed_in_order_and_the_same_for_all_databases() {
    let all = files(&["migrations"], "sql");
    let under = |folder: &str| -> Vec<String> {
        let inside = all
            .iter()
            .filter_map(|file| file.path.strip_prefix(&format!("migrations/{folder}/")));
        inside.map(str::to_owned).collect()
    };
    let names = under("mysql");
    assert_eq!(names, under("sqlite"));
    assert!(
        names
            .iter()
            .all(|name| all.iter().any(|file| file.path.ends_with(name)))
            && names.is_sorted()
    );
    let mut versions: Vec<&str> = names
        .iter()
        .map(|name| &name.rsplit('/').next().unwrap()[..4])
        .collect();
    assert!(
        versions
            .iter()
            .all(|version| version.bytes().all(|byte| byte.is_ascii_digit())),
        "{versions:?}"
    );
    let count = versions.len();
    versions.dedup();
    assert_eq!(versions.len(), count, "two migrations have one version");
}

/// The last migrations of the first version. Later ones must let older replicas go on; one that cannot is the last
/// resort, see `migrations/README.md`.
const FIRST: [(&str, &str); 2] = [("locks", "0101"), ("records", "0205")];

#[test]
fn later_migrations_say_that_they_only_add() {
    let mut faults = Vec::new();
    for file in files(&["migrations"], "sql") {
        let parts: Vec<&str> = file.path.split('/').collect();
        let (family, name) = (parts[2], parts[3]);
        let (_, first) = FIRST.iter().find(|(known, _)| *known == family).unwrap();
        let later = &name[..4] > *first;
        if later && !name[4..].starts_with("_additive_") {
            faults.push(format!("{} is not named additive", file.path));
        }
        let statements = file.text.lines().filter(|line| !line.trim_start().starts_with("--"));
        let text = statements.collect::<Vec<_>>().join(" ").to_uppercase();
        let words = ["DROP ", "RENAME ", "MODIFY ", "CHANGE "];
        let removes = words.into_iter().filter(|word| later && text.contains(word));
        faults.extend(removes.map(|word| format!("{} does more than add: {word}", file.path)));
    }
    none(&faults);
}

#[test]
fn no_file_mentions_how_the_project_is_developed() {
    // In two parts each, so that this list does not find itself.
    let words = [
        ["/wo", "rk/"],
        ["/tmp/", "wt"],
        ["work", "tree"],
        ["busybox:", "lab"],
        ["podlog-", "lab"],
        ["TO", "DO"],
        ["FIX", "ME"],
        ["DESIGN", ".md"],
        ["not built ", "yet"],
    ];
    let mut faults = Vec::new();
    let code = files(&["src", "crates", "tests", "benches"], "rs")
        .into_iter()
        .chain(files(&["migrations"], "sql"));
    let documents = std::fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    let documents = documents.filter(|path| {
        path.extension()
            .is_some_and(|ending| ["md", "toml"].iter().any(|e| ending == *e))
    });
    let documents = documents.map(|path| Text {
        text: std::fs::read_to_string(&path).unwrap(),
        path: path.file_name().unwrap().to_string_lossy().into_owned(),
    });
    for file in code.chain(files(&["docs"], "md")).chain(documents) {
        let found = words
            .iter()
            .map(|parts| parts.concat())
            .filter(|word| file.text.contains(word.as_str()));
        faults.extend(found.map(|word| format!("{} says {word}", file.path)));
    }
    none(&faults);
}
