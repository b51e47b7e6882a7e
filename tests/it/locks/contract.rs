//! Claiming, renewing and releasing: what every lock store must do.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use podlog::domain::{AfterRelease, Claim, Fence, LockKey, Release, RenewalOutcome};

use crate::locks::fixture::{GRACE, LockFixture, TTL, acquire, pod, release, renew, renewal, request, requests};

const SECOND: Duration = Duration::from_secs(1);

/// The same claim once more: for tests of what must not work twice.
fn copy(claim: &Claim) -> Claim {
    Claim {
        key: claim.key.clone(),
        fence: claim.fence,
        previous: claim.previous,
        checkpoint: claim.checkpoint.clone(),
    }
}

pub(crate) async fn only_one_of_two_replicas_acquires_a_row(fixture: &LockFixture) {
    let (a, b) = (fixture.holder("a").await, fixture.holder("b").await);
    let key = pod("x");
    let (claim_a, claim_b) = tokio::join!(acquire(&a, &key), acquire(&b, &key));
    assert_eq!(usize::from(claim_a.is_some()) + usize::from(claim_b.is_some()), 1);
    let row = a.table().await.unwrap().rows.remove(&key).unwrap();
    assert_eq!(row.owner, Some(if claim_a.is_some() { "a" } else { "b" }.into()));
    assert_eq!(row.fence, claim_a.or(claim_b).unwrap().fence);
    assert!(
        row.expires_in > 50_000 && row.expires_in <= 60_000,
        "{}",
        row.expires_in
    );
}

pub(crate) async fn twelve_hundred_rows_fit_in_one_call(fixture: &LockFixture) {
    let a = fixture.holder("a").await;
    let mut requests = requests(1200);
    requests.push(requests[7].clone());
    fastrand::Rng::with_seed(1).shuffle(&mut requests);
    let claims = a.acquire(&requests).await.unwrap();
    assert_eq!(claims.len(), 1200);
    let renewals: Vec<_> = claims
        .iter()
        .map(|claim| renewal(&claim.key, claim.fence, Some(b"here")))
        .collect();
    assert!(
        a.renew(&renewals)
            .await
            .unwrap()
            .iter()
            .all(|outcome| *outcome == RenewalOutcome::Held)
    );
    let give = |claim| Release {
        claim,
        checkpoint: None,
        after: AfterRelease::Free,
    };
    a.release(&claims.into_iter().map(give).collect::<Vec<_>>())
        .await
        .unwrap();
    let table = a.table().await.unwrap();
    assert_eq!(table.rows.len(), 1200);
    assert!(
        table
            .rows
            .values()
            .all(|row| row.owner.is_none() && row.checkpoint_len == 4)
    );
    assert!(a.acquire(&[]).await.unwrap().is_empty() && a.renew(&[]).await.unwrap().is_empty());
}

pub(crate) async fn four_replicas_contend_without_errors_and_each_row_gets_one_holder(fixture: &LockFixture) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut last: BTreeMap<LockKey, Fence> = BTreeMap::new();
    // Twice: first the rows are absent, then they have expired.
    for round in 0..2 {
        let mut contenders = Vec::new();
        for name in ["a", "b", "c", "d"] {
            let mut requests = requests(600);
            rng.shuffle(&mut requests);
            contenders.push((fixture.holder(&format!("{name}{round}")).await, requests));
        }
        let acquire_all = async |(store, requests): &(_, Vec<podlog::domain::AcquireRequest>)| {
            let store: &std::sync::Arc<dyn podlog::locks::LockStore> = store;
            let mut claims = Vec::new();
            for some in requests.chunks(150) {
                claims.extend(store.acquire(some).await.unwrap());
            }
            claims
        };
        let claims = join_all(contenders.iter().map(acquire_all)).await;
        let mut fences = BTreeMap::new();
        for claim in claims.into_iter().flatten() {
            assert_eq!(claim.previous, last.get(&claim.key).copied().unwrap_or_default());
            assert!(
                fences.insert(claim.key.clone(), claim.fence).is_none(),
                "{} was acquired twice",
                claim.key
            );
        }
        assert_eq!(fences.len(), 600);
        last = fences;
        fixture.pass(TTL + GRACE).await;
    }
}

