//! Checks that everything that the documents name exists: source files in backticks, and the files and headings of
//! links.
//!
//! It reads files and follows no link to other places.

use std::path::Path;

use super::none;
use super::source::{Text, files, root};

/// All documents: those at the root, and those of these folders.
fn documents() -> Vec<Text> {
    let mut all = files(&["docs", "tests", "charts", "migrations", "fuzz", "crates"], "md");
    for entry in std::fs::read_dir(root()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "md") {
            let text = std::fs::read_to_string(&path).unwrap();
            let path = path.file_name().unwrap().to_string_lossy().into_owned();
            all.push(Text { path, text });
        }
    }
    all
}

/// The text without its blocks of code.
fn prose(text: &str) -> String {
    let blocks = text.split("```");
    blocks.step_by(2).collect()
}

/// What a link leads to, for each link.
fn links(text: &str) -> Vec<&str> {
    let ends = text.split("](").skip(1);
    ends.filter_map(|rest| rest.split_once(')')).map(|(to, _)| to).collect()
}

/// The anchors of the headings of a document, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| -> String {
        let title = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_source_file_that_a_document_names_exists() {
    let mut faults = Vec::new();
    for Text { path, text } in documents() {
        let prose = prose(&text);
        let names = prose.split('`').skip(1).step_by(2);
        let sources = names.filter(|name| {
            name.rsplit_once('.').is_some_and(|(_, ending)| ending == "rs") && !name.contains([' ', '*'])
        });
        let missing = sources.filter(|name| !root().join(name).exists() && !root().join("src").join(name).exists());
        faults.extend(missing.map(|name| format!("{path} names {name}")));
    }
    none(&faults);
}

#[test]
fn every_link_of_a_document_leads_to_a_file_and_a_heading() {
    let mut faults = Vec::new();
    for Text { path, text } in documents() {
        let folder = root().join(Path::new(&path).parent().unwrap());
        for link in links(&prose(&text)) {
            if link.starts_with("http") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let file = if file.is_empty() {
                root().join(&path)
            } else {
                folder.join(file)
            };
            let found = match std::fs::read_to_string(&file) {
                Ok(text) => anchor.is_empty() || anchors(&text).iter().any(|known| known == anchor),
                Err(_) => file.is_dir() && anchor.is_empty(),
            };
            if !found {
                faults.push(format!("{path} links to {link}"));
            }
        }
    }
    none(&faults);
}
