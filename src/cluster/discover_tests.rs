//! Tests of discovery against a scripted API server on a paused clock.

use std::collections::VecDeque;

use serde_json::json;
use tokio::time::{Instant, timeout};

use super::super::scripted_server::{DiscoveryFixture, Script, ScriptedWatch, event, expired, fixture, pod};
use super::*;
use crate::domain::PodUid;

#[tokio::test(start_paused = true)]
async fn pods_are_listed_by_pages_and_then_watched() {
    let watches = VecDeque::from([ScriptedWatch::Silent(vec![
        event("ADDED", pod("c", "Pending")),
        event("MODIFIED", pod("a", "Running")),
        event("DELETED", pod("b", "Running")),
    ])]);
    let pods = ["a", "b", "d", "e", "f"].map(|name| pod(name, "Pending")).to_vec();
    let mut fixture = fixture(
        Script {
            pods,
            page: 2,
            watches,
            ..Script::default()
        },
        Scope::default(),
    );
    let set = fixture.until(|set| set.pods.contains_key(&"c".into())).await;
    assert!(set.listings.is_settled());
    let names: Vec<_> = set.pods.keys().map(PodUid::as_str).collect();
    assert_eq!(names, ["a", "c", "d", "e", "f"]);
    assert_eq!(set.pods[&"a".into()].phase, crate::domain::Phase::Running);
    assert_eq!(fixture.times(false).len(), 3);
    assert_eq!(fixture.metrics.pods_known.get(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_expired_resource_version_causes_a_list_at_once_but_repeated_ones_are_delayed() {
    let mut watches = VecDeque::from([ScriptedWatch::Events(vec![
        event("ADDED", pod("a", "Running")),
        expired(),
    ])]);
    watches.extend((0..20).map(|n| {
        if n % 2 == 0 {
            ScriptedWatch::Events(vec![expired()])
        } else {
            ScriptedWatch::Refuse(410)
        }
    }));
    let fixture = fixture(
        Script {
            watches,
            ..Script::default()
        },
        Scope::default(),
    );
    tokio::time::sleep(Duration::from_mins(1)).await;
    let lists = fixture.times(false);
    assert!(lists[1] < 0.1, "{lists:?}");
    assert!((6..20).contains(&lists.len()), "{lists:?}");
}

#[tokio::test(start_paused = true)]
async fn pods_are_polled_when_they_cannot_be_watched() {
    let script = Script {
        refuse_watches: true,
        ..Script::default()
    };
    let mut fixture = fixture(script, Scope::default());
    fixture.until(|set| set.listings.is_settled()).await;
    tokio::time::sleep(Duration::from_mins(2)).await;
    let lists = fixture.times(false);
    assert!(lists[1] - lists[0] <= 1.1, "the first wait is short: {lists:?}");
    let longest = lists.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    assert!((4.0..=10.1).contains(&longest), "{lists:?}");
    let added_at = Instant::now();
    fixture.script.lock().unwrap().pods.push(pod("new", "Running"));
    fixture.until(|set| set.pods.len() == 1).await;
    assert!(added_at.elapsed() <= Duration::from_millis(10_100));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_or_breaks_resumes_from_its_last_version() {
    let end = vec![event("ADDED", pod("a", "Running"))];
    let broken = vec![event("ADDED", pod("b", "Running")), json!("not an event")];
    let last = vec![event("ADDED", pod("c", "Running"))];
    let watches = VecDeque::from([
        ScriptedWatch::Events(end),
        ScriptedWatch::Events(broken),
        ScriptedWatch::Silent(last),
    ]);
    let mut fixture = fixture(
        Script {
            watches,
            ..Script::default()
        },
        Scope::default(),
    );
    fixture.until(|set| set.pods.len() == 3).await;
    assert_eq!(fixture.times(false).len(), 1, "no second list");
    let script = fixture.script.lock().unwrap();
    let versions: Vec<&str> = script
        .requests
        .iter()
        .filter_map(|(_, uri)| uri.split("resourceVersion=").nth(1))
        .collect();
    assert_eq!(versions, ["1", "2", "2"]);
}

#[tokio::test(start_paused = true)]
async fn bookmarks_keep_a_watch_open_and_silence_ends_it() {
    let watches = VecDeque::from([ScriptedWatch::Bookmarks]);
    let mut alive = fixture(
        Script {
            watches,
            ..Script::default()
        },
        Scope::default(),
    );
    alive.until(|set| set.listings.is_settled()).await;
    tokio::time::sleep(Duration::from_mins(20)).await;
    assert_eq!(alive.times(true).len(), 1);
    let mut silent = fixture(Script::default(), Scope::default());
    silent.until(|set| set.listings.is_settled()).await;
    tokio::time::sleep(Duration::from_secs(149)).await;
    assert_eq!((silent.times(true).len(), silent.times(false).len()), (1, 1));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(
        (silent.times(true).len(), silent.times(false).len()),
        (2, 2),
        "it lists again"
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_a_version_that_the_server_does_not_know_is_silent_and_ends_with_a_list_of_what_there_is() {
    for before in [vec![event("ADDED", pod("gone", "Running"))], vec![]] {
        let script = Script {
            // From the future: what comes later is not sent.
            watches: VecDeque::from([ScriptedWatch::Silent(before)]),
            ..Script::default()
        };
        let mut fixture = fixture(script, Scope::default());
        fixture.until(|set| set.listings.is_settled()).await;
        // The version of the list is 1 again.
        fixture.script.lock().unwrap().pods.push(pod("new", "Running"));
        let begun = Instant::now();
        let set = fixture.until(|set| set.pods.contains_key(&PodUid::from("new"))).await;
        assert_eq!(set.pods.len(), 1, "what is gone is gone");
        assert!(begun.elapsed() < Duration::from_secs(155), "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn watches_that_are_cut_before_any_event_are_followed_by_a_list_as_one_silent_watch_is() {
    // Each is cut after 60 s, so that it counts as working.
    let watches = (0..9)
        .map(|_| ScriptedWatch::CutAfter(Duration::from_mins(1)))
        .collect();
    let script = Script {
        watches,
        ..Script::default()
    };
    let mut fixture = fixture(script, Scope::default());
    fixture.until(|set| set.listings.is_settled()).await;
    tokio::time::sleep(Duration::from_secs(155)).await;
    assert_eq!((fixture.times(true).len(), fixture.times(false).len()), (4, 2));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_nothing_while_a_watch_is_open_is_shown_until_it_answers() {
    let mut fixture = fixture(Script::default(), Scope::default());
    fixture.until(|set| set.listings.is_settled()).await;
    for (code, shown) in [(503, 1), (403, 0)] {
        fixture.script.lock().unwrap().version_code = code;
        tokio::time::sleep(Duration::from_secs(25)).await;
        assert_eq!(failures(&fixture).0.len(), shown, "{code}");
    }
    assert_eq!(
        (fixture.times(true).len(), fixture.times(false).len()),
        (1, 1),
        "the watch goes on"
    );
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_events_is_published_together_and_an_unchanged_set_is_not_published() {
    let burst = (0..1000)
        .map(|n| event("ADDED", pod(&format!("p{n}"), "Running")))
        .collect();
    let mut fixture = fixture(
        Script {
            watches: VecDeque::from([ScriptedWatch::Silent(burst)]),
            ..Script::default()
        },
        Scope::default(),
    );
    let mut published = 0;
    while fixture.pod_sets.borrow().pods.len() < 1000 {
        fixture.pod_sets.changed().await.unwrap();
        published += 1;
    }
    assert!(published <= 2, "published {published} times");
    let (again, _) = (fixture.pod_sets.clone(), fixture.pod_sets.borrow_and_update());
    // Shorter than the silence after which it lists again.
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert!(!again.has_changed().unwrap());
}

/// The reasons for which namespaces cannot be listed now, with the metric of each.
fn failures(fixture: &DiscoveryFixture) -> (Vec<String>, [i64; 2]) {
    let shown = |(namespace, failure): (Option<&Arc<str>>, &ListFailure)| {
        format!("{} {}", namespace.map_or("(all)", |name| name), failure.reason())
    };
    let set = fixture.pod_sets.borrow().clone();
    let failures = set.listings.failures().map(shown).collect();
    let metric = |reason| {
        fixture
            .metrics
            .namespaces_unlisted
            .get_or_create(&Reason { reason })
            .get()
    };
    (failures, ListFailure::REASONS.map(metric))
}

fn two_namespaces() -> Scope {
    Scope {
        namespaces: ["shop", "other", "shop"].map(str::to_owned).into(),
        ..Scope::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_is_settled_only_when_every_namespace_has_been_listed_or_refused() {
    for (code, settled) in [(500, false), (401, false), (403, true)] {
        let script = Script {
            list_code: code,
            ..Script::default()
        };
        let mut fixture = fixture(script, two_namespaces());
        tokio::time::sleep(Duration::from_mins(1)).await;
        let set = fixture.pod_sets.borrow().clone();
        assert_eq!(set.listings.is_settled(), settled, "{code}");
        assert!(!set.listings.is_listed("shop"));
        {
            let mut script = fixture.script.lock().unwrap();
            script.list_code = 0;
            script.pods.push(pod("a", "Running"));
        }
        let set = fixture
            .until(|set| set.listings.is_listed("shop") && set.listings.is_listed("other"))
            .await;
        assert_eq!(set.pods.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn namespaces_that_cannot_be_listed_are_shown_until_they_can() {
    for (code, reason, counts) in [(403, "forbidden", [2, 0]), (500, "unavailable", [0, 2])] {
        let script = Script {
            list_code: code,
            ..Script::default()
        };
        let mut fixture = fixture(script, two_namespaces());
        tokio::time::sleep(Duration::from_mins(1)).await;
        let shown = ["other", "shop"].map(|name| format!("{name} {reason}")).to_vec();
        assert_eq!(failures(&fixture), (shown, counts));
        fixture.script.lock().unwrap().list_code = 0;
        fixture.until(|set| set.listings.failures().count() == 0).await;
        assert_eq!(failures(&fixture), (vec![], [0, 0]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_namespace_whose_right_is_revoked_keeps_its_pods_and_is_shown() {
    let script = Script {
        refuse_watches: true,
        pods: vec![pod("a", "Running")],
        ..Script::default()
    };
    let mut fixture = fixture(script, Scope::default());
    fixture.until(|set| set.listings.is_settled()).await;
    fixture.script.lock().unwrap().list_code = 403;
    let set = fixture.until(|set| set.listings.failures().count() == 1).await;
    assert_eq!((set.pods.len(), set.listings.is_listed("shop")), (1, true));
    assert_eq!(failures(&fixture), (vec!["(all) forbidden".to_owned()], [1, 0]));
}

#[tokio::test(start_paused = true)]
async fn a_failed_list_keeps_the_known_pods() {
    let script = Script {
        refuse_watches: true,
        pods: vec![pod("a", "Running")],
        ..Script::default()
    };
    let mut fixture = fixture(script, Scope::default());
    fixture.until(|set| set.listings.is_settled()).await;
    fixture.script.lock().unwrap().list_code = 500;
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(fixture.pod_sets.borrow().pods.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_opts_out_is_removed_from_the_set() {
    let mut out = pod("a", "Running");
    out["metadata"]["annotations"] = json!({"podlog.io/collect": "false"});
    let watches = VecDeque::from([ScriptedWatch::Silent(vec![event("MODIFIED", out)])]);
    let mut fixture = fixture(
        Script {
            pods: vec![pod("a", "Running")],
            watches,
            ..Script::default()
        },
        Scope::default(),
    );
    fixture
        .until(|set| set.listings.is_settled() && set.pods.is_empty())
        .await;
}

#[tokio::test(start_paused = true)]
async fn discovery_ends_when_it_is_stopped() {
    let mut fixture = fixture(Script::default(), Scope::default());
    fixture.until(|set| set.listings.is_settled()).await;
    fixture.stop.cancel();
    timeout(Duration::from_secs(1), fixture.tasks.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}
