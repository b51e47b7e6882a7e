//! Which settings are safe together, with the arithmetic behind each rule.
//!
//! Every failure names the setting, the cause with figures, and the remedy. Nothing here changes a setting.

use std::time::Duration;

use super::secret::Passwords;
use super::settings::Config;
use crate::cli::flags;
use crate::cli::units::{Size, show};
use crate::domain::claim::Lease;
use crate::exit::Failure;
use crate::locks::STATEMENT_DEADLINE;

const SECOND: Duration = Duration::from_secs(1);

/// The smallest maximum length of a line. With less, ordinary stack frames and JSON lines would be cut.
const SMALLEST_LINE: usize = 4 << 10;

/// The largest line or chunk. `MariaDB` takes packets of 16 MiB by default, and a chunk may double
/// when it is encoded.
const LARGEST_CHUNK: usize = 8 << 20;

/// The longest time between two openings of a stream. The kubelet closes streams after 4 h; 1 h is left for delays.
const LONGEST_REOPEN: Duration = Duration::from_hours(3);

/// The longest of the times that are added to each other and to the current time. It is longer than any useful time,
/// and too short to overflow.
const LONGEST_TIME: Duration = Duration::from_hours(24);

/// The longest time for which records are kept: 100 years of 365.25 days. 64 bits of nanoseconds are 292 years.
const LONGEST_RETAIN: Duration = Duration::from_hours(100 * 36_525 * 24 / 100);

/// The settings of `podlog run`. Fails with the first setting that is wrong or unsafe.
pub fn checked(typed: &flags::Run, passwords: &Passwords) -> Result<Config, Failure> {
    let config = Config::unchecked(typed, passwords)?;
    if let Some(violation) = violations(&config).into_iter().next() {
        return Err(violation);
    }
    config.scope().check()?;
    Ok(config)
}

/// The first violation in each group of rules.
#[must_use]
pub fn violations(config: &Config) -> Vec<Failure> {
    // The other checks add up times, so this one comes first.
    if let Err(failure) = times(config) {
        return vec![failure];
    }
    let groups = [
        lease(&config.lease, config.sink.timeout),
        shutdown(config),
        streams(config),
        retention(config),
    ];
    groups.into_iter().filter_map(Result::err).collect()
}

/// Refuses times that are too long to calculate with.
fn times(config: &Config) -> Result<(), Failure> {
    let lease = &config.lease;
    let times = [
        ("ttl", lease.ttl, LONGEST_TIME),
        ("renew", lease.renew, LONGEST_TIME),
        ("margin", lease.margin, LONGEST_TIME),
        ("takeover-grace", lease.takeover_grace, LONGEST_TIME),
        ("write-timeout", config.sink.timeout, LONGEST_TIME),
        ("grace", config.grace, LONGEST_TIME),
        ("retain", config.sink.retain.unwrap_or_default(), LONGEST_RETAIN),
    ];
    match times.iter().find(|(_, time, most)| time > most) {
        Some((flag, time, most)) => refuse(
            format!("--{flag} {} is too long", show(*time)),
            format!("use at most {}", show(*most)),
        ),
        None => Ok(()),
    }
}

/// The times of a claim. With T = ttl, I = renew, M = margin, G = takeover grace, D = statement
/// deadline and W = write timeout:
///
/// 1. A holder acts on a claim until m0 + T - M, m0 read before its renewal was sent; the database
///    lets others take it at T + G after the renewal arrived, which is later than m0. The two
///    cannot overlap while M + G >= 2 * rho * T + delta, where rho is the rate error of a clock
///    (at most 500 ppm under NTP: 2 * rho * T = T / 1000) and delta a jump of the database's clock
///    at a failover. M alone covers T / 1000 and a jump of 1 s; G comes on top.
/// 2. One failed renewal must not lose the claims. After a renewal that was sent at 0 and answered by D
///    the next is sent at max(I, D). It has failed D later; `renewer.rs` sends it again by then, and
///    the answer, D later, must come by T - M: T >= M + max(I, D) + 2D.
/// 3. A write begins only if it can end while the claim is good. Just before a renewal is answered,
///    T - M - max(I, D) - D is left. With a longer W, no write could begin.
/// 4. A renewal interval below 100 ms would only be load.
fn lease(lease: &Lease, write: Duration) -> Result<(), Failure> {
    let Lease {
        ttl,
        renew,
        margin,
        takeover_grace,
    } = *lease;
    let least_margin = SECOND + ttl / 1000;
    if renew < Duration::from_millis(100) {
        return refuse(
            format!("--renew {}: claims would be renewed all the time", show(renew)),
            "use at least 100ms",
        );
    }
    if margin < least_margin {
        return refuse(
            format!(
                "--margin {} is too short for --ttl {}: clocks may differ by ttl/1000, and the database's may jump by 1s",
                show(margin),
                show(ttl)
            ),
            format!("use at least {}", show(least_margin)),
        );
    }
    let least_ttl = margin + renew.max(STATEMENT_DEADLINE) + 2 * STATEMENT_DEADLINE;
    if ttl < least_ttl {
        return refuse(
            format!(
                "--ttl {} is too short: margin {} + {} + 2 x statement deadline {} = {}, so one failed renewal would lose every claim",
                show(ttl),
                show(margin),
                longer(renew),
                show(STATEMENT_DEADLINE),
                show(least_ttl)
            ),
            format!("raise --ttl to {} or lower --renew", show(least_ttl)),
        );
    }
    if takeover_grace > ttl {
        return refuse(
            format!(
                "--takeover-grace {} is longer than --ttl {}: the pods of a crashed replica would wait that long without need",
                show(takeover_grace),
                show(ttl)
            ),
            "use 1s",
        );
    }
    write_timeout(lease, write)
}

