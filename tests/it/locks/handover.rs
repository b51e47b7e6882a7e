//! Handing over, finishing, deleting and releasing by force: what every lock store must do.

use std::time::Duration;

use podlog::domain::{AfterRelease, LockKey, RenewalOutcome};

use crate::locks::fixture::{GRACE, LockFixture, TTL, acquire, pod, release, renew};

pub(crate) async fn a_requested_row_is_handed_over_and_acquired_by_the_requester(fixture: &LockFixture) {
    let (a, b, c) = (
        fixture.holder("a").await,
        fixture.holder("b").await,
        fixture.holder("c").await,
    );
    let key = pod("x");
    let old = acquire(&a, &key).await.unwrap();
    b.request_handover(&[(key.clone(), old.fence)]).await.unwrap();
    c.request_handover(&[(key.clone(), old.fence)]).await.unwrap();
    assert_eq!(
        a.table().await.unwrap().rows[&key].requested_by,
        Some("b".into()),
        "the first request counts"
    );
    assert_eq!(
        renew(&a, &old, None).await,
        RenewalOutcome::Held,
        "a request takes nothing away"
    );
    let fence = old.fence;
    let stale = acquire_like(&old);
    release(&a, old, Some(b"final"), AfterRelease::HandedOver("b".into())).await;
    let row = a.table().await.unwrap().rows.remove(&key).unwrap();
    assert_eq!((row.owner, row.requested_by), (Some("b".into()), None));
    assert!(row.fence > fence && row.expires_in > 0);
    assert_eq!(renew(&a, &stale, Some(b"stale")).await, RenewalOutcome::Lost);
    assert_eq!(acquire(&c, &key).await, None);
    assert_eq!(acquire(&a, &key).await, None);
    let new = acquire(&b, &key).await.unwrap();
    assert_eq!(new.previous, row.fence);
    assert!(new.fence > row.fence);
    assert_eq!(new.checkpoint, b"final");
}

fn acquire_like(claim: &podlog::domain::Claim) -> podlog::domain::Claim {
    podlog::domain::Claim {
        key: claim.key.clone(),
        checkpoint: Vec::new(),
        ..*claim
    }
}

pub(crate) async fn a_row_handed_over_that_nobody_acquires_is_free_again_after_a_timeout(fixture: &LockFixture) {
    let (a, c) = (fixture.holder("a").await, fixture.holder("c").await);
    let key = pod("x");
    let claim = acquire(&a, &key).await.unwrap();
    fixture.pass(TTL / 2).await;
    release(&a, claim, None, AfterRelease::HandedOver("dead".into())).await;
    fixture.pass(TTL.saturating_sub(Duration::from_secs(10))).await;
    assert_eq!(acquire(&c, &key).await, None, "the time counts from handing over");
    fixture.pass(GRACE + Duration::from_secs(10)).await;
    assert!(acquire(&c, &key).await.is_some());
}

pub(crate) async fn a_request_can_be_declined(fixture: &LockFixture) {
    let (a, b) = (fixture.holder("a").await, fixture.holder("b").await);
    let key = pod("x");
    let claim = acquire(&a, &key).await.unwrap();
    let row = [(key.clone(), claim.fence)];
    b.request_handover(&row).await.unwrap();
    b.decline_handover(&row).await.unwrap();
    assert_eq!(
        a.table().await.unwrap().rows[&key].requested_by,
        Some("b".into()),
        "only the holder declines"
    );
    a.decline_handover(&row).await.unwrap();
    assert_eq!(a.table().await.unwrap().rows[&key].requested_by, None);
    assert_eq!(renew(&a, &claim, None).await, RenewalOutcome::Held);
    b.request_handover(&row).await.unwrap();
    fixture.pass(TTL + GRACE).await;
    let c = fixture.holder("c").await;
    acquire(&c, &key).await.unwrap();
    assert_eq!(
        c.table().await.unwrap().rows[&key].requested_by,
        None,
        "nothing was requested of the new holder"
    );
}

pub(crate) async fn a_request_for_an_old_fence_or_for_an_own_row_is_ignored(fixture: &LockFixture) {
    let (a, b) = (fixture.holder("a").await, fixture.holder("b").await);
    let (held, free, done) = (pod("held"), pod("free"), pod("done"));
    let claim = acquire(&a, &held).await.unwrap();
    let mut rows = vec![
        (held.clone(), podlog::domain::Fence(claim.fence.0 - 1)),
        (pod("absent"), claim.fence),
    ];
    for (key, next) in [(&free, AfterRelease::Free), (&done, AfterRelease::Finished)] {
        let claim = acquire(&a, key).await.unwrap();
        rows.push((key.clone(), claim.fence));
        release(&a, claim, None, next).await;
    }
    b.request_handover(&rows).await.unwrap();
    a.request_handover(&[(held.clone(), claim.fence)]).await.unwrap();
    let table = a.table().await.unwrap();
    assert_eq!(table.rows.len(), 3);
    assert!(table.rows.values().all(|row| row.requested_by.is_none()), "{table:?}");
}

