//! `podlog demo`: a simulated cluster, several real replicas, one of them killed, and the audit. With `--soak` it
//! goes on for as long as one likes, and with `--chaos` everything fails that can be made to.
//!
//! The audit compares what the simulated containers wrote with what is stored; nothing that a
//! replica says about itself counts. With `--claims off` the replicas do not know of each other, which
//! shows the problem that claims solve.

mod acts;
mod chaos;
mod claims;
mod files;
mod look;
mod play;
mod progress;
mod replica;
mod samples;
mod screen;
mod soak;
mod stage;
mod stored;
mod tasks;
mod trend;
mod view;

use std::io::Write as _;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cli::lab::{Demo, Switch};
use crate::domain::StreamId;
use crate::exit::Failure;
use kube_sim::audit::{Audit, Discrepancy};
use play::Play;
use soak::Soaked;

/// Faulty lines that are named.
const NAMED: usize = 5;

/// How a demo went.
#[derive(Clone, Debug)]
struct Outcome {
    audit: Audit,
    /// The first lines that something is wrong with.
    findings: Vec<(StreamId, Discrepancy)>,
    /// How long the pods of a killed replica were without another holder, if they got one; at most.
    takeover: Option<Duration>,
    /// Killed replicas whose pods have not all got another holder.
    untaken: usize,
    /// Replicas that did not end as they should, and figures that grow and must not.
    badly: Vec<String>,
    soak: Option<Soaked>,
}

impl Outcome {
    fn is_clean(&self) -> bool {
        self.audit.is_clean() && self.untaken == 0 && self.badly.is_empty()
    }

    /// What stands on stdout: one line, and before it those of a soak.
    fn line(&self) -> String {
        let took = self
            .takeover
            .map_or("none".to_owned(), |took| format!("{:.1}", took.as_secs_f64()));
        let soak = self.soak.iter().map(Soaked::lines).collect::<String>();
        format!("{soak}audit: {} takeover_s={took}", self.audit)
    }

    fn json(&self, demo: &Demo, seed: u64) -> String {
        let r = &self.audit;
        let mut printed = json!({
            "seed": seed,
            "claims": demo.claims == Switch::On,
            "pods": demo.pods,
            "replicas": demo.replicas,
            "written": r.written,
            "delivered": r.delivered,
            "lost": r.lost,
            "duplicated": r.duplicated,
            "out_of_order": r.out_of_order,
            "gaps": r.gaps,
            "foreign": r.foreign,
            "takeover_s": self.takeover.map(|took| (took.as_secs_f64() * 10.0).round() / 10.0),
            "clean": self.is_clean(),
        });
        if let Some(soak) = &self.soak {
            printed["soak"] = soak.json();
        }
        printed.to_string()
    }
}

/// Refuses what has no meaning together.
fn check(demo: &Demo) -> Result<(), Failure> {
    let refused = |what: &str| Err(Failure::usage(what));
    match demo.soak {
        None if demo.chaos => refused("--chaos is for a soak; say how long it takes, as in --soak 30m --chaos"),
        Some(_) if demo.claims == Switch::Off => refused("--soak needs claims; leave --claims off away"),
        Some(soak) if soak < soak::LEAST => refused("--soak is too short; give it 10s or more"),
        _ => Ok(()),
    }
}

/// `podlog demo`. Fails with status 1 when the audit is not clean, a replica ends by itself, or
/// `stop` comes before the end.
pub async fn demo(demo: Demo, stop: CancellationToken) -> Result<(), Failure> {
    check(&demo)?;
    let seed = demo.seed.unwrap_or_else(|| u64::from(fastrand::u32(..)));
    if demo.seed.is_none() {
        screen::remark(format_args!("seed {seed}"));
    }
    let mut play = Play::set(&demo, seed, stop).await?;
    let played = play.run().await;
    play.clear().await;
    let outcome = played?;
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
        return Err(Failure::unclean(format!(
            "without claims each of {} replicas collects every pod, so each line is stored {} times: that is what podlog's claims prevent",
            demo.replicas, demo.replicas
        )));
    }
    for (stream, Discrepancy { fault, line, time }) in &outcome.findings {
        screen::remark(format_args!(
            "{fault:?}: line {line} of {}/{}/{} at {time}",
            stream.uid,
            stream.container,
            stream.container_id.short()
        ));
    }
    for what in &outcome.badly {
        screen::remark(what);
    }
    Err(Failure::unclean(format!(
        "the audit is not clean; run it again with --seed {seed} --keep DIRECTORY and look at the replicas' logs"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_clean_only_if_lines_replicas_and_takeover_are() {
        let clean = Outcome {
            audit: Audit {
                written: 5,
                delivered: 5,
                ..Audit::default()
            },
            findings: vec![],
            takeover: Some(Duration::from_millis(21_260)),
            untaken: 0,
            badly: vec![],
            soak: None,
        };
        assert!(clean.is_clean());
        assert_eq!(
            clean.line(),
            "audit: written=5 delivered=5 lost=0 duplicated=0 out_of_order=0 gaps=0 takeover_s=21.3"
        );
        let never = Outcome {
            takeover: None,
            untaken: 1,
            ..clean.clone()
        };
        assert!(!never.is_clean() && never.line().ends_with("takeover_s=none"));
        let hung = Outcome {
            badly: vec!["replica-1 hung".to_owned()],
            ..clean.clone()
        };
        assert!(!hung.is_clean());
        let mut lossy = clean;
        lossy.audit.lost = 1;
        assert!(!lossy.is_clean());
    }

    #[test]
    fn chaos_is_for_a_soak_and_a_soak_for_claims() {
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
