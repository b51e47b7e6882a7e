//! Deliberate defects that can be switched on, to show that the simulation finds them.
//!
//! Only a build with the feature `defects` can switch one on, and podlog is never released with it. In every other
//! build [`on`] is a constant `false`, so the compiler removes all of them.

/// A deliberate defect. The code that it changes names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Defect {
    /// The deadline of a claim counts from the reply to a renewal, not from when it was sent.
    DeadlineAfterReply,
    /// The position moves before the write, not after it.
    CheckpointBeforeWrite,
    /// A row counts as owned by any replica that names it, whatever its owner and fence.
    NoFenceCheck,
    /// The sink accepts a write under an older fence than it has seen.
    SinkFenceUnchecked,
    /// A new claim has the fence of the one before.
    FenceRepeats,
    /// A jump of the store's clock is ignored.
    JumpIgnored,
    /// A log is requested from the second after the stored line, and the stored line is not searched for.
    SinceRoundedUp,
    /// The beginning of a line is stored as a whole line when the read ends.
    HalfLineTaken,
    /// The previous instance of a container is not read.
    PreviousNotRead,
    /// A stream that ends without an error counts as the end of its instance.
    CleanEndProves,
    /// A pause of the process counts as silence of its streams.
    SleepForSilence,
    /// Lines that the API no longer serves are not reported as a gap.
    GapForgotten,
    /// Every reopening of a log reports a gap.
    GapForNothing,
    /// A log opened by name counts as the log of the right pod without a check.
    IdentityUnchecked,
    /// A repeated chunk is stored again.
    RepeatStored,
    /// The final checkpoint is not stored when the claim is released.
    FinalCheckpointForgotten,
    /// All tasks are ended at once when the replica is asked to stop, also those that are writing.
    AbortsAtStop,
}

impl Defect {
    /// All defects.
    pub const ALL: [Self; 17] = [
        Self::DeadlineAfterReply,
        Self::CheckpointBeforeWrite,
        Self::NoFenceCheck,
        Self::SinkFenceUnchecked,
        Self::FenceRepeats,
        Self::JumpIgnored,
        Self::SinceRoundedUp,
        Self::HalfLineTaken,
        Self::PreviousNotRead,
        Self::CleanEndProves,
        Self::SleepForSilence,
        Self::GapForgotten,
        Self::GapForNothing,
        Self::IdentityUnchecked,
        Self::RepeatStored,
        Self::FinalCheckpointForgotten,
        Self::AbortsAtStop,
    ];
}

/// The defect that is on: 0 for none, otherwise its number plus one.
#[cfg(feature = "defects")]
static CHOSEN: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Switches this defect on in the whole process, and every other one off.
#[cfg(feature = "defects")]
pub fn choose(defect: Option<Defect>) {
    CHOSEN.store(
        defect.map_or(0, |defect| 1 + defect as u8),
        std::sync::atomic::Ordering::SeqCst,
    );
}

/// Whether this defect is on.
#[cfg(feature = "defects")]
#[must_use]
pub fn on(defect: Defect) -> bool {
    CHOSEN.load(std::sync::atomic::Ordering::Relaxed) == 1 + defect as u8
}

/// Whether this defect is on: never.
#[cfg(not(feature = "defects"))]
#[must_use]
#[inline]
pub const fn on(_: Defect) -> bool {
    false
}
