//! What a line without a timestamp means in a log that was asked for with timestamps.
//!
//! The kubelet writes its own errors into the log that it serves. Other lines without a timestamp are the container's,
//! and may hold secrets: they are never repeated.

use super::finding::Message;
use super::text::Escaped;

/// What the kubelet's own errors begin with. Any of them may also be a line of a container, so only the beginning is
/// repeated, and only when the whole log could not be read.
const KUBELET_ERRORS: [&str; 7] = [
    "failed to ",
    "unable to ",
    "rpc error: ",
    "unsupported log format",
    "unexpected ",
    "error opening ",
    "an error on the server",
];

/// The most characters of a kubelet's error that are repeated. Its error about a file that is not a log repeats the
/// file.
const LONGEST: usize = 160;

/// Why the end of a log has no timestamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unstamped {
    /// The kubelet says why it cannot serve the log, or the rest of it.
    KubeletError(Message),
    /// The log has no timestamps.
    NoTimestamps(Message),
}

impl Unstamped {
    /// From a line without a timestamp at the end of a log that has `stamped` lines with one. `node`: where it runs.
    #[must_use]
    pub fn new(line: &[u8], stamped: u64, node: &str) -> Self {
        let text = String::from_utf8_lossy(line);
        let text: String = text.trim().chars().take(LONGEST).collect();
        if KUBELET_ERRORS.iter().any(|begin| text.starts_with(begin)) {
            return Self::KubeletError(Message::new(
                format!("the kubelet cannot read the log: {}", Escaped(&text)),
                "look at the kubelet's own log and at the file of the container on the node; kubectl logs must work",
            ));
        }
        if stamped > 0 {
            return Self::KubeletError(Message::new(
                "the log ends with a line without a timestamp, as when the kubelet cannot read the rest of it",
                "try kubectl logs --timestamps",
            ));
        }
        Self::NoTimestamps(Message::new(
            "its lines have no timestamps, although podlog asks for them, so its lines are not stored",
            format!(
                "use a kubelet that serves timestamps (the providers of virtual nodes do not all), or leave the pods of node {node} out with --field-selector spec.nodeName!={node}"
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_errors_of_the_kubelet_are_repeated_and_lines_of_containers_are_not() {
        for (line, stamped) in [
            ("failed to get parse function: unsupported log format: \"\\x00\"", 0),
            ("unable to retrieve container logs for containerd://1", 0),
            ("failed to get parse function: é", 0),
            ("rpc error: code = Unknown desc = no such container", 7),
        ] {
            let Unstamped::KubeletError(message) = Unstamped::new(line.as_bytes(), stamped, "n1") else {
                panic!("{line}")
            };
            assert!(message.text.contains(line) && !message.remedy.is_empty(), "{message}");
        }
        for line in ["password=hunter2", "\0\0", ""] {
            let Unstamped::NoTimestamps(message) = Unstamped::new(line.as_bytes(), 0, "n1") else {
                panic!("{line}")
            };
            assert!(
                !message.to_string().contains("hunter2") && message.remedy.contains("n1"),
                "{message}"
            );
            let Unstamped::KubeletError(message) = Unstamped::new(line.as_bytes(), 1, "n1") else {
                panic!("{line}")
            };
            assert!(!message.to_string().contains("hunter2"), "{message}");
        }
    }
}
