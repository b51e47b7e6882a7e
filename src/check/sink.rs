//! The sink: what it says of itself, and then whether `podlog run` could open it.

use tokio::time::timeout;

use super::{DEADLINE, fact_of, ready};
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::Fact;
use crate::exit::Failure;
use crate::metrics::Metrics;
use crate::sinks::{self, SinkUrl, Wish};

const OPENING: &str = "opening";

pub(super) async fn look(config: &Config) -> Vec<Fact> {
    let url = &config.sink.url;
    let wish = Wish {
        migrates: config.migrate,
        retains: config.sink.retain.is_some(),
        max_line: config.streams.max_line,
    };
    let mut facts = sinks::survey(url, wish).await;
    // Opening the others would make directories, or do nothing.
    if url.is_transactional() {
        facts.push(if ready(&facts, sinks::TABLES) {
            open(config, url).await
        } else {
            Fact::skipped(OPENING, "the sink is not ready")
        });
    }
    facts
}

/// Opens the sink as `podlog run` does.
async fn open(config: &Config, url: &SinkUrl) -> Fact {
    let metrics = Metrics::default();
    let opening = sinks::open(url, Clock::boottime(), &metrics, config.sink.timeout);
    match timeout(DEADLINE, opening).await {
        Ok(Ok(_)) => Fact::ok(OPENING, "as `podlog run` does it, it works"),
        Ok(Err(error)) => fact_of(OPENING, &error.into()),
        Err(_) => {
            let late = Failure::unreachable(format!(
                "{url} did not answer within {DEADLINE:?}; look whether it is overloaded"
            ));
            fact_of(OPENING, &late)
        }
    }
}