pub(crate) async fn a_claim_that_was_taken_over_is_not_renewed(fixture: &LockFixture) {
    let (a, b) = (fixture.holder("a").await, fixture.holder("b").await);
    let key = pod("x");
    let old = acquire(&a, &key).await.unwrap();
    fixture.pass(TTL + GRACE).await;
    let new = acquire(&b, &key).await.unwrap();
    assert!(new.fence > old.fence);
    assert_eq!(renew(&a, &old, Some(b"stale")).await, RenewalOutcome::Lost);
    assert_eq!(
        renew(&a, &new, Some(b"stale")).await,
        RenewalOutcome::Lost,
        "it is not a's claim"
    );
    assert_eq!(renew(&b, &new, None).await, RenewalOutcome::Held);
    assert_eq!(b.table().await.unwrap().rows[&key].checkpoint_len, 0);
    assert_eq!(
        renew(
            &a,
            &Claim {
                key: pod("never seen"),
                ..old
            },
            None
        )
        .await,
        RenewalOutcome::Lost
    );
}

pub(crate) async fn a_late_renewal_is_refused_even_if_nobody_acquired_the_row(fixture: &LockFixture) {
    let a = fixture.holder("a").await;
    let claim = acquire(&a, &pod("x")).await.unwrap();
    fixture.pass(TTL / 2).await;
    assert_eq!(renew(&a, &claim, None).await, RenewalOutcome::Held);
    fixture.pass(TTL).await;
    assert_eq!(renew(&a, &claim, Some(b"late")).await, RenewalOutcome::Lost);
    let row = &a.table().await.unwrap().rows[&claim.key];
    assert!(row.expires_in <= 0 && row.checkpoint_len == 0, "{row:?}");
}

pub(crate) async fn a_release_under_an_old_fence_is_ignored(fixture: &LockFixture) {
    let (a, b) = (fixture.holder("a").await, fixture.holder("b").await);
    let key = pod("x");
    let old = acquire(&a, &key).await.unwrap();
    fixture.pass(TTL + GRACE).await;
    let held = acquire(&b, &key).await.unwrap();
    for next in [
        AfterRelease::Free,
        AfterRelease::HandedOver("a".into()),
        AfterRelease::Finished,
        AfterRelease::Deleted,
    ] {
        release(&a, copy(&old), Some(b"stale"), next.clone()).await;
        release(&b, copy(&old), Some(b"stale"), next).await;
    }
    let row = &b.table().await.unwrap().rows[&key];
    assert_eq!(
        (row.owner.clone(), row.fence, row.finished),
        (Some("b".into()), held.fence, false)
    );
    assert_eq!(row.checkpoint_len, 0);
}

pub(crate) async fn a_row_is_acquired_after_expiry_and_grace_but_not_before(fixture: &LockFixture) {
    let (a, b) = (fixture.holder("a").await, fixture.holder("b").await);
    let key = pod("x");
    acquire(&a, &key).await.unwrap();
    // 60 s of claim and 30 s of grace; the steps leave 10 s for a slow machine.
    fixture.pass(40 * SECOND).await;
    assert_eq!(acquire(&b, &key).await, None, "still held");
    fixture.pass(35 * SECOND).await;
    assert_eq!(acquire(&b, &key).await, None, "expired, but within the grace");
    fixture.pass(15 * SECOND).await;
    assert!(acquire(&b, &key).await.is_some());
}

pub(crate) async fn fences_grow_even_after_the_row_was_deleted(fixture: &LockFixture) {
    let (a, b) = (fixture.holder("a").await, fixture.holder("b").await);
    let key = pod("x");
    let mut last = Fence(0);
    for round in 0..12 {
        let store = if round % 2 == 0 { &a } else { &b };
        let claim = acquire(store, &key).await.unwrap();
        assert!(claim.fence > last, "{} after {last}", claim.fence);
        last = claim.fence;
        let next = [AfterRelease::Deleted, AfterRelease::Free, AfterRelease::Finished][round % 3].clone();
        let finished = next == AfterRelease::Finished;
        release(store, claim, None, next).await;
        if finished {
            assert_eq!(store.delete_rows(std::slice::from_ref(&key)).await.unwrap(), 1);
        }
    }
}

pub(crate) async fn a_claim_carries_the_previous_fence(fixture: &LockFixture) {
    let (a, b) = (fixture.holder("a").await, fixture.holder("b").await);
    let key = pod("x");
    let first = acquire(&a, &key).await.unwrap();
    assert_eq!(first.previous, Fence(0));
    fixture.pass(TTL + GRACE).await;
    let second = acquire(&b, &key).await.unwrap();
    assert_eq!(second.previous, first.fence);
    let fence = second.fence;
    release(&b, second, None, AfterRelease::Free).await;
    let third = acquire(&a, &key).await.unwrap();
    assert_eq!(third.previous, fence);
    release(&a, third, None, AfterRelease::Deleted).await;
    assert_eq!(acquire(&a, &key).await.unwrap().previous, Fence(0), "the row is new");
}

