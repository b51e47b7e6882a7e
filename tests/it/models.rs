//! What must hold of podlog's parsers for any input, with naive reference implementations. The fuzzers in `fuzz/`
//! include this file, so it uses only the crate's public items and no test framework.

use std::collections::BTreeMap;

use podlog::cli::file::SettingsFile;
use podlog::cli::units::{Listen, Size};
use podlog::cli::{self, Command};
use podlog::cluster::{Scope, Selection, pod_from_json};
use podlog::config::{Passwords, SecretUrl, checked};
use podlog::domain::line_decoder::{Batch, LineDecoder, ResumeMode};
use podlog::domain::steps::next_step;
use podlog::domain::{Checkpoint, Line, LockKey, Pod, Position, Time};
use podlog::locks::LockUrl;
use podlog::sinks::SinkUrl;

/// A line as a model sees it.
type ModelLine = (Time, u32, Vec<u8>, u64);

/// Feeds bytes in pieces of these lengths, over and over.
fn read(decoder: &mut LineDecoder, mode: ResumeMode, bytes: &[u8], cuts: &[u8], ended: bool) -> Batch {
    let mut batch = Batch::default();
    decoder.begin(mode);
    let mut rest = bytes;
    for cut in cuts.iter().cycle() {
        if cuts.iter().all(|cut| *cut == 0) || rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at(rest.len().min(usize::from(*cut)));
        decoder.feed(piece, &mut batch);
        rest = after;
    }
    decoder.feed(rest, &mut batch);
    decoder.finish(ended, &mut batch);
    batch
}

fn seen(batch: &Batch) -> Vec<ModelLine> {
    let line = |line: &Line| {
        let text = &batch.text[line.start as usize..][..line.len as usize];
        (line.time, line.ordinal, text.to_vec(), line.cut)
    };
    batch.lines.iter().map(line).collect()
}

/// The lines of a log, without ordinals, by a naive parser that has the whole log in memory.
fn naive(bytes: &[u8], cap: usize, ended: bool) -> Vec<(Time, Vec<u8>, u64)> {
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let last = lines.pop().unwrap_or_default();
    if ended && !last.is_empty() {
        lines.push(last);
    }
    let line = |line: &[u8]| {
        let (time, message) = Time::split_line(line)?;
        let kept = message.len().min(cap);
        Some((time, message[..kept].to_vec(), (message.len() - kept) as u64))
    };
    lines.into_iter().filter_map(line).collect()
}

/// However the bytes of a log are split, the parser returns the same lines: those of the naive parser.
pub(crate) fn check_lines(bytes: &[u8], cuts: &[u8], cap: usize, ended: bool) {
    let mut decoder = LineDecoder::new(cap);
    let whole = read(&mut decoder, ResumeMode::All, bytes, &[], ended);
    let state = (decoder.stats(), decoder.unfinished_line());
    let parts = read(&mut decoder, ResumeMode::All, bytes, cuts, ended);
    assert_eq!(seen(&whole), seen(&parts));
    assert_eq!(state, (decoder.stats(), decoder.unfinished_line()));
    // The carry grows by doubling.
    assert!(
        decoder.buffer_capacity() <= 2 * (cap + 64) + 256,
        "{} bytes are held",
        decoder.buffer_capacity()
    );
    let without: Vec<_> = seen(&whole)
        .into_iter()
        .map(|(time, _, text, cut)| (time, text, cut))
        .collect();
    assert_eq!(without, naive(bytes, cap, ended));
}

/// A timestamp is parsed as the slower library parses it.
pub(crate) fn check_stamp(line: &[u8]) {
    let library = || {
        let blank = line.iter().position(|byte| *byte == b' ').filter(|at| *at <= 35)?;
        let time: jiff::Timestamp = std::str::from_utf8(&line[..blank]).ok()?.parse().ok()?;
        let nanos = time.as_nanosecond().clamp(i64::MIN.into(), i64::MAX.into());
        Some((Time(nanos as i64), &line[blank + 1..]))
    };
    let (ours, theirs) = (Time::split_line(line), library());
    assert_eq!(ours, theirs, "{:?}", String::from_utf8_lossy(line));
    if let Some((time, _)) = ours {
        let shown = format!("{time} x");
        assert_eq!(Time::split_line(shown.as_bytes()), Some((time, &b"x"[..])), "{shown}");
    }
}

/// A log of few timestamps and few texts, so that lines are often equal.
fn log_of(seed: &[u8]) -> Vec<u8> {
    let texts = ["", "x", "y", "a longer line", "1970-01-01T00:00:00.000000005Z x"];
    let mut log = Vec::new();
    for byte in seed {
        let time = Time(5_000_000_000 + i64::from(byte >> 5));
        log.extend(format!("{time} {}\n", texts[usize::from(byte & 31) % texts.len()]).into_bytes());
    }
    log
}

