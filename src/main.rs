//! The `podlog` program: hands the command line over and turns the outcome into an exit status.

use std::process::ExitCode;

fn main() -> ExitCode {
    podlog::exit::report(podlog::command::execute(std::env::args_os()))
}
