//! Values that podlog never writes, for every column of the tables that it reads back. Nothing is asserted here.

use std::fmt::Write as _;

use super::fixture::MARKER;
use crate::sinks::fixture::SinkFixture;

/// Text that podlog never writes.
pub(super) const ODD: &str = "\\'\"`;--\n\r\t\u{1b}[31m\u{9b}💥";

/// A value for one column, as SQL, and whether the pod can be collected all the same.
pub(super) struct HostileValue {
    pub(super) column: &'static str,
    pub(super) value: String,
    pub(super) collected: bool,
}

pub(super) fn bad(column: &'static str, value: impl Into<String>, collected: bool) -> HostileValue {
    let value = value.into();
    HostileValue {
        column,
        value,
        collected,
    }
}

pub(super) fn quoted(text: &str) -> String {
    // As bytes, so that no dialect's rules of escaping matter.
    format!("CAST({} AS CHAR)", bytes(text))
}

/// A literal of bytes.
fn bytes(text: &str) -> String {
    let mut hex = String::new();
    for byte in text.bytes() {
        write!(hex, "{byte:02x}").unwrap();
    }
    format!("x'{hex}'")
}

/// Checkpoints that are none, and some that are and mean nonsense.
fn checkpoints() -> Vec<HostileValue> {
    let position = r#"{"t":9223372036854775807,"n":4294967295,"h":18446744073709551615}"#;
    let mark = |id: &str, restart: &str, more: &str| format!(r#"{{"c":{{"app":{{"i":"{id}","r":{restart}{more}}}}}}}"#);
    let texts = [
        ("{", false),
        ("null", false),
        ("[]", true),
        (r#"{"c":7}"#, false),
        (&*"[".repeat(50_000), false),
        (&*mark("x", "-1", ""), false),
        (&*mark("x", "1e99", ""), false),
        (&*mark("x", "4294967295", ""), false),
        (&*mark("x", "4294967295", &format!(r#","p":{position}"#)), false),
        (&*mark("x", "0", &format!(r#","p":{position}"#)), true),
        (&*mark("\\u0000\\u001b", "0", r#","f":true"#), true),
        (r#"{"c":{"\u0000\n\u001b":{"i":"","r":0}},"more":[1,2]}"#, true),
    ];
    let mut all: Vec<HostileValue> = texts
        .iter()
        .map(|(text, collected)| bad("checkpoint", bytes(text), *collected))
        .collect();
    all.push(bad("checkpoint", "x'fffe00'", false));
    all.push(bad("checkpoint", "x''", true));
    all
}

pub(super) fn locks(database: &SinkFixture) -> Vec<HostileValue> {
    let mut all = checkpoints();
    if database.name == "sqlite" {
        let no_text = "CAST(x'fffe00ff' AS TEXT)";
        all.extend([
            bad("owner", quoted(&"😀".repeat(255)), true),
            bad("owner", no_text, true),
            bad("wanted_by", no_text, true),
            bad("namespace", no_text, true),
            bad("pod", no_text, true),
            bad("node", no_text, true),
            bad("fence", "-1", true),
            bad("fence", "-9223372036854775807 - 1", true),
            bad("fence", "9223372036854775807", true),
            bad("expires_at", "-9223372036854775807 - 1", true),
            bad("expires_at", "9223372036854775807", true),
            bad("owner = 'x', expires_at", "9223372036854775807", false),
            bad("owner = 'x', expires_at", "-9223372036854775807 - 1", true),
            bad("state", "-9223372036854775807 - 1", true),
            bad("acquired_at", "9223372036854775807", true),
            bad("updated_at", "-1", true),
        ]);
    } else {
        all.extend([
            bad("owner", quoted(&"😀".repeat(63)), true),
            bad("owner", "x'fffe00ff'", true),
            bad("wanted_by", "x'fffe00ff'", true),
            bad("fence", "0", true),
            bad("fence", "18446744073709551615", false),
            bad("fence", "18446744073709551614", true),
            bad("expires_at", "'9999-12-31 23:59:59.999999'", true),
            bad("expires_at", "'1000-01-01 00:00:00'", true),
            bad("owner = 'x', expires_at", "'9999-12-31 23:59:59.999999'", false),
            bad("state", "255", true),
            bad("sent", "18446744073709551615", true),
            bad("updated_at", "'9999-12-31 23:59:59.999999'", true),
        ]);
    }
    all.extend([
        bad("owner", quoted(ODD), true),
        bad("owner", "''", true),
        bad("wanted_by", quoted(ODD), true),
        bad("namespace", quoted(ODD), true),
        bad("pod", quoted(MARKER), true),
        bad("node", quoted(ODD), true),
        bad("acquired_at", "NULL", true),
        bad("updated_at", "NULL", true),
        bad("wanted_by", "NULL", true),
    ]);
    all
}

pub(super) fn streams(database: &SinkFixture) -> Vec<HostileValue> {
    let (least, most) = ("-9223372036854775807 - 1", "9223372036854775807");
    let mut all = vec![
        bad("fence", "-1", false),
        bad("fence", least, false),
        bad("fence", most, false),
        bad("seq", most, false),
        bad("seq", least, true),
        bad("seq", "-1", true),
        bad("hash = 0, ordinal = 0, time_ns", least, false),
        bad("hash = -1, time_ns = 5, ordinal", most, false),
        bad("hash = -1, time_ns = 5, ordinal", "-1", false),
        bad("hash = -1, ordinal = NULL, time_ns", "5", true),
        bad("namespace", quoted(ODD), true),
        bad("node", quoted(ODD), true),
    ];
    if database.name == "sqlite" {
        let no_text = "CAST(x'fffe00ff' AS TEXT)";
        all.extend([
            bad("labels", no_text, true),
            bad("labels", quoted("no JSON"), true),
            bad("node", no_text, true),
            bad("restart", least, true),
            bad("updated_at", most, true),
            bad("created_at", least, true),
        ]);
    } else {
        all.extend([
            bad("labels", "'[[[7]]]'", true),
            bad("restart", "4294967295", true),
            bad("updated_at", "'9999-12-31 23:59:59.999999'", true),
            bad("created_at", "'1000-01-01'", true),
        ]);
    }
    all
}
