//! Checks the settings alone: whether they are safe together, and how long a takeover takes with them. It connects to
//! nothing.

use std::time::Duration;

use crate::cli::units::show;
use crate::config::{Config, violations};
use crate::domain::Finding;
use crate::domain::claim::Lease;
use crate::exit::Failure;

/// The longest time from the expiry of a claim until another replica has taken it: a cycle of the collector and a
/// statement.
const CYCLE: Duration = Duration::from_secs(1);

pub(super) fn diagnose(config: &Config) -> Vec<Finding> {
    let mut findings: Vec<Finding> = violations(config)
        .iter()
        .map(|violation| violation.to_finding("safety"))
        .collect();
    if findings.is_empty() {
        findings.push(Finding::ok("safety", "times, sizes and counts are safe together"));
        findings.push(times(&config.lease));
    } else {
        findings.push(Finding::skipped("takeover", "the settings are not safe"));
    }
    if let Err(error) = config.scope().check() {
        findings.push(Failure::from(error).to_finding("selection"));
    }
    findings
}

/// What the times of a claim mean after a crash. A holder stops ttl - margin after it sent its last renewal. That
/// renewal arrived at most a statement later, so the claim expires ttl after that. Others wait for the takeover grace.
fn times(lease: &Lease) -> Finding {
    let stops = lease.ttl.saturating_sub(lease.margin);
    let latest = lease.ttl + lease.takeover_grace + CYCLE;
    let found = format!(
        "ttl {}, renewed every {}, margin {}: a replica that cannot renew stops after {}, and the pods of one that crashed are taken over within about {}",
        show(lease.ttl),
        show(lease.renew),
        show(lease.margin),
        show(stops),
        show(latest),
    );
    Finding::ok("takeover", found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_a_takeover_are_added_up() {
        let seconds = Duration::from_secs;
        let lease = Lease {
            ttl: seconds(20),
            renew: seconds(5),
            margin: seconds(5),
            takeover_grace: seconds(1),
        };
        let finding = times(&lease);
        assert!(
            finding.message.text.contains("stops after 15s") && finding.message.text.ends_with("about 22s"),
            "{}",
            finding.message.text
        );
    }
}
