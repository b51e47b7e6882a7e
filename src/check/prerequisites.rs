//! What the parts of the check share: the deadline of a question, and whether a backend can be opened.

use std::time::Duration;

use crate::domain::{Finding, Outcome};

/// The longest time for one question to something outside.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// Whether the backend can be opened: no check failed or was skipped, and the tables are correct.
pub(super) fn is_ready(findings: &[Finding], tables: &str) -> bool {
    findings.iter().all(|finding| match finding.outcome {
        Outcome::Ok => true,
        Outcome::Warning => finding.subject != tables,
        Outcome::Failed(_) | Outcome::Skipped => false,
    })
}