pub(crate) async fn a_holder_can_acquire_its_own_row_again(fixture: &LockFixture) {
    let (a, b) = (fixture.holder("a").await, fixture.holder("b").await);
    let key = pod("x");
    let lost_reply = acquire(&a, &key).await.unwrap();
    assert_eq!(acquire(&b, &key).await, None);
    let again = acquire(&a, &key).await.unwrap();
    assert!(again.fence > lost_reply.fence);
    assert_eq!(again.previous, lost_reply.fence);
    assert_eq!(renew(&a, &lost_reply, None).await, RenewalOutcome::Lost);
    assert_eq!(renew(&a, &again, None).await, RenewalOutcome::Held);
}

pub(crate) async fn a_released_row_is_free_at_once_and_keeps_its_checkpoint(fixture: &LockFixture) {
    let (a, b) = (fixture.holder("a").await, fixture.holder("b").await);
    let key = pod("x");
    let claim = acquire(&a, &key).await.unwrap();
    let old = copy(&claim);
    release(&a, claim, Some(b"final"), AfterRelease::Free).await;
    assert_eq!(a.table().await.unwrap().rows[&key].owner, None);
    assert_eq!(renew(&a, &old, None).await, RenewalOutcome::Lost);
    let claim = acquire(&b, &key).await.unwrap();
    assert_eq!(claim.checkpoint, b"final");
    release(&b, claim, None, AfterRelease::Free).await;
    assert_eq!(acquire(&a, &key).await.unwrap().checkpoint, b"final");
}

pub(crate) async fn a_checkpoint_survives_takeover_byte_for_byte(fixture: &LockFixture) {
    let (a, b) = (fixture.holder("a").await, fixture.holder("b").await);
    let every_byte: Vec<u8> = (0..=255).collect();
    let large: Vec<u8> = (0..200_000_u32).map(|i| (i * 7 % 251) as u8).collect();
    let cases = [
        every_byte,
        large,
        Vec::new(),
        br#"{"c":{"app":"\u0000 'x' ? :1"}}"#.to_vec(),
    ];
    let keys: Vec<_> = (0..cases.len()).map(pod).collect();
    let claims = a.acquire(&keys.iter().map(request).collect::<Vec<_>>()).await.unwrap();
    let fence = |key: &LockKey| claims.iter().find(|claim| claim.key == *key).unwrap().fence;
    let store: Vec<_> = keys
        .iter()
        .zip(&cases)
        .map(|(key, bytes)| renewal(key, fence(key), Some(bytes)))
        .collect();
    assert_eq!(a.renew(&store).await.unwrap(), [RenewalOutcome::Held; 4]);
    let keep: Vec<_> = keys.iter().map(|key| renewal(key, fence(key), None)).collect();
    assert_eq!(a.renew(&keep).await.unwrap(), [RenewalOutcome::Held; 4]);
    fixture.pass(TTL + GRACE).await;
    for (key, bytes) in keys.iter().zip(&cases) {
        assert_eq!(b.table().await.unwrap().rows[key].checkpoint_len as usize, bytes.len());
        assert!(acquire(&b, key).await.unwrap().checkpoint == *bytes, "{key}");
    }
}

pub(crate) async fn a_checkpoint_that_is_too_large_is_refused_with_a_clear_error(fixture: &LockFixture) {
    let a = fixture.holder("a").await;
    let claim = acquire(&a, &pod("x")).await.unwrap();
    let large = vec![b'x'; (1 << 20) + 1];
    let error = a
        .renew(&[renewal(&claim.key, claim.fence, Some(&large))])
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("pod/x") && error.contains("1048577"), "{error}");
    assert_eq!(renew(&a, &claim, Some(&large[1..])).await, RenewalOutcome::Held);
    assert_eq!(a.table().await.unwrap().rows[&claim.key].checkpoint_len, 1 << 20);
}

