//! How much each other cluster's state is trusted. A silent control plane is not a dead cluster: silence alone makes
//! nobody fail, only first-hand evidence does, or the cluster's own word.
//!
//! Pure: what was heard and probed goes in with its time, states come out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use portolan_topology::names::{ClusterName, RegionName};
use portolan_topology::topology::Topology;
use portolan_topology::view::Liveness;
use tokio::time::Instant;

/// Nothing for three gossip rounds and the time they may be late.
pub(crate) const SUSPECT_AFTER: Duration = Duration::from_secs(2);
/// Nothing for this long, and no evidence of death.
pub(crate) const STALE_AFTER: Duration = Duration::from_secs(60);
/// The second probe comes soon after the first; later ones watch.
const PROBE_AGAIN: Duration = Duration::from_millis(500);
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// Rounds in a row in which nothing answered that corroborate a death.
const CORROBORATED: u32 = 2;
/// Fewer clusters cannot tell a lost world from a lost self.
const ISOLATION_NEEDS: usize = 3;

/// What came of one round of connections to a cluster's endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Round {
    /// Connections that were accepted.
    pub(crate) answered: u32,
    /// Refused: the host lives, or the network says that it does not; the endpoint does not.
    pub(crate) refused: u32,
    /// Nothing came back.
    pub(crate) silent: u32,
}

#[derive(Debug, Clone)]
struct Peer {
    region: RegionName,
    /// When it was last heard, or when we began to listen.
    since: Instant,
    heard: Option<Instant>,
    says_failed: bool,
    /// Rounds in a row in which nothing answered.
    dead_rounds: u32,
    last_round: Option<Round>,
    /// `None`: a round is under way.
    next_probe: Option<Instant>,
    failed: bool,
}

impl Peer {
    fn new(region: RegionName, now: Instant) -> Self {
        Self {
            region,
            since: now,
            heard: None,
            says_failed: false,
            dead_rounds: 0,
            last_round: None,
            next_probe: Some(now + SUSPECT_AFTER),
            failed: false,
        }
    }

    fn was_refused(&self) -> bool {
        self.last_round.is_some_and(|round| round.refused > 0)
    }

    fn quiet(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= SUSPECT_AFTER
    }
}

/// The states of all other clusters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Monitor {
    peers: BTreeMap<ClusterName, Peer>,
    /// Whether it was probably we who were cut off, when the states were last judged.
    isolated: bool,
}

impl Monitor {
    /// Follows the topology: new clusters begin now, those that left are forgotten.
    pub(crate) fn follow(&mut self, topology: &Topology, own: &ClusterName, now: Instant) {
        let others = topology.clusters().filter(|cluster| cluster.name != *own);
        let others: BTreeMap<_, _> = others.map(|cluster| (cluster.name.clone(), cluster.region.clone())).collect();
        self.peers.retain(|cluster, _| others.contains_key(cluster));
        for (cluster, region) in others {
            let peer = self.peers.entry(cluster).or_insert_with(|| Peer::new(region.clone(), now));
            peer.region = region;
        }
    }

    /// A heartbeat of `cluster` advanced. Says whether it is the first one ever.
    pub(crate) fn heard(&mut self, cluster: &ClusterName, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(cluster) else { return false };
        let first = peer.heard.is_none();
        let (region, says_failed) = (peer.region.clone(), peer.says_failed);
        *peer = Peer { heard: Some(now), says_failed, ..Peer::new(region, now) };
        first
    }

    /// When `cluster` was last heard.
    pub(crate) fn last_heard(&self, cluster: &ClusterName) -> Option<Instant> {
        self.peers.get(cluster)?.heard
    }

    /// For how long `cluster` has been silent.
    pub(crate) fn quiet_for(&self, cluster: &ClusterName, now: Instant) -> Duration {
        self.peers.get(cluster).map(|peer| now.duration_since(peer.since)).unwrap_or_default()
    }

    /// Another node of ours has judged `cluster`: what it knows first-hand counts as ours.
    pub(crate) fn adopt(
        &mut self,
        cluster: &ClusterName,
        liveness: Liveness,
        quiet: Duration,
        heard: bool,
        now: Instant,
    ) {
        let Some(peer) = self.peers.get_mut(cluster) else { return };
        let since = now.checked_sub(quiet).unwrap_or(now);
        let failed = liveness == Liveness::Failed && !peer.says_failed;
        *peer = Peer {
            since,
            heard: heard.then_some(since),
            says_failed: peer.says_failed,
            dead_rounds: if failed { CORROBORATED } else { 0 },
            failed,
            ..Peer::new(peer.region.clone(), now)
        };
    }

