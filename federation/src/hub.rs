//! The one task that owns what is known of the other clusters, and hands it out as snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use portolan_topology::names::{ClusterName, ServicePort};
use portolan_topology::view::Liveness;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::disk::Disk;
use crate::federation::StartError;
use crate::model::{Local, Remote, RemoteCluster};
use crate::peers::{PeerEvent, Remembered, Shared};
use crate::proto;

/// What the owner of a federation asks for.
pub(crate) enum Command {
    Publish(watch::Receiver<Arc<Local>>),
    Want(watch::Receiver<BTreeSet<ServicePort>>),
}

/// The newest publisher of each cluster, shared with the streams that tell it in their hello.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<BTreeMap<ClusterName, proto::Publisher>>>);

impl Memory {
    pub(crate) fn lookup(&self) -> Remembered {
        let memory = self.0.clone();
        Box::new(move |cluster| memory.lock().get(cluster).cloned())
    }
}

/// What is known of the other clusters.
pub(crate) struct Hub {
    shared: Arc<Shared>,
    heard: BTreeMap<ClusterName, Instant>,
    remote: watch::Sender<Arc<Remote>>,
}

impl Hub {
    pub(crate) fn new(
        shared: Arc<Shared>,
        _disk: Arc<dyn Disk>,
    ) -> Result<(Self, watch::Receiver<Arc<Remote>>), StartError> {
        let (remote, receiver) = watch::channel(Arc::default());
        let hub = Self { shared, heard: BTreeMap::new(), remote };
        hub.hand_out();
        Ok((hub, receiver))
    }

    pub(crate) async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        mut events: mpsc::Receiver<PeerEvent>,
    ) {
        let mut wanted = None;
        let mut local = None;
        loop {
            tokio::select! {
                Some(command) = commands.recv() => match command {
                    Command::Publish(receiver) => local = Some(receiver),
                    Command::Want(receiver) => wanted = Some(receiver),
                },
                Some(event) = events.recv() => {
                    let (PeerEvent::Hello { cluster, .. } | PeerEvent::Heard { cluster }) = event;
                    self.heard.insert(cluster, Instant::now());
                    self.hand_out();
                }
                else => return drop((wanted, local)),
            }
        }
    }

    fn hand_out(&self) {
        let topology = self.shared.topology.borrow();
        let clusters = topology.clusters().filter(|cluster| cluster.name != self.shared.cluster).map(|cluster| {
            let known = RemoteCluster {
                name: cluster.name.clone(),
                liveness: Liveness::Fresh,
                heard: self.heard.get(&cluster.name).copied(),
                complete: false,
                version: (0, 0),
                topology_hash: None,
                policy: None,
                services: BTreeMap::new(),
                demand: BTreeMap::new(),
            };
            (cluster.name.clone(), Arc::new(known))
        });
        self.remote.send_replace(Arc::new(Remote { clusters: clusters.collect(), lists: BTreeMap::new() }));
    }
}