/// Rule 3 of [`lease`].
fn write_timeout(lease: &Lease, write: Duration) -> Result<(), Failure> {
    let Lease { ttl, renew, margin, .. } = *lease;
    let most_write = ttl.saturating_sub(margin + renew.max(STATEMENT_DEADLINE) + STATEMENT_DEADLINE);
    if write.is_zero() || write > most_write {
        return refuse(
            format!(
                "--write-timeout {} does not fit: ttl {} - margin {} - {} - statement deadline {} leaves {} for a write",
                show(write),
                show(ttl),
                show(margin),
                longer(renew),
                show(STATEMENT_DEADLINE),
                show(most_write)
            ),
            format!("use 1ms to {} or raise --ttl", show(most_write)),
        );
    }
    Ok(())
}

/// The text for the time between two renewals: the interval, or the statement deadline if that is longer.
fn longer(renew: Duration) -> String {
    if renew < STATEMENT_DEADLINE {
        return format!(
            "statement deadline {}, which is longer than renew",
            show(STATEMENT_DEADLINE)
        );
    }
    format!("renew {}", show(renew))
}

/// After SIGTERM the task of each pod ends its last write (W), and its claim is released (one statement, D).
fn shutdown(config: &Config) -> Result<(), Failure> {
    let least = config.sink.timeout + STATEMENT_DEADLINE;
    if config.grace < least {
        return refuse(
            format!(
                "--grace {} is too short: the last write may take {}, and releasing claims {}",
                show(config.grace),
                show(config.sink.timeout),
                show(STATEMENT_DEADLINE)
            ),
            format!("use at least {}", show(least)),
        );
    }
    Ok(())
}

fn streams(config: &Config) -> Result<(), Failure> {
    let streams = &config.streams;
    let sizes = [("max-line", streams.max_line), ("chunk-bytes", streams.chunk_bytes)];
    for (flag, bytes) in sizes {
        if !(SMALLEST_LINE..=LARGEST_CHUNK).contains(&bytes) {
            return refuse(
                format!(
                    "--{flag} {} is out of range: below {} ordinary lines are cut, above {} databases refuse the packet",
                    Size(bytes as u64),
                    Size(SMALLEST_LINE as u64),
                    Size(LARGEST_CHUNK as u64)
                ),
                "use 256KiB",
            );
        }
    }
    let counts = [
        ("max-pods", config.max_pods),
        ("max-streams", streams.open),
        ("streams-per-node", streams.per_node),
        ("open-rate", streams.open_rate as usize),
    ];
    if let Some((flag, _)) = counts.iter().find(|(_, count)| *count == 0) {
        return refuse(format!("--{flag} 0 would collect nothing"), "use at least 1");
    }
    spans(config)
}

/// Checks the times that have a minimum and a maximum.
fn spans(config: &Config) -> Result<(), Failure> {
    let streams = &config.streams;
    let hour = Duration::from_hours(1);
    let spans = [
        (
            "chunk-age",
            streams.chunk_age,
            Duration::ZERO,
            10 * SECOND,
            "lines would come late",
        ),
        (
            "reopen",
            streams.reopen,
            60 * SECOND,
            LONGEST_REOPEN,
            "the kubelet ends streams after 4h",
        ),
        (
            "probe",
            streams.probe,
            5 * SECOND,
            hour,
            "a stalled stream would go unnoticed",
        ),
        (
            "poll-interval",
            config.selection.poll,
            SECOND,
            hour,
            "new pods would be found late",
        ),
    ];
    for (flag, span, least, most, reason) in spans {
        if span < least {
            return refuse(
                format!("--{flag} {}: needless load on the API server", show(span)),
                format!("use at least {}", show(least)),
            );
        }
        if span > most {
            return refuse(
                format!("--{flag} {}: {reason}", show(span)),
                format!("use at most {}", show(most)),
            );
        }
    }
    Ok(())
}

/// Only sinks that are databases can delete old records.
fn retention(config: &Config) -> Result<(), Failure> {
    let Some(retain) = config.sink.retain else {
        return Ok(());
    };
    if !config.sink.url.is_transactional() {
        return refuse(
            format!("--retain: podlog cannot delete records of the sink {}", config.sink.url),
            "remove it, or use mysql or sqlite",
        );
    }
    let least = Duration::from_hours(1);
    if retain < least {
        return refuse(
            format!("--retain {} would delete recent records", show(retain)),
            format!("use at least {}", show(least)),
        );
    }
    Ok(())
}

fn refuse(text: String, remedy: impl Into<String>) -> Result<(), Failure> {
    Err(Failure::usage(text).with_remedy(remedy))
}
