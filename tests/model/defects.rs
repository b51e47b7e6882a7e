//! Deliberate defects, and what the protocol does not cover. The model must find each, and prints the shortest
//! counterexample. Otherwise its result for the correct protocol would prove nothing.

use crate::config::{Defect, ModelConfig};
use crate::properties::ONE_ACTS;
use crate::protocol::{explore, explore_within};
use crate::state::{FOR_EVER, State};

/// Explores a configuration in which two replicas come to act on a pod, and prints the shortest way to it.
fn refute(name: &str, config: &ModelConfig) {
    let config = ModelConfig {
        symmetry: false,
        ..*config
    };
    let mut found = explore(&config);
    let Some((mut violated, mut history)) = found.violation else {
        panic!("{name}: nothing is found wrong ({})", found.size);
    };
    // Others may be shorter, until a bounded search finds none.
    loop {
        found = explore_within(&config, history.len());
        let Some(shorter) = found.violation else { break };
        (violated, history) = shorter;
    }
    println!("{name}: not so: {violated}, after {} steps", history.len());
    println!("    and after fewer it never is ({})", found.size);
    println!("    step (replica, pod)                      row and claims, in ticks left; fences by rank");
    for (step, state) in &history {
        println!("    {:<40} {}", format!("{step:?}"), show(&config, state));
    }
    assert_eq!(violated, ONE_ACTS, "{name}");
}

/// A state in one line.
fn show(config: &ModelConfig, state: &State) -> String {
    let row = |pod: usize| {
        let row = state.rows[pod];
        match (row.fence, row.owner) {
            (0, _) => "no row".into(),
            (fence, 0) => format!("free, fence {fence}"),
            (fence, owner) => format!("{owner}'s for {}, fence {fence}", row.left),
        }
    };
    let claim = |replica: usize, pod: usize| {
        let claim = state.replicas[replica].claims[pod];
        match (claim.fence, claim.left) {
            (0, _) => "-".into(),
            (fence, 0) => format!("ended, fence {fence}"),
            (fence, FOR_EVER) => format!("ACTS for ever, fence {fence}"),
            (fence, left) => format!("ACTS for {left}, fence {fence}"),
        }
    };
    let one = |pod: usize| {
        let replicas: Vec<String> = (0..config.replicas).map(|replica| claim(replica, pod)).collect();
        format!("row: {}; replicas: {}", row(pod), replicas.join(" | "))
    };
    (0..config.pods).map(one).collect::<Vec<_>>().join("  //  ")
}

fn with(defect: Defect, late: usize) -> ModelConfig {
    ModelConfig {
        defect: Some(defect),
        ..ModelConfig::new(2, 1, late)
    }
}

#[test]
fn a_deadline_counted_from_the_answer_is_too_late() {
    let config = ModelConfig {
        jump_by: &[2],
        ..with(Defect::DeadlineAfterReply, 1)
    };
    refute("deadline after the reply", &config);
}

#[test]
fn without_a_margin_a_slow_clock_lets_two_replicas_act() {
    let config = ModelConfig {
        jump_by: &[2],
        ..with(Defect::NoMargin, 0)
    };
    refute("no margin", &config);
}

#[test]
fn without_a_grace_a_slow_clock_lets_two_replicas_act() {
    let config = ModelConfig {
        jump_by: &[2],
        ..with(Defect::NoGrace, 0)
    };
    refute("no grace", &config);
}

#[test]
fn an_old_release_without_a_fence_check_frees_a_new_claim() {
    refute("no check of fences", &with(Defect::NoFenceCheck, 1));
}

#[test]
fn trusting_a_clock_that_jumped_takes_pods_from_live_replicas() {
    let config = ModelConfig {
        jump_by: &[8],
        ..with(Defect::JumpIgnored, 0)
    };
    refute("jump ignored", &config);
}

#[test]
fn acting_on_a_claim_whose_answer_was_lost_is_unsafe() {
    refute("lost answer acted on", &with(Defect::LostAnswerActedOn, 0));
}

#[test]
fn a_pod_handed_over_before_it_was_drained_has_two_writers() {
    refute("hand-over before the drain", &with(Defect::HandedBeforeDrained, 0));
}

#[test]
fn a_clock_jump_between_a_read_and_its_claim_is_not_covered() {
    let config = ModelConfig {
        jump_by: &[8],
        jumps_under_claims: true,
        ..ModelConfig::new(2, 1, 1)
    };
    refute("jump under a claim", &config);
}

#[test]
fn a_clock_jump_of_margin_plus_grace_before_the_first_read_is_not_covered() {
    let config = ModelConfig {
        jump_by: &[3],
        jump_before_first_read: true,
        ..ModelConfig::new(2, 1, 0)
    };
    refute("jump before the first look", &config);
}

#[test]
fn a_margin_smaller_than_the_clock_drift_outlasts_the_hold_off() {
    let mut config = ModelConfig {
        jump_by: &[8],
        ..ModelConfig::new(2, 1, 0)
    };
    (config.times.margin, config.times.ttl) = (1, 4);
    refute("margin too small", &config);
}
