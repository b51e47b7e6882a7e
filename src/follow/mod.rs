//! Follows one pod: reads the logs of its containers and hands the lines to the sink, until nothing is left to read,
//! the claim is lost, or the task is asked to stop.
//!
//! From the outside in: `pod` runs one future per container, `container` chooses the instance to read, `instance` reads
//! it again and again, `reader` makes a plain read, and `follow_stream` follows the log from there. `writer` hands
//! chunks to the sink: a position moves only after the sink's `write` has returned `Ok`, and nowhere else. Nothing here
//! claims, renews or releases a pod.

mod assignment;
mod container;
mod context;
mod delivery_delay;
mod follow_stream;
mod instance;
mod instance_log;
mod instance_status;
mod pod;
mod probe;
mod read_end;
mod reader;
pub mod stall_detector;
mod stream_lines;
mod stream_timers;
mod writer;

pub use assignment::{PodAssignment, TaskEnd};
pub use context::{Context, ReadSettings};
pub use pod::follow;
