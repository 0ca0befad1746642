//! The catalog at work, on paused time.

use std::sync::Arc;

use jiff::Timestamp;
use portolan_federation::disk::{Disk, MemoryDisk};
use portolan_federation::model::Remote;
use portolan_federation::net::TokioNet;
use portolan_topology::policy::PolicySet;
use portolan_topology::service::LocalServices;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::super::served::{Catalog, Served};
use super::super::{Demand, LiveCatalog, Streams, memory};
use super::world::{World, cluster, present, query, shown, topology};

struct Slots {
    local: watch::Sender<Arc<LocalServices>>,
    remote: watch::Sender<Arc<Remote>>,
}

fn streams(world: &World) -> (Slots, Streams) {
    let (local_slot, local) = watch::channel(world.inputs.local.clone());
    let (remote_slot, remote) = watch::channel(world.inputs.remote.clone());
    let streams = Streams {
        topology: watch::channel(topology()).1,
        local,
        remote,
        policy: watch::channel(Some(Arc::new(PolicySet::default()))).1,
        demand: watch::channel(Arc::<Demand>::default()).1,
    };
    (Slots { local: local_slot, remote: remote_slot }, streams)
}

#[tokio::test(start_paused = true)]
async fn changes_reach_whoever_watches_and_plans_outlive_the_process() {
    let mut world = World::new();
    world.local("a.shop", &[("e1", &["10.0.0.1:80"])]);
    let disk = Arc::new(MemoryDisk::default());
    let (slots, inputs) = streams(&world);
    let wall: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
    let catalog = LiveCatalog::new(cluster("east-a"), &inputs, disk.clone(), wall);
    let end = CancellationToken::new();
    let running = tokio::spawn(catalog.clone().run(inputs, Arc::new(TokioNet), end.clone()));

    let mut answer = catalog.watch(query("a.shop", "e1/east-a"));
    assert_eq!(shown(&answer.borrow_and_update()), ["0 e1/east-a 100% 10.0.0.1:80"]);

    world.facts("west-a", "a.shop", &[("w1", &["10.2.0.1:80"])]);
    slots.remote.send_replace(world.inputs.remote.clone());
    let mut wanted = catalog.wanted();
    wanted.wait_for(|wanted| wanted.len() == 1).await.unwrap();

    world.remote("west-a", "a.shop", &[("w1", &["10.2.0.1:80"])]);
    slots.remote.send_replace(world.inputs.remote.clone());
    let has_two = |served: &Served| matches!(served, Served::Present(served) if served.endpoints.len() == 2);
    answer.wait_for(has_two).await.unwrap();

    world.local("a.shop", &[("e1", &["10.0.0.1:80!"])]);
    slots.local.send_replace(world.inputs.local.clone());
    let moved = |served: &Served| shown(served)[0].starts_with("0 w1/west-a 100%");
    answer.wait_for(moved).await.unwrap();

    let plan = present(&answer.borrow()).plan.clone();
    end.cancel();
    running.await.unwrap();
    let remembered = memory::load(disk.as_ref()).unwrap();
    assert_eq!(remembered.into_values().map(|it| it.paced.plan).collect::<Vec<_>>(), [plan]);
}

#[test]
fn a_record_that_cannot_be_understood_is_said_to_be_so() {
    for record in [&b"{"[..], b"{\"format\": 9, \"plans\": 7}", b"{\"format\": 1}", b"\xff"] {
        let disk = MemoryDisk::default();
        disk.write("plans", record).unwrap();
        let error = memory::load(&disk).unwrap_err().to_string();
        assert!(error.contains("plans start afresh"), "{error}");
    }
}
