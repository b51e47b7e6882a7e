//! What containers write and what is remembered of it: plain values, without files and readers.

use bytes::Bytes;

/// Which of its two outputs the container wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Something for a container to write.
///
/// The bytes are written as one line, or as several if they hold newlines; what is longer than 16 KiB becomes several
/// records, as with a real runtime.
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

    /// Stamped with this time (nanoseconds since 1970) instead of the cluster's clock; it may equal or precede
    /// earlier ones.
    #[must_use]
    pub fn at(self, nanos: i64) -> Self {
        Self {
            time: Some(nanos),
            ..self
        }
    }

    /// Without its newline: the next text on the same output continues the line.
    #[must_use]
    pub fn partial(self) -> Self {
        Self { partial: true, ..self }
    }
}

/// Which container instance a log belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContainerInstance {
    /// UID of the pod.
    pub uid: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container.
    pub container: String,
    /// `containerd://` and 64 hexadecimal digits.
    pub container_id: String,
    /// How often the container had been restarted before.
    pub restart_count: u32,
}

/// A line as the container wrote it; its index is its place in [`WrittenLog::lines`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenLine {
    /// Stamp of its first record, nanoseconds since 1970.
    pub time: i64,
    /// The output to which it was written.
    pub output: Output,
    /// The bytes, without the newline.
    pub message: Bytes,
}

/// Everything one container instance ever wrote, whether or not the API still serves it.
#[derive(Debug, Clone)]
pub struct WrittenLog {
    /// The instance that wrote them.
    pub instance: ContainerInstance,
    /// The lines, in the order in which they were begun.
    pub lines: Vec<WrittenLine>,
    /// The index of the first line that the API still serves; the number of lines if it serves none.
    pub first_served: usize,
}
