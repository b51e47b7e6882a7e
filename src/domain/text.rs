//! Makes text from other systems safe to print.
//!
//! Names, messages and values come from API servers and databases and may contain any character. Characters that could
//! control a terminal are escaped. Text is neither shortened nor validated here.

use std::fmt::{self, Write};

/// Displays text with control characters, and characters that change the writing direction, escaped. The result is one
/// line; it cannot move the cursor or imitate another line.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<T>(pub T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(EscapingWriter(f), "{}", self.0)
    }
}

/// Forwards text to a writer with these characters escaped.
#[derive(Debug)]
pub struct EscapingWriter<W>(pub W);

impl<W: Write> Write for EscapingWriter<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_unsafe) {
            let (plain, from) = rest.split_at(at);
            self.0.write_str(plain)?;
            let mut chars = from.chars();
            if let Some(c) = chars.next() {
                write!(self.0, "{}", c.escape_default())?;
            }
            rest = chars.as_str();
        }
        self.0.write_str(rest)
    }
}

fn is_unsafe(c: char) -> bool {
    // Direction marks; line and paragraph separators, direction embeddings and overrides; direction isolates.
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_control_a_terminal_are_escaped_and_others_are_unchanged() {
        let shown = Escaped("a\n\u{1b}[31m\u{9b}\0\u{7f}\u{202e}é💥\\ \"").to_string();
        assert_eq!(shown, "a\\n\\u{1b}[31m\\u{9b}\\u{0}\\u{7f}\\u{202e}é💥\\ \"");
    }
}