/// A read that resumes at a stored line returns all lines after it, in order, with the same ordinals.
pub(crate) fn check_resume(seed: &[u8], stored: usize, cuts: &[u8], skipped: usize) {
    let log = log_of(seed);
    let mut decoder = LineDecoder::new(8192);
    let all = seen(&read(&mut decoder, ResumeMode::All, &log, cuts, false));
    assert_eq!(all.len(), seed.len());
    if all.is_empty() {
        return;
    }
    let stored = stored % all.len();
    let position = |line: &ModelLine| Position {
        time: line.0,
        ordinal: line.1,
        hash: Position::hash(&line.2),
    };
    let sought = position(&all[stored]);
    let rest = seen(&read(&mut decoder, ResumeMode::After(sought), &log, cuts, false));
    assert!(decoder.stats().taking, "the stored line is there");
    assert_eq!(rest, all[stored + 1..]);
    // A log that was rotated does not have the first lines; ordinals begin anew.
    let skipped = skipped % (stored + 1);
    let newer = log_of(&seed[skipped..]);
    let nth = all[skipped..=stored]
        .iter()
        .filter(|line| (line.0, &line.2) == (sought.time, &all[stored].2));
    let mode = ResumeMode::AfterEqualStamp {
        position: sought,
        nth: nth.count() as u32,
    };
    let texts = |lines: &[ModelLine]| lines.iter().map(|line| (line.0, line.2.clone())).collect::<Vec<_>>();
    let rest = seen(&read(&mut decoder, mode, &newer, cuts, false));
    assert_eq!(texts(&rest), texts(&all[stored + 1..]));
    // In a file with only new lines nothing is skipped.
    let after = log_of(&seed[stored + 1..]);
    let mode = ResumeMode::NewFile(Position {
        time: Time(0),
        ..sought
    });
    assert_eq!(
        texts(&seen(&read(&mut decoder, mode, &after, cuts, false))),
        texts(&all[stored + 1..])
    );
}

const SECRET: &str = "hunter2";

/// For any text in place of a URL nothing panics, and a password in it is not shown, wherever it is.
pub(crate) fn check_url(scheme: &str, before: &str, after: &str, rest: &str) {
    let alone = format!("{scheme}{before}{after}{rest}");
    // What is typed outside the password may be shown, as it is or as it is read: hosts lose their capitals.
    let read = url::Url::parse(&alone).map_or_else(|_| String::new(), |url| url.to_string());
    if alone.contains(SECRET) || read.contains(SECRET) {
        return;
    }
    for slashes in ["//", "///"] {
        check_shown(&format!("{scheme}:{slashes}user:{before}{SECRET}{after}@host/{rest}"));
    }
    // An & ends the parameter, and = the name of the next one.
    if !before.contains('&') {
        check_shown(&format!("{scheme}://user@host/data?password={before}{SECRET}{after}"));
    }
    check_shown(&format!("{scheme}://user@host/data?{SECRET}{after}"));
    check_shown(&alone);
}

fn check_shown(text: &str) {
    let mut shown = Vec::new();
    match SecretUrl::parse(text) {
        Ok(url) => {
            shown.extend([url.to_string(), format!("{url:?}")]);
            match text.parse::<LockUrl>() {
                Ok(url) => shown.push(format!("{url} {url:?}")),
                Err(error) => shown.push(error.to_string()),
            }
            match text.parse::<SinkUrl>() {
                Ok(url) => shown.push(format!("{url} {url:?}")),
                Err(error) => shown.push(error.to_string()),
            }
        }
        Err(error) => shown.push(error),
    }
    let all = shown.join(" ");
    assert!(!all.contains(SECRET), "{text:?} is shown as {all}");
}

/// Sizes and addresses of any text are read or refused; a size reads back as it is shown.
pub(crate) fn check_value(text: &str) {
    if let Ok(size) = text.parse::<Size>() {
        assert_eq!(size.to_string().parse(), Ok(size), "{text:?}");
    }
    drop(text.parse::<Listen>());
}

/// Text for people is one line without the password.
fn check_message(text: &str) {
    let fine = !text.is_empty() && !text.chars().any(char::is_control) && !text.contains(SECRET);
    assert!(fine, "{text:?}");
}

/// A settings file of any text is read or refused on one line, which does not tell a password in it.
pub(crate) fn check_file(before: &str, after: &str, rest: &str) {
    // A line end would turn the value into another line with a key of its own, and error messages name keys.
    if ![before, after, rest].iter().any(|text| text.contains(SECRET)) && !before.contains(['\n', '\r']) {
        let text = format!("lock = {before}mysql://user:{SECRET}@host/data{after}\n{rest}");
        if let Err(failure) = SettingsFile::parse("podlog.toml".into(), &text) {
            check_message(&failure.to_string());
        }
    }
    if let Err(failure) = SettingsFile::parse("podlog.toml".into(), rest) {
        assert_eq!(failure.code(), 2);
        assert!(!failure.to_string().chars().any(char::is_control), "{failure}");
    }
}

