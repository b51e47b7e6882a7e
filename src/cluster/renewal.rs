//! When the configuration of the cluster is read again: when a file of it has changed, and when one side does not trust
//! the other.
//!
//! Certificates and tokens expire and are replaced, and servers get other addresses. The context of a kubeconfig stays that
//! of the start, because another context is another cluster. New clients are built here and used elsewhere; the old ones
//! stay open for their streams.

use std::time::Duration;

use tokio::time::Instant;

use super::access::Access;
use super::clients::Clients;
use super::error::{AccessError, ApiError};
use crate::domain::backoff::Backoff;

/// The shortest and the longest time from one renewal to the next.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(1));
/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The configuration that the clients in use were built from, and when it may be read again.
#[derive(Debug)]
pub(super) struct Renewal {
    access: Access,
    state: tokio::sync::Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Of the configuration in use.
    fingerprint: u64,
    look_at: Instant,
    /// Since when the files cannot be read.
    unreadable_since: Option<Instant>,
    not_before: Option<Instant>,
    backoff: Backoff,
}

impl Renewal {
    /// Reads the configuration and builds the first clients.
    pub(super) async fn start(access: &Access) -> Result<(Self, Clients), AccessError> {
        let read = access.read().await?;
        if read.ignores_proxy {
            tracing::warn!("HTTPS_PROXY is set; podlog ignores it and connects to the API server directly");
        }
        let state = State {
            fingerprint: read.fingerprint,
            look_at: Instant::now() + LOOK_EVERY,
            unreadable_since: None,
            not_before: None,
            backoff: Backoff::new(PAUSES.0, PAUSES.1),
        };
        let access = Access {
            context: read.context,
            ..access.clone()
        };
        let renewal = Self {
            access,
            state: state.into(),
        };
        Ok((renewal, Clients::build(read.config).await?))
    }

    /// New clients if the configuration has changed. Looks at most once in [`LOOK_EVERY`].
    pub(super) async fn look(&self) -> Option<Clients> {
        let mut state = self.state.try_lock().ok()?;
        if Instant::now() < state.look_at {
            return None;
        }
        let changed = self.build(Some(state.fingerprint)).await;
        state.look_at = Instant::now() + LOOK_EVERY;
        match changed {
            Ok(changed) => {
                if let Some(since) = state.unreadable_since.take() {
                    let seconds = since.elapsed().as_secs();
                    tracing::info!(seconds, "the configuration of the cluster can be read again");
                }
                let (fingerprint, clients) = changed?;
                tracing::info!("the configuration of the cluster has changed; podlog uses the new one");
                state.fingerprint = fingerprint;
                Some(clients)
            }
            Err(error) => {
                if state.unreadable_since.is_none() {
                    state.unreadable_since = Some(Instant::now());
                    tracing::warn!(%error, "the configuration of the cluster cannot be read; podlog goes on with the one it has and tries again");
                }
                None
            }
        }
    }

    /// New clients from the configuration as it is now, with its fingerprint; `None` if that is `known`.
    async fn build(&self, known: Option<u64>) -> Result<Option<(u64, Clients)>, AccessError> {
        let read = self.access.read().await?;
        if known == Some(read.fingerprint) {
            return Ok(None);
        }
        Ok(Some((read.fingerprint, Clients::build(read.config).await?)))
    }

    /// New clients from the configuration as it is now, because the API server refuses the present ones or is not
    /// trusted by them. An exec plugin may have newer credentials although no file has changed.
    pub(super) async fn renew(&self, why: &ApiError) -> Option<Clients> {
        let mut state = self.state.try_lock().ok()?;
        let now = Instant::now();
        if state.not_before.is_some_and(|at| now < at) {
            return None;
        }
        // Trust that was lost long after the last renewal is another matter than the one before.
        let is_new = state.not_before.is_none_or(|at| now >= at + PAUSES.1);
        if is_new {
            state.backoff.reset();
        }
        state.not_before = Some(now + state.backoff.next_wait(0.0));
        match self.build(None).await {
            Ok(built) => {
                if is_new {
                    tracing::info!(%why, "podlog reads the configuration of the cluster again, with CA and credentials, until it fits");
                }
                let (fingerprint, clients) = built?;
                state.fingerprint = fingerprint;
                Some(clients)
            }
            Err(error) if is_new => {
                tracing::warn!(%why, %error, "the configuration of the cluster cannot be read again; podlog goes on trying");
                None
            }
            Err(error) => {
                tracing::debug!(%why, %error, "the configuration of the cluster still cannot be read again");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kubeconfig whose current context is `current`, with the client certificate in `folder`.
    fn write(folder: &std::path::Path, current: &str, server: &str) {
        let user = serde_json::json!({
            "client-certificate": folder.join("client.crt"), "client-key": folder.join("client.key")
        });
        let config = serde_json::json!({
            "current-context": current,
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "u"}}, {"name": "b", "context": {"cluster": "b", "user": "u"}}],
            "clusters": [{"name": "a", "cluster": {"server": server}}, {"name": "b", "cluster": {"server": "http://b:80"}}],
            "users": [{"name": "u", "user": user}]
        });
        std::fs::write(folder.join("config"), config.to_string()).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_clients_are_built_again_when_the_server_or_a_file_changes_and_not_when_the_current_context_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        for name in ["client.crt", "client.key"] {
            std::fs::write(path.join(name), "old").unwrap();
        }
        write(path, "a", "http://a:80");
        let access = Access {
            kubeconfig: Some(path.join("config")),
            ..Access::default()
        };
        let (renewal, _) = Renewal::start(&access).await.unwrap();
        let changed = async || {
            tokio::time::advance(LOOK_EVERY).await;
            renewal.look().await.is_some()
        };
        assert!(!changed().await, "nothing has changed");
        write(path, "b", "http://a:80");
        assert!(!changed().await, "the current context is that of kubectl");
        write(path, "b", "http://c:80");
        assert!(renewal.look().await.is_none(), "it looks every 10 s");
        assert!(changed().await, "another server");
        std::fs::write(path.join("client.crt"), "new").unwrap();
        assert!(changed().await, "another client certificate");
        std::fs::write(path.join("config"), "clusters: 7").unwrap();
        assert!(!changed().await, "it cannot be read");
        write(path, "a", "http://d:80");
        assert!(changed().await, "it can be read again");
    }
}
