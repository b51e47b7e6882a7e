//! A model of the claim protocol, explored exhaustively: claim, renewal, deadline, release, hand-over, expiry, a jump
//! of the database's clock, late statements and lost answers.
//!
//! Rows follow the rules of `lab::row`, deadlines those of `domain::claim`, and whether a clock has jumped is decided
//! by `domain::holdoff`. The model covers everything around them. Nothing here waits, draws random numbers or does I/O.

// The tests print sizes and counterexamples; a configuration is a list of what may happen.
#![allow(clippy::print_stdout, clippy::struct_excessive_bools)]

mod canonical;
mod clocks;
mod config;
mod defects;
mod exhaustive;
mod properties;
mod protocol;
mod state;
mod step;
mod store;
mod transitions;
