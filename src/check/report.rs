//! What was found, as lines for people, as JSON, and as an exit status.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::domain::{Cause, Fact, Outcome};
use crate::exit::Failure;

/// The parts, in the order in which `podlog run` meets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
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

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    parts: Vec<(Part, Vec<Fact>)>,
}

impl Report {
    /// A report of these parts, in the order of [`Part`].
    #[must_use]
    pub fn new(parts: Vec<(Part, Vec<Fact>)>) -> Self {
        Self { parts }
    }

    /// All facts, each with its part.
    pub fn facts(&self) -> impl Iterator<Item = (Part, &Fact)> {
        self.parts
            .iter()
            .flat_map(|(part, facts)| facts.iter().map(move |fact| (*part, fact)))
    }

    /// One line for each fact, and a last one that counts them.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (part, fact) in self.facts() {
            // Writing to a string cannot fail.
            writeln!(text, "{}", line(part, fact)).unwrap_or_default();
        }
        let [ok, warnings, failed, skipped] = self.counts();
        let counts = format!("{ok} ok, {warnings} warnings, {failed} failed, {skipped} skipped");
        writeln!(text, "{counts}").unwrap_or_default();
        text
    }

    /// `{"status": 4, "facts": [{"check", "state", "subject", "fact", "remedy"}]}`. States are `ok`, `warning`,
    /// `failed` and `skipped`.
    #[must_use]
    pub fn json(&self) -> String {
        let facts: Vec<Value> = self
            .facts()
            .map(|(part, fact)| {
                json!({
                    "check": part.name(), "state": state(fact.outcome), "subject": one_line(&fact.subject),
                    "fact": one_line(&fact.found), "remedy": one_line(&fact.remedy),
                })
            })
            .collect();
        let status = self.outcome().err().map_or(0, |failure| failure.code());
        let mut text = serde_json::to_string_pretty(&json!({"status": status, "facts": facts})).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Fails with the first thing that failed, as `podlog run` would.
    pub fn outcome(&self) -> Result<(), Failure> {
        let [.., failed, _] = self.counts();
        let first = self.facts().find_map(|(part, fact)| match fact.outcome {
            Outcome::Failed(cause) => Some((part, fact, cause)),
            _ => None,
        });
        let Some((part, fact, cause)) = first else {
            return Ok(());
        };
        let more = if failed > 1 {
            format!(" ({} more above)", failed - 1)
        } else {
            String::new()
        };
        let why = format!("{}: {}: {}{more}", part.name(), fact.subject, said(fact));
        Err(match cause {
            Cause::Setting => Failure::usage(why),
            Cause::Unreachable => Failure::unreachable(why),
            Cause::Refused => Failure::refused(why),
            Cause::Machine => Failure::unclean(why),
        })
    }

    /// How many are well, warned about, failed and skipped.
    fn counts(&self) -> [usize; 4] {
        let mut counts = [0; 4];
        for (_, fact) in self.facts() {
            let place = match fact.outcome {
                Outcome::Ok => 0,
                Outcome::Warning => 1,
                Outcome::Failed(_) => 2,
                Outcome::Skipped => 3,
            };
            counts[place] += 1;
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

fn said(fact: &Fact) -> String {
    if fact.remedy.is_empty() {
        return fact.found.clone();
    }
    format!("{}; {}", fact.found, fact.remedy)
}

fn line(part: Part, fact: &Fact) -> String {
    let mark = match fact.outcome {
        Outcome::Ok => '✓',
        Outcome::Warning => '!',
        Outcome::Failed(_) => '✗',
        Outcome::Skipped => '-',
    };
    let because = if fact.outcome == Outcome::Skipped {
        "skipped: because "
    } else {
        ""
    };
    one_line(&format!(
        "{mark} {}: {}: {because}{}",
        part.name(),
        fact.subject,
        said(fact)
    ))
}

/// Errors of libraries come with line breaks.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report::new(vec![
            (Part::Settings, vec![Fact::ok("times", "safe")]),
            (
                Part::Locks,
                vec![
                    Fact::failed(
                        Cause::Refused,
                        "INSERT on t",
                        "the user\n  has not this right",
                        "GRANT it",
                    ),
                    Fact::skipped("writing", "a right is missing"),
                ],
            ),
            (
                Part::Cluster,
                vec![Fact::failed(Cause::Unreachable, "connection", "refused", "")],
            ),
            (Part::Host, vec![Fact::warning("--http", "in use", "choose another")]),
        ])
    }

    #[test]
    fn each_fact_is_one_line_with_its_mark_cause_and_remedy() {
        assert_eq!(
            report().text(),
            "✓ settings: times: safe\n\
             ✗ lock store: INSERT on t: the user has not this right; GRANT it\n\
             - lock store: writing: skipped: because a right is missing\n\
             ✗ cluster: connection: refused\n\
             ! this machine: --http: in use; choose another\n\
             1 ok, 1 warnings, 2 failed, 1 skipped\n"
        );
    }

    #[test]
    fn the_status_is_that_of_the_first_failure_and_warnings_are_none() {
        let failure = report().outcome().unwrap_err();
        assert_eq!(failure.code(), 4);
        assert!(failure.to_string().contains("(1 more above)"), "{failure}");
        let warned = Report::new(vec![(
            Part::Host,
            vec![Fact::warning("a", "b", "c"), Fact::skipped("d", "e")],
        )]);
        assert_eq!(warned.outcome(), Ok(()));
        let causes = [Cause::Machine, Cause::Setting, Cause::Unreachable, Cause::Refused];
        let codes = causes.map(|cause| {
            let parts = vec![(Part::Host, vec![Fact::failed(cause, "a", "b", "")])];
            Report::new(parts).outcome().unwrap_err().code()
        });
        assert_eq!(codes, [1, 2, 3, 4]);
    }

    #[test]
    fn json_has_the_same_facts_and_the_status() {
        let value: Value = serde_json::from_str(&report().json()).unwrap();
        assert_eq!(value["status"], 4);
        assert_eq!(value["facts"].as_array().unwrap().len(), 5);
        let first = json!({"check": "lock store", "state": "failed", "subject": "INSERT on t",
            "fact": "the user has not this right", "remedy": "GRANT it"});
        assert_eq!(value["facts"][1], first);
    }
}
