//! The findings as text, as JSON, and as an exit status. It checks nothing.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::domain::{Finding, Message, Outcome};
use crate::exit::Failure;

/// The parts, in the order in which `podlog run` uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The settings themselves.
    Settings,
    /// The lock store.
    Locks,
    /// The sink.
    Sink,
    /// The Kubernetes cluster.
    Cluster,
    /// This machine.
    Host,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Locks => "lock store",
            Self::Sink => "sink",
            Self::Cluster => "cluster",
            Self::Host => "this machine",
        }
    }
}

/// All findings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    parts: Vec<(Part, Vec<Finding>)>,
}

impl Report {
    /// A report of these parts, in the order of [`Part`].
    #[must_use]
    pub(crate) fn new(parts: Vec<(Part, Vec<Finding>)>) -> Self {
        Self { parts }
    }

    /// All findings, each with its part.
    pub(crate) fn findings(&self) -> impl Iterator<Item = (Part, &Finding)> {
        self.parts
            .iter()
            .flat_map(|(part, findings)| findings.iter().map(move |finding| (*part, finding)))
    }

    /// One line for each finding, and a last line with their counts.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (part, finding) in self.findings() {
            // Writing to a string cannot fail.
            writeln!(text, "{}", line(part, finding)).unwrap_or_default();
        }
        let [ok, warnings, failed, skipped] = self.counts();
        let counts = format!("{ok} ok, {warnings} warnings, {failed} failed, {skipped} skipped");
        writeln!(text, "{counts}").unwrap_or_default();
        text
    }

    /// `{"status": 4, "facts": [{"check", "state", "subject", "fact", "remedy"}]}`. States are `ok`, `warning`,
    /// `failed` and `skipped`.
    #[must_use]
    pub(crate) fn json(&self) -> String {
        let findings: Vec<Value> = self
            .findings()
            .map(|(part, finding)| {
                json!({
                    "check": part.name(), "state": state(finding.outcome), "subject": one_line(&finding.subject),
                    "fact": one_line(&finding.message.text), "remedy": one_line(&finding.message.remedy),
                })
            })
            .collect();
        let status = self.outcome().err().map_or(0, |failure| failure.code());
        let mut text = serde_json::to_string_pretty(&json!({"status": status, "facts": findings})).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Fails with the first thing that failed, as `podlog run` would.
    pub(crate) fn outcome(&self) -> Result<(), Failure> {
        let [.., failed, _] = self.counts();
        let first = self.findings().find_map(|(part, finding)| match finding.outcome {
            Outcome::Failed(cause) => Some((part, finding, cause)),
            _ => None,
        });
        let Some((part, finding, cause)) = first else {
            return Ok(());
        };
        let more = if failed > 1 {
            format!(" ({} more above)", failed - 1)
        } else {
            String::new()
        };
        let text = format!("{}: {}: {}{more}", part.name(), finding.subject, finding.message.text);
        Err(Failure::with_cause(cause, Message::new(text, &*finding.message.remedy)))
    }

    /// The numbers of findings that are ok, warnings, failed and skipped.
    fn counts(&self) -> [usize; 4] {
        let mut counts = [0; 4];
        for (_, finding) in self.findings() {
            let index = match finding.outcome {
                Outcome::Ok => 0,
                Outcome::Warning => 1,
                Outcome::Failed(_) => 2,
                Outcome::Skipped => 3,
            };
            counts[index] += 1;
        }
        counts
    }
}

fn state(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Warning => "warning",
        Outcome::Failed(_) => "failed",
        Outcome::Skipped => "skipped",
    }
}

fn line(part: Part, finding: &Finding) -> String {
    let mark = match finding.outcome {
        Outcome::Ok => '✓',
        Outcome::Warning => '!',
        Outcome::Failed(_) => '✗',
        Outcome::Skipped => '-',
    };
    let because = if finding.outcome == Outcome::Skipped {
        "skipped: "
    } else {
        ""
    };
    one_line(&format!(
        "{mark} {}: {}: {because}{}",
        part.name(),
        finding.subject,
        finding.message
    ))
}

/// A text without line breaks, which errors of libraries contain.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Cause;

    fn report() -> Report {
        Report::new(vec![
            (Part::Settings, vec![Finding::ok("times", "safe")]),
            (
                Part::Locks,
                vec![
                    Finding::failed(
                        Cause::Refused,
                        "INSERT on t",
                        "the user\n  has not this right",
                        "GRANT it",
                    ),
                    Finding::skipped("writing", "a right is missing"),
                ],
            ),
            (
                Part::Cluster,
                vec![Finding::failed(Cause::Unreachable, "connection", "refused", "")],
            ),
            (Part::Host, vec![Finding::warning("--http", "in use", "choose another")]),
        ])
    }

    #[test]
    fn each_finding_is_one_line_with_its_mark_cause_and_remedy() {
        assert_eq!(
            report().text(),
            "✓ settings: times: safe\n\
             ✗ lock store: INSERT on t: the user has not this right; GRANT it\n\
             - lock store: writing: skipped: a right is missing\n\
             ✗ cluster: connection: refused\n\
             ! this machine: --http: in use; choose another\n\
             1 ok, 1 warnings, 2 failed, 1 skipped\n"
        );
    }

    #[test]
    fn the_status_is_that_of_the_first_failure_and_warnings_do_not_count() {
        let failure = report().outcome().unwrap_err();
        assert_eq!(failure.code(), 4);
        assert!(failure.to_string().contains("(1 more above)"), "{failure}");
        let warned = Report::new(vec![(
            Part::Host,
            vec![Finding::warning("a", "b", "c"), Finding::skipped("d", "e")],
        )]);
        assert_eq!(warned.outcome(), Ok(()));
        let causes = [Cause::Machine, Cause::Setting, Cause::Unreachable, Cause::Refused];
        let codes = causes.map(|cause| {
            let parts = vec![(Part::Host, vec![Finding::failed(cause, "a", "b", "")])];
            Report::new(parts).outcome().unwrap_err().code()
        });
        assert_eq!(codes, [1, 2, 3, 4]);
    }

    #[test]
    fn json_has_the_same_findings_and_the_status() {
        let value: Value = serde_json::from_str(&report().json()).unwrap();
        assert_eq!(value["status"], 4);
        assert_eq!(value["facts"].as_array().unwrap().len(), 5);
        let first = json!({"check": "lock store", "state": "failed", "subject": "INSERT on t",
            "fact": "the user has not this right", "remedy": "GRANT it"});
        assert_eq!(value["facts"][1], first);
    }
}
