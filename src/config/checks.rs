//! Which settings are safe together, with the arithmetic behind each rule.
//!
//! Every refusal is one line: the thing, the cause with figures, the remedy.

use std::time::Duration;

use super::Config;
use crate::cli::units::{Size, show};
use crate::domain::claim::Lease;
use crate::exit::Failure;
use crate::locks::STATEMENT_DEADLINE;

const SECOND: Duration = Duration::from_secs(1);

/// Names up to this length fit their columns with a suffix of nine characters.
const LONGEST_NAME: usize = 63;

/// The smallest cap on lines: below it ordinary stack frames and JSON lines would be cut.
const SMALLEST_LINE: usize = 4 << 10;

/// The largest line or chunk. `MariaDB` takes packets of 16 MiB by default, and a chunk may double
/// when it is encoded.
const LARGEST_CHUNK: usize = 8 << 20;

/// The longest time between reopenings: a quarter of the kubelet's 4 h is left for what delays one.
const LONGEST_REOPEN: Duration = Duration::from_hours(3);

/// The longest of the times that are added to each other and to the present: far more than makes sense, and far less
/// than a clock can hold.
const LONGEST_TIME: Duration = Duration::from_hours(24);

/// The longest that records are kept: a hundred years as people count them, 365.25 days each. Nanoseconds in 64 bits
/// reach back three times as far.
const LONGEST_RETAIN: Duration = Duration::from_hours(100 * 36_525 * 24 / 100);

/// Checks everything together and answers with the first thing that is wrong in each group.
pub(super) fn faults(config: &Config) -> Vec<Failure> {
    // Nothing can be added up before this holds.
    if let Err(failure) = times(config) {
        return vec![failure];
    }
    let judged = [
        lease(&config.lease, config.sink.timeout),
        shutdown(config),
        streams(config),
        retention(config),
    ];
    judged.into_iter().filter_map(Result::err).collect()
}

/// Times that can be reckoned with at all.
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
        Some((flag, time, most)) => refuse(format!(
            "--{flag} {} is longer than anything can be meant to take; use at most {}",
            show(*time),
            show(*most)
        )),
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
/// 2. One failed renewal must not cost the claims. After a renewal that was sent at 0 and answered by D
///    the next is sent at max(I, D). It has failed D later; `renewer.rs` sends it again by then, and
///    the answer, D later, must come by T - M: T >= M + max(I, D) + 2D.
/// 3. A write begins only if it can end while the claim is good. Just before a renewal is answered,
///    T - M - max(I, D) - D is left, so a longer W would let no write begin.
/// 4. A renewal interval below 100 ms is load without use.
fn lease(lease: &Lease, write: Duration) -> Result<(), Failure> {
    let Lease {
        ttl,
        renew,
        margin,
        takeover_grace,
    } = *lease;
    let least_margin = SECOND + ttl / 1000;
    if renew < Duration::from_millis(100) {
        return refuse(format!(
            "--renew {}: claims would be renewed all the time; use at least 100ms",
            show(renew)
        ));
    }
    if margin < least_margin {
        return refuse(format!(
            "--margin {} is too short for --ttl {}: clocks may differ by ttl/1000 and the database's may jump by 1s; use at least {}",
            show(margin),
            show(ttl),
            show(least_margin)
        ));
    }
    let answered = renew.max(STATEMENT_DEADLINE) + STATEMENT_DEADLINE;
    let least_ttl = margin + answered + STATEMENT_DEADLINE;
    if ttl < least_ttl {
        return refuse(format!(
            "--ttl {} is too short: margin {} + {} + 2 x statement deadline {} = {}, so one failed renewal would lose every claim; raise --ttl to {} or lower --renew",
            show(ttl),
            show(margin),
            longer(renew),
            show(STATEMENT_DEADLINE),
            show(least_ttl),
            show(least_ttl)
        ));
    }
    if takeover_grace > ttl {
        return refuse(format!(
            "--takeover-grace {} is longer than --ttl {}: pods of a crashed replica would wait that long for nothing; use 1s",
            show(takeover_grace),
            show(ttl)
        ));
    }
    let most_write = ttl.saturating_sub(margin + answered);
    if write.is_zero() || write > most_write {
        return refuse(format!(
            "--write-timeout {} does not fit: ttl {} - margin {} - {} - statement deadline {} leaves {} for a write; use 1ms to {} or raise --ttl",
            show(write),
            show(ttl),
            show(margin),
            longer(renew),
            show(STATEMENT_DEADLINE),
            show(most_write),
            show(most_write)
        ));
    }
    Ok(())
}

