//! Hostile values in every column of the two tables that podlog reads back: `distributed_lock` and `log_stream`. Each
//! pod has a row with one such value. Whatever can be collected is collected, and a pod without such a row is collected
//! completely.

use std::process::Command;

use kube_sim::{PodSpec, SimPod};
use podlog::domain::Fence;

use super::fixture::{HostileFixture, LIMIT, MARKER};
use super::names::{free_port, get};
use super::values::{HostileValue, ODD, bad, locks, quoted, streams};
use crate::chunks::{chunk, origin};
use crate::sinks::fixture::{SinkFixture, each_exact};

/// A pod that has written a line, for each of them.
fn pods(fixture: &HostileFixture, count: usize) -> Vec<(SimPod, String)> {
    let pod = |n| {
        let spec = PodSpec::new("shop", format!("bad-{n}")).node("n1").app("app");
        let pod = fixture.sim.create(spec).unwrap();
        let id = pod.start("app").unwrap();
        pod.line("app", "of bad").unwrap();
        (pod, id.trim_start_matches("containerd://").to_owned())
    };
    (0..count).map(pod).collect()
}

fn past(database: &SinkFixture) -> &'static str {
    if database.name == "sqlite" {
        "0"
    } else {
        "'2000-01-01 00:00:00'"
    }
}

/// Asserts that the password of the database is not printed. Alone it may be an ordinary word that is printed;
/// `SQLite` has none.
fn assert_no_password(url: &str, text: &str) {
    let Some((user, _)) = url.split_once('@') else { return };
    let (_, password) = user.rsplit_once(':').unwrap();
    for secret in [
        format!(":{password}@"),
        format!("password={password}"),
        format!("password: \"{password}\""),
    ] {
        assert!(!text.contains(&secret), "{text}");
    }
}

/// Runs a replica on the tables until the good pod and what else can be collected is, and of the others it has said
/// which they are.
async fn collect(database: &SinkFixture, fixture: &mut HostileFixture, values: &[HostileValue]) {
    let names = |collected| {
        let of = values
            .iter()
            .enumerate()
            .filter(move |(_, value)| value.collected == collected);
        of.map(|(n, _)| format!("bad-{n}")).collect::<Vec<_>>()
    };
    let port = free_port().await;
    fixture.write(50);
    fixture.run_with(&database.url, &database.url, &["--http", &format!("127.0.0.1:{port}")]);
    stored(database, fixture, &names(true)).await;
    log_names(fixture, &names(false)).await;
    let status = get(port, "/status").await;
    assert!(!status.contains(MARKER), "{status}");
    assert_no_password(&database.url, &status);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert!(status["pods"].is_array(), "{status}");
}

/// Nothing is skipped without a message to the operator.
async fn log_names(fixture: &mut HostileFixture, names: &[String]) {
    let is_logged = |log: &str, name: &str| {
        let mut loud = log
            .lines()
            .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
        loud.any(|line| {
            line.split(|c: char| !c.is_alphanumeric() && c != '-')
                .any(|word| word == name)
        })
    };
    for name in names {
        let what = format!("{name} is named in a warning");
        fixture
            .until(&what, async |fixture| is_logged(&fixture.log(), name))
            .await;
    }
}

