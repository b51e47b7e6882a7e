//! The configuration of a model: the number of replicas and pods, the durations, the faults, and the deliberate defect,
//! if any. Plain values.

/// The durations of a claim, in ticks. A tick is 300 ms, so that one is not seen as a jump of a clock (more than 500
/// ms) and two are.
///
/// They are not to scale: each is as small as possible, because fewer ticks make fewer states.
/// - margin 2: over the same time one replica's clock may tick once more and another's once less than the database's,
///   so that of the two who begin at once one has held off for a ttl two ticks before the other has
///   (`a_margin_smaller_than_the_clock_drift_outlasts_the_hold_off`);
/// - grace 1: margin and grace make 3, for a jump by two ticks of which a tick of drift hides one, and for the tick by
///   which the holder's clock is slow (`without_a_grace_a_slow_clock_lets_two_replicas_act`);
/// - ttl 5: margin + max(renewal, answer timeout) + 2 x answer timeout = 2 + 1 + 2, the least that the product's own
///   check of its settings lets pass when it renews every tick and waits one for an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) ttl: u8,
    pub(crate) margin: u8,
}

/// Ticks after its expiry until others take a row.
pub(crate) const GRACE: u8 = 1;

/// Ticks for which a replica waits for an answer.
pub(crate) const ANSWER_TIMEOUT: u8 = 1;

/// A deliberate defect, to show that the model finds it. Defects that also exist in `podlog::defect` have the same
/// names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// The deadline of a claim counts from the reply, not from when the statement was sent.
    DeadlineAfterReply,
    /// The holder acts until the row expires on its own clock.
    NoMargin,
    /// Others take the row as soon as it has expired.
    NoGrace,
    /// A statement that names a row takes effect, whatever its owner and fence.
    NoFenceCheck,
    /// A jump of the database's clock is ignored.
    JumpIgnored,
    /// A replica acts on a claim whose answer was lost, without a deadline.
    LostAnswerActedOn,
    /// A pod is handed over before its task has written what it had read.
    HandedBeforeDrained,
}

/// What the checker explores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ModelConfig {
    pub(crate) replicas: usize,
    pub(crate) pods: usize,
    /// How many statements and answers may be late at a time; all others arrive at once or are lost.
    pub(crate) late: usize,
    pub(crate) times: Times,
    /// How far the database's clock may jump at a time; nowhere when empty.
    pub(crate) jump_by: &'static [i8],
    /// How often it may jump.
    pub(crate) jumps: u8,
    /// The clock may also jump by more than margin and grace between a read of the table and the claim that follows
    /// it.
    pub(crate) jumps_under_claims: bool,
    /// The clock may jump before replicas have read the table.
    pub(crate) jump_before_first_read: bool,
    /// Replicas may request pods and hand them over.
    pub(crate) handovers: bool,
    /// Pods may finish.
    pub(crate) pods_finish: bool,
    /// A replica that is left alone must get each pod, after any history.
    pub(crate) check_progress: bool,
    /// A statement may arrive after its sender has given up, and a replica may learn late that it has lost a claim on
    /// which it no longer acts. Otherwise such statements arrive at once or never, and the replica learns at once.
    pub(crate) abandoned_statements: bool,
    /// States that differ only by names are one state. It is off for counterexamples, so that they can be read.
    pub(crate) symmetry: bool,
    pub(crate) defect: Option<Defect>,
}

impl ModelConfig {
    /// A configuration of this size, without a defect.
    pub(crate) const fn new(replicas: usize, pods: usize, late: usize) -> Self {
        Self {
            replicas,
            pods,
            late,
            times: Times { ttl: 5, margin: 2 },
            jump_by: &[],
            jumps: 1,
            jumps_under_claims: false,
            jump_before_first_read: false,
            handovers: true,
            pods_finish: false,
            check_progress: false,
            abandoned_statements: true,
            symmetry: true,
            defect: None,
        }
    }

    pub(crate) fn margin(&self) -> u8 {
        if self.defect == Some(Defect::NoMargin) {
            0
        } else {
            self.times.margin
        }
    }

    /// How far the database's clock may still jump back.
    pub(crate) fn back(&self, jumps_left: u8) -> i8 {
        let back = self.jump_by.iter().map(|by| -by).max().filter(|_| jumps_left > 0);
        back.unwrap_or(0).max(0)
    }

    pub(crate) fn grace(&self) -> u8 {
        if self.defect == Some(Defect::NoGrace) { 0 } else { GRACE }
    }
}
