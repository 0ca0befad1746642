//! Whole groups in one process, over a courier of our own: birth, writes from anywhere, crashes and partitions.
//!
//! Time is paused: what waits here, waits in simulated time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use portolan_topology::names::{ClusterName, NetworkName, RegionName};
use portolan_topology::policy::{Drain, DrainSpec, PolicyObject, Scope};
use portolan_topology::topology::{Cluster, ControlPlane, DEFAULT_PEER_PORT, Region, Topology};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::crash::CrashStore;
use super::message::{Frame, Refusal, Reply, Request};
use super::*;
use crate::disk::{Disk, Store};
use crate::model::Role;

/// Long, in simulated time.
const LONG: Duration = Duration::from_secs(120);

struct OneStore(Arc<CrashStore>);

impl Disk for OneStore {
    fn read(&self, _: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }
    fn write(&self, record: &str, _: &[u8]) -> io::Result<()> {
        Err(io::Error::other(format!("policy keeps {record} in its store")))
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, _: &str) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn open_store(&self) -> io::Result<Arc<dyn Store>> {
        Ok(Arc::clone(&self.0) as Arc<dyn Store>)
    }
}

/// The wires between the nodes, and which of them are cut.
#[derive(Default)]
struct Wires {
    nodes: Mutex<BTreeMap<String, Seat>>,
    cut: Mutex<BTreeSet<String>>,
}

struct Wire {
    from: ClusterName,
    wires: Arc<Wires>,
}

#[async_trait]
impl Courier for Wire {
    async fn call(&self, cluster: &ClusterName, body: Vec<u8>, limit: Duration) -> io::Result<Vec<u8>> {
        let cut = {
            let cut = self.wires.cut.lock();
            cut.contains(self.from.as_str()) || cut.contains(cluster.as_str())
        };
        let node = self.wires.nodes.lock().get(cluster.as_str()).cloned();
        let (Some(node), false) = (node, cut) else {
            return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
        };
        match timeout(limit, node.answer(&self.from, &body)).await {
            Ok(answer) => answer.map_err(io::Error::other),
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
        }
    }
}

struct Group {
    wires: Arc<Wires>,
    topology: watch::Sender<Arc<Topology>>,
    stores: BTreeMap<String, Arc<CrashStore>>,
    seed: u64,
}

pub(super) fn topology(clusters: &[(&str, bool)]) -> Topology {
    let region = RegionName::new("us-east").unwrap();
    let clusters = clusters
        .iter()
        .map(|(name, voter)| Cluster {
            name: ClusterName::new(name).unwrap(),
            region: region.clone(),
            zones: Vec::new(),
            network: NetworkName::new("default").unwrap(),
            gateways: Vec::new(),
            control_plane: ControlPlane {
                host: "localhost".to_owned(),
                port: DEFAULT_PEER_PORT,
                voter: *voter,
                config: false,
            },
        })
        .collect();
    let regions = vec![Region { name: region, zones: Vec::new(), clusters }];
    Topology { name: "test".to_owned(), regions, links: Vec::new(), failover: BTreeMap::new(), hash: 7 }
}

impl Group {
    fn of(clusters: &[(&str, bool)]) -> Self {
        let topology = watch::Sender::new(Arc::new(topology(clusters)));
        Self { wires: Arc::default(), topology, stores: BTreeMap::new(), seed: 0 }
    }

    async fn start(&mut self, cluster: &str) -> Seat {
        let store = Arc::clone(self.stores.entry(cluster.to_owned()).or_default());
        let name = ClusterName::new(cluster).unwrap();
        self.seed += 1;
        let config = Config {
            cluster: name.clone(),
            topology: self.topology.subscribe(),
            heartbeat_floor: Duration::from_millis(500),
        };
        let wire = Arc::new(Wire { from: name, wires: Arc::clone(&self.wires) });
        let mut rng = StdRng::seed_from_u64(self.seed);
        let policy = Seat::start(config, &OneStore(store), wire, &mut rng).await.unwrap();
        self.wires.nodes.lock().insert(cluster.to_owned(), policy.clone());
        policy
    }

