//! Decides whether a test that needs a server may run. A skipped test prints a message that is not captured; with
//! `PODLOG_TEST_REQUIRE_ALL=1` it fails instead. Nothing here connects to anything.

use std::io::Write as _;

/// The value of `variable`, which names a server; without it the test is to be skipped.
pub(crate) fn named(variable: &str) -> Option<String> {
    let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        skip(&format!("{variable} is not set"));
    }
    value
}

/// Prints that the current test is skipped, or fails if every test must run.
pub(crate) fn skip(why: &str) {
    assert!(
        std::env::var("PODLOG_TEST_REQUIRE_ALL").as_deref() != Ok("1"),
        "PODLOG_TEST_REQUIRE_ALL=1 and this test cannot run: {why}"
    );
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    writeln!(std::io::stderr(), "SKIPPED: {name}: {why}").ok();
}

/// The image in which tests run their scripts on a real cluster: anything with a shell.
pub(crate) fn image() -> String {
    std::env::var("PODLOG_TEST_IMAGE").unwrap_or_else(|_| "docker.io/library/busybox:1".to_owned())
}
