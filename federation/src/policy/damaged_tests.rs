//! A store that is damaged: a learner sets it aside and goes on, a voter does not.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use portolan_topology::names::ClusterName;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;

use super::tests::topology;
use super::{Config, Courier, Seat, StartError};
use crate::disk::{DirDisk, Disk};

struct Nobody;

#[async_trait]
impl Courier for Nobody {
    async fn call(&self, _: &ClusterName, _: Vec<u8>, _: Duration) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotConnected.into())
    }
}

/// Starts cluster `b` on a store whose bytes are not what sled wrote.
async fn start_damaged(dir: &Path, voter: bool) -> Result<Seat, StartError> {
    let disk = DirDisk::open(dir, "b").unwrap();
    drop(disk.open_store().unwrap());
    std::fs::write(dir.join("store/conf"), b"not what sled wrote").unwrap();
    let (_keep, topology) = watch::channel(Arc::new(topology(&[("a", true), ("b", voter)])));
    let config = Config { cluster: "b".parse().unwrap(), topology, heartbeat_floor: Duration::from_millis(50) };
    Seat::start(config, &disk, Arc::new(Nobody), &mut StdRng::seed_from_u64(1)).await
}

#[tokio::test]
async fn a_learner_keeps_the_damaged_store_aside_and_starts_anew() {
    let dir = tempfile::tempdir().unwrap();
    start_damaged(dir.path(), false).await.unwrap().stop().await;
    assert_eq!(std::fs::read(dir.path().join("store.damaged-1/conf")).unwrap(), b"not what sled wrote");
}

#[tokio::test]
async fn a_voter_does_not_forget_its_votes_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let refused = start_damaged(dir.path(), true).await.err().unwrap();
    assert!(matches!(refused, StartError::DamagedVoter { .. }), "{refused}");
    assert!(refused.to_string().contains("move the folder `store` out of the data directory"), "{refused}");
    assert!(!dir.path().join("store.damaged-1").exists());
}
