//! The pods of the suite and the scripts that run in them.
//!
//! Lines are numbered per container instance (`n=NUMBER `), except where the exact bytes matter. Writers stop by
//! themselves at a given second, so that no line is cut.

use serde_json::{Value, json};

use crate::fixture::{container, pod};

/// Writes `count` numbered lines of about `width` bytes, then sleeps for `pause` seconds, until `end`.
/// Every `err`-th line goes to stderr, when that is not 0.
fn writer(end: u64, count: u32, width: usize, pause: &str, err: u32) -> String {
    let fill = "x".repeat(width.saturating_sub(20));
    let line = match err {
        0 => format!("echo \"n=$n {fill}\""),
        err => format!("if [ $((n % {err})) = 0 ]; then echo \"n=$n {fill}\" >&2; else echo \"n=$n {fill}\"; fi"),
    };
    format!(
        "n=0; while [ $(date +%s) -lt {end} ]; do i=0; while [ $i -lt {count} ]; do n=$((n+1)); i=$((i+1)); {line}; \
         done; sleep {pause}; done"
    )
}

/// Writes numbered lines and ends.
fn count_to(count: u32) -> String {
    format!("n=0; while [ $n -lt {count} ]; do n=$((n+1)); echo \"n=$n of {count}\"; done")
}

/// Lines whose exact bytes matter: blank ones, equal ones, bytes that are not UTF-8, long ones, and a last one without
/// a line end. Written at once, and again with pauses.
fn odd(pause: &str) -> String {
    format!(
        "for round in 1 2 3; do echo; echo; echo same; echo same; echo same; sleep {pause}; echo same; \
         printf '\\377\\376\\000\\200 bytes\\n'; printf '\\303\\050\\n'; printf '  blanks  \\n'; printf '\\r\\n'; \
         sleep {pause}; done; printf 'no line end'"
    )
}

/// A line of `size` bytes: `size` times the same letter.
fn long(size: usize) -> String {
    format!("head -c {size} /dev/zero | tr '\\0' l; echo")
}

/// A job of about a second.
pub(crate) fn job(name: &str) -> Value {
    let script = format!("{}; sleep 1; echo n=31 last", count_to(30));
    pod(name, "Never", &script)
}

/// A pod that ends by itself, written by `script`.
pub(crate) fn ending(name: &str, script: &str) -> Value {
    pod(name, "Never", script)
}

pub(crate) fn chatty(name: &str, end: u64) -> Value {
    ending(name, &writer(end, 10, 100, "0.5", 0))
}

fn crashing(name: &str, end: u64) -> Value {
    let script = format!("{}; sleep 0.3; [ $(date +%s) -lt {end} ]", count_to(12));
    let mut pod = pod(name, "OnFailure", &format!("{script} && exit 1; exit 0"));
    pod["spec"]["restartPolicy"] = json!("OnFailure");
    pod
}

fn several(name: &str, end: u64) -> Value {
    let mut sidecar = container("side", &writer(end + 600, 2, 60, "1", 0));
    sidecar["restartPolicy"] = json!("Always");
    let containers = [
        container("app", &writer(end, 5, 80, "0.5", 3)),
        container("second", &writer(end, 1, 80, "3", 0)),
    ];
    json!({"metadata": {"name": name}, "spec": {"restartPolicy": "Never", "containers": containers,
        "initContainers": [container("init", &count_to(20)), sidecar]}})
}

/// The pods that exist from the start. They stop writing at the second `end`.
pub(crate) fn all(end: u64) -> Vec<Value> {
    let mut pods = Vec::new();
    let mut add = |kind: &str, count: usize, make: &dyn Fn(&str) -> Value| {
        pods.extend((0..count).map(|n| make(&format!("{kind}-{n}"))));
    };
    add("chatty", 18, &|name| chatty(name, end));
    add("both", 4, &|name| ending(name, &writer(end, 5, 100, "0.5", 2)));
    // 40 KB/s fill 1 MiB in 26 s. They are silent before they end: if a log is rotated while its container ends,
    // nobody can know whether the last stored line was the last one written.
    let rotating = format!("{}; sleep 5", writer(end, 50, 400, "0.5", 0));
    add("rotating", 6, &|name| ending(name, &rotating));
    // First one line and time to read it, because lines rotated away before a log was ever read leave no trace. Then
    // rounds of 400 lines of 2 KB as fast as the shell can write them, several MiB in all, then a pause.
    let burst = "b=0; while [ $b -lt 6 ]; do b=$((b+1)); sleep 0.7; ";
    let text = "x".repeat(2000);
    let burst = format!(
        "n=1; echo \"n=1 {text}\"; sleep 20; while [ $(date +%s) -lt {} ]; do {burst} i=0; while [ $i -lt 400 ]; do n=$((n+1)); i=$((i+1)); \
         echo \"n=$n {text}\"; done; done; sleep 15; done",
        end - 20
    );
    add("burst", 2, &|name| ending(name, &burst));
    add("quiet", 8, &|name| ending(name, &writer(end, 1, 60, "15", 0)));
    add("job", 6, &job);
    add("crash", 4, &|name| crashing(name, end));
    add("several", 4, &|name| several(name, end));
    let sizes = [16_383, 16_384, 16_385, 50_000, 262_144, 262_145, 400_000];
    let lengths: Vec<String> = sizes.iter().map(|size| long(*size)).collect();
    let lengths = format!(
        "sleep 2; for r in 1 2 3; do {}; echo short; sleep 8; done",
        lengths.join("; ")
    );
    add("long", 2, &|name| ending(name, &lengths));
    add("odd", 3, &|name| ending(name, &odd("0.2")));
    add("oddslow", 2, &|name| ending(name, &odd("6")));
    add("deleted", 4, &|name| chatty(name, end));
    add("again", 2, &|name| chatty(name, end));
    pods
}
