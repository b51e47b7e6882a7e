//! Just enough of Rust's grammar to look at a source file: what is code, where functions begin and end, which modules
//! of the crate it names. It never judges.

/// The source with comments, strings and characters blanked out; every line keeps its number.
pub(super) fn code(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut code = String::with_capacity(source.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = at + skipped(&bytes[at..], at.checked_sub(1).map(|before| bytes[before]));
        if end == at {
            code.push(char::from(bytes[at]));
            at += 1;
        } else {
            code.extend(
                bytes[at..end]
                    .iter()
                    .map(|byte| if *byte == b'\n' { '\n' } else { ' ' }),
            );
            at = end;
        }
    }
    code
}

/// How many bytes of a comment or literal begin here; 0 for code.
fn skipped(rest: &[u8], before: Option<u8>) -> usize {
    let word = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match rest {
        [b'/', b'/', ..] => find(rest, b"\n").unwrap_or(rest.len()),
        [b'/', b'*', ..] => find(rest, b"*/").map_or(rest.len(), |end| end + 2),
        [b'"', ..] => string(rest),
        [b'r', b'"' | b'#', ..] if !word => raw(rest, 1),
        [b'b', b'r', b'"' | b'#', ..] if !word => raw(rest, 2),
        [b'\'', b'\\', ..] => 2 + find(&rest[3..], b"'").map_or(0, |end| end + 2),
        // Longer characters than one byte have their quote within five; a lifetime has none.
        [b'\'', ..] => {
            let long = rest.get(1).is_some_and(|byte| !byte.is_ascii());
            let reach = if long { 6 } else { 3 }.min(rest.len());
            find(&rest[1..reach], b"'")
                .filter(|end| *end > 0)
                .map_or(0, |end| end + 2)
        }
        _ => 0,
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// A raw string that begins after `prefix` letters; 0 for a raw identifier.
fn raw(rest: &[u8], prefix: usize) -> usize {
    let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(prefix + hashes) != Some(&b'"') {
        return 0;
    }
    let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    let begin = prefix + hashes + 1;
    begin + find(&rest[begin..], &close).map_or(rest.len() - begin, |end| end + close.len())
}

/// Every function with a body: its name and how many lines it has, from `fn` to the closing brace.
pub(super) fn functions(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let begins = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let name: String = code[at + 3..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        if !begins || name.is_empty() {
            continue;
        }
        if let Some(end) = body_end(&code[at..]) {
            found.push((name, code[at..at + end].lines().count()));
        }
    }
    found
}

/// Where the body that follows a signature ends; `None` when there is only a signature.
fn body_end(text: &str) -> Option<usize> {
    let (mut round, mut curly) = (0_usize, 0_usize);
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' => round += 1,
            ')' | ']' => round = round.saturating_sub(1),
            ';' if round == 0 && curly == 0 => return None,
            '{' => curly += 1,
            '}' => {
                curly = curly.checked_sub(1)?;
                if curly == 0 && round == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// Whether the code has `word` standing by itself, such as `tokio` or `Instant::now`.
pub(super) fn names(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .any(|(at, _)| !code[..at].ends_with(part) && !code[at + word.len()..].starts_with(part))
}

/// The crate's own top modules that the code of a module `depth` below the root names: after `crate::`, in a group or
/// not, or after as many `super::` as lead to the root.
pub(super) fn modules(code: &str, depth: usize) -> Vec<String> {
    let word = |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let mut found = Vec::new();
    for root in ["crate::".to_owned(), "super::".repeat(depth)] {
        for (at, _) in code.match_indices(&root) {
            let rest = &code[at + root.len()..];
            if let Some(group) = rest.strip_prefix('{') {
                found.extend(group_heads(group).map(word));
            } else {
                found.push(word(rest));
            }
        }
    }
    found
}

/// What each item of a `use` group begins with.
fn group_heads(group: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    let mut closed = false;
    group
        .split_inclusive([',', '{', '}'])
        .filter_map(move |piece| {
            let head = (depth == 0 && !closed).then_some(piece.trim_start());
            match piece.chars().last() {
                Some('{') => depth += 1,
                Some('}') if depth == 0 => closed = true,
                Some('}') => depth -= 1,
                _ => {}
            }
            head
        })
        .filter(|head| head.starts_with(|c: char| c.is_alphabetic()))
}

#[test]
fn what_is_no_code_is_blanked_and_lines_stay_where_they_are() {
    let source = "let a = \"fn x() {\"; // fn y() {\nlet b = r#\"}\"# ; let c = '\\''; let d = '{';\nfn z<'a>() {\n}\n";
    let code = code(source);
    assert_eq!(code.lines().count(), source.lines().count());
    assert_eq!(functions(&code), [("z".to_owned(), 2)]);
    assert!(!code.contains('"'), "{code}");
}

#[test]
fn named_modules_are_found_in_groups_too() {
    let code = "use crate::{admin, sinks::group::{Limits, Other}, stop}; crate::locks::open(); use super::follow::x;";
    assert_eq!(modules(code, 1), ["admin", "sinks", "stop", "locks", "follow"]);
    assert!(names("a::tokio::b", "tokio") && !names("my_tokio", "tokio"));
}
