//! Malformed kubeconfigs. The error is one line and contains no credential.

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use super::fixture::{MARKER, kubeconfig};

/// Invalid files. Each contains the marked credential if possible.
fn nonsense() -> Vec<Vec<u8>> {
    let good = kubeconfig(1);
    let with = |from: &str, to: &str| {
        assert!(good.contains(from));
        good.replace(from, to).into_bytes()
    };
    let user = format!("{{token: {MARKER}}}");
    vec![
        Vec::new(),
        b"\0\xff\xfe\x1b[31m".to_vec(),
        MARKER.as_bytes().to_vec(),
        format!("{MARKER}: [\n").into_bytes(),
        format!("users: {MARKER}").into_bytes(),
        with(&user, MARKER),
        with(&user, &format!("[{MARKER}]")),
        with(&user, &format!("{{token: {{a: {MARKER}}}}}")),
        with(&user, &format!("{{token: \"{MARKER}\\n\\r\\e\"}}")),
        with(
            &user,
            &format!("{{client-certificate-data: {MARKER}, client-key-data: {MARKER}}}"),
        ),
        with(&user, &format!("{{username: [{MARKER}], password: {MARKER}}}")),
        with(
            &user,
            &format!("{{exec: {{command: sh, args: [-c, 'echo {MARKER}; exit 1']}}}}"),
        ),
        with(&user, &format!("{{exec: {MARKER}}}")),
        with(
            &user,
            &format!("{{auth-provider: {{name: {MARKER}, config: {MARKER}}}}}"),
        ),
        with("'http://127.0.0.1:1'", &format!("'http://u:{MARKER}@ [::'")),
        with("'http://127.0.0.1:1'", &format!("'http://u:{MARKER}@127.0.0.1:1'")),
        with("'http://127.0.0.1:1'", &format!("'ftp://u:{MARKER}@x'")),
        with(
            "'http://127.0.0.1:1'",
            &format!("'https://u:{MARKER}@127.0.0.1:1', certificate-authority-data: '!!!'"),
        ),
        with(
            "'http://127.0.0.1:1'",
            &format!("'https://127.0.0.1:1', proxy-url: 'http://u:{MARKER}@ x'"),
        ),
        with("'http://127.0.0.1:1'", &format!("{{a: {MARKER}}}")),
        with("current-context: c", "current-context: \"\\e[31mnone\\n\""),
        "[".repeat(100_000).into_bytes(),
        bomb(),
    ]
}

/// Nine levels of nine references each: small in the file, enormous if anybody writes it out.
fn bomb() -> Vec<u8> {
    let mut text = String::from("a0: &a0 [lol]\n");
    for level in 1..10 {
        let before = vec![format!("*a{}", level - 1); 9].join(",");
        writeln!(text, "a{level}: &a{level} [{before}]").unwrap();
    }
    (text + "clusters: *a9\n").into_bytes()
}

#[test]
fn a_malformed_kubeconfig_is_refused_on_one_line_without_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display();
    for (n, text) in nonsense().iter().enumerate() {
        let file = dir.path().join(format!("kubeconfig-{n}"));
        std::fs::write(&file, text).unwrap();
        let shown = String::from_utf8_lossy(&text[..text.len().min(300)]);
        let begun = Instant::now();
        let output = Command::new("timeout")
            .args([
                "60",
                env!("CARGO_BIN_EXE_podlog"),
                "run",
                "--http",
                "off",
                "--log-level",
                "debug",
            ])
            .args([
                "--lock",
                &format!("sqlite://{path}/{n}.db"),
                "--sink",
                "stdout",
                "--kubeconfig",
            ])
            .arg(&file)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(begun.elapsed() < Duration::from_secs(59), "{shown}: {said}");
        assert!(!said.contains(MARKER), "{shown}\n{said}");
        assert!(!said.contains("panicked"), "{shown}\n{said}");
        for line in said.lines() {
            assert!(!line.chars().any(char::is_control), "{shown}\n{line:?}");
        }
        let last = said.lines().last().unwrap_or_default();
        assert!(
            matches!(output.status.code(), Some(2..=4)),
            "{shown}: {}\n{said}",
            output.status
        );
        assert!(last.starts_with("podlog: "), "{shown}\n{said}");
    }
}