pub(crate) async fn clusters_do_not_see_each_other(fixture: &LockFixture) {
    let (here, there) = (
        fixture.holder_in("here", "a").await,
        fixture.holder_in("there", "a").await,
    );
    let duty = LockKey::Duty("retention".into());
    let mine = acquire(&here, &duty).await.unwrap();
    let theirs = acquire(&there, &duty).await.unwrap();
    acquire(&there, &LockKey::Replica("b".into())).await.unwrap();
    assert_eq!(renew(&here, &mine, None).await, RenewalOutcome::Held);
    assert_eq!(here.table().await.unwrap().rows.len(), 1);
    assert_eq!(here.table().await.unwrap().live_replicas().count(), 0);
    assert_eq!(there.table().await.unwrap().live_replicas().count(), 1);
    assert!(here.force_release(&duty).await.unwrap());
    assert!(!here.force_release(&LockKey::Replica("b".into())).await.unwrap());
    release(&here, copy(&theirs), None, AfterRelease::Deleted).await;
    assert_eq!(renew(&there, &theirs, None).await, RenewalOutcome::Held);
}

pub(crate) async fn ids_that_differ_in_case_or_trailing_spaces_are_different_rows(fixture: &LockFixture) {
    let (a, b) = (fixture.holder("a").await, fixture.holder("A").await);
    let ids = ["x", "X", "x ", "x  ", "ó", "o", "ss", "ß", "x\t"];
    for (index, id) in ids.into_iter().enumerate() {
        let claim = acquire(&a, &pod(id)).await.unwrap();
        assert_eq!(claim.previous, Fence(0), "{id:?}");
        assert_eq!(a.table().await.unwrap().rows.len(), index + 1);
        assert_eq!(acquire(&b, &pod(id)).await, None, "A is not a");
        assert_eq!(renew(&b, &claim, None).await, RenewalOutcome::Lost, "A is not a");
    }
}

pub(crate) async fn any_name_is_stored_unchanged(fixture: &LockFixture) {
    let a = fixture.holder("podlog-7d9f#é\"\\'`").await;
    let mut request = request(&pod(r#"q'"\u0041%_?:1;--ä😀"#));
    request.pod_ref.namespace = "n".repeat(63).as_str().into();
    request.pod_ref.pod = "p".repeat(253).as_str().into();
    request.pod_ref.node = "node'\"\\ 😀".into();
    let claim = a.acquire(std::slice::from_ref(&request)).await.unwrap().pop().unwrap();
    assert_eq!(renew(&a, &claim, Some(b"1")).await, RenewalOutcome::Held);
    let table = a.table().await.unwrap();
    let row = &table.rows[&request.key];
    assert_eq!(row.pod_ref, request.pod_ref);
    assert_eq!(row.owner.as_ref().unwrap().as_str(), "podlog-7d9f#é\"\\'`");
    let error = a
        .acquire(&[crate::locks::fixture::request(&pod("x".repeat(300)))])
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("304 bytes"), "{error}");
}

pub(crate) async fn an_empty_table_still_reports_time_and_server(fixture: &LockFixture) {
    let a = fixture.holder("a").await;
    let before = a.table().await.unwrap();
    assert!(before.rows.is_empty() && !before.server.is_empty(), "{before:?}");
    acquire(&a, &pod("x")).await.unwrap();
    let after = a.table().await.unwrap();
    assert!(after.now >= before.now && after.now < before.now + 60 * SECOND);
    assert_eq!(after.server, before.server);
}

pub(crate) async fn renewal_outcomes_are_in_the_order_of_the_renewals(fixture: &LockFixture) {
    let a = fixture.holder("a").await;
    let mut claims = a.acquire(&requests(40)).await.unwrap();
    fastrand::Rng::with_seed(3).shuffle(&mut claims);
    let stale = |i: usize| i.is_multiple_of(3);
    let renewals = claims.iter().enumerate().map(|(i, claim)| {
        let fence = Fence(claim.fence.0 - u64::from(stale(i)));
        renewal(&claim.key, fence, i.is_multiple_of(2).then_some(&b"moved"[..]))
    });
    let renewals = renewals.collect::<Vec<_>>();
    for (i, outcome) in a.renew(&renewals).await.unwrap().into_iter().enumerate() {
        assert_eq!(
            outcome,
            if stale(i) {
                RenewalOutcome::Lost
            } else {
                RenewalOutcome::Held
            },
            "number {i}"
        );
    }
    let table = a.table().await.unwrap();
    for (i, claim) in claims.iter().enumerate() {
        let stored = i.is_multiple_of(2) && !stale(i);
        assert_eq!(
            table.rows[&claim.key].checkpoint_len,
            if stored { 5 } else { 0 },
            "number {i}"
        );
    }
}
