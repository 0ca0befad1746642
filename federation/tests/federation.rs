//! Whole federations, two or three in one process.
#![allow(clippy::unwrap_used, reason = "a failure here is the test's failure")]

mod common;

use common::{Ground, cluster};

#[tokio::test]
async fn two_control_planes_hear_each_other() {
    let mut ground = Ground::new(&["a", "b"]).await;
    let mut a = ground.start("a").await;
    let mut b = ground.start("b").await;
    a.until("a hears b", |remote| remote.clusters[&cluster("b")].heard.is_some()).await;
    b.until("b hears a", |remote| remote.clusters[&cluster("a")].heard.is_some()).await;
}
