//! The outcome of a demo, as text and as JSON. Plain values.

use std::time::Duration;

use kube_sim::audit::{Audit, Discrepancy};
use serde_json::json;

use super::soak::SoakReport;
use crate::cli::lab::{Demo, Switch};
use crate::domain::StreamId;

/// The outcome of a demo.
#[derive(Clone, Debug)]
pub(super) struct DemoOutcome {
    pub(super) audit: Audit,
    /// The first discrepancies.
    pub(super) discrepancies: Vec<(StreamId, Discrepancy)>,
    /// The longest time that pods of a killed replica were without another holder.
    pub(super) takeover: Option<Duration>,
    /// The number of killed replicas of which some pods have no other holder.
    pub(super) unfinished_takeovers: usize,
    /// Other failures: replicas that failed, growing resource use, unnecessary gaps.
    pub(super) failures: Vec<String>,
    pub(super) soak: Option<SoakReport>,
}

impl DemoOutcome {
    /// Whether there are no discrepancies and no failures.
    pub(super) fn is_clean(&self) -> bool {
        self.audit.is_clean() && self.unfinished_takeovers == 0 && self.failures.is_empty()
    }

    /// The text for stdout: one line, after the lines of a soak.
    pub(super) fn line(&self) -> String {
        let took = self
            .takeover
            .map_or("none".to_owned(), |took| format!("{:.1}", took.as_secs_f64()));
        let soak = self.soak.iter().map(SoakReport::lines).collect::<String>();
        format!("{soak}audit: {} takeover_s={took}", self.audit)
    }

    /// The same as JSON.
    pub(super) fn json(&self, demo: &Demo, seed: u64) -> String {
        let audit = &self.audit;
        let mut printed = json!({
            "seed": seed,
            "claims": demo.claims == Switch::On,
            "pods": demo.pods,
            "replicas": demo.replicas,
            "written": audit.written,
            "delivered": audit.delivered,
            "lost": audit.lost,
            "duplicated": audit.duplicated,
            "out_of_order": audit.out_of_order,
            "gaps": audit.gaps,
            "foreign": audit.foreign,
            "takeover_s": self.takeover.map(|took| (took.as_secs_f64() * 10.0).round() / 10.0),
            "clean": self.is_clean(),
        });
        if let Some(soak) = &self.soak {
            printed["soak"] = soak.json();
        }
        printed.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_clean_only_without_discrepancies_failures_and_unfinished_takeovers() {
        let clean = DemoOutcome {
            audit: Audit {
                written: 5,
                delivered: 5,
                ..Audit::default()
            },
            discrepancies: vec![],
            takeover: Some(Duration::from_millis(21_260)),
            unfinished_takeovers: 0,
            failures: vec![],
            soak: None,
        };
        assert!(clean.is_clean());
        assert_eq!(
            clean.line(),
            "audit: written=5 delivered=5 lost=0 duplicated=0 out_of_order=0 gaps=0 takeover_s=21.3"
        );
        let never = DemoOutcome {
            takeover: None,
            unfinished_takeovers: 1,
            ..clean.clone()
        };
        assert!(!never.is_clean() && never.line().ends_with("takeover_s=none"));
        let hung = DemoOutcome {
            failures: vec!["replica-1 hung".to_owned()],
            ..clean.clone()
        };
        assert!(!hung.is_clean());
        let mut lossy = clean;
        lossy.audit.lost = 1;
        assert!(!lossy.is_clean());
    }
}
