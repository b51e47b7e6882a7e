//! `podlog demo`: real replicas collect a simulated cluster, one replica is killed, and the stored lines are audited.
//! With `--soak` it runs for a chosen time, and with `--chaos` faults are injected.
//!
//! The audit compares the lines that the simulated containers wrote with the stored lines. It never relies on what a
//! replica reports. With `--claims off` the replicas do not see each other's claims, which shows the problem that
//! claims solve.

mod claims;
mod demo_run;
mod environment;
mod fault_plan;
mod files;
mod injector;
mod observer;
mod outcome;
mod progress;
mod replica;
mod replicas;
mod resource_use;
mod running_demo;
mod screen;
mod soak;
mod store_lock;
mod stored;
mod tasks;
mod trend;
mod view;

use std::io::Write as _;

use tokio_util::sync::CancellationToken;

use crate::cli::lab::{Demo, Switch};
use crate::exit::Failure;
use demo_run::DemoRun;
use kube_sim::audit::Discrepancy;

/// Refuses flags that cannot be combined.
fn check(demo: &Demo) -> Result<(), Failure> {
    let refused = |what: &str, remedy: &str| Err(Failure::usage(what).with_remedy(remedy));
    match demo.soak {
        None if demo.chaos => refused(
            "--chaos is for a soak",
            "say how long it takes, as in --soak 30m --chaos",
        ),
        Some(_) if demo.claims == Switch::Off => refused("--soak needs claims", "remove --claims off"),
        Some(soak) if soak < soak::SHORTEST => refused("--soak is too short", "give it 10s or more"),
        _ => Ok(()),
    }
}

/// `podlog demo`. Fails with status 1 when the audit is not clean, a replica ends by itself, or
/// `stop` comes before the end.
pub async fn demo(demo: Demo, stop: CancellationToken) -> Result<(), Failure> {
    check(&demo)?;
    let seed = demo.seed.unwrap_or_else(|| u64::from(fastrand::u32(..)));
    if demo.seed.is_none() {
        screen::print_below(format_args!("seed {seed}"));
    }
    let mut demo_run = DemoRun::start(&demo, seed, stop).await?;
    let outcome = demo_run.run().await;
    demo_run.clean_up().await;
    let outcome = outcome?;
    let line = if demo.json {
        outcome.json(&demo, seed)
    } else {
        outcome.line()
    };
    writeln!(std::io::stdout(), "{line}").ok();
    if outcome.is_clean() {
        return Ok(());
    }
    if demo.claims == Switch::Off {
        return Err(Failure::failed(format!(
            "without claims each of {} replicas collects every pod, so each line is stored {} times: that is what podlog's claims prevent",
            demo.replicas, demo.replicas
        )));
    }
    for (stream, Discrepancy { kind, line, time }) in &outcome.discrepancies {
        screen::print_below(format_args!(
            "{kind:?}: line {line} of {}/{}/{} at {time}",
            stream.uid,
            stream.container,
            stream.container_id.short()
        ));
    }
    for failure in &outcome.failures {
        screen::print_below(failure);
    }
    Err(Failure::failed("the audit is not clean").with_remedy(format!(
        "run it again with --seed {seed} --keep DIRECTORY and read the replicas' logs"
    )))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn chaos_needs_a_soak_and_a_soak_needs_claims() {
        let refused = |soak: Option<u64>, chaos, claims| {
            let demo = Demo {
                json: false,
                seed: None,
                pods: 1,
                replicas: 1,
                duration: Duration::from_secs(1),
                soak: soak.map(Duration::from_secs),
                chaos,
                keep: None,
                rotate: false,
                claims,
            };
            check(&demo).err().map(|failure| failure.to_string())
        };
        assert!(refused(None, true, Switch::On).unwrap().contains("--soak 30m"));
        assert!(refused(Some(60), false, Switch::Off).unwrap().contains("--claims"));
        assert!(refused(Some(9), false, Switch::On).unwrap().contains("10s"));
        assert_eq!(refused(Some(10), true, Switch::On), None);
        assert_eq!(refused(None, false, Switch::Off), None);
    }
}
