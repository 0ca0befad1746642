//! kill -9 at any moment loses nothing acknowledged: a process of our own writes policy to sled, and is killed.
#![allow(clippy::unwrap_used, reason = "a failure here is the test's failure")]

use std::collections::BTreeMap;
use std::env;
use std::io::{self, BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use portolan_federation::disk::DirDisk;
use portolan_federation::policy::{Command, Config, Courier, Outcome, PolicyChange, Seat};
use portolan_topology::names::{ClusterName, NetworkName, RegionName};
use portolan_topology::policy::{Drain, DrainSpec, PolicyObject, Scope};
use portolan_topology::topology::{Cluster, ControlPlane, DEFAULT_PEER_PORT, Region, Topology};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;

/// Set in the child alone: the data directory that it writes to.
const DATA_DIR: &str = "PORTOLAN_TEST_KILL_DATA_DIR";

/// Each round kills the child after another number of acknowledged writes.
const ROUNDS: [usize; 4] = [1, 7, 3, 20];

struct Nobody;

#[async_trait]
impl Courier for Nobody {
    async fn call(&self, _: &ClusterName, _: Vec<u8>, _: Duration) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotConnected.into())
    }
}

fn topology() -> Topology {
    let region = RegionName::new("here").unwrap();
    let cluster = Cluster {
        name: ClusterName::new("one").unwrap(),
        region: region.clone(),
        zones: Vec::new(),
        network: NetworkName::new("default").unwrap(),
        gateways: Vec::new(),
        control_plane: ControlPlane {
            host: "localhost".to_owned(),
            port: DEFAULT_PEER_PORT,
            voter: true,
            config: false,
        },
    };
    let regions = vec![Region { name: region, zones: Vec::new(), clusters: vec![cluster] }];
    Topology { name: "kill".to_owned(), regions, links: Vec::new(), failover: BTreeMap::new(), hash: 1 }
}

async fn open(dir: &Path) -> Seat {
    let disk = DirDisk::open(dir, "one").unwrap();
    let (_keep, topology) = watch::channel(Arc::new(topology()));
    let cluster = ClusterName::new("one").unwrap();
    let config = Config { cluster, topology, heartbeat_floor: Duration::from_millis(50) };
    let mut rng = StdRng::seed_from_u64(1);
    Seat::start(config, &disk, Arc::new(Nobody), &mut rng).await.unwrap()
}

fn command(number: u32) -> Command {
    let spec = DrainSpec {
        scope: Scope::Region("here".parse().unwrap()),
        services: None,
        percent: 1 + number % 100,
        over: Duration::ZERO,
        restore_over: Duration::ZERO,
        start_time: None,
        end_time: None,
        force: false,
        reason: "a test".to_owned(),
    };
    Command {
        change: PolicyChange::Apply(vec![PolicyObject::Drain(Drain { name: "drain".to_owned(), spec })]),
        expected_revision: None,
        owner: Default::default(),
        take_over: false,
        by: "ada".to_owned(),
        at: Timestamp::UNIX_EPOCH,
    }
}

/// Not a test of its own: what the child runs. Without its variable it has nothing to do.
#[tokio::test]
async fn child() {
    let Some(dir) = env::var_os(DATA_DIR) else { return };
    let policy = open(Path::new(&dir)).await;
    for number in 0.. {
        if let Outcome::Applied { revision } = policy.write(command(number)).await.unwrap() {
            // Past the test harness, which would keep it until the end.
            writeln!(io::stderr(), "acknowledged {revision}").unwrap();
        }
    }
}

#[tokio::test]
async fn kill_9_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<u64> = Vec::new();
    for writes in ROUNDS {
        let mut child = Process::new(env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(DATA_DIR, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = 0;
        for line in lines {
            let line = line.unwrap();
            if let Some(revision) = line.strip_prefix("acknowledged ") {
                acknowledged.push(revision.parse().unwrap());
                seen += 1;
                if seen == writes {
                    // Lines that are in the pipe already were acknowledged too, and are read on.
                    child.kill().unwrap();
                }
            }
        }
        assert!(seen >= writes, "the child ended by itself after {seen} writes");
        assert!(!child.wait().unwrap().success());

        let policy = open(dir.path()).await;
        let mut set = policy.set();
        set.wait_for(|set| set.revision >= *acknowledged.last().unwrap()).await.unwrap();
        let history = policy.history(None);
        for revision in &acknowledged {
            assert!(history.iter().any(|change| change.revision == *revision), "r{revision} is gone");
        }
        policy.stop().await;
    }
}