/// Waits until the good pod is stored completely and something of these is.
async fn stored(database: &SinkFixture, fixture: &mut HostileFixture, names: &[String]) {
    let rest = "FROM log_stream s JOIN log_record r ON r.stream = s.id GROUP BY s.pod";
    let stored = async || -> std::collections::BTreeMap<String, usize> {
        let rows = database.rows(["s.pod", "COUNT(*)"], rest).await;
        let row = |row: &Vec<Option<String>>| (row[0].clone().unwrap(), row[1].as_ref().unwrap().parse().unwrap());
        rows.iter().map(row).collect()
    };
    fixture
        .until("the good pod is stored", async |_| {
            stored().await.get("good") == Some(&50)
        })
        .await;
    fixture.write(50);
    fixture
        .until("the good pod is stored completely", async |_| {
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
            fixture.log()
        );
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let messages = database
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

/// Rows of nothing that there is.
async fn add_phantom_rows(database: &SinkFixture) {
    let (far, no_text) = if database.name == "sqlite" {
        ("9223372036854775807", "CAST(x'ff2fff' AS TEXT)")
    } else {
        ("'9999-12-31 23:59:59.999999'", "x'ff2fff'")
    };
    let odd = quoted(ODD);
    let ids = [
        "'nonsense'",
        "'pod/'",
        "'replica/'",
        "'duty/'",
        "'replica/a phantom'",
        "'x/y'",
        no_text,
        &odd,
    ];
    let claims = ids.map(|id| ("'default'", id)).into_iter();
    let elsewhere = ["''", "'Default'", "'default '", no_text, &odd].map(|cluster| (cluster, "'replica/another'"));
    for (cluster, id) in claims.chain(elsewhere) {
        database
            .sql(&format!(
                "INSERT INTO distributed_lock (cluster, id, owner, fence, expires_at) \
                 VALUES ({cluster}, {id}, 'a phantom', 1, {far})"
            ))
            .await;
    }
}

/// What `podlog locks` shows and does about these pods is fit for a terminal and for a program.
fn look(url: &str, pods: usize) {
    let locks = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_podlog"));
        let output = command.arg("locks").args(more).args(["--lock", url]).output().unwrap();
        let texts = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        for text in &texts {
            assert_no_password(url, text);
            assert!(!text.contains("panicked"), "{text}");
            for line in text.lines() {
                assert!(!line.chars().any(char::is_control), "{line:?}");
            }
        }
        (output.status.code(), texts)
    };
    let (code, [_, said]) = locks(&["list"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, [shown, said]) = locks(&["list", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let shown: Vec<serde_json::Value> = serde_json::from_str(&shown).unwrap();
    assert!(shown.len() > pods, "{} rows", shown.len());
    for n in 0..pods {
        let (code, [shown, said]) = locks(&["release", &format!("shop/bad-{n}")]);
        assert_eq!(shown.is_empty(), code != Some(0), "{shown}{said}");
        assert_eq!(said.is_empty(), code == Some(0), "{shown}{said}");
    }
}

#[tokio::test]
async fn hostile_values_in_the_claims_table_affect_only_the_pod_of_their_row() {
    each_exact(async |database| {
        podlog::locks::migrate(&database.url.parse().unwrap()).await.unwrap();
        let mut fixture = HostileFixture::new().await;
        let values = locks(database);
        let pods = pods(&fixture, values.len());
        for (n, (value, (pod, _))) in values.iter().zip(&pods).enumerate() {
            let (uid, past) = (pod.uid(), past(database));
            database
                .sql(&format!(
                    "INSERT INTO distributed_lock (cluster, id, fence, expires_at) VALUES ('default', 'pod/{uid}', 7, {past})"
                ))
                .await;
            let (column, literal) = (value.column, &value.value);
            println!("bad-{n}: {column} = {}", &literal[..literal.len().min(60)]);
            database
                .sql(&format!("UPDATE distributed_lock SET {column} = {literal} WHERE id = 'pod/{uid}'"))
                .await;
        }
        add_phantom_rows(database).await;
        collect(database, &mut fixture, &values).await;
        look(&database.url, pods.len());
        fixture.end().await;
        assert_no_password(&database.url, &fixture.log());
    })
    .await;
}

/// Streams of nothing that there is.
async fn phantom_streams(database: &SinkFixture, time: &str) {
    let odd = quoted(ODD);
    let no_text = if database.name == "sqlite" {
        "CAST(x'fffe00ff' AS TEXT)"
    } else {
        "x'fffe00ff'"
    };
    for value in [no_text, &odd, "''"] {
        let pod = if value == no_text && database.name != "sqlite" {
            &odd
        } else {
            value
        };
        database
            .sql(&format!(
                "INSERT INTO log_stream (uid, container, container_id, namespace, pod, restart, labels, fence, \
                 created_at, updated_at) VALUES ({value}, {value}, {value}, 'shop', {pod}, 0, '{{}}', 0, {time}, {time})"
            ))
            .await;
    }
}

#[tokio::test]
async fn hostile_values_in_the_streams_table_affect_only_the_pod_of_their_row() {
    each_exact(async |database| {
        let mut fixture = HostileFixture::new().await;
        let mut values = streams(database);
        let pods = pods(&fixture, values.len() + 1);
        let time = past(database);
        phantom_streams(database, time).await;
        for (n, (pod, id)) in pods.iter().enumerate() {
            let (uid, name) = (pod.uid(), pod.name());
            database
                .sql(&format!(
                    "INSERT INTO log_stream (uid, container, container_id, namespace, pod, restart, labels, fence, \
                     created_at, updated_at) VALUES ('{uid}', 'app', '{id}', 'shop', '{name}', 0, '{{}}', 0, {time}, {time})"
                ))
                .await;
            let Some(value) = values.get(n) else { continue };
            let (column, literal) = (value.column, &value.value);
            println!("bad-{n}: {column} = {literal}");
            database
                .sql(&format!("UPDATE log_stream SET {column} = {literal} WHERE pod = '{name}'"))
                .await;
        }
        // The last one's records are there already, though its row says that there are none.
        let name = pods.last().unwrap().0.name();
        database
            .sql(&format!(
                "INSERT INTO log_record (stream, seq, time_ns, ordinal, message) \
                 SELECT id, 0, 1, 0, x'00' FROM log_stream WHERE pod = '{name}'"
            ))
            .await;
        values.push(bad("records", "some", false));
        collect(database, &mut fixture, &values).await;
        fixture.end().await;
        let log = fixture.log();
        assert_no_password(&database.url, &log);
        let loud = log.lines().filter(|line| !line.contains(" DEBUG ")).count();
        // A pod that cannot be stored is tried again, but not all the time.
        assert!(loud < 1000, "{loud} lines");
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_cannot_be_stored_does_not_block_other_streams_of_the_same_request() {
    each_exact(async |database| {
        let running = database.open().await;
        let (poison, full, fine) = (origin("poison"), origin("full"), origin("fine"));
        for stream in [&poison, &full, &fine] {
            running.sink.open(stream, Fence(1)).await.unwrap();
        }
        database
            .sql("UPDATE log_stream SET seq = 9223372036854775806 WHERE uid = 'full'")
            .await;
        let insert = "INSERT INTO log_record (stream, seq, time_ns, ordinal, message) \
            SELECT id, 1, 1, 0, x'00' FROM log_stream WHERE uid = 'poison'";
        database.sql(insert).await;
        let lines: [(i64, u32, &[u8]); 3] = [(1, 0, b"a"), (2, 0, b"b"), (3, 0, b"c")];
        let chunks = [&poison, &full, &fine].map(|stream| chunk(stream, 1, None, &lines));
        // It is tried again for as long as the claim is good, which is for ever.
        let mut answers = running.sink.write(&chunks);
        let stored = async {
            while database.read(&fine).await != crate::sinks::fixture::unchanged(&lines) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let stored = tokio::time::timeout(LIMIT, stored);
        tokio::select! {
            answers = &mut answers => panic!("{answers:?}"),
            stored = stored => stored.expect("everything that can be stored is stored"),
        }
        assert_eq!(database.read(&full).await, []);
        assert_eq!(database.read(&poison).await.len(), 1, "only what was in the way");
    })
    .await;
}
