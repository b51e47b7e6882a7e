//! The correct protocol: no step that is possible in these configurations violates a property.
//!
//! Pods share only clocks and the hold-off. So late statements, statements whose sender has given up, and jumps are
//! explored in depth with one pod. Configurations with two pods show that one pod does not affect the other.

use std::collections::BTreeSet;

use crate::config::ModelConfig;
use crate::protocol::explore;

/// Jumps: two that look like slewing, one beyond every expiry, one back.
const JUMPS: &[i8] = &[1, 2, 8, -2];

/// Explores a configuration in which every property must hold, and prints its size. Returns the kinds of step that
/// were possible.
fn prove(name: &str, config: &ModelConfig) -> BTreeSet<String> {
    let found = explore(config);
    println!("{name}: {}", found.size);
    if let Some((property, history)) = found.violation {
        for (step, state) in &history {
            println!("    {step:?}  {state:?}");
        }
        panic!("{name}: not so: {property}");
    }
    found.kinds
}

/// Three replicas while the clock jumps. Statements and answers come at once or are lost.
const fn jumping(pods: usize, jump_by: &'static [i8]) -> ModelConfig {
    ModelConfig {
        jump_by,
        abandoned_statements: false,
        ..ModelConfig::new(3, pods, 0)
    }
}

#[test]
fn no_two_of_three_replicas_act_on_the_same_of_two_pods() {
    let config = ModelConfig {
        abandoned_statements: false,
        ..ModelConfig::new(3, 2, 1)
    };
    prove("3 replicas, 2 pods, 1 late", &config);
}

#[test]
fn no_two_replicas_act_on_one_of_two_pods_when_the_database_clock_jumps_beyond_every_expiry() {
    let kinds = prove("3 replicas, 2 pods, a jump by 8", &jumping(2, &[8]));
    let expected = [
        "Jump",
        "HoldsOff",
        "Acquires AnswerLost",
        "Renews AnswerLost",
        "HandsOver Answered",
        "Releases Lost",
    ];
    for kind in expected {
        assert!(kinds.contains(kind), "{kind} never occurs: {kinds:?}");
    }
}

#[test]
#[ignore = "a quarter of an hour and 6 GB: cargo test --release --test model -- --ignored --nocapture"]
fn no_two_replicas_act_on_one_of_two_pods_however_the_database_clock_jumps() {
    prove("3 replicas, 2 pods, a jump", &jumping(2, JUMPS));
    let twice = ModelConfig {
        jumps: 2,
        ..jumping(2, &[8])
    };
    prove("3 replicas, 2 pods, two jumps by 8", &twice);
}

#[test]
fn no_two_of_three_replicas_act_when_statements_are_late_or_lost() {
    let config = ModelConfig {
        pods_finish: true,
        ..ModelConfig::new(3, 1, 2)
    };
    let kinds = prove("3 replicas, 1 pod, 2 late and abandoned", &config);
    let expected = [
        "Acquires Late",
        "Acquires AnswerLost",
        "GivenUp Acquired",
        "Arrives AcquireAbandoned",
        "Renews AnswerLost",
        "Answers RenewHeld",
        "Answers RenewLost",
        "Arrives RenewAbandoned",
        "HandsOver Answered",
        "Arrives Handed",
        "DeclinesHandover",
        "Releases Lost",
        "Arrives Free",
        "Finishes Answered",
        "Arrives Finished",
    ];
    for kind in expected {
        assert!(kinds.contains(kind), "{kind} never occurs: {kinds:?}");
    }
}

#[test]
fn no_two_of_three_replicas_act_however_the_database_clock_jumps() {
    let kinds = prove("3 replicas, 1 pod, a jump", &jumping(1, JUMPS));
    assert!(kinds.contains("Jump") && kinds.contains("HoldsOff"), "{kinds:?}");
    let twice = ModelConfig {
        jumps: 2,
        ..jumping(1, &[8])
    };
    prove("3 replicas, 1 pod, two jumps by 8", &twice);
    let late = ModelConfig {
        replicas: 2,
        late: 1,
        ..jumping(1, JUMPS)
    };
    prove("2 replicas, 1 pod, a jump, 1 late", &late);
    let abandoned = ModelConfig {
        jump_by: JUMPS,
        ..ModelConfig::new(2, 1, 1)
    };
    prove("2 replicas, 1 pod, a jump, 1 late or abandoned", &abandoned);
}

#[test]
fn a_clock_jump_of_less_than_margin_plus_grace_is_harmless_even_before_the_first_read() {
    let config = ModelConfig {
        jump_before_first_read: true,
        ..jumping(1, &[2])
    };
    prove("3 replicas that are new, 1 pod, a jump by 2", &config);
}

#[test]
fn a_replica_left_alone_gets_the_pod_after_any_history() {
    let config = ModelConfig {
        check_progress: true,
        ..ModelConfig::new(2, 1, 2)
    };
    prove("left alone, 2 late and abandoned", &config);
    let config = ModelConfig {
        check_progress: true,
        replicas: 2,
        handovers: false,
        ..jumping(1, JUMPS)
    };
    prove("left alone, a jump", &config);
}
