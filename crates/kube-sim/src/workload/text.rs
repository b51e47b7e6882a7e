//! The lines that the pods of a workload write: mostly ordinary ones, and some that are hard to collect. It only makes
//! texts.

use fastrand::Rng;

use crate::Text;

const VERBS: [&str; 6] = ["accepted", "rejected", "stored", "retried", "forwarded", "cancelled"];
const THINGS: [&str; 6] = ["order", "payment", "session", "document", "upload", "query"];

/// A line of any kind. `number` is different for each line of a pod, so that most lines are unique.
pub(super) fn any(rng: &mut Rng, number: u64) -> Text {
    match rng.u32(..10_000) {
        0..100 => Text::out(""),
        100..300 => Text::out("heartbeat ok"),
        300..350 => Text::err(&b"broken \xff\xfe bytes \x80 in a line"[..]),
        350..353 => long(rng, number),
        353..450 => Text::err(trace(rng, number)),
        // A message that begins like a timestamp.
        450..500 => Text::out(format!("2001-01-01T00:00:00.000000000Z imported record {number}")),
        500..3_500 => Text::out(json(rng, number)),
        3_500..4_500 => Text::err(format!(
            "WARN slow {} {number}: {} ms",
            rng.choice(THINGS).unwrap_or(""),
            rng.u32(..9_000)
        )),
        _ => plain(rng, number),
    }
}

/// An ordinary line.
pub(super) fn plain(rng: &mut Rng, number: u64) -> Text {
    let verb = rng.choice(VERBS).unwrap_or_default();
    let thing = rng.choice(THINGS).unwrap_or_default();
    Text::out(format!(
        "INFO {thing} {number} {verb} in {} ms by worker {}",
        rng.u32(1..900),
        rng.u32(..16)
    ))
}

fn json(rng: &mut Rng, number: u64) -> String {
    let verb = rng.choice(VERBS).unwrap_or_default();
    format!(
        r#"{{"level":"info","n":{number},"msg":"{verb}","user":"u{}","trace":"{:016x}"}}"#,
        rng.u32(..5_000),
        rng.u64(..)
    )
}

/// A stack trace: several lines in one write.
fn trace(rng: &mut Rng, number: u64) -> String {
    let mut trace = format!("ERROR request {number} failed: timeout");
    for _ in 0..rng.u32(2..8) {
        let thing = rng.choice(THINGS).unwrap_or_default();
        trace = format!("{trace}\n\tat com.example.{thing}.run(Main.java:{})", rng.u32(..400));
    }
    trace
}

/// A line that is longer than one record of the runtime.
fn long(rng: &mut Rng, number: u64) -> Text {
    let mut line = format!("dump {number} ");
    let size = rng.usize(17_000..40_000);
    while line.len() < size {
        line.push(rng.alphanumeric());
    }
    Text::out(line)
}
