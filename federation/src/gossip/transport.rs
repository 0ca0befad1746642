//! chitchat's transport: its messages travel on the streams of the peer port.
//!
//! chitchat knows nodes by socket address. Ours are made up, one for each cluster, and stable: a real one would make a
//! new node of a cluster whose address changes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable, Serializable};
use portolan_topology::names::ClusterName;
use tokio::sync::{Mutex, mpsc};
use xxhash_rust::xxh3::xxh3_128;

use crate::peers::Shared;
use crate::tls::Refusal;

/// The made-up address of a cluster: unique-local IPv6 with 120 bits of the name's hash.
pub(super) fn address_of(cluster: &ClusterName) -> SocketAddr {
    let mut octets = xxh3_128(cluster.as_str().as_bytes()).to_be_bytes();
    octets[0] = 0xfd;
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(octets)), 1)
}

/// Messages from peers, and whom they came from. Lives longer than one run of chitchat.
pub(super) type Inbox = Arc<Mutex<mpsc::Receiver<(ClusterName, Bytes)>>>;

/// The peer port as a transport.
#[derive(Clone)]
pub(super) struct PeerTransport {
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: Inbox,
}

#[async_trait]
impl Transport for PeerTransport {
    async fn open(&self, _address: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Socket for PeerTransport {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let topology = self.shared.topology.borrow().clone();
        // An error would end chitchat. A peer that is away or not in the topology any more just does not get it.
        if let Some(cluster) = topology.clusters().find(|cluster| address_of(&cluster.name) == to) {
            self.shared.links.send(&cluster.name, &message.serialize_to_vec().into());
        }
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        let mut inbox = self.inbox.lock().await;
        loop {
            let (cluster, bytes) = inbox.recv().await.ok_or_else(|| anyhow::anyhow!("shutting down"))?;
            let mut rest = &bytes[..];
            match ChitchatMessage::deserialize(&mut rest) {
                Ok(message) if rest.is_empty() => return Ok((address_of(&cluster), message)),
                Ok(_) => self.malformed(&cluster, "bytes are left over"),
                Err(error) => self.malformed(&cluster, &error.to_string()),
            }
        }
    }
}

impl PeerTransport {
    fn malformed(&self, cluster: &ClusterName, why: &str) {
        let why = format!("a malformed gossip message from `{cluster}`: {why}");
        self.shared.refusals.refuse(address_of(cluster).ip(), Refusal::Malformed, &why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_stable_and_differ() {
        let address = |name: &str| address_of(&ClusterName::new(name).unwrap());
        assert_eq!(address("use1-a"), address("use1-a"));
        let all: std::collections::BTreeSet<_> = (0..1000).map(|n| address(&format!("c{n}"))).collect();
        assert_eq!(all.len(), 1000);
    }
}