    async fn start_all(&mut self) -> Vec<Seat> {
        let clusters: Vec<String> = self.topology.borrow().clusters().map(|cluster| cluster.name.to_string()).collect();
        let mut nodes = Vec::new();
        for cluster in clusters {
            nodes.push(self.start(&cluster).await);
        }
        nodes
    }

    /// Stops a node as a power failure would.
    async fn crash(&self, cluster: &str) {
        let node = self.wires.nodes.lock().remove(cluster);
        if let Some(node) = node {
            node.stop().await;
        }
        self.stores[cluster].crash();
    }
}

fn command(name: &str, percent: u32) -> Command {
    let drain = Drain {
        name: name.to_owned(),
        spec: DrainSpec {
            scope: Scope::Region("us-east".parse().unwrap()),
            services: None,
            percent,
            over: Duration::ZERO,
            restore_over: Duration::ZERO,
            start_time: None,
            end_time: None,
            force: false,
            reason: "a test".to_owned(),
        },
    };
    Command {
        change: PolicyChange::Apply(vec![PolicyObject::Drain(drain)]),
        expected_revision: None,
        owner: Default::default(),
        take_over: false,
        by: "ada".to_owned(),
        at: Timestamp::UNIX_EPOCH,
    }
}

async fn until(policy: &Seat, mut holds: impl FnMut(&Standing) -> bool) -> Standing {
    let mut standing = policy.standing();
    timeout(LONG, standing.wait_for(|standing| holds(standing))).await.expect("it never held").unwrap().clone()
}

async fn joined(nodes: &[Seat]) -> Vec<Standing> {
    let mut standings = Vec::new();
    for node in nodes {
        standings.push(until(node, |standing| standing.leader.is_some() && standing.role.is_some()).await);
    }
    standings
}

