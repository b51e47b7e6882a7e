//! Names, labels and annotations that are as long and as unusual as an API server permits, and some that it would not
//! permit.

use kube_sim::{PodSpec, Target};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::fixture::{HostileFixture, MARKER};
use super::proxy::{OPEN_END, RawAnswer};

/// Text that breaks SQL, paths, terminals and JSON if it is not escaped.
const ODD: &str = "\"'`);DROP TABLE log_record;--\\ \n\r\t\0\u{1b}[31m\u{9b}\u{202e}💥 {\"a\":1} %s %n ${x} </script>";

pub(crate) async fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: podlog\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// A port on which no program listens.
pub(crate) async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

/// A pod of the longest names there are, with odd labels and annotations, that has written odd lines.
fn long(fixture: &HostileFixture) -> [String; 3] {
    let [namespace, name, container] = ["n", "p", "c"].map(|letter| letter.repeat(63));
    let spec = PodSpec::new(&namespace, &name)
        .node("d".repeat(63))
        .app(&container)
        .label("example.com/odd", ODD)
        .label(ODD, "x")
        .annotation("example.com/odd", ODD)
        .annotation(ODD, ODD)
        .annotation("podlog.io/collect", ODD);
    let pod = fixture.sim.create(spec).unwrap();
    pod.start(&container).unwrap();
    for line in ODD.split('\n') {
        pod.line(&container, line).unwrap();
    }
    [namespace, name, container]
}

#[tokio::test]
async fn the_longest_names_and_unusual_labels_are_unchanged_in_files_and_status_and_absent_from_metrics() {
    let mut fixture = HostileFixture::new().await;
    let [namespace, name, container] = long(&fixture);
    fixture.write(50);
    let port = free_port().await;
    let path = fixture.dir.path().display().to_string();
    let (lock, sink) = (format!("sqlite://{path}/locks.db"), format!("file://{path}/records"));
    fixture.run_with(&lock, &sink, &["--http", &format!("127.0.0.1:{port}")]);
    let expected: Vec<&str> = ODD.split('\n').collect();
    fixture
        .until("the pod with unusual names is stored", async |fixture| {
            fixture.messages().get(&name).is_some_and(|lines| *lines == expected)
        })
        .await;
    fixture.good_pod_is_stored().await;
    let records = fixture.records();
    let record = records
        .iter()
        .find(|record| record["kubernetes"]["pod"] == name.as_str())
        .unwrap();
    let about = &record["kubernetes"];
    assert_eq!(about["labels"]["example.com/odd"], ODD);
    assert_eq!(about["labels"][ODD], "x");
    assert_eq!(about["namespace"], namespace.as_str());
    assert_eq!(about["container"], container.as_str());
    let metrics = get(port, "/metrics").await;
    assert!(metrics.contains("podlog_pods_held 2\n"), "{metrics}");
    for word in [&*name, "shop", "example.com", "DROP", MARKER] {
        assert!(!metrics.contains(word), "{word} in {metrics}");
    }
    let status = get(port, "/status").await;
    assert!(!status.contains(MARKER));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let names: Vec<_> = status["pods"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| &pod["pod"])
        .collect();
    assert!(names.contains(&&serde_json::json!(name)), "{names:?}");
    fixture.end().await;
}

#[tokio::test]
async fn the_longest_names_and_unusual_labels_are_unchanged_in_every_database() {
    crate::sinks::fixture::each_exact(async |database| {
        let mut fixture = HostileFixture::new().await;
        let [_, name, container] = long(&fixture);
        fixture.write(50);
        let path = fixture.dir.path().display().to_string();
        fixture.run_with(&format!("sqlite://{path}/locks.db"), &database.url, &[]);
        let of = |pod: &str| format!("FROM log_record r JOIN log_stream s ON s.id = r.stream WHERE s.pod = '{pod}'");
        let is = async |pod: &str, count: &str| {
            let rows = database.rows(["COUNT(*)"], &of(pod)).await;
            rows[0][0].as_deref() == Some(count)
        };
        fixture
            .until("both pods are stored", async |_| {
                is(&name, "2").await && is("good", "50").await
            })
            .await;
        let rest = format!("FROM log_stream WHERE pod = '{name}'");
        let row = database.rows(["labels", "container"], &rest).await.remove(0);
        let labels: serde_json::Value = serde_json::from_str(row[0].as_deref().unwrap()).unwrap();
        assert_eq!(labels["example.com/odd"], ODD);
        assert_eq!(labels[ODD], "x");
        assert_eq!(row[1].as_deref(), Some(&*container));
        fixture.end().await;
    })
    .await;
}

/// Pods that only a server that lies could show: names with control characters, and identities of any length.
fn impossible() -> String {
    let names = [
        ODD.to_owned(),
        "../../../etc/passwd".to_owned(),
        "evil\n2026-11-20T10:47:01.000000Z ERROR podlog: all is lost\u{1b}[2J".to_owned(),
        "x".repeat(10_000),
        String::new(),
        "/".to_owned(),
    ];
    let mut pods = Vec::new();
    for (n, name) in names.iter().enumerate() {
        for (m, uid) in [format!("uid-{n}"), format!("{name}{n}"), name.clone()]
            .into_iter()
            .enumerate()
        {
            let state = serde_json::json!({"running": {"startedAt": "2026-11-20T10:47:01Z"}});
            let container = if m == 0 { name.as_str() } else { "app" };
            let namespace = if m == 2 { name.as_str() } else { "shop" };
            pods.push(serde_json::json!({
                "metadata": {"name": name, "namespace": namespace, "uid": uid, "labels": {"a": name}},
                "spec": {"nodeName": name, "containers": [{"name": container}]},
                "status": {"phase": "Running", "containerStatuses": [{"name": container, "image": "", "imageID": "",
                    "ready": true, "restartCount": -7, "containerID": format!("x://{name}"), "state": state}]},
            }));
        }
    }
    let events = pods
        .iter()
        .map(|pod| serde_json::json!({"type": "ADDED", "object": pod}).to_string() + "\n");
    events.collect()
}

#[tokio::test]
async fn pods_with_impossible_names_do_not_keep_others_from_being_claimed_and_stored() {
    let mut fixture = HostileFixture::new().await;
    fixture.write(20);
    fixture.run();
    fixture.good_pod_is_stored().await;
    let was_sent = std::sync::atomic::AtomicBool::new(false);
    fixture.proxy.rule(move |head| {
        let watch = head.starts_with("GET /api/v1/pods?") && head.contains("watch=");
        let first = watch && !was_sent.swap(true, std::sync::atomic::Ordering::Relaxed);
        first.then(|| RawAnswer::Long {
            head: OPEN_END.as_bytes().to_vec(),
            piece: impossible().into_bytes(),
            times: 1,
            tail: Vec::new(),
        })
    });
    fixture.sim.cut(&Target::watches(), kube_sim::Cut::Reset);
    fixture
        .until("they were shown", async |fixture| fixture.proxy.matched() >= 1)
        .await;
    let late = fixture
        .sim
        .create(PodSpec::new("shop", "late").node("n1").app("app"))
        .unwrap();
    late.start("app").unwrap();
    late.line("app", "late 0").unwrap();
    fixture.write(20);
    fixture.good_pod_is_stored().await;
    fixture
        .until("a pod that came later is claimed and stored", async |fixture| {
            fixture.messages().get("late").is_some_and(|lines| lines == &["late 0"])
        })
        .await;
    fixture.end().await;
}
