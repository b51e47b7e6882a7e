//! A simulated cluster: an API server that fits in a process.
