//! What podlog knows and how it decides: values and functions, nothing else.
//!
//! Nothing here awaits, reads a clock, draws a random number or touches a socket, file or
//! database. Time comes in as a value and decisions go out as values, so every rule can be tested
//! with a table of cases.

pub mod backoff;
pub mod chunk;
pub mod claim;
pub mod finding;
pub mod holdoff;
pub mod id;
pub mod line_decoder;
pub mod listings;
pub mod plan;
pub mod pods;
pub mod position;
pub mod resume;
mod share;
pub mod steps;
pub mod text;
pub mod time;
pub mod unstamped;

pub use chunk::{Chunk, Gap, GapReason, Line, Origin};
pub use claim::{
    AcquireRequest, AfterRelease, Claim, Deadline, LockRow, LockTable, PodRef, Release, Renewal, RenewalOutcome,
};
pub use finding::{BackendError, Cause, Finding, Message, Outcome};
pub use id::{ContainerId, Fence, LockKey, PodUid, ReplicaId, StreamId};
pub use listings::{ListFailure, Listings};
pub use plan::{Plan, PlanInput, plan};
pub use pods::{Container, ContainerState, Instance, Phase, Pod, PodSet};
pub use position::{Checkpoint, ContainerProgress, Position};
pub use text::Escaped;
pub use time::Time;
