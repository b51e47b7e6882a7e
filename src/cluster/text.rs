//! Text of errors and answers, made fit for one line of a log or a message.
//!
//! It never interprets the text.

/// The most characters that are kept of a text from elsewhere.
const LONGEST: usize = 400;

/// An error and its sources on one line. A source that the text repeats already is left out.
pub(super) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = inner.source();
    }
    text.replace(char::is_control, " ")
}

/// Text from elsewhere on one line of bounded length, without control characters.
pub(super) fn one_line(text: &str) -> String {
    let kept = text.trim().chars().take(LONGEST);
    kept.map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_elsewhere_becomes_one_short_line() {
        assert_eq!(one_line(" a\nb\u{1b}c \n"), "a b c");
        assert_eq!(one_line(&"x".repeat(1000)).len(), LONGEST);
    }

    #[test]
    fn an_error_names_each_of_its_sources_once() {
        let error = std::io::Error::other(std::fmt::Error);
        assert_eq!(error_chain(&error), std::fmt::Error.to_string());
    }
}
