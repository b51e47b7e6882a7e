//! Mistakes that can be made on purpose, to show that the simulation finds them.
//!
//! Only a build with the feature `defects` can make one, and `podlog` is never shipped with it. In every other build
//! [`on`] is false while compiling, so that nothing of a mistake is left in the program.

/// A mistake at the place that bears its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Defect {
    /// The deadline of a claim counts from the reply to a renewal, not from when it was sent.
    DeadlineAfterReply,
    /// The position moves before the write, not after it.
    CheckpointBeforeWrite,
    /// A statement that names a row takes effect, whatever the owner and fence.
    NoFenceCheck,
    /// The sink accepts chunks under an older fence than it has seen.
    SinkFenceUnchecked,
    /// A new claim has the fence of the previous one.
    FenceRepeats,
    /// A jump of the store's clock is ignored.
    JumpIgnored,
    /// A log is requested from the second after the stored line, and the stored line is not searched for.
    SinceRoundedUp,
    /// An unfinished line is stored as a line because the read is over.
    HalfLineTaken,
    /// The previous instance is not read.
    PreviousNotRead,
    /// A stream that ends cleanly counts as the end of its instance.
    CleanEndProves,
    /// Missing lines are not reported.
    GapForgotten,
    /// Every time a log is opened again, missing lines are reported.
    GapForNothing,
    /// A log that was opened by name counts as the log of the intended pod.
    IdentityUnchecked,
    /// A repeated chunk is stored again.
    RepeatStored,
    /// The final checkpoint is not stored when the claim is released.
    FinalCheckpointForgotten,
}

impl Defect {
    /// All of them.
    pub const ALL: [Self; 15] = [
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
        Self::GapForgotten,
        Self::GapForNothing,
        Self::IdentityUnchecked,
        Self::RepeatStored,
        Self::FinalCheckpointForgotten,
    ];
}

/// The mistake that is made: 0 for none, else one more than its number.
#[cfg(feature = "defects")]
static CHOSEN: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Makes this mistake from now on, in the whole process, and no other.
#[cfg(feature = "defects")]
pub fn choose(defect: Option<Defect>) {
    CHOSEN.store(
        defect.map_or(0, |defect| 1 + defect as u8),
        std::sync::atomic::Ordering::SeqCst,
    );
}

/// Whether this mistake is to be made.
#[cfg(feature = "defects")]
#[must_use]
pub fn on(defect: Defect) -> bool {
    CHOSEN.load(std::sync::atomic::Ordering::Relaxed) == 1 + defect as u8
}

/// Whether this mistake is to be made: never.
#[cfg(not(feature = "defects"))]
#[must_use]
#[inline]
pub const fn on(_: Defect) -> bool {
    false
}
