//! The times of claims in a simulation. It has nothing else.

use std::time::Duration;

use crate::domain::claim::Lease;

/// The times of claims, with their default values.
pub const LEASE: Lease = Lease {
    ttl: Duration::from_secs(20),
    renew: Duration::from_secs(5),
    margin: Duration::from_secs(5),
    takeover_grace: Duration::from_secs(1),
};
