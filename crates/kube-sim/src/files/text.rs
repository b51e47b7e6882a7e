//! What containers write, and what was written. Plain values, without files and readers.

use bytes::Bytes;

/// The output to which a container writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A text for a container to write.
///
/// It is one line, or several lines if it contains newlines. A line of more than 16 KiB becomes several records, as
/// with a real container runtime.
#[derive(Debug, Clone)]
pub struct Text {
    pub(crate) bytes: Bytes,
    pub(crate) output: Output,
    pub(crate) time: Option<i64>,
    pub(crate) partial: bool,
}

impl Text {
    /// A line on standard output.
    pub fn out(bytes: impl Into<Bytes>) -> Self {
        Self {
            bytes: bytes.into(),
            output: Output::Stdout,
            time: None,
            partial: false,
        }
    }

    /// A line on standard error.
    pub fn err(bytes: impl Into<Bytes>) -> Self {
        Self {
            output: Output::Stderr,
            ..Self::out(bytes)
        }
    }

    /// With this timestamp (nanoseconds since 1970) instead of the time on the cluster's clock. It may be equal to or
    /// before earlier ones.
    #[must_use]
    pub fn at(self, nanos: i64) -> Self {
        Self {
            time: Some(nanos),
            ..self
        }
    }

    /// Without a newline at the end. The next text on the same output continues the line.
    #[must_use]
    pub fn partial(self) -> Self {
        Self { partial: true, ..self }
    }
}

/// The container instance that a log belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContainerInstance {
    /// The UID of the pod.
    pub uid: String,
    /// The namespace of the pod.
    pub namespace: String,
    /// The name of the pod.
    pub pod: String,
    /// The name of the container.
    pub container: String,
    /// `containerd://` and 64 hexadecimal digits.
    pub container_id: String,
    /// How often the container was restarted before this instance.
    pub restart_count: u32,
}

/// A line as the container wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenLine {
    /// The timestamp of its first record, in nanoseconds since 1970.
    pub time: i64,
    /// The output to which it was written.
    pub output: Output,
    /// The bytes, without the newline.
    pub message: Bytes,
}

/// Everything that a container instance has written, whether or not the API still serves it.
#[derive(Debug, Clone)]
pub struct WrittenLog {
    /// The instance that wrote them.
    pub instance: ContainerInstance,
    /// The lines, in the order in which they began.
    pub lines: Vec<WrittenLine>,
    /// The index of the first line that the API still serves. If it serves none: the number of lines.
    pub first_served: usize,
}
