//! Three whole control planes in one process, in simulated time, through the seams: sockets are turmoil's, disks are in
//! memory, time is tokio's, paused. Nothing here sleeps or opens a real socket.
//!
//! Seeds fix what turmoil and our own generators draw. Not simulated: openraft draws its election timeouts from its own
//! randomness, TLS its keys from the system's, hash maps and tokio's `select!` theirs, and `spawn_blocking` (flushes,
//! records) uses real threads, for which simulated time waits. So a seed does not fix the order of everything, and what
//! the tests say must hold in every order.
#![allow(clippy::unwrap_used, reason = "a failure here is the test's failure")]
#![allow(unreachable_pub, reason = "modules of a test")]

mod client;
mod lease;
mod net;
mod nodes;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use portolan_topology::view::Liveness;
use world::Fleet;

/// Longer than the federation takes to call a silent cluster stale.
const LONGER_THAN_STALE_AFTER: Duration = Duration::from_secs(75);

/// Sends the failover of `checkout` elsewhere than the topology does.
const POLICY: &str = "
apiVersion: portolan.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: checkout, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: checkout}]
  locality: {failover: [{region: eu, weight: 20}, {region: ap, weight: 80}]}
";

/// The assignment's regions by priority, and the weights of the second priority in percent.
fn ladder(fleet: &Fleet) -> (Vec<BTreeSet<String>>, BTreeMap<String, u32>) {
    let told = fleet.last_told().unwrap();
    let regions = told.priorities.values().map(|regions| regions.keys().cloned().collect()).collect();
    let second = told.priorities.get(&1).cloned().unwrap_or_default();
    let all: u32 = second.values().sum();
    (regions, second.into_iter().map(|(region, weight)| (region, (weight * 100 + all / 2) / all)).collect())
}

/// The client had all of the endpoints when it had been told this often, and at any time since.
fn nothing_went_since(seen: usize, fleet: &Fleet) {
    let told = fleet.told_since(seen - 1);
    assert!(told.iter().all(|told| told.healthy == fleet.endpoints), "{told:#?}");
}

fn regions(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn shares(of: &[(&str, u32)]) -> BTreeMap<String, u32> {
    of.iter().map(|(region, share)| ((*region).to_owned(), *share)).collect()
}

#[test]
fn three_regions_come_up_and_a_client_gets_the_endpoints_of_all() {
    let fleet = Fleet::settled(1);
    let (priorities, second) = ladder(&fleet);
    assert_eq!(priorities, [regions(&["us"]), regions(&["ap", "eu"])]);
    assert_eq!(second, shares(&[("eu", 70), ("ap", 30)]));
}

#[test]
fn a_partition_removes_nothing_and_heals() {
    let mut fleet = Fleet::settled(2);
    let seen = fleet.told_count();
    fleet.partition("plane-a", &["plane-b", "plane-c"]);
    fleet.pass(LONGER_THAN_STALE_AFTER);
    for other in ["b", "c"] {
        assert_eq!(fleet.liveness("a", other), Some(Liveness::Stale), "{other}");
        assert_eq!(fleet.liveness(other, "a"), Some(Liveness::Stale), "a, seen from {other}");
    }
    assert_eq!(fleet.liveness("b", "c"), Some(Liveness::Fresh), "the others go on");
    fleet.repair("plane-a", &["plane-b", "plane-c"]);
    fleet.until("all is fresh again, in the one group", Fleet::is_whole);
    nothing_went_since(seen, &fleet);
}

#[test]
fn a_cluster_cut_off_from_everything_takes_itself_for_the_lost_one() {
    let mut fleet = Fleet::settled(3);
    let seen = fleet.told_count();
    let everything = ["plane-b", "backends-b", "plane-c", "backends-c"];
    fleet.partition("plane-a", &everything);
    fleet.pass(LONGER_THAN_STALE_AFTER);
    for other in ["b", "c"] {
        assert_eq!(fleet.liveness("a", other), Some(Liveness::Isolated), "{other}");
    }
    fleet.repair("plane-a", &everything);
    fleet.until("all is fresh again", Fleet::is_whole);
    nothing_went_since(seen, &fleet);
}

#[test]
fn a_policy_written_in_one_region_shifts_the_clients_of_another() {
    let mut fleet = Fleet::settled(4);
    let revision = fleet.write("c", POLICY);
    fleet.until("a has applied it", |fleet| fleet.revision("a") == Some(revision));
    fleet.until("the client is told", |fleet| ladder(fleet).1 == shares(&[("eu", 20), ("ap", 80)]));
    assert_eq!(ladder(&fleet).0, [regions(&["us"]), regions(&["ap", "eu"])]);
}

#[test]
fn a_crashed_control_plane_takes_no_endpoints_with_it_and_returns_with_a_higher_epoch() {
    let mut fleet = Fleet::settled(5);
    let (seen, group) = (fleet.told_count(), fleet.standing("a").unwrap().group);
    let (before, _) = fleet.remote("a", "b").unwrap().version;
    fleet.crash("b");
    fleet.until("b is suspected", |fleet| fleet.liveness("a", "b") == Some(Liveness::Suspect));
    fleet.pass(Duration::from_secs(20));
    assert_eq!(fleet.liveness("a", "b"), Some(Liveness::Suspect), "its backends answer: it has not failed");
    nothing_went_since(seen, &fleet);
    let revision = fleet.write("c", POLICY);
    fleet.bounce("b");
    fleet.until("b is back, whole", |fleet| fleet.is_whole() && fleet.remote("a", "b").unwrap().version.0 > before);
    assert_eq!(fleet.standing("b").unwrap().group, group, "the group is born once");
    fleet.until("b has what it missed", |fleet| fleet.revision("b") == Some(revision));
    nothing_went_since(seen, &fleet);
}
