//! Raft's timeouts, for a network between regions rather than a rack.

use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use portolan_topology::topology::Topology;

/// How long things take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timing {
    /// Between two heartbeats, and the limit of one append.
    pub(super) heartbeat: Duration,
    /// The shortest election timeout.
    pub(super) election_min: Duration,
    /// The longest; openraft's lease is as long, so an election begins after 10 to 12 heartbeats of silence.
    pub(super) election_max: Duration,
}

impl Timing {
    /// A heartbeat of at least `floor` and three times the largest round trip between voters; elections after 4 to 6.
    #[must_use]
    pub(super) fn new(topology: &Topology, floor: Duration) -> Self {
        let voters = topology.voters();
        let rtts = voters.iter().flat_map(|a| voters.iter().map(move |b| (&a.region, &b.region)));
        let largest = rtts.filter_map(|(a, b)| topology.link(a, b)).map(|link| link.rtt).max();
        let heartbeat = floor.max(3 * largest.unwrap_or_default());
        Self { heartbeat, election_min: 4 * heartbeat, election_max: 6 * heartbeat }
    }

    /// As openraft wants it.
    pub(super) fn config(self) -> Config {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Config {
            cluster_name: "portolan".to_owned(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_min),
            election_timeout_max: millis(self.election_max),
            install_snapshot_timeout: 30_000,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(1_000),
            max_in_snapshot_log_to_keep: 500,
            // A chunk is written as JSON, some four times its size, and must stay under gRPC's 4 MB a message.
            snapshot_max_chunk_size: 512 * 1024,
            // Until a majority of the voters answers, see `elections`.
            enable_elect: false,
            ..Config::default()
        }
    }
}
