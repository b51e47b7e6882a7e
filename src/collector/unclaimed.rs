//! The warning about pods that no live replica has held for long. It decides nothing and claims nothing.

use std::sync::Arc;

use crate::domain::Pod;

/// Ttls for which a pod may lack a live holder before a warning: one for the claim of a dead replica or a hold-off, and
/// one for the takeover grace, the waiting by rank and a slow lock store.
pub(super) const TTLS: u32 = 2;

/// The most names in one log line: there may be thousands of pods with one cause.
const MAX_NAMES: usize = 10;

/// Logs these pods, if there are any.
pub(super) fn warn(pods: &[Arc<Pod>]) {
    if pods.is_empty() {
        return;
    }
    let name = |pod: &Arc<Pod>| format!("{}/{}", pod.namespace, pod.name);
    let names: Vec<String> = pods.iter().take(MAX_NAMES).map(name).collect();
    tracing::warn!(
        count = pods.len(),
        pods = names.join(" "),
        "no live replica has held these pods for two ttls, so their logs are not collected; a dead replica's claim may last too long, a row may be locked by an open transaction, or all replicas may hold --max-pods; see podlog locks list, and free a claim with podlog locks release"
    );
}
