//! Every metric with its help text, in one place.
//!
//! No metric is labelled by pod: a cluster always creates and deletes pods, and a metrics server keeps each series.
//! `/status` has the figures per pod.

use std::sync::LazyLock;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tokio::runtime::Handle;

use crate::domain::GapReason;
use crate::unstored::Unstored;

/// The reason for an event, from a fixed set of values.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// One of the values that `docs/metrics.md` lists for the metric.
    pub reason: &'static str,
}

/// A request to the API server and its result.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Request {
    /// `list`, `watch`, `get` or `log`.
    pub verb: &'static str,
    /// The HTTP status, or 0 if there was no response.
    pub code: u16,
}

/// A call to the lock store and its result.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LockCall {
    /// `acquire`, `renew`, `release`, `request_handover`, `decline_handover`, `delete_rows` or `table`.
    pub operation: &'static str,
    /// `ok` or `error`.
    pub result: &'static str,
}

/// All metrics of a replica. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Pods whose claim this replica holds.
    pub pods_held: Gauge,
    /// Pods that match the selection, claimed or not.
    pub pods_known: Gauge,
    /// Namespaces whose pods cannot be listed now, by reason. All namespaces that are listed together count as one.
    pub namespaces_unlisted: Family<Reason, Gauge>,
    /// Rows of pods that are missing from the set and of which it is not known what has become of them, by reason.
    pub rows_unresolved: Family<Reason, Gauge>,
    /// Replicas that are alive, this one included.
    pub replicas: Gauge,
    /// Log streams open now.
    pub streams_open: Gauge,
    /// Log streams that wait to be opened.
    pub streams_waiting: Gauge,
    /// Logs of pods that this replica holds and cannot read, by reason.
    pub streams_unread: Family<Reason, Gauge>,
    /// Lines that the sink has stored.
    pub lines_delivered: Counter,
    /// Bytes of those lines.
    pub bytes_delivered: Counter,
    /// Bytes read from the API server.
    pub bytes_read: Counter,
    /// Delivered lines that were cut because they were longer than the maximum.
    pub lines_cut: Counter,
    /// Lines that the sink rejected permanently.
    pub lines_rejected: Counter,
    /// Gaps by reason.
    pub gaps: Family<Reason, Counter>,
    /// Lines without a timestamp, mostly messages of the kubelet. They are not delivered.
    pub kubelet_messages: Counter,
    /// Log streams that ended, by reason.
    pub stream_ends: Family<Reason, Counter>,
    /// Age of the first line of a chunk when the chunk is stored: this process's clock minus the line's timestamp.
    pub line_age_seconds: Histogram,
    /// What waits for the sink now.
    pub unstored: Unstored,
    /// Duration of one write to the sink.
    pub write_seconds: Histogram,
    /// Failed attempts to write to the sink.
    pub write_retries: Counter,
    /// Duration of one call that renews a batch of claims.
    pub renewal_seconds: Histogram,
    /// Time until the earliest deadline of the claims held, as of the latest renewal. At a deadline the replica stops
    /// acting on the claim.
    pub deadline_seconds: Gauge<f64, std::sync::atomic::AtomicU64>,
    /// Claims lost by reason.
    pub claims_lost: Family<Reason, Counter>,
    /// Claims acquired.
    pub claims_acquired: Counter,
    /// Pods handed over to another replica on request.
    pub claims_handed_over: Counter,
    /// Number of times that claiming was suspended because the database's clock or identity changed.
    pub holdoffs: Counter,
    /// Requests to the API server.
    pub api_requests: Family<Request, Counter>,
    /// Calls to the lock store. A call runs a few statements for each batch of rows.
    pub lock_calls: Family<LockCall, Counter>,
    /// Records deleted because they were older than the retention time.
    pub retention_deleted: Counter,
    /// Events of podlog's own log that could not be written to stderr.
    pub log_events_lost: Counter,
}

