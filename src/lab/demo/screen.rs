//! Puts the view on the terminal, or progress lines where there is none. All of it goes to stderr;
//! stdout is for the audit.

use std::fmt;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use tokio::time::Instant;

use super::view::View;

/// Where the view goes.
#[derive(Debug)]
pub(super) enum Screen {
    /// A terminal, and how many lines the view takes on it now.
    Terminal(usize),
    /// Something else, the time between two lines on it, and when the last one was written.
    Plain(Duration, Option<Instant>),
}

impl Screen {
    /// Finds out what stderr is. Where it is no terminal, a line is written after each such time.
    pub(super) fn find(every: Duration) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
        if std::io::stderr().is_terminal() && !dumb {
            Self::Terminal(0)
        } else {
            Self::Plain(every, None)
        }
    }

    /// Shows how things are now.
    pub(super) fn show(&mut self, view: &View) {
        match self {
            Self::Terminal(lines) => {
                let drawn = view.draw();
                print(&over(*lines, &drawn));
                *lines = drawn.lines().count();
            }
            Self::Plain(every, last) => {
                if last.is_none_or(|last| last.elapsed() >= *every) {
                    *last = Some(Instant::now());
                    print(&format!("{}\n", view.line()));
                }
            }
        }
    }

    /// Adds an event to the view; prints it at once where the view is not drawn.
    pub(super) fn say(&self, view: &mut View, what: impl fmt::Display) {
        let line = view.add_event(what);
        if matches!(self, Self::Plain(..)) {
            print(&format!("{line}\n"));
        }
    }
}

/// Prints a line below the view.
pub(super) fn print_below(text: impl fmt::Display) {
    print(&format!("{text}\n"));
}

/// Draws over the last `lines` lines. Lines are cut at the edge instead of wrapped, or the next drawing
/// would begin too low; what stands below is erased.
fn over(lines: usize, drawn: &str) -> String {
    let up = if lines == 0 {
        String::new()
    } else {
        format!("\x1b[{lines}A")
    };
    format!(
        "\x1b[?7l{up}\r\x1b[2K{}\x1b[J\x1b[?7h",
        drawn.replace('\n', "\n\x1b[2K")
    )
}

/// A closed stderr is not a failure.
fn print(text: &str) {
    let mut out = std::io::stderr().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_drawing_stays_where_it_is_and_the_next_goes_over_it() {
        let plain = |text: String| text.replace("\x1b[?7l", "").replace("\x1b[?7h", "");
        assert_eq!(plain(over(0, "a\nb\n")), "\r\x1b[2Ka\n\x1b[2Kb\n\x1b[2K\x1b[J");
        assert!(plain(over(2, "a\n")).starts_with("\x1b[2A\r\x1b[2Ka\n"));
    }
}
