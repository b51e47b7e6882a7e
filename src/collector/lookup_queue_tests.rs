//! Tests of which missing pods are looked up, and when.

use super::*;

fn at(second: u64) -> Duration {
    Duration::from_secs(second)
}

/// The missing pods of a text such as `a/1 b/2*`: namespace and UID, with a star if this replica holds the pod.
fn missing(text: &str) -> BTreeMap<PodUid, MissingPod> {
    let pods = text.split_whitespace().map(|word| {
        let (namespace, uid) = word.trim_end_matches('*').split_once('/').unwrap();
        let pod_ref = PodRef {
            namespace: namespace.into(),
            pod: uid.into(),
            ..PodRef::default()
        };
        let held = word.ends_with('*');
        (uid.into(), MissingPod { pod_ref, held })
    });
    pods.collect()
}

fn taken(queue: &mut LookupQueue, room: usize, second: u64) -> String {
    let taken = queue.take(room, at(second));
    let names: Vec<_> = taken.iter().map(|(uid, _)| uid.to_string()).collect();
    names.join(" ")
}

fn queue(text: &str) -> LookupQueue {
    let mut queue = LookupQueue::default();
    queue.update(missing(text), at(0));
    queue
}

#[test]
fn pods_that_are_held_go_first_and_the_others_by_age() {
    let mut queue = queue("a/7 a/8 a/9*");
    assert_eq!(taken(&mut queue, 2, 0), "9 7");
    for uid in ["7", "9"] {
        queue.on_no_answer(&uid.into(), at(0));
    }
    queue.update(missing("a/1 a/7 a/8 a/9"), at(3));
    assert_eq!(
        taken(&mut queue, 9, 5),
        "8 1 7 9",
        "by the time at which they became due"
    );
    assert_eq!(taken(&mut queue, 9, 5), "", "they are being looked up");
}

#[test]
fn a_pod_that_exists_is_asked_about_less_and_less_often_up_to_once_an_hour() {
    let mut queue = queue("a/1");
    let mut asked = Vec::new();
    for second in 0..5 * 3600 {
        if !queue.take(1, at(second)).is_empty() {
            asked.push(second / 60);
            queue.on_exists(&"1".into(), at(second));
        }
    }
    assert_eq!(asked, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
}

#[test]
fn a_pod_is_asked_about_again_in_seconds_after_no_answer_and_while_its_deletion_has_had_no_effect() {
    let mut queue = queue("a/1 a/2");
    assert_eq!(taken(&mut queue, 2, 0), "1 2");
    queue.on_no_answer(&"1".into(), at(0));
    queue.on_deleted(&"2".into(), at(1));
    assert_eq!(queue.unresolved(), 1);
    assert_eq!(taken(&mut queue, 2, 4), "");
    assert_eq!(taken(&mut queue, 2, 5), "1");
    assert_eq!(taken(&mut queue, 2, 6), "2");
    queue.on_exists(&"1".into(), at(6));
    assert_eq!(queue.unresolved(), 0);
}

#[test]
fn a_namespace_that_is_refused_is_asked_about_one_pod_less_and_less_often_and_holds_up_no_other() {
    let text = "no/1 no/2 no/3* yes/4";
    let (mut queue, no) = (queue(text), Arc::from("no"));
    assert_eq!(taken(&mut queue, 9, 0), "3 1 2 4");
    let news: Vec<bool> = ["1", "2", "3"]
        .map(|uid| queue.on_refused(&uid.into(), &no, at(0)))
        .into();
    assert_eq!(news, [true, false, false], "it is said once");
    let mut asked = Vec::new();
    for second in 0..5 * 3600 {
        queue.update(missing(text), at(second));
        for (uid, pod_ref) in queue.take(9, at(second)) {
            match &*pod_ref.namespace {
                "no" => {
                    asked.push(second);
                    assert!(!queue.on_refused(&uid, &no, at(second)));
                }
                _ => panic!("{uid}: the answer has not come yet"),
            }
        }
    }
    // 5 s, and then 10, 20, 40 ... 2560, 3600, 3600 s later.
    assert_eq!(
        asked,
        [5, 15, 35, 75, 155, 315, 635, 1275, 2555, 5115, 8715, 12315, 15915]
    );
    assert_eq!(queue.unresolved(), 3);
}

#[test]
fn a_namespace_that_is_allowed_again_is_looked_up_at_once() {
    let text = "no/1 no/2 no/3";
    let (mut queue, no) = (queue(text), Arc::from("no"));
    queue.take(1, at(0));
    assert!(queue.on_refused(&"1".into(), &no, at(0)));
    assert_eq!(taken(&mut queue, 9, 5), "2");
    assert!(queue.on_allowed("no"));
    assert!(!queue.on_allowed("no"));
    assert_eq!(taken(&mut queue, 9, 5), "3 1");
}

#[test]
fn what_is_not_missing_any_more_is_forgotten_and_so_is_the_refusal_of_its_namespace() {
    let (mut queue, no) = (queue("no/1"), Arc::from("no"));
    queue.take(1, at(0));
    queue.on_refused(&"1".into(), &no, at(0));
    queue.update(missing(""), at(1));
    assert!(queue.pods.is_empty() && queue.refused.is_empty());
    // Answers that come late change nothing.
    queue.on_exists(&"1".into(), at(1));
    assert!(queue.pods.is_empty());
}