/// [`Metrics::log_events_lost`]. A process has one log, which is started before there are metrics.
pub static LOG_EVENTS_LOST: LazyLock<Counter> = LazyLock::new(Counter::default);

/// A histogram with 17 buckets from 1 ms to 65 s. Each bucket is twice as long as the one before (0.001 s * 2^16 = 65.5
/// s).
fn seconds() -> Histogram {
    Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(
        0.001, 2.0, 17,
    ))
}

impl Metrics {
    /// New metrics, registered under the prefix `podlog`.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let all = Self {
            pods_held: Gauge::default(),
            pods_known: Gauge::default(),
            namespaces_unlisted: Family::default(),
            rows_unresolved: Family::default(),
            replicas: Gauge::default(),
            streams_open: Gauge::default(),
            streams_waiting: Gauge::default(),
            streams_unread: Family::default(),
            lines_delivered: Counter::default(),
            bytes_delivered: Counter::default(),
            bytes_read: Counter::default(),
            lines_cut: Counter::default(),
            lines_rejected: Counter::default(),
            gaps: Family::default(),
            kubelet_messages: Counter::default(),
            stream_ends: Family::default(),
            line_age_seconds: seconds(),
            unstored: Unstored::default(),
            write_seconds: seconds(),
            write_retries: Counter::default(),
            renewal_seconds: seconds(),
            deadline_seconds: Gauge::default(),
            claims_lost: Family::default(),
            claims_acquired: Counter::default(),
            claims_handed_over: Counter::default(),
            holdoffs: Counter::default(),
            api_requests: Family::default(),
            lock_calls: Family::default(),
            retention_deleted: Counter::default(),
            log_events_lost: LOG_EVENTS_LOST.clone(),
        };
        // The function `increase` of Prometheus compares with an earlier value. If a series began with its first gap,
        // `increase` would not see that gap.
        for reason in GapReason::ALL {
            let reason = reason.as_str();
            drop(all.gaps.get_or_create(&Reason { reason }));
        }
        let registry = registry.sub_registry_with_prefix("podlog");
        all.register_pods(registry);
        all.register_lines(registry);
        all.register_claims(registry);
        registry.register_collector(Box::new(OldestUnstored(all.unstored.clone())));
        registry.register(
            "log_events_lost",
            "Events of podlog's own log that could not be written to stderr",
            all.log_events_lost.clone(),
        );
        registry.register_collector(Box::new(TaskCount));
        all
    }

    fn register_pods(&self, r: &mut Registry) {
        r.register(
            "pods_held",
            "Pods whose claim this replica holds",
            self.pods_held.clone(),
        );
        r.register("pods_known", "Pods that match the selection", self.pods_known.clone());
        r.register(
            "namespaces_unlisted",
            "Namespaces whose pods cannot be listed now, by reason; all namespaces listed together count as one",
            self.namespaces_unlisted.clone(),
        );
        r.register(
            "rows_unresolved",
            "Rows of missing pods of which it is not known whether they still exist, by reason",
            self.rows_unresolved.clone(),
        );
        r.register(
            "replicas",
            "Replicas that are alive, this one included",
            self.replicas.clone(),
        );
        r.register("streams_open", "Log streams open now", self.streams_open.clone());
        r.register(
            "streams_waiting",
            "Log streams waiting to be opened",
            self.streams_waiting.clone(),
        );
        r.register(
            "streams_unread",
            "Logs of pods held that cannot be read now, by reason",
            self.streams_unread.clone(),
        );
        r.register(
            "stream_ends",
            "Log streams that ended, by reason",
            self.stream_ends.clone(),
        );
        r.register(
            "api_requests",
            "Requests to the API server by verb and HTTP status (0: no response)",
            self.api_requests.clone(),
        );
    }

    fn register_lines(&self, r: &mut Registry) {
        r.register(
            "lines_delivered",
            "Lines that the sink has stored",
            self.lines_delivered.clone(),
        );
        r.register_with_unit(
            "delivered",
            "Bytes of the lines that the sink has stored",
            Unit::Bytes,
            self.bytes_delivered.clone(),
        );
        r.register_with_unit(
            "read",
            "Bytes read from the API server",
            Unit::Bytes,
            self.bytes_read.clone(),
        );
        r.register(
            "lines_cut",
            "Delivered lines that were cut because they were longer than --max-line",
            self.lines_cut.clone(),
        );
        r.register(
            "lines_rejected",
            "Lines that the sink rejected permanently",
            self.lines_rejected.clone(),
        );
        r.register("gaps", "Ranges that may lack lines, by reason", self.gaps.clone());
        r.register(
            "kubelet_messages",
            "Lines without a timestamp, mostly messages of the kubelet; they are not delivered",
            self.kubelet_messages.clone(),
        );
        r.register_with_unit(
            "line_age",
            "Age of the first line of a chunk when the chunk is stored",
            Unit::Seconds,
            self.line_age_seconds.clone(),
        );
        r.register_with_unit(
            "write",
            "Duration of one write to the sink",
            Unit::Seconds,
            self.write_seconds.clone(),
        );
        r.register(
            "write_retries",
            "Failed attempts to write to the sink",
            self.write_retries.clone(),
        );
        r.register(
            "retention_deleted",
            "Records deleted because they were older than --retain",
            self.retention_deleted.clone(),
        );
    }

    fn register_claims(&self, r: &mut Registry) {
        r.register_with_unit(
            "renewal",
            "Duration of one call that renews up to 200 claims",
            Unit::Seconds,
            self.renewal_seconds.clone(),
        );
        r.register_with_unit(
            "deadline",
            "Time until the earliest deadline of the claims held; at the deadline the replica stops acting on the claim",
            Unit::Seconds,
            self.deadline_seconds.clone(),
        );
        r.register("claims_lost", "Claims lost, by reason", self.claims_lost.clone());
        r.register("claims_acquired", "Claims acquired", self.claims_acquired.clone());
        r.register(
            "claims_handed_over",
            "Pods handed over to another replica on request",
            self.claims_handed_over.clone(),
        );
        r.register(
            "holdoffs",
            "Number of times that claiming was suspended because the clock or identity of the database changed",
            self.holdoffs.clone(),
        );
        r.register(
            "lock_calls",
            "Calls to the lock store by operation and result; a call runs a few statements per batch of rows",
            self.lock_calls.clone(),
        );
    }
}

