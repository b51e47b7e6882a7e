//! The commands `podlog demo` and `podlog simulate` in a build without the cargo feature `lab`.
//!
//! They accept any arguments, so that the error is always how to get the command and never an unknown flag.

use std::ffi::OsString;

use clap::Args;

/// The arguments of a command that this build does not have.
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub struct Arguments {
    /// Whatever was typed.
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub all: Vec<OsString>,
}
