//! What a log file consists of and what a reader hands on: plain values.

use bytes::Bytes;

/// One record of a file: what the runtime wrote with one stamp.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) time: i64,
    /// No newline follows: the line goes on in the next record.
    pub(crate) partial: bool,
    pub(crate) bytes: Bytes,
}

/// What a reader has for its client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReaderOutput {
    /// Bytes to send.
    Frame(Bytes),
    /// Nothing yet.
    Wait,
    /// The reader has ended.
    End,
}
