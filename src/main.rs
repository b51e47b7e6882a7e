//! The `podlog` program.
fn main() {}
