//! Follows one pod: reads the logs of its containers and hands the lines to the sink, until nothing is left to read,
//! the claim is lost, or the task is asked to stop. Nothing here claims, renews or releases a pod.
//!
//! **Lines are stored and positions move in `writer`**: `Writer::flush` moves the position after the sink's `write` has
//! returned `Ok`, or `Rejected`: then the lines are logged, counted and skipped. It moves nowhere else.
//!
//! From the outside in:
//!
//! - `assignment`: what the task of a pod is given, and how it ends; `context`: what all tasks share.
//! - `pod`: runs one future per container.
//! - `container`: reads one instance after another. `domain::steps` decides which.
//! - `instance`: reads one instance again and again, and decides what follows each read (`read_end`).
//! - `log_reader`: one plain read of what is there. `follow_stream` (with `stream_timers` and `probe`): the stream
//!   after it.
//! - `instance_log`, `instance_status`: open the log, and make sure that it is the log of this instance.
//! - `stream_lines`, `delivery_delay`: take the new lines from the bytes, and put them into the writer.
//! - `writer`: makes chunks of them, has the sink store them, and moves the position.

mod assignment;
mod container;
mod context;
mod delivery_delay;
mod follow_stream;
mod instance;
mod instance_log;
mod instance_status;
mod log_reader;
mod pod;
mod probe;
mod read_end;
pub mod stall_detector;
mod stream_lines;
mod stream_timers;
mod writer;

pub use assignment::{PodAssignment, TaskEnd};
pub use context::{Context, ReadSettings};
pub use pod::follow;
