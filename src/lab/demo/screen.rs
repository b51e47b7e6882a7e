//! Draws the view on a terminal, or prints progress lines if there is none. It writes to stderr only; stdout is for the
//! audit.

use std::fmt;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use tokio::time::Instant;

use super::view::View;

/// Where the view is shown.
#[derive(Debug)]
pub(super) enum Screen {
    /// A terminal, and the number of lines that the view takes on it now.
    Terminal(usize),
    /// No terminal: the interval of progress lines, and when the last one was printed.
    Plain(Duration, Option<Instant>),
}

impl Screen {
    /// Finds out whether stderr is a terminal. If not, progress lines are printed with this interval.
    pub(super) fn detect(every: Duration) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
        if std::io::stderr().is_terminal() && !dumb {
            Self::Terminal(0)
        } else {
            Self::Plain(every, None)
        }
    }

    /// Shows the view, or prints a progress line if one is due.
    pub(super) fn show(&mut self, view: &View) {
        match self {
            Self::Terminal(lines) => {
                let drawn = view.draw();
                print(&redraw(*lines, &drawn));
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

    /// Adds an event to the view. Without a terminal it prints the event at once.
    pub(super) fn show_event(&self, view: &mut View, what: impl fmt::Display) {
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

/// The control sequences that draw over the last `lines` lines. Long lines are cut at the edge, because wrapped lines
/// would make the next drawing begin too low. Everything below is erased.
fn redraw(lines: usize, drawn: &str) -> String {
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
    fn the_second_drawing_replaces_the_first() {
        let plain = |text: String| text.replace("\x1b[?7l", "").replace("\x1b[?7h", "");
        assert_eq!(plain(redraw(0, "a\nb\n")), "\r\x1b[2Ka\n\x1b[2Kb\n\x1b[2K\x1b[J");
        assert!(plain(redraw(2, "a\n")).starts_with("\x1b[2A\r\x1b[2Ka\n"));
    }
}