    /// Begins to listen where another node ended: whoever has not failed was heard until now.
    pub(crate) fn resume(&mut self, now: Instant) {
        for peer in self.peers.values_mut().filter(|peer| peer.heard.is_some() && !peer.failed) {
            peer.since = now;
            peer.next_probe = Some(now + SUSPECT_AFTER);
        }
    }

    /// What the cluster says of itself.
    pub(crate) fn says_failed(&mut self, cluster: &ClusterName, failed: bool) {
        if let Some(peer) = self.peers.get_mut(cluster) {
            peer.says_failed = failed;
        }
    }

    /// A round of probes that [`Monitor::due`] asked for has ended; without any endpoint to probe it says nothing.
    pub(crate) fn probed(&mut self, cluster: &ClusterName, round: Round, now: Instant) {
        let Some(peer) = self.peers.get_mut(cluster) else { return };
        // Heard meanwhile: what the probe found is about the past.
        if !peer.quiet(now) {
            return;
        }
        if round.answered > 0 {
            peer.dead_rounds = 0;
            peer.failed = false;
        } else if round.refused > 0 || (round.silent > 0 && !self.isolated) {
            peer.dead_rounds = peer.dead_rounds.saturating_add(1);
        }
        peer.last_round = (round != Round::default()).then_some(round);
        let wait = if (1..CORROBORATED).contains(&peer.dead_rounds) { PROBE_AGAIN } else { PROBE_EVERY };
        peer.next_probe = Some(now + wait);
    }

    /// The clusters that are to be probed now. Each is named once, until its round has ended.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<ClusterName> {
        let due =
            self.peers.iter_mut().filter(|(_, peer)| peer.quiet(now) && peer.next_probe.is_some_and(|at| at <= now));
        due.map(|(cluster, peer)| {
            peer.next_probe = None;
            cluster.clone()
        })
        .collect()
    }

    /// The states now.
    pub(crate) fn states(&mut self, now: Instant) -> BTreeMap<ClusterName, Liveness> {
        let isolated = self.isolated(now);
        if isolated != self.isolated {
            self.isolated = isolated;
            // Silence while we were cut off says nothing of who is heard a moment later than others: they are probed anew.
            for peer in self.peers.values_mut().filter(|peer| !peer.was_refused()) {
                peer.dead_rounds = 0;
                peer.next_probe = peer.next_probe.map(|at| at.min(now));
            }
        }
        let states = self.peers.iter_mut().map(|(cluster, peer)| {
            if !isolated && peer.quiet(now) && peer.dead_rounds >= CORROBORATED {
                peer.failed = true;
            }
            let quiet_for = now.duration_since(peer.since);
            let state = if peer.says_failed || peer.failed {
                Liveness::Failed
            } else if isolated && peer.quiet(now) {
                Liveness::Isolated
            } else if quiet_for >= STALE_AFTER {
                Liveness::Stale
            } else if quiet_for >= SUSPECT_AFTER || peer.heard.is_none() {
                Liveness::Suspect
            } else {
                Liveness::Fresh
            };
            (cluster.clone(), state)
        });
        states.collect()
    }

    /// Whether it is probably we who are cut off: most regions are quiet, and no probe of a quiet cluster came back
    /// with anything, not even a refusal.
    fn isolated(&self, now: Instant) -> bool {
        // Ours counts.
        if self.peers.len() + 1 < ISOLATION_NEEDS {
            return false;
        }
        let all: BTreeSet<_> = self.peers.values().map(|peer| &peer.region).collect();
        let heard: BTreeSet<_> = self.peers.values().filter(|peer| !peer.quiet(now)).map(|peer| &peer.region).collect();
        let reached = self
            .peers
            .values()
            .filter(|peer| peer.quiet(now))
            .any(|peer| peer.last_round.is_some_and(|round| round.answered + round.refused > 0));
        (all.len() - heard.len()) * 2 > all.len() && !reached
    }
}

#[cfg(test)]
mod tests;
