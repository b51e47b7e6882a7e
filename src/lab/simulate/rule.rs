//! The rules that every history must keep, and the list of breaches that were found. It checks nothing.

use std::fmt;
use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// What must be true at all times or at the end of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// At most one replica holds a pod, by the table and by the deadlines of the replicas.
    OneHolder,
    /// Nothing is written after the deadline of a claim.
    Deadline,
    /// A holder stops a margin before its row expires.
    Margin,
    /// The fences of a row grow.
    FencesGrow,
    /// Nothing is written under a fence that is smaller than an earlier one.
    StaleFence,
    /// Lines of a stream are stored in the order in which they were written.
    Order,
    /// Nothing is stored twice where that is promised.
    Once,
    /// A sink that does not fence stores a line again only under another claim, if the checkpoint with the line was lost.
    Repeats,
    /// Nothing is stored that the stream's container did not write.
    Foreign,
    /// What was written is stored, or a gap record covers it.
    Complete,
    /// No gap is reported for a log whose lines are all still served.
    GapHasCause,
    /// After faults have ended, every pod has a holder, unless it has ended and is finished.
    Held,
    /// All replicas hold nearly the same number of pods.
    Even,
    /// The number of calls to the lock store does not depend on the number of pods.
    FewCalls,
    /// Nothing that has ended leaves a row, a stream or a task behind.
    NothingLeft,
    /// No part panics or ends by itself.
    Alive,
}

impl Rule {
    /// The rule as a sentence.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OneHolder => "at most one replica holds a pod",
            Self::Deadline => "nothing is written after its deadline",
            Self::Margin => "a holder stops a margin before its row expires",
            Self::FencesGrow => "fences grow",
            Self::StaleFence => "nothing is written under a stale fence",
            Self::Order => "lines keep their order",
            Self::Once => "nothing is stored twice",
            Self::Repeats => "only lines after the checkpoint come again",
            Self::Foreign => "nothing is stored that was not written",
            Self::Complete => "every line is stored or in a gap",
            Self::GapHasCause => "a gap has a cause",
            Self::Held => "every pod has a holder",
            Self::Even => "pods are spread evenly",
            Self::FewCalls => "the lock store gets few calls",
            Self::NothingLeft => "nothing is left behind",
            Self::Alive => "nothing panics or ends by itself",
        }
    }
}

/// A rule that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// The rule.
    pub rule: Rule,
    /// What was observed.
    pub what: String,
}

impl Breach {
    /// A breach of `rule`, with what was observed.
    pub fn new(rule: Rule, what: impl fmt::Display) -> Self {
        let what = what.to_string();
        Self { rule, what }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broken: {}: {}", self.rule.as_str(), self.what)
    }
}

/// All breaches found so far. Cloning shares the list.
#[derive(Clone, Debug, Default)]
pub struct Breaches(Arc<Mutex<Vec<Breach>>>);

impl Breaches {
    /// Adds a breach.
    pub fn record(&self, rule: Rule, what: impl fmt::Display) {
        lock(&self.0).push(Breach::new(rule, what));
    }

    /// The first breach found.
    #[must_use]
    pub fn first(&self) -> Option<Breach> {
        lock(&self.0).first().cloned()
    }
}
