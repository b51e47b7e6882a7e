//! A replica that is suspended while the real kubelet rotates the logs it follows: the log of a pod that continues, and
//! of a pod that ends during the suspension. Needs a kubelet that rotates logs at 1 MiB within a few seconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::sleep;

use crate::audit::Records;
use crate::fixture::{self, Fixture, PATIENCE, pod, print_line, until};
use crate::node_logs::NodeLogRecorder;
use crate::rights::{stored, tables};

/// Seconds after its creation at which a pod writes [`MUCH`] at once; it must have started by then.
const LEAD: u64 = 40;

/// How long the replica is stopped: shorter than its claims last, and longer than the kubelet takes to rotate.
const STOPPED: Duration = Duration::from_secs(7);

/// Much: 12 MiB, which is more than what lies in sockets on the way, so the kubelet's reader is held up.
const LINES: usize = 30_000;

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// Numbered lines, one at once, all the others at the second `at`, and one more when the log has been rotated.
fn script(at: u64, end: &str) -> String {
    let fill = "x".repeat(400);
    format!(
        "echo n=1 first; until [ $(date +%s) -ge {at} ]; do sleep 0.1; done; \
         seq 2 {LINES} | sed 's/$/ {fill}/; s/^/n=/'; sleep 5; echo n={} then; {end}",
        LINES + 1
    )
}

/// The files there are of a pod's only container.
fn files(fixture: &Fixture, name: &str, uid: &str) -> usize {
    let folder = format!("/var/log/pods/{}_{name}_{uid}/app", fixture.namespace);
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "60,000 lines at once slow the other tests: run alone with --ignored"]
async fn a_reader_paused_during_a_rotation_and_an_exit_reports_every_lost_line() {
    fixture::run(async |fixture| {
        let Some(node_logs) = NodeLogRecorder::watch(&fixture.namespace) else {
            return;
        };
        let mut replica = fixture.replica("a");
        tables(&fixture).await;
        let at = now().as_secs() + LEAD;
        let ends = [("stays", "sleep 600"), ("leaves", "exit 0")];
        let mut uids = Vec::new();
        for (name, end) in ends {
            uids.push(fixture.create(&pod(name, "Never", &script(at, end))).await);
        }
        for (name, _) in ends {
            stored(&fixture, name, 1).await;
        }
        let left = Duration::from_secs(at).saturating_sub(now() + Duration::from_millis(500));
        assert!(!left.is_zero(), "the pods took longer than {LEAD} s to start");
        sleep(left).await;
        replica.freeze();
        sleep(STOPPED).await;
        let rotated: Vec<usize> = (0..2).map(|n| files(&fixture, ends[n].0, &uids[n])).collect();
        replica.thaw();
        for (name, _) in ends {
            until("the last line is stored", PATIENCE, async || {
                let records = Records::load(&mut fixture.sql().await).await;
                let streams = records.of_pod(name);
                let last = streams.iter().find_map(|(_, lines)| lines.last());
                let ends = last.is_some_and(|line| line.message.ends_with(b"then"));
                ends.then_some(()).ok_or(format!(
                    "{name}: {} lines",
                    streams.iter().map(|(_, lines)| lines.len()).sum::<usize>()
                ))
            })
            .await;
        }
        fixture.delete("stays").await;
        replica.terminate();
        replica.ended().await;
        let records = Records::load(&mut fixture.sql().await).await;
        let written = node_logs.lines();
        let sum = records.audit(&written);
        print_line(&format!("e2e: suspended during a rotation, files {rotated:?}: {sum}"));
        assert!(
            rotated.iter().all(|files| *files > 1),
            "not both logs were rotated during the suspension: {rotated:?}"
        );
        if sum.lost > 0 {
            records.explain(&written);
        }
        assert_eq!((sum.lost, sum.duplicated, sum.out_of_order), (0, 0, 0), "{sum}");
        // After a gap the first line may be the end of one: the runtime may begin a file in the middle of a line, and
        // the API does not show that.
        assert!(sum.foreign <= records.gaps.len() as u64, "{sum}");
    })
    .await;
}