pub(crate) async fn a_finished_row_cannot_be_acquired_and_can_be_deleted(fixture: &LockFixture) {
    let (a, b) = (fixture.holder("a").await, fixture.holder("b").await);
    let key = pod("x");
    let claim = acquire(&a, &key).await.unwrap();
    release(&a, claim, Some(b"end"), AfterRelease::Finished).await;
    let row = a.table().await.unwrap().rows.remove(&key).unwrap();
    assert!(
        row.finished && row.owner.is_none() && row.checkpoint_len == 3,
        "{row:?}"
    );
    fixture.pass(100 * TTL).await;
    assert_eq!(acquire(&a, &key).await, None);
    assert_eq!(acquire(&b, &key).await, None);
    assert!(a.force_release(&key).await.unwrap());
    assert_eq!(acquire(&b, &key).await, None, "finished stays finished");
    assert_eq!(b.delete_rows(&[key.clone(), pod("absent")]).await.unwrap(), 1);
    assert!(a.table().await.unwrap().rows.is_empty());
}

pub(crate) async fn an_unfinished_row_is_never_deleted(fixture: &LockFixture) {
    let (a, b) = (fixture.holder("a").await, fixture.holder("b").await);
    let keys = [
        pod("held"),
        pod("free"),
        pod("expired"),
        LockKey::Duty("retention".into()),
    ];
    for key in &keys {
        acquire(&a, key).await.unwrap();
    }
    let free = acquire(&a, &keys[1]).await.unwrap();
    release(&a, free, None, AfterRelease::Free).await;
    assert_eq!(b.delete_rows(&keys).await.unwrap(), 0);
    fixture.pass(100 * TTL).await;
    assert_eq!(b.delete_rows(&keys).await.unwrap(), 0);
    assert_eq!(a.table().await.unwrap().rows.len(), 4);
}

pub(crate) async fn a_replica_is_alive_while_its_row_is_and_is_deleted_a_minute_later(fixture: &LockFixture) {
    let (a, b) = (fixture.holder("a").await, fixture.holder("b").await);
    let (row_a, row_b) = (LockKey::Replica("a".into()), LockKey::Replica("b".into()));
    let alive = async || {
        let table = a.table().await.unwrap();
        table.live_replicas().map(ToString::to_string).collect::<Vec<_>>()
    };
    let claim_a = acquire(&a, &row_a).await.unwrap();
    let claim_b = acquire(&b, &row_b).await.unwrap();
    assert_eq!(alive().await, ["a", "b"]);
    fixture.pass(TTL / 2).await;
    assert_eq!(renew(&a, &claim_a, None).await, RenewalOutcome::Held);
    fixture.pass(TTL / 2).await;
    assert_eq!(alive().await, ["a"]);
    assert_eq!(renew(&b, &claim_b, None).await, RenewalOutcome::Lost);
    assert_eq!(
        a.delete_rows(&[row_a.clone(), row_b.clone()]).await.unwrap(),
        0,
        "not yet dead for a minute"
    );
    assert_eq!(renew(&a, &claim_a, None).await, RenewalOutcome::Held);
    // b has been dead since 60 s; 70 s after a's last renewal it is dead too, but only for 10 s.
    fixture.pass(Duration::from_secs(70)).await;
    assert_eq!(b.delete_rows(&[row_a.clone(), row_b]).await.unwrap(), 1);
    let again = acquire(&a, &row_a).await.unwrap();
    release(&a, again, None, AfterRelease::Deleted).await;
    assert!(b.table().await.unwrap().rows.is_empty());
}

pub(crate) async fn a_force_released_row_is_free_once_its_holder_must_have_stopped(fixture: &LockFixture) {
    let (a, b) = (fixture.holder("a").await, fixture.holder("b").await);
    let key = pod("x");
    let claim = acquire(&a, &key).await.unwrap();
    assert_eq!(renew(&a, &claim, Some(b"kept")).await, RenewalOutcome::Held);
    assert!(b.force_release(&key).await.unwrap());
    assert_eq!(renew(&a, &claim, None).await, RenewalOutcome::Lost);
    let row = b.table().await.unwrap().rows.remove(&key).unwrap();
    assert!(
        row.is_force_released() && row.fence > claim.fence && !row.finished,
        "{row:?}"
    );
    assert!(row.expires_in > 40_000, "{row:?}");
    assert_eq!(acquire(&a, &key).await, None, "the holder's own row is treated alike");
    fixture.pass(TTL).await;
    assert_eq!(acquire(&b, &key).await, None, "expired, but within the grace");
    fixture.pass(GRACE).await;
    let new = acquire(&b, &key).await.unwrap();
    assert_eq!((new.previous, new.checkpoint.as_slice()), (row.fence, &b"kept"[..]));
    assert!(!b.force_release(&pod("absent")).await.unwrap());
}

pub(crate) async fn a_force_released_row_that_nobody_held_stays_free(fixture: &LockFixture) {
    let (a, b) = (fixture.holder("a").await, fixture.holder("b").await);
    let key = pod("x");
    let claim = acquire(&a, &key).await.unwrap();
    release(&a, claim, None, AfterRelease::Free).await;
    assert!(b.force_release(&key).await.unwrap());
    let row = b.table().await.unwrap().rows.remove(&key).unwrap();
    assert!(row.owner.is_none(), "{row:?}");
    assert!(acquire(&b, &key).await.is_some());
}
