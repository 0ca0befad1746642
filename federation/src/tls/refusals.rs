//! Who was turned away, and why: counted each time, logged once per peer, reason and minute.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A peer and reason are logged again after this long.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// How many peers' last log lines are remembered; a flood of strange addresses must not fill memory.
const REMEMBERED: usize = 1024;

/// Why a connection or a message was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// The TLS handshake failed: plain text, a foreign CA, an expired certificate, none at all.
    Handshake,
    /// The handshake took too long.
    HandshakeTimeout,
    /// A good certificate that is for somebody who has no business here.
    Identity,
    /// The address is not among those that may use the port.
    Network,
    /// A peer spoke for another cluster than its certificate's.
    Impersonation,
    /// A message that cannot be understood.
    Malformed,
}

impl Refusal {
    /// The reason as metrics label it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Identity => "identity",
            Self::Network => "network",
            Self::Impersonation => "impersonation",
            Self::Malformed => "malformed",
        }
    }
}

/// The refusals of one port.
#[derive(Debug)]
pub struct Refusals {
    port: &'static str,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    counts: BTreeMap<Refusal, u64>,
    logged: HashMap<(IpAddr, Refusal), Instant>,
}

impl Refusals {
    /// Those of the port called `port` in the log.
    #[must_use]
    pub fn new(port: &'static str) -> Self {
        Self { port, state: Mutex::default() }
    }

    /// Counts a refusal of `peer`, and logs it if that was not done within the last minute. Returns whether it did.
    pub fn refuse(&self, peer: IpAddr, refusal: Refusal, why: &dyn fmt::Display) -> bool {
        let now = Instant::now();
        let log = {
            let mut state = self.state.lock();
            *state.counts.entry(refusal).or_default() += 1;
            if state.logged.len() >= REMEMBERED {
                state.logged.retain(|_, at| now.duration_since(*at) < LOG_EVERY);
            }
            match state.logged.get(&(peer, refusal)) {
                Some(at) if now.duration_since(*at) < LOG_EVERY => false,
                _ if state.logged.len() >= REMEMBERED => false,
                _ => {
                    state.logged.insert((peer, refusal), now);
                    true
                }
            }
        };
        if log {
            tracing::warn!(port = self.port, %peer, reason = refusal.label(), "refused: {why}");
        }
        log
    }

    /// How many there were of each kind.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Refusal, u64> {
        self.state.lock().counts.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_is_counted_and_one_a_minute_logged() {
        let refusals = Refusals::new("peer");
        let peer = IpAddr::from([10, 0, 0, 1]);
        assert!(refusals.refuse(peer, Refusal::Handshake, &"no"));
        assert!(!refusals.refuse(peer, Refusal::Handshake, &"no"));
        assert!(refusals.refuse(peer, Refusal::Identity, &"another reason"));
        assert!(refusals.refuse(IpAddr::from([10, 0, 0, 2]), Refusal::Handshake, &"another peer"));
        tokio::time::advance(LOG_EVERY).await;
        assert!(refusals.refuse(peer, Refusal::Handshake, &"no"));
        assert_eq!(refusals.counts(), [(Refusal::Handshake, 4), (Refusal::Identity, 1)].into());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_addresses_is_bounded() {
        let refusals = Refusals::new("peer");
        let logged =
            (0..5000u32).filter(|n| refusals.refuse(IpAddr::from(n.to_be_bytes()), Refusal::Handshake, &"no")).count();
        assert_eq!(logged, REMEMBERED);
        assert_eq!(refusals.counts()[&Refusal::Handshake], 5000);
    }
}
