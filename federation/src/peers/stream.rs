//! One gossip stream, the same at both ends: hello, heartbeats, messages, and its end when the other falls silent.

use std::sync::Arc;

use portolan_topology::names::ClusterName;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, timeout_at};
use tonic::{Status, Streaming};

use super::links::End;
use super::{HEARTBEAT, PeerEvent, SILENCE, Shared};
use crate::proto::GossipFrame;
use crate::proto::gossip_frame::Frame;
use crate::tls::PeerIdentity;

/// Runs a stream with `peer` until it ends, and says why it did. `first` is a frame that was read before, if one was;
/// `send` takes a frame without waiting and says whether the stream is still open.
pub(super) async fn run(
    shared: &Arc<Shared>,
    end: End,
    peer: &PeerIdentity,
    cluster: &ClusterName,
    first: Option<GossipFrame>,
    mut frames: Streaming<GossipFrame>,
    send: impl Fn(GossipFrame) -> bool,
) -> Status {
    let mut link = shared.links.add(cluster, end);
    let mut heartbeat = interval(HEARTBEAT);
    // A heartbeat that was late is not made good: only the newest says anything.
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut deadline = Instant::now() + SILENCE;
    let gone = || Status::unavailable("the stream is closed");
    if let Some(frame) = first
        && let Err(status) = receive(shared, peer, frame).await
    {
        return status;
    }
    loop {
        let frame = tokio::select! {
            frame = timeout_at(deadline, frames.message()) => match frame {
                Ok(Ok(Some(frame))) => {
                    deadline = Instant::now() + SILENCE;
                    if let Err(status) = receive(shared, peer, frame).await {
                        return status;
                    }
                    continue;
                }
                Ok(Ok(None)) => return gone(),
                Ok(Err(status)) => return status,
                Err(_) => return Status::deadline_exceeded(format!("nothing came for {SILENCE:?}")),
            },
            _ = heartbeat.tick() => shared.heartbeat(cluster),
            () = shared.stop.cancelled() => return Status::unavailable("shutting down"),
            () = shared.nodes.deposed() => return Status::unavailable("another node publishes now"),
            Some(message) = link.messages.recv() => shared.frame(Frame::Gossip(message)),
        };
        // A peer that does not read loses frames; it is its own silence that ends the stream.
        if !send(frame) {
            return gone();
        }
    }
}

async fn receive(shared: &Shared, peer: &PeerIdentity, frame: GossipFrame) -> Result<(), Status> {
    let cluster = shared.admit(peer, frame.sender.as_ref())?;
    let event = match frame.frame {
        Some(Frame::Hello(hello)) => PeerEvent::Hello { cluster, hello },
        Some(Frame::Gossip(message)) => {
            let _ = shared.gossip.try_send((cluster.clone(), message));
            PeerEvent::Heard { cluster, remembered: None }
        }
        Some(Frame::Heartbeat(heartbeat)) => PeerEvent::Heard { cluster, remembered: heartbeat.remembered },
        // A kind of frame that a newer peer knows is a sign of life as well.
        None => PeerEvent::Heard { cluster, remembered: None },
    };
    shared.events.send(event).await.map_err(|_| Status::unavailable("shutting down"))
}

/// Puts `frame` into a stream's queue if it has room; `false` if the stream is closed.
pub(super) fn offer<T>(out: &mpsc::Sender<T>, frame: T) -> bool {
    !matches!(out.try_send(frame), Err(mpsc::error::TrySendError::Closed(_)))
}
