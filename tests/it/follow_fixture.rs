//! A pod on the simulated cluster and everything needed to follow it, on a paused clock. It asserts only that what a
//! test waits for happens.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use kube_sim::{PodSpec, RestartPolicy, SimCluster, SimPod};
use podlog::clock::Clock;
use podlog::cluster::{BURST, Cluster, StreamLimiter, StreamLimits};
use podlog::domain::{Checkpoint, Deadline, Fence, Pod};
use podlog::follow::stall_detector::StallDetector;
use podlog::follow::{Context, PodAssignment, ReadSettings, TaskEnd, follow};
use podlog::grant::Grant;
use podlog::metrics::Metrics;
use podlog::unread::UnreadLogs;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::recording_sink::RecordingSink;

pub(crate) const MINUTE: Duration = Duration::from_mins(1);

/// Room for more streams than any test has, at the usual rate.
const ROOM: StreamLimits = StreamLimits {
    per_node: 64,
    total: 1000,
    opens_per_second: 50.0,
    burst: BURST,
};

/// A pod `shop/cart` with one container `app`, and what is needed to follow it.
pub(crate) struct FollowFixture {
    pub(crate) sim: SimCluster,
    pub(crate) cluster: Cluster,
    pub(crate) pod: SimPod,
    pub(crate) sink: RecordingSink,
    pub(crate) metrics: Metrics,
    pub(crate) unread: UnreadLogs,
    pub(crate) known: watch::Sender<Arc<Pod>>,
    pub(crate) progress: watch::Receiver<Checkpoint>,
    pub(crate) grant: Grant,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: JoinSet<TaskEnd>,
    stalls: JoinSet<Infallible>,
}

impl FollowFixture {
    /// The pod exists and `app` runs. No task follows it yet.
    pub(crate) async fn new(settings: kube_sim::SimSettings, policy: RestartPolicy) -> Self {
        let sim = SimCluster::new(settings);
        let spec = PodSpec::new("shop", "cart")
            .node("n1")
            .app("app")
            .restart_policy(policy);
        let pod = sim.create(spec).unwrap();
        pod.start("app").unwrap();
        let metrics = Metrics::default();
        let cluster = Cluster::over(sim.service(), metrics.clone());
        let now = cluster.pod("shop", "cart").await.unwrap().unwrap();
        Self {
            sim,
            cluster,
            pod,
            sink: RecordingSink::default(),
            unread: UnreadLogs::new(Clock::tokio(), metrics.clone()),
            metrics,
            known: watch::channel(Arc::new(now)).0,
            progress: watch::channel(Checkpoint::default()).1,
            grant: Grant::new(Fence(0), Deadline::new(Duration::ZERO), Clock::tokio()),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
            stalls: JoinSet::new(),
        }
    }

    pub(crate) async fn running() -> Self {
        Self::new(kube_sim::SimSettings::default(), RestartPolicy::Always).await
    }

    /// Follows the pod from the checkpoint that was reached last.
    pub(crate) fn follow(&mut self) {
        let clock = Clock::tokio();
        let stall_detector = StallDetector::new(clock);
        let stalls = stall_detector.clone();
        self.stalls = JoinSet::new();
        self.stalls.spawn(async move { stalls.run().await });
        let context = Context {
            cluster: self.cluster.clone(),
            limiter: StreamLimiter::new(ROOM, &self.metrics),
            sink: Arc::new(self.sink.clone()),
            metrics: self.metrics.clone(),
            clock,
            stall_detector,
            unread: self.unread.clone(),
            settings: ReadSettings {
                max_line: 256 * 1024,
                chunk_bytes: 64 * 1024,
                chunk_age: Duration::from_millis(200),
                reopen: 30 * MINUTE,
                probe: MINUTE,
                poll: Duration::from_secs(5),
            },
        };
        let (progress, seen) = watch::channel(self.progress.borrow().clone());
        self.progress = seen;
        self.grant = Grant::new(
            Fence(1),
            Deadline::new(clock.now() + Duration::from_hours(10_000)),
            clock,
        );
        self.stop = CancellationToken::new();
        let assignment = PodAssignment {
            pod: self.known.subscribe(),
            grant: self.grant.clone(),
            progress,
            stop: self.stop.clone(),
        };
        self.tasks.spawn(follow(Arc::new(context), assignment));
    }

    /// Lets the follower learn what the API server says of the pod now.
    pub(crate) async fn refresh(&self) {
        let now = self.cluster.pod("shop", "cart").await.unwrap();
        self.known.send_modify(|known| {
            *known = Arc::new(now.unwrap_or_else(|| Pod {
                deleted: true,
                ..Pod::clone(known)
            }));
        });
    }

    pub(crate) fn lines(&self, texts: impl IntoIterator<Item = impl Into<String>>) {
        for text in texts {
            self.pod.line("app", text.into()).unwrap();
        }
    }

    /// Waits until `app` is stored exactly as given, over all its instances.
    pub(crate) async fn stored(&self, expected: &[&str]) {
        let reached = async {
            while self.sink.messages("app") != expected {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let limit = tokio::time::timeout(10 * MINUTE, reached).await;
        assert!(
            limit.is_ok(),
            "stored {:?}\nexpected {expected:?}",
            self.sink.messages("app")
        );
    }

    pub(crate) async fn ended(&mut self) -> TaskEnd {
        tokio::time::timeout(10 * MINUTE, self.tasks.join_next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
    }

    pub(crate) async fn stop(&mut self) {
        self.stop.cancel();
        assert_eq!(self.ended().await, TaskEnd::Stopped);
    }
}
