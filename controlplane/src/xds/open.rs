//! What is asked of a stream from outside, and the little that concerns all that are open: a new topology, and clients
//! that do not read.

use std::sync::{Arc, Weak};
use std::time::Duration;

use portolan_topology::topology::Topology;
use tokio::sync::watch;
use tokio::time::Instant;

use super::clients::ClientState;
use super::counters::count;
use super::protocol::holding::Holding;
use super::server::Shared;
use crate::resources::Kind;

/// How often clients that do not read are looked for.
const CHECK: Duration = Duration::from_secs(5);

/// What all streams have in common.
pub(super) trait OpenStream: Send + Sync {
    /// The topology is another.
    fn topology_moved(&self);
    /// Who its client is and how it stands; `None` before that is known, and once it was cut off.
    fn shown(&self, now: Instant) -> Option<ClientState>;
    /// What its client has of each resource; `None` as above.
    fn holdings(&self) -> Option<Vec<(Kind, Vec<Holding>)>>;
    /// Lets go of everything if the client has not taken what waits for it for too long. Says whether it did.
    fn cut_if_stalled(&self) -> bool;
}

/// Tells the open streams of each new topology, and cuts off clients that do not read, as long as the server is there.
pub(super) async fn tend(server: Weak<Shared>, mut topology: watch::Receiver<Arc<Topology>>) {
    let mut checks = tokio::time::interval(CHECK);
    let mut topology_lives = true;
    loop {
        let moved = tokio::select! {
            changed = topology.changed(), if topology_lives => {
                topology_lives = changed.is_ok();
                topology_lives
            }
            _ = checks.tick() => false,
        };
        let Some(server) = server.upgrade() else { return };
        for stream in server.clients.all() {
            if moved {
                stream.topology_moved();
            } else if stream.cut_if_stalled() {
                count(&server.counters.stalled_streams);
            }
        }
    }
}