/// The number of tasks in the async runtime, counted when the metrics are requested.
#[derive(Debug)]
struct TaskCount;

impl Collector for TaskCount {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let count = Handle::try_current().map_or(0, |runtime| runtime.metrics().num_alive_tasks());
        let gauge = ConstGauge::new(count as u64);
        let help = "Tasks alive in the process; there are some for each pod held and each connection";
        gauge.encode(encoder.encode_descriptor("tasks", help, None, gauge.metric_type())?)
    }
}

/// How long the oldest lines have waited for the sink, measured when the metrics are requested.
#[derive(Debug)]
struct OldestUnstored(Unstored);

impl Collector for OldestUnstored {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let gauge = ConstGauge::new(self.0.longest().as_secs_f64());
        let help =
            "Time for which the oldest write, or the opening of a stream, has waited for the sink; 0 if none waits";
        let unit = Some(&Unit::Seconds);
        gauge.encode(encoder.encode_descriptor("oldest_unstored", help, unit, gauge.metric_type())?)
    }
}

impl Default for Metrics {
    /// Metrics that are not served.
    fn default() -> Self {
        Self::new(&mut Registry::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gap_counters_start_at_zero_so_that_an_alert_sees_the_first_gap() {
        let mut registry = Registry::default();
        let _metrics = Metrics::new(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for reason in ["rotated", "restarted", "deleted", "unavailable"] {
            let series = format!("podlog_gaps_total{{reason=\"{reason}\"}} 0");
            assert!(text.contains(&series), "{series} is not in:\n{text}");
        }
    }
}
