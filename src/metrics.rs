//! Every metric with its help text, in one place.
//!
//! Nothing here is labelled by pod: a cluster creates and forgets pods for ever and a metrics
//! server does not forget. `/status` has the figures per pod.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tokio::runtime::Handle;

use crate::domain::GapReason;

/// The reason why something happened, from a fixed set of words.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// One of the words that the metric's help text or the code that counts it names.
    pub reason: &'static str,
}

/// A request to the API server and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Request {
    /// `list`, `watch`, `get` or `log`.
    pub verb: &'static str,
    /// The HTTP status, or 0 when there was no answer.
    pub code: u16,
}

/// A statement sent to the lock store and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Statement {
    /// `acquire`, `renew`, `release`, `ask`, `refuse`, `forget` or `table`.
    pub operation: &'static str,
    /// `ok` or `error`.
    pub result: &'static str,
}

/// All metrics of a replica. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Pods whose claim this replica holds.
    pub pods_held: Gauge,
    /// Pods that match the selection, whoever holds them.
    pub pods_known: Gauge,
    /// Replicas that are alive, this one included.
    pub replicas: Gauge,
    /// Log streams open now.
    pub streams_open: Gauge,
    /// Log streams that wait for their turn to be opened.
    pub streams_waiting: Gauge,
    /// Lines the sink has stored.
    pub lines_delivered: Counter,
    /// Bytes of those lines.
    pub bytes_delivered: Counter,
    /// Bytes read from the API server.
    pub bytes_read: Counter,
    /// Lines longer than the cap, delivered cut.
    pub lines_cut: Counter,
    /// Lines the sink refused for good.
    pub lines_rejected: Counter,
    /// Gaps by reason.
    pub gaps: Family<Reason, Counter>,
    /// Text of the kubelet that stood where log lines were expected; never delivered.
    pub control_lines: Counter,
    /// Ends of log streams by reason.
    pub stream_ends: Family<Reason, Counter>,
    /// Time from a line's timestamp to the moment it was stored.
    pub lag_seconds: Histogram,
    /// Time one write to the sink takes.
    pub write_seconds: Histogram,
    /// Failed tries of writing to the sink.
    pub write_retries: Counter,
    /// Time that renewing one batch of claims takes.
    pub renewal_seconds: Histogram,
    /// Time left until the first claim must stop being acted on, as of the latest renewal.
    pub deadline_seconds: Gauge<f64, std::sync::atomic::AtomicU64>,
    /// Claims lost by reason.
    pub claims_lost: Family<Reason, Counter>,
    /// Claims taken.
    pub claims_taken: Counter,
    /// Pods handed to another replica on request.
    pub claims_handed: Counter,
    /// Times claiming was held off because the database's clock or identity changed.
    pub holdoffs: Counter,
    /// Requests to the API server.
    pub api_requests: Family<Request, Counter>,
    /// Calls to the lock store, each of a few statements per batch of rows.
    pub statements: Family<Statement, Counter>,
    /// Rows deleted because they were older than the retention.
    pub retention_deleted: Counter,
}

/// From 1 ms, doubling, to 65 s.
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
            replicas: Gauge::default(),
            streams_open: Gauge::default(),
            streams_waiting: Gauge::default(),
            lines_delivered: Counter::default(),
            bytes_delivered: Counter::default(),
            bytes_read: Counter::default(),
            lines_cut: Counter::default(),
            lines_rejected: Counter::default(),
            gaps: Family::default(),
            control_lines: Counter::default(),
            stream_ends: Family::default(),
            lag_seconds: seconds(),
            write_seconds: seconds(),
            write_retries: Counter::default(),
            renewal_seconds: seconds(),
            deadline_seconds: Gauge::default(),
            claims_lost: Family::default(),
            claims_taken: Counter::default(),
            claims_handed: Counter::default(),
            holdoffs: Counter::default(),
            api_requests: Family::default(),
            statements: Family::default(),
            retention_deleted: Counter::default(),
        };
        // A series that appears with its first gap would hide that gap from `increase`, which compares with before.
        for reason in GapReason::ALL {
            let reason = reason.as_str();
            drop(all.gaps.get_or_create(&Reason { reason }));
        }
        let registry = registry.sub_registry_with_prefix("podlog");
        all.register_pods(registry);
        all.register_lines(registry);
        all.register_claims(registry);
        registry.register_collector(Box::new(Tasks));
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
        r.register("stream_ends", "Ends of log streams by reason", self.stream_ends.clone());
        r.register(
            "api_requests",
            "Requests to the API server by verb and HTTP status (0: no answer)",
            self.api_requests.clone(),
        );
    }

    fn register_lines(&self, r: &mut Registry) {
        r.register(
            "lines_delivered",
            "Lines the sink has stored",
            self.lines_delivered.clone(),
        );
        r.register_with_unit(
            "delivered",
            "Bytes of the lines the sink has stored",
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
            "Lines longer than the cap, delivered cut",
            self.lines_cut.clone(),
        );
        r.register(
            "lines_rejected",
            "Lines the sink refused for good",
            self.lines_rejected.clone(),
        );
        r.register("gaps", "Ranges the API no longer served, by reason", self.gaps.clone());
        r.register(
            "control_lines",
            "Kubelet messages found in place of log lines",
            self.control_lines.clone(),
        );
        r.register_with_unit(
            "lag",
            "Time from a line's timestamp until it was stored",
            Unit::Seconds,
            self.lag_seconds.clone(),
        );
        r.register_with_unit(
            "write",
            "Time of one write to the sink",
            Unit::Seconds,
            self.write_seconds.clone(),
        );
        r.register(
            "write_retries",
            "Failed tries of writing to the sink",
            self.write_retries.clone(),
        );
        r.register(
            "retention_deleted",
            "Rows deleted as older than the retention",
            self.retention_deleted.clone(),
        );
    }

    fn register_claims(&self, r: &mut Registry) {
        r.register_with_unit(
            "renewal",
            "Time of one call that renews claims, at most 200",
            Unit::Seconds,
            self.renewal_seconds.clone(),
        );
        r.register_with_unit(
            "deadline",
            "Time left until the first claim must no longer be acted on",
            Unit::Seconds,
            self.deadline_seconds.clone(),
        );
        r.register("claims_lost", "Claims lost by reason", self.claims_lost.clone());
        r.register("claims_taken", "Claims taken", self.claims_taken.clone());
        r.register(
            "claims_handed",
            "Pods handed to another replica on request",
            self.claims_handed.clone(),
        );
        r.register(
            "holdoffs",
            "Times claiming was held off because the database changed",
            self.holdoffs.clone(),
        );
        r.register(
            "statements",
            "Calls to the lock store, each of a few statements per batch of rows",
            self.statements.clone(),
        );
    }
}

/// The tasks of the runtime in which the metrics are written, counted then.
#[derive(Debug)]
struct Tasks;

impl Collector for Tasks {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let count = Handle::try_current().map_or(0, |runtime| runtime.metrics().num_alive_tasks());
        let gauge = ConstGauge::new(count as u64);
        let help = "Tasks alive in the process; some per pod held and per connection";
        gauge.encode(encoder.encode_descriptor("tasks", help, None, gauge.metric_type())?)
    }
}

impl Default for Metrics {
    /// Metrics that nobody serves.
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