/// Flags with any value are accepted or refused on one line; accepted ones are shown as TOML and checked.
pub(crate) fn check_flags(flags: &[(String, String)]) {
    let mut args = vec!["podlog".to_owned(), "run".to_owned()];
    for (name, value) in flags {
        let may_hold_one = ["lock", "sink"].contains(&name.as_str());
        let value = if may_hold_one {
            value.clone()
        } else {
            value.replace(SECRET, "")
        };
        args.push(format!("--{name}={value}"));
    }
    let typed = match cli::read(args) {
        Ok(typed) => typed,
        Err(failure) => return check_message(&failure.to_string()),
    };
    let shown = typed.settings.parse::<toml::Table>();
    assert!(shown.is_ok(), "{shown:?}: {}", typed.settings);
    assert!(!typed.settings.contains(SECRET), "{}", typed.settings);
    let Command::Run(run) = typed.cli.command else { return };
    match checked(&run, &Passwords::default()) {
        Ok(config) => assert!(!format!("{config:?}").contains(SECRET), "{config:?}"),
        Err(failure) => check_message(&failure.to_string()),
    }
}

/// A pod from any JSON is parsed or dropped, and what is kept of it is valid in keys, paths and columns.
pub(crate) fn check_pod(json: &[u8]) {
    let everything = Selection {
        opt_in: false,
        exclude_app: None,
    };
    let Some(pod) = pod_from_json(json, &everything) else {
        return;
    };
    assert_eq!(pod_from_json(json, &everything), Some(pod.clone()));
    let fits = |text: &str, longest| !text.is_empty() && text.len() <= longest && !text.contains(['/', '\n', '\0']);
    assert!(fits(pod.uid.as_str(), 64) && fits(&pod.namespace, 253) && fits(&pod.name, 253));
    assert!(pod.node.iter().all(|node| fits(node, 253)));
    for container in &pod.containers {
        assert!(fits(&container.name, 128));
        for instance in container.previous.iter().chain(container.state.instance()) {
            assert!(fits(instance.id.as_str(), 128));
        }
        // A step can be decided for it.
        drop(next_step(&pod, &container.name, None));
    }
    let selected = pod_from_json(json, &Selection::default());
    assert!(selected.is_none_or(|selected| selected == pod));
}

/// Selectors of any text are accepted or refused.
pub(crate) fn check_selectors(text: &str) {
    let scope = Scope {
        labels: Some(text.to_owned()),
        fields: Some(text.to_owned()),
        namespaces: vec![text.to_owned()],
        ..Scope::default()
    };
    drop(scope.check());
}

/// A stored checkpoint of any bytes is read or refused; what is read stays the same when it is stored again, and steps
/// can be decided on it. The same for keys.
pub(crate) fn check_stored(bytes: &[u8], pod: &Pod) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Some(key) = LockKey::parse(text)
    {
        assert_eq!(key.to_string(), text);
    }
    let Ok(checkpoint) = Checkpoint::decode(bytes) else {
        return;
    };
    let stored = checkpoint.encode();
    assert_eq!(Checkpoint::decode(&stored).ok(), Some(checkpoint.clone()));
    for (name, mark) in &checkpoint.containers {
        let at = |deleted| Pod { deleted, ..pod.clone() };
        for pod in [at(false), at(true)] {
            drop(next_step(&pod, name, Some(mark)));
            drop(next_step(&pod, "app", Some(mark)));
        }
        if let Some(position) = mark.position {
            check_begin(position);
        }
    }
}

/// A stored position of any values can be sought.
pub(crate) fn check_begin(position: Position) {
    let log = format!("{} x\n{} x\n", position.time, position.time.plus_nanos(1));
    for nth in [0, 1, u32::MAX] {
        for mode in [
            ResumeMode::After(position),
            ResumeMode::AfterEqualStamp { position, nth },
            ResumeMode::NewFile(position),
            ResumeMode::LaterStamps(position),
        ] {
            let mut decoder = LineDecoder::new(4096);
            assert!(read(&mut decoder, mode, log.as_bytes(), &[7], true).lines.len() <= 2);
        }
    }
}

/// A running pod with the container `app`, to be tested with checkpoints.
pub(crate) fn running() -> Pod {
    let json = r#"{"metadata":{"name":"p","namespace":"n","uid":"u"},"spec":{"containers":[{"name":"app"}]},
        "status":{"phase":"Running","containerStatuses":[{"name":"app","image":"","imageID":"","ready":true,
        "restartCount":3,"containerID":"x://id3","state":{"running":{}},
        "lastState":{"terminated":{"exitCode":1,"containerID":"x://id2"}}}]}}"#;
    let labels = BTreeMap::new();
    let pod = pod_from_json(json.as_bytes(), &Selection::default());
    pod.map_or_else(|| unreachable!("it is a pod"), |pod| Pod { labels, ..pod })
}
