//! Hostile values in every column of the two tables that podlog reads back: `distributed_lock` and `log_stream`. Each
//! pod has a row with one of them; what can be collected is, and the pod beside is collected whole.

use std::fmt::Write as _;
use std::process::Command;

use podlog::domain::Fence;
use podlog::sim::{PodSpec, SimPod};

use super::stand::{MARKER, Stand};
use crate::sinks::stream::{chunk, origin};
use crate::sinks::world::{Place, each_exact};

/// Text that podlog never writes.
const ODD: &str = "\\'\"`;--\n\r\t\u{1b}[31m\u{9b}💥";

/// A value for one column, as SQL, and whether the pod can be collected all the same.
struct Bad {
    column: &'static str,
    value: String,
    collected: bool,
}

fn bad(column: &'static str, value: impl Into<String>, collected: bool) -> Bad {
    let value = value.into();
    Bad {
        column,
        value,
        collected,
    }
}

fn quoted(text: &str) -> String {
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
fn checkpoints() -> Vec<Bad> {
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
    let mut all: Vec<Bad> = texts
        .iter()
        .map(|(text, collected)| bad("checkpoint", bytes(text), *collected))
        .collect();
    all.push(bad("checkpoint", "x'fffe00'", false));
    all.push(bad("checkpoint", "x''", true));
    all
}

fn locks(place: &Place) -> Vec<Bad> {
    let mut all = checkpoints();
    if place.name == "sqlite" {
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

/// A pod that has written a line, for each of them.
fn pods(stand: &Stand, count: usize) -> Vec<(SimPod, String)> {
    let pod = |n| {
        let spec = PodSpec::new("shop", format!("bad-{n}")).node("n1").app("app");
        let pod = stand.sim.create(spec).unwrap();
        let id = pod.start("app").unwrap();
        pod.line("app", "of bad").unwrap();
        (pod, id.trim_start_matches("containerd://").to_owned())
    };
    (0..count).map(pod).collect()
}

fn past(place: &Place) -> &'static str {
    if place.name == "sqlite" {
        "0"
    } else {
        "'2000-01-01 00:00:00'"
    }
}

/// Runs a replica on the tables until the good pod and what else can be collected is.
async fn collect(place: &Place, stand: &mut Stand, names: &[String]) {
    stand.write(50);
    stand.run_with(&place.url, &place.url, &["--log-level", "info"]);
    let rest = "FROM log_stream s JOIN log_record r ON r.stream = s.id GROUP BY s.pod";
    let stored = async || -> std::collections::BTreeMap<String, usize> {
        let rows = place.rows(["s.pod", "COUNT(*)"], rest).await;
        let row = |row: &Vec<Option<String>>| (row[0].clone().unwrap(), row[1].as_ref().unwrap().parse().unwrap());
        rows.iter().map(row).collect()
    };
    stand
        .until("the good pod is stored", async |_| {
            stored().await.get("good") == Some(&50)
        })
        .await;
    stand.write(50);
    stand
        .until("the good pod is stored whole", async |_| {
            stored().await.get("good") == Some(&100)
        })
        .await;
    let begun = std::time::Instant::now();
    loop {
        let now = stored().await;
        let missing: Vec<_> = names.iter().filter(|name| !now.contains_key(*name)).collect();
        if missing.is_empty() {
            break;
        }
        assert!(
            begun.elapsed().as_secs() < 90,
            "never stored: {missing:?}\n{}",
            stand.log()
        );
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let messages = place
        .rows(["message"], "FROM log_line WHERE pod = 'good' ORDER BY seq")
        .await;
    let expected: Vec<String> = (0..100).map(|n| format!("good {n}")).collect();
    assert_eq!(
        messages
            .into_iter()
            .map(|mut row| row.remove(0).unwrap())
            .collect::<Vec<_>>(),
        expected
    );
}

#[tokio::test]
async fn hostile_values_in_the_table_of_claims_cost_at_most_the_pod_they_are_of() {
    each_exact(async |place| {
        podlog::locks::migrate(&place.url.parse().unwrap()).await.unwrap();
        let mut stand = Stand::new().await;
        let values = locks(place);
        let pods = pods(&stand, values.len());
        let mut expected = Vec::new();
        for (n, (value, (pod, _))) in values.iter().zip(&pods).enumerate() {
            let (uid, past) = (pod.uid(), past(place));
            place
                .sql(&format!(
                    "INSERT INTO distributed_lock (cluster, id, fence, expires_at) VALUES ('default', 'pod/{uid}', 7, {past})"
                ))
                .await;
            let (column, literal) = (value.column, &value.value);
            println!("bad-{n}: {column} = {}", &literal[..literal.len().min(60)]);
            place
                .sql(&format!("UPDATE distributed_lock SET {column} = {literal} WHERE id = 'pod/{uid}'"))
                .await;
            if value.collected {
                expected.push(format!("bad-{n}"));
            }
        }
        let far = if place.name == "sqlite" { "9223372036854775807" } else { "'9999-12-31 23:59:59.999999'" };
        let no_text = if place.name == "sqlite" { "CAST(x'ff2fff' AS TEXT)" } else { "x'ff2fff'" };
        for id in ["'nonsense'", "'pod/'", "'replica/'", "'duty/'", "'replica/a phantom'", "'x/y'", no_text, &quoted(ODD)] {
            place
                .sql(&format!(
                    "INSERT INTO distributed_lock (cluster, id, owner, fence, expires_at) VALUES ('default', {id}, 'a phantom', 1, {far})"
                ))
                .await;
        }
        collect(place, &mut stand, &expected).await;
        list(place);
        stand.end().await;
    })
    .await;
}

/// What `podlog locks list` shows of them is fit for a terminal.
fn list(place: &Place) {
    let output = Command::new(env!("CARGO_BIN_EXE_podlog"))
        .args(["locks", "list", "--lock", &place.url])
        .output()
        .unwrap();
    let (shown, said) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{said}");
    for line in shown.lines().chain(said.lines()) {
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

fn streams(place: &Place) -> Vec<Bad> {
    let (least, most) = ("-9223372036854775807 - 1", "9223372036854775807");
    let mut all = vec![
        bad("fence", "-1", false),
        bad("fence", least, false),
        bad("fence", most, false),
        bad("seq", most, false),
        bad("seq", least, true),
        bad("seq", "-1", true),
        bad("hash = 0, ordinal = 0, time_ns", least, false),
        bad("hash = 0, ordinal = 0, time_ns", most, false),
        bad("hash = -1, time_ns = 5, ordinal", most, false),
        bad("hash = -1, time_ns = 5, ordinal", "-1", false),
        bad("hash = -1, ordinal = NULL, time_ns", "5", true),
        bad("namespace", quoted(ODD), true),
        bad("node", quoted(ODD), true),
    ];
    if place.name == "sqlite" {
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

#[tokio::test]
async fn hostile_values_in_the_table_of_streams_cost_at_most_the_pod_they_are_of() {
    each_exact(async |place| {
        let mut stand = Stand::new().await;
        let values = streams(place);
        let pods = pods(&stand, values.len() + 1);
        let time = if place.name == "sqlite" { "0" } else { "'2000-01-01 00:00:00'" };
        let mut expected = Vec::new();
        for (n, (pod, id)) in pods.iter().enumerate() {
            let (uid, name) = (pod.uid(), pod.name());
            place
                .sql(&format!(
                    "INSERT INTO log_stream (uid, container, container_id, namespace, pod, restart, labels, fence, \
                     created_at, updated_at) VALUES ('{uid}', 'app', '{id}', 'shop', '{name}', 0, '{{}}', 0, {time}, {time})"
                ))
                .await;
            let Some(value) = values.get(n) else { continue };
            let (column, literal) = (value.column, &value.value);
            println!("bad-{n}: {column} = {literal}");
            place
                .sql(&format!("UPDATE log_stream SET {column} = {literal} WHERE pod = '{name}'"))
                .await;
            if value.collected {
                expected.push(format!("bad-{n}"));
            }
        }
        // The last one's records are there already, though its row says that there are none.
        let name = pods.last().unwrap().0.name();
        place
            .sql(&format!(
                "INSERT INTO log_record (stream, seq, time_ns, ordinal, message) \
                 SELECT id, 0, 1, 0, x'00' FROM log_stream WHERE pod = '{name}'"
            ))
            .await;
        collect(place, &mut stand, &expected).await;
        stand.end().await;
        let log = stand.log();
        // A pod that cannot be stored is tried again, but not all the time.
        assert!(log.lines().count() < 1000, "{} lines", log.lines().count());
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_cannot_be_stored_does_not_keep_others_of_its_request_from_being_stored() {
    each_exact(async |place| {
        let running = place.open().await;
        let (poison, full, fine) = (origin("poison"), origin("full"), origin("fine"));
        for stream in [&poison, &full, &fine] {
            running.sink.open(stream, Fence(1)).await.unwrap();
        }
        place
            .sql("UPDATE log_stream SET seq = 9223372036854775806 WHERE uid = 'full'")
            .await;
        let insert = "INSERT INTO log_record (stream, seq, time_ns, ordinal, message) \
            SELECT id, 1, 1, 0, x'00' FROM log_stream WHERE uid = 'poison'";
        place.sql(insert).await;
        let lines: [(i64, u32, &[u8]); 3] = [(1, 0, b"a"), (2, 0, b"b"), (3, 0, b"c")];
        let chunks = [&poison, &full, &fine].map(|stream| chunk(stream, 1, None, &lines));
        // It is tried again for as long as the claim is good, which is for ever.
        let wait = std::time::Duration::from_secs(3);
        let answers = tokio::time::timeout(wait, running.sink.write(&chunks)).await;
        println!("{answers:?}");
        assert_eq!(place.read(&fine).await, crate::sinks::world::as_said(&lines));
        assert_eq!(place.read(&full).await, []);
        assert_eq!(place.read(&poison).await.len(), 1, "only what was in the way");
    })
    .await;
}
