//! Lists of pods, as objects or as a table, complete or in pages; lists of namespaces and nodes. All pages of a list
//! show the same resource version. Nothing here waits.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::answer::{Refusal, json_bytes, object};
use super::clock::format_seconds;
use super::published::{PublishedPod, columns};
use super::route::Query;
use super::select::Selector;
use super::shared::Shared;
use super::state::{ClusterState, ObjectKey};
use super::stream::SimBody;

/// Where a page begins: the resource version of the first page, and the last key of the page before.
struct PageStart {
    version: u64,
    after: Option<ObjectKey>,
}

impl PageStart {
    fn token(&self) -> String {
        let (namespace, name) = self.after.clone().unwrap_or_default();
        format!("{}/{namespace}/{name}", self.version)
    }

    fn parse(token: &str) -> Option<Self> {
        let (version, key) = token.split_once('/')?;
        let (namespace, name) = key.split_once('/')?;
        Some(Self {
            version: version.parse().ok()?,
            after: Some((namespace.to_owned(), name.to_owned())),
        })
    }

    /// The page that a request asks for.
    fn requested(query: &Query, state: &ClusterState) -> Result<Self, Refusal> {
        if let Some(token) = query.text("continue") {
            let page = Self::parse(token);
            let page = page.ok_or_else(|| Refusal::bad_request("continue key is not valid"))?;
            if page.version < state.oldest() {
                return Err(Refusal::expired(page.version, state.oldest()));
            }
            return Ok(page);
        }
        let wanted = query.version()?;
        if wanted > state.version() {
            let message = format!("Too large resource version: {wanted}, current: {}", state.version());
            return Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, message));
        }
        let exact = query.text("resourceVersionMatch") == Some("Exact");
        if exact && wanted < state.oldest() {
            return Err(Refusal::expired(wanted, state.oldest()));
        }
        let version = if exact { wanted } else { state.version() };
        Ok(Self { version, after: None })
    }
}

/// Lists pods.
pub(super) fn pods(
    shared: &Shared,
    selector: &Selector,
    query: &Query,
    table: bool,
) -> Result<Response<SimBody>, Refusal> {
    let state = shared.state();
    let page = PageStart::requested(query, &state)?;
    let snapshot = state.snapshot(page.version).unwrap_or_default();
    drop(state);
    let limit = query.number("limit")?.unwrap_or(0);
    let limit = usize::try_from(limit)
        .ok()
        .filter(|limit| *limit > 0)
        .unwrap_or(usize::MAX);
    let mut left = snapshot
        .iter()
        .filter(|(key, _)| page.after.as_ref().is_none_or(|after| *key > after))
        .filter(|(_, pod)| selector.selects(pod));
    let (keys, found): (Vec<&ObjectKey>, Vec<&PublishedPod>) =
        left.by_ref().take(limit).map(|(key, pod)| (key, &**pod)).unzip();
    let mut metadata = json!({"resourceVersion": page.version.to_string()});
    let remaining = left.count();
    if remaining > 0 {
        let after = keys.last().map(|key| (*key).clone());
        metadata["continue"] = json!(PageStart { after, ..page }.token());
        if !selector.is_filter() {
            metadata["remainingItemCount"] = json!(remaining);
        }
    }
    Ok(if table {
        let rows: Vec<Value> = found.iter().map(|pod| pod.row(shared.clock.now())).collect();
        object(&table_object(&metadata, true, &rows))
    } else {
        json_bytes(concatenated(&metadata, &found))
    })
}

/// A `Table` object with these rows. `headed` says whether it has column definitions.
pub(super) fn table_object(metadata: &Value, headed: bool, rows: &[Value]) -> Value {
    let columns = if headed { columns() } else { json!([]) };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": columns, "rows": rows,
    })
}

/// A list of pods. They are serialized already, so it only puts commas between them.
fn concatenated(metadata: &Value, pods: &[&PublishedPod]) -> Vec<u8> {
    let head = format!(r#"{{"kind":"PodList","apiVersion":"v1","metadata":{metadata},"items":["#);
    let mut list = head.into_bytes();
    for (index, pod) in pods.iter().enumerate() {
        if index > 0 {
            list.push(b',');
        }
        list.extend_from_slice(&pod.json);
    }
    list.extend_from_slice(b"]}");
    list
}

/// Lists namespaces or nodes by their names.
pub(super) fn names<'a>(kind: &str, version: u64, created: i64, names: impl Iterator<Item = &'a String>) -> Value {
    let items: Vec<Value> = names.map(|name| named(kind, name, created)).collect();
    let metadata = json!({"resourceVersion": version.to_string()});
    json!({"kind": format!("{kind}List"), "apiVersion": "v1", "metadata": metadata, "items": items})
}

/// One namespace or node.
pub(super) fn named(kind: &str, name: &str, created: i64) -> Value {
    let status = match kind {
        "Namespace" => json!({"phase": "Active"}),
        _ => json!({"conditions": [{"type": "Ready", "status": "True"}]}),
    };
    let uid = format!("{kind}-{name}").to_lowercase();
    let metadata = json!({"name": name, "uid": uid, "creationTimestamp": format_seconds(created)});
    json!({"kind": kind, "apiVersion": "v1", "metadata": metadata, "spec": {}, "status": status})
}
