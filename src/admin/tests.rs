//! Tests of the commands on a table in memory.

use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::domain::{AcquireRequest, BackendError, Claim, Fence, PodRef, Release, Renewal, RenewalOutcome};

/// A lock store of which a table can be read and a claim released.
#[derive(Debug, Default)]
struct FixedTable {
    table: LockTable,
    force_released: Mutex<Vec<LockKey>>,
}

#[async_trait]
impl LockStore for FixedTable {
    async fn acquire(&self, _: &[AcquireRequest]) -> Result<Vec<Claim>, BackendError> {
        unreachable!("a command acquires nothing")
    }
    async fn renew(&self, _: &[Renewal]) -> Result<Vec<RenewalOutcome>, BackendError> {
        unreachable!("a command renews nothing")
    }
    async fn release(&self, _: &[Release]) -> Result<(), BackendError> {
        unreachable!("a command holds nothing")
    }
    async fn request_handover(&self, _: &[(LockKey, Fence)]) -> Result<(), BackendError> {
        unreachable!("a command requests nothing")
    }
    async fn decline_handover(&self, _: &[(LockKey, Fence)]) -> Result<(), BackendError> {
        unreachable!("a command holds nothing")
    }
    async fn delete_rows(&self, _: &[LockKey]) -> Result<u64, BackendError> {
        unreachable!("a command deletes no rows")
    }
    async fn force_release(&self, key: &LockKey) -> Result<bool, BackendError> {
        self.force_released.lock().unwrap().push(key.clone());
        Ok(self.table.rows.contains_key(key))
    }
    async fn table(&self) -> Result<LockTable, BackendError> {
        Ok(self.table.clone())
    }
}

/// A table with pods of the namespace `shop`: name, UID, owner, finished.
fn table(pods: &[(&str, &str, &str, bool)]) -> FixedTable {
    let mut store = FixedTable::default();
    for (name, uid, owner, finished) in pods {
        let row = LockRow {
            owner: (!owner.is_empty()).then(|| (*owner).into()),
            fence: Fence(4),
            expires_in: 12_345,
            finished: *finished,
            requested_by: None,
            pod_ref: PodRef {
                namespace: "shop".into(),
                pod: (*name).into(),
                node: "n1".into(),
            },
            checkpoint_len: 80,
        };
        store.table.rows.insert(LockKey::Pod((*uid).into()), row.clone());
        if !owner.is_empty() {
            let alive = LockRow {
                pod_ref: PodRef::default(),
                ..row
            };
            store.table.rows.insert(LockKey::Replica((*owner).into()), alive);
        }
    }
    store
}

async fn released(store: &FixedTable, pod: &str, uid: Option<&str>) -> Result<String, Failure> {
    let mut out = Vec::new();
    release(store, pod, uid, &mut out)
        .await
        .map(|()| String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn the_list_shows_each_row_and_the_totals() {
    let store = table(&[
        ("cart-0", "u1", "r1", false),
        ("cart-1", "u2", "", false),
        ("job-x", "u3", "", true),
    ]);
    let mut out = Vec::new();
    list(&store, false, &mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("NAMESPACE  POD "), "{text}");
    let fields: Vec<&str> = lines[1].split_whitespace().collect();
    assert_eq!(fields, ["shop", "cart-0", "u1", "r1", "held", "12.3s", "-", "n1"]);
    assert_eq!(
        lines.last(),
        Some(&"1 replicas alive; pods: 1 held, 1 free, 0 expired, 1 finished")
    );
    let mut out = Vec::new();
    list(&store, true, &mut out).await.unwrap();
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&out).unwrap();
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[0]["pod"], "cart-0");
    assert_eq!(rows[0]["expires_in_ms"], 12_345);
}

#[tokio::test]
async fn the_list_shows_the_state_of_each_row() {
    let by_hand = crate::domain::claim::FORCE_RELEASED;
    let store = table(&[
        ("a", "u1", "r1", false),
        ("b", "u2", "", false),
        ("c", "u3", "", true),
        ("d", "u4", by_hand, false),
    ]);
    let mut out = Vec::new();
    list(&store, true, &mut out).await.unwrap();
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&out).unwrap();
    let states: Vec<_> = rows
        .iter()
        .filter(|row| row["kind"] == "pod")
        .map(|row| &row["state"])
        .collect();
    assert_eq!(states, ["held", "free", "finished", "released"]);
}

#[tokio::test]
async fn a_claim_is_released_by_the_name_of_the_pod_even_if_finished_pods_have_the_same_name() {
    let store = table(&[
        ("cart-0", "u1", "", true),
        ("cart-0", "u2", "r1", false),
        ("cart-1", "u3", "r1", false),
    ]);
    assert_eq!(
        released(&store, "shop/cart-0", None).await.unwrap(),
        "released shop/cart-0: uid u2 held by r1; the holder stops at its next renewal, and other replicas may take \
         the pod when the claim expires in 12.3s (plus the takeover grace)\n"
    );
    assert_eq!(*store.force_released.lock().unwrap(), [LockKey::Pod("u2".into())]);
}

#[tokio::test]
async fn an_ambiguous_or_unknown_name_releases_nothing() {
    let store = table(&[
        ("cart-0", "u1", "r1", false),
        ("cart-0", "u2", "r2", false),
        ("job", "u3", "", true),
        ("web", "u4", crate::domain::claim::FORCE_RELEASED, false),
    ]);
    let failure = released(&store, "shop/cart-0", None).await.unwrap_err();
    assert_eq!(failure.code(), 2);
    assert_eq!(
        failure.to_string(),
        "shop/cart-0: 2 pods of this name are held (uid u1 held by r1, uid u2 held by r2); select one with --uid"
    );
    for (pod, said) in [
        ("shop/job", "to its end"),
        ("shop/web", "released already"),
        ("shop/nope", "no such pod"),
        ("cart-0", "NAMESPACE/POD"),
        ("a/b/c", "NAMESPACE/POD"),
    ] {
        let line = released(&store, pod, None).await.unwrap_err().to_string();
        assert!(line.contains(said), "{line}");
    }
    assert!(store.force_released.lock().unwrap().is_empty());
    assert!(released(&store, "shop/cart-0", Some("u2")).await.is_ok());
    assert_eq!(*store.force_released.lock().unwrap(), [LockKey::Pod("u2".into())]);
}
