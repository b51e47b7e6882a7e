//! A model of the claim protocol, gone through exhaustively: claim, renewal, deadline, release, hand-over, expiry, a
//! jump of the database's clock, statements that are late and answers that are lost.
//!
//! The rows follow the product's own rules (`lab::row`), deadlines its arithmetic (`domain::claim`), and whether a
//! clock is believed its judgement (`domain::holdoff`); what is modelled is everything around them. Nothing here
//! waits, draws a number or talks to anybody.

// Sizes and counterexamples are for people to read; a config is a list of what may happen.
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
