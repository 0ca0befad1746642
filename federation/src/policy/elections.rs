//! When this node may stand for election: only while a majority of the voters, itself included, answered a direct ping
//! within the last election timeout.
//!
//! openraft 0.9 has no pre-vote: a node that was cut off would come back with a higher term and depose a good leader.
//! Gossip has no say in it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use openraft::Raft;
use portolan_topology::names::ClusterName;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::message::{Reply, Request};
use super::network::Caller;
use super::timing::Timing;
use super::types::PolicyRaft;

/// Whether `answered` (since each voter's last answer; ourselves: zero) is a majority within `limit`.
pub(super) fn is_majority(answered: &[Option<Duration>], limit: Duration) -> bool {
    let recent = answered.iter().filter(|since| since.is_some_and(|since| since <= limit)).count();
    recent * 2 > answered.len()
}

/// Pings the voters for ever, lets `raft` stand for election or not, and says who can be reached.
pub(super) async fn guard(
    raft: Raft<PolicyRaft>,
    caller: Caller,
    own: ClusterName,
    timing: Timing,
    reachable: watch::Sender<Reach>,
) {
    let mut heard: BTreeMap<String, Instant> = BTreeMap::new();
    let mut majority_since: Option<Instant> = None;
    let mut ticks = interval(timing.heartbeat);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let voters: Vec<String> = {
            let metrics = raft.metrics();
            let membership = metrics.borrow().membership_config.clone();
            membership
                .voter_ids()
                .filter_map(|seat| membership.membership().get_node(&seat).map(|member| member.cluster.clone()))
                .collect()
        };
        let pings = voters.iter().filter(|cluster| **cluster != own.as_str()).map(async |cluster| {
            let reply = caller.call(cluster, Request::Ping, timing.heartbeat).await;
            matches!(reply.map(|frame| frame.message), Ok(Reply::Pong)).then(|| cluster.clone())
        });
        for cluster in join_all(pings).await.into_iter().flatten() {
            heard.insert(cluster, Instant::now());
        }
        let since = |cluster: &String| match *cluster == own.as_str() {
            true => Some(Duration::ZERO),
            false => heard.get(cluster).map(Instant::elapsed),
        };
        let answered: Vec<_> = voters.iter().map(since).collect();
        majority_since =
            is_majority(&answered, timing.election_min).then(|| majority_since.unwrap_or_else(Instant::now));
        // Who comes back hears the leader first: its own timer ran out while it was cut off.
        raft.runtime_config().elect(majority_since.is_some_and(|since| since.elapsed() >= 2 * timing.heartbeat));
        let now = Reach {
            voters: voters.len(),
            answering: answered.iter().flatten().filter(|since| **since <= timing.election_min).count(),
        };
        reachable.send_if_modified(|reach| std::mem::replace(reach, now) != now);
    }
}

/// How many of the voters answer, ourselves included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reach {
    /// Voters in the group.
    pub voters: usize,
    /// Those that answered a direct ping within the last election timeout.
    pub answering: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_is_more_than_half_and_counts_only_recent_answers() {
        let limit = Duration::from_secs(2);
        let own = Some(Duration::ZERO);
        let old = Some(Duration::from_secs(3));
        assert!(is_majority(&[own], limit));
        assert!(!is_majority(&[own, None], limit));
        assert!(!is_majority(&[own, old, None], limit));
        assert!(is_majority(&[own, Some(limit), None], limit));
        assert!(!is_majority(&[own, Some(limit), None, old], limit));
        assert!(!is_majority(&[], limit));
    }
}