/// The time between two renewals, in words: the interval, or how long the first may take.
fn longer(renew: Duration) -> String {
    if renew < STATEMENT_DEADLINE {
        return format!(
            "statement deadline {}, which is longer than renew",
            show(STATEMENT_DEADLINE)
        );
    }
    format!("renew {}", show(renew))
}

/// After SIGTERM each pod's task ends its last write (W) and its claim is given back (one statement, D).
fn shutdown(config: &Config) -> Result<(), Failure> {
    let least = config.sink.timeout + STATEMENT_DEADLINE;
    if config.grace < least {
        return refuse(format!(
            "--grace {} is too short: the last write may take {} and giving claims back {}; use at least {}",
            show(config.grace),
            show(config.sink.timeout),
            show(STATEMENT_DEADLINE),
            show(least)
        ));
    }
    Ok(())
}

fn streams(config: &Config) -> Result<(), Failure> {
    let streams = &config.streams;
    let sizes = [("max-line", streams.max_line), ("chunk-bytes", streams.chunk_bytes)];
    for (flag, bytes) in sizes {
        if !(SMALLEST_LINE..=LARGEST_CHUNK).contains(&bytes) {
            return refuse(format!(
                "--{flag} {} is out of range: below {} ordinary lines are cut, above {} databases refuse the packet; use 256KiB",
                Size(bytes as u64),
                Size(SMALLEST_LINE as u64),
                Size(LARGEST_CHUNK as u64)
            ));
        }
    }
    let counts = [
        ("max-pods", config.max_pods),
        ("max-streams", streams.open),
        ("streams-per-node", streams.per_node),
        ("open-rate", streams.open_rate as usize),
    ];
    if let Some((flag, _)) = counts.iter().find(|(_, count)| *count == 0) {
        return refuse(format!("--{flag} 0 would collect nothing; use at least 1"));
    }
    spans(config)
}

/// Each span with the shortest and the longest that makes sense.
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
            "a mute stream would go unnoticed",
        ),
        (
            "poll-interval",
            config.selection.poll,
            SECOND,
            hour,
            "new pods would be found late",
        ),
    ];
    for (flag, span, least, most, why) in spans {
        if span < least {
            return refuse(format!(
                "--{flag} {}: needless load on the API server; use at least {}",
                show(span),
                show(least)
            ));
        }
        if span > most {
            return refuse(format!("--{flag} {}: {why}; use at most {}", show(span), show(most)));
        }
    }
    Ok(())
}

/// Only databases can delete what is old.
fn retention(config: &Config) -> Result<(), Failure> {
    let Some(retain) = config.sink.retain else {
        return Ok(());
    };
    if !config.sink.url.is_transactional() {
        return refuse(format!(
            "--retain: records at {} cannot be deleted; leave it out or use mysql or sqlite",
            config.sink.url
        ));
    }
    let least = Duration::from_hours(1);
    if retain < least {
        return refuse(format!(
            "--retain {} would delete what was just written; use at least {}",
            show(retain),
            show(least)
        ));
    }
    Ok(())
}

/// Whether a character may stand in a name.
pub(super) fn legal(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// Checks a name that becomes part of keys and columns.
pub(super) fn name(flag: &str, name: &str) -> Result<(), Failure> {
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(legal) {
        return refuse(format!(
            "--{flag} {name:?} is no name; use 1 to {LONGEST_NAME} letters, digits, dots, dashes or underscores"
        ));
    }
    Ok(())
}

fn refuse(line: String) -> Result<(), Failure> {
    Err(Failure::usage(line))
}