/// Writes until it works, as a person would.
async fn write_at_last(policy: &Seat, command: Command) -> Outcome {
    let tries = async {
        loop {
            match policy.write(command.clone()).await {
                Ok(outcome) => return outcome,
                Err(error) => tracing::info!(%error, "again"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(LONG, tries).await.expect("writes never worked again")
}

fn revision(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Applied { revision } | Outcome::Unchanged { revision } => *revision,
        other => panic!("not written: {other:?}"),
    }
}

const THREE: &[(&str, bool)] = &[("a", true), ("b", true), ("c", true), ("d", false)];

#[tokio::test(start_paused = true)]
async fn the_group_is_born_once_and_every_cluster_has_its_part() {
    let mut group = Group::of(THREE);
    let nodes = group.start_all().await;
    let standings = joined(&nodes).await;
    assert!(standings.iter().all(|standing| standing.group == standings[0].group));
    assert_eq!(standings[3].role, Some(Role::Learner));
    assert_eq!(standings.iter().filter(|standing| standing.role == Some(Role::Leader)).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_group_is_born_before_every_voter_answers_with_the_same_topology() {
    let mut group = Group::of(THREE);
    let a = group.start("a").await;
    let _b = group.start("b").await;
    let found =
        timeout(Duration::from_secs(30), a.standing().wait_for(|standing| standing.group.is_some())).await.is_ok();
    assert!(!found, "founded without c");
    group.start("c").await;
    until(&a, |standing| standing.leader.is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn a_write_at_any_node_is_applied_there_when_it_returns_and_everywhere_soon() {
    let mut group = Group::of(THREE);
    let nodes = group.start_all().await;
    joined(&nodes).await;
    for (number, node) in nodes.iter().enumerate() {
        let outcome = node.write(command(&format!("drain-{number}"), 100)).await.unwrap();
        assert_eq!(node.set().borrow().revision, revision(&outcome));
    }
    for node in &nodes {
        let mut set = node.set();
        timeout(LONG, set.wait_for(|set| set.objects.len() == 4)).await.unwrap().unwrap();
        let history = node.history(Some("Drain/drain-1"));
        assert_eq!((history.len(), history[0].by.as_str()), (1, "ada"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_expected_revision_that_is_not_the_objects_is_a_conflict() {
    let mut group = Group::of(THREE);
    let nodes = group.start_all().await;
    joined(&nodes).await;
    let written = revision(&nodes[3].write(command("x", 10)).await.unwrap());
    let stale = Command { expected_revision: Some(written + 1), ..command("x", 20) };
    let outcome = nodes[1].write(stale).await.unwrap();
    assert_eq!(outcome, Outcome::Conflict { key: "Drain/x".to_owned(), found: written });
    let fresh = Command { expected_revision: Some(written), ..command("x", 20) };
    assert!(matches!(nodes[1].write(fresh).await.unwrap(), Outcome::Applied { .. }));
}

#[tokio::test(start_paused = true)]
async fn after_a_leaders_death_writes_work_again_within_fifteen_seconds() {
    let mut group = Group::of(THREE);
    let nodes = group.start_all().await;
    let leader = joined(&nodes).await[0].leader.clone().unwrap();
    let acknowledged = revision(&nodes[3].write(command("before", 10)).await.unwrap());
    group.crash(&leader).await;
    let died = Instant::now();
    write_at_last(&nodes[3], command("after", 10)).await;
    assert!(died.elapsed() < Duration::from_secs(15), "{:?}", died.elapsed());
    assert!(nodes[3].history(None).iter().any(|change| change.revision == acknowledged));
}

/// Acknowledges some writes, crashes every node at once, and says whether each is still there afterwards.
async fn acknowledged_survives(stores: impl Fn() -> CrashStore) -> bool {
    let mut group = Group::of(THREE);
    for cluster in ["a", "b", "c", "d"] {
        group.stores.insert(cluster.to_owned(), Arc::new(stores()));
    }
    let nodes = group.start_all().await;
    joined(&nodes).await;
    let mut acknowledged = Vec::new();
    for number in 0..10 {
        acknowledged.push(revision(&nodes[number % 4].write(command(&format!("drain-{number}"), 50)).await.unwrap()));
    }
    for cluster in ["a", "b", "c", "d"] {
        group.crash(cluster).await;
    }
    let nodes = group.start_all().await;
    joined(&nodes).await;
    let last = write_at_last(&nodes[0], command("after", 50)).await;
    let history = nodes[0].history(None);
    acknowledged.iter().all(|revision| history.iter().any(|change| change.revision == *revision))
        && acknowledged.iter().all(|old| *old < revision(&last))
}

#[tokio::test(start_paused = true)]
async fn a_crash_of_every_node_loses_nothing_acknowledged() {
    assert!(acknowledged_survives(CrashStore::default).await);
}

#[tokio::test(start_paused = true)]
async fn without_the_flush_a_crash_loses_what_was_acknowledged_and_the_check_sees_it() {
    assert!(!acknowledged_survives(CrashStore::that_does_not_flush).await);
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_was_cut_off_comes_back_without_a_new_term() {
    let mut group = Group::of(THREE);
    let nodes = group.start_all().await;
    let standings = joined(&nodes).await;
    let leader = standings[0].leader.clone().unwrap();
    let cut = ["a", "b", "c"].into_iter().position(|name| name != leader).unwrap();
    let name = ["a", "b", "c"][cut].to_owned();
    let term = nodes[cut].term();
    group.wires.cut.lock().insert(name.clone());
    until(&nodes[cut], |standing| standing.reach.answering == 1).await;
    // Long enough for many elections, were they on.
    let mut standing = nodes[cut].standing();
    let stands = timeout(Duration::from_secs(60), standing.wait_for(|standing| standing.role == Some(Role::Leader)));
    assert!(stands.await.is_err());
    group.wires.cut.lock().clear();
    until(&nodes[cut], |standing| standing.reach.answering == 3).await;
    write_at_last(&nodes[cut], command("after", 10)).await;
    assert_eq!(nodes[cut].term(), term);
    assert_eq!(nodes[cut].standing().borrow().leader, Some(leader));
}

#[tokio::test(start_paused = true)]
async fn a_minority_reads_the_last_policy_and_says_that_it_is_read_only() {
    let mut group = Group::of(THREE);
    let nodes = group.start_all().await;
    joined(&nodes).await;
    write_at_last(&nodes[0], command("before", 10)).await;
    let mut set = nodes[2].set();
    timeout(LONG, set.wait_for(|set| set.objects.len() == 1)).await.unwrap().unwrap();
    group.crash("a").await;
    group.crash("b").await;
    let error = loop {
        match nodes[2].write(command("after", 10)).await {
            Err(error @ WriteError::ReadOnly { .. }) => break error,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            Ok(outcome) => panic!("a minority wrote: {outcome:?}"),
        }
    };
    assert!(error.to_string().starts_with("policy is read-only here: 1 of 3 voters answer"), "{error}");
    assert!(nodes[2].set().borrow().objects.contains_key("Drain/before"));
}

#[tokio::test(start_paused = true)]
async fn a_first_voter_whose_disk_was_wiped_founds_no_second_group() {
    let mut group = Group::of(THREE);
    let nodes = group.start_all().await;
    let id = joined(&nodes).await[0].group.clone();
    group.crash("a").await;
    group.stores.remove("a");
    let wiped = group.start("a").await;
    write_at_last(&nodes[1], command("without-a", 10)).await;
    let mut standing = wiped.standing();
    let founds = timeout(Duration::from_secs(60), standing.wait_for(|standing| standing.group.is_some()));
    assert!(founds.await.is_err(), "a second group, or a seat without its log");
    assert_eq!(nodes[1].standing().borrow().group, id);
}

#[tokio::test(start_paused = true)]
async fn a_learner_whose_disk_was_wiped_follows_again_under_a_new_seat() {
    let mut group = Group::of(THREE);
    let nodes = group.start_all().await;
    joined(&nodes).await;
    write_at_last(&nodes[0], command("before", 10)).await;
    group.crash("d").await;
    group.stores.remove("d");
    let wiped = group.start("d").await;
    let mut set = wiped.set();
    timeout(LONG, set.wait_for(|set| set.objects.contains_key("Drain/before"))).await.unwrap().unwrap();
}

async fn ask(policy: &Seat, from: &str, frame: &Frame<Request>) -> Reply {
    let body = record::encode(frame).unwrap();
    let answer = policy.answer(&ClusterName::new(from).unwrap(), &body).await.unwrap();
    record::decode::<Frame<Reply>>(&answer).unwrap().message
}

#[tokio::test(start_paused = true)]
async fn another_group_another_seat_and_another_clusters_seat_are_refused() {
    let mut group = Group::of(THREE);
    let nodes = group.start_all().await;
    let ours = joined(&nodes).await[0].group.clone();
    let seat = nodes[0].seat();
    let b = nodes[1].seat();
    let vote = |to, candidate| Request::Vote {
        seat: to,
        request: openraft::raft::VoteRequest::new(openraft::Vote::new(99, candidate), None),
    };

    let foreign = Frame { group: Some("another".to_owned()), message: Request::Ping };
    assert!(matches!(ask(&nodes[0], "b", &foreign).await, Reply::Refused(Refusal::AnotherGroup { .. })));
    let none = Frame { group: None, message: Request::Ping };
    assert!(matches!(ask(&nodes[0], "b", &none).await, Reply::Refused(Refusal::AnotherGroup { .. })));
    let misdirected = Frame { group: ours.clone(), message: vote(seat + 1, b) };
    assert!(matches!(ask(&nodes[0], "b", &misdirected).await, Reply::Refused(Refusal::AnotherSeat { .. })));
    let impostor = Frame { group: ours, message: vote(seat, b) };
    let refused = ask(&nodes[0], "d", &impostor).await;
    assert!(matches!(refused, Reply::Refused(Refusal::NotYourSeat { owner, .. }) if owner == "b"));
}

#[tokio::test]
async fn what_is_not_a_frame_is_an_error_and_no_panic() {
    let mut group = Group::of(&[("a", true)]);
    let node = group.start("a").await;
    let from = ClusterName::new("b").unwrap();
    for body in [&b""[..], b"\xff\xff\xff", b"\x08\x01\x12\x02{}"] {
        assert!(node.answer(&from, body).await.is_err());
    }
}
