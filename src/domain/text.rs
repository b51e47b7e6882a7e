//! Text from elsewhere, made fit to be shown to people.
//!
//! Names, messages and values come from API servers and databases and may hold anything. Nothing here shortens text
//! or judges it; it only takes away the power over whatever shows it.

use std::fmt::{self, Write};

/// Shows text with control characters, and characters that turn the direction of writing, as escapes: what is shown
/// is one line, and it cannot move a cursor or pass for another line.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<T>(pub T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(EscapingWriter(f), "{}", self.0)
    }
}

/// Passes text on with such characters escaped.
#[derive(Debug)]
pub struct EscapingWriter<W>(pub W);

impl<W: Write> Write for EscapingWriter<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_unfit) {
            let (plain, from) = rest.split_at(at);
            self.0.write_str(plain)?;
            let mut chars = from.chars();
            if let Some(unfit) = chars.next() {
                write!(self.0, "{}", unfit.escape_default())?;
            }
            rest = chars.as_str();
        }
        self.0.write_str(rest)
    }
}

fn is_unfit(c: char) -> bool {
    // Line and paragraph separators; marks, embeddings, overrides and isolates of direction.
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
