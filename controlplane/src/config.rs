//! What a control plane must be told before it can start. Parsed by whoever reads flags; checked as a whole in
//! [`crate::start`].

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use portolan_federation::PeerPort;
use portolan_federation::tls::{ClientCertificates, Credentials};
use portolan_topology::names::{ClusterName, NodeName};
use portolan_topology::topology::Topology;
use tokio::sync::watch;

use crate::publishing::PublisherFrom;
use crate::source::Source;
use crate::source::kube::KubeConfig;

/// Everything that a control plane must be told.
pub struct Config {
    /// The cluster that it is in.
    pub cluster: ClusterName,
    /// Which of the cluster's control planes it is.
    pub node: NodeName,
    /// The topology.
    pub topology: TopologyFrom,
    /// Where the cluster's own services come from.
    pub source: SourceFrom,
    /// The cluster's certificate and CA.
    pub credentials: Arc<Credentials>,
    /// The port for other control planes.
    pub peers: PeerPort,
    /// The port for xDS clients.
    pub xds: XdsPort,
    /// A second port for xDS clients, in plain text.
    pub plaintext: Option<PlaintextPort>,
    /// All nodes of the cluster with the addresses of their peer ports, this one included; empty: it is the only one.
    pub nodes: Vec<(NodeName, String)>,
    /// How it is decided which of them publishes.
    pub publisher: PublisherFrom,
    /// Where the admin interface listens.
    pub admin: SocketAddr,
    /// Where health and metrics are served.
    pub metrics: SocketAddr,
}

/// Which of a cluster's services the other clusters are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Exporting {
    /// All of them.
    #[default]
    All,
    /// Those with a ServiceExport, and those in a namespace labelled `portolan.dev/export: "true"`.
    Declared,
}

/// Where the topology comes from.
pub enum TopologyFrom {
    /// A file that is watched.
    File(PathBuf),
    /// Handed in: for tests and simulations.
    Given(watch::Receiver<Arc<Topology>>),
}

/// Where the cluster's own services come from.
pub enum SourceFrom {
    /// A folder of manifests.
    Files(PathBuf),
    /// A Kubernetes API server.
    Kube(KubeConfig),
    /// Handed in: for tests and simulations.
    Given(Source),
}

/// The port for xDS clients.
#[derive(Debug, Clone, Copy)]
pub struct XdsPort {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether clients must show a certificate; `None`: plain text, for a trial on one machine.
    pub tls: Option<ClientCertificates>,
}

/// A plain-text port for xDS clients.
#[derive(Debug, Clone)]
pub struct PlaintextPort {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who may use it.
    pub from: Vec<Network>,
}

/// An IP network: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a network: expected ADDRESS/BITS, such as 10.0.0.0/8")]
pub struct NetworkError {
    text: String,
}

impl Network {
    /// Whether `address` is in it. An IPv4 address in IPv6 form counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let high = |bits: u128, width: u32| bits.checked_shr(width - u32::from(self.prefix)).unwrap_or(0);
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => high(a.to_bits().into(), 32) == high(b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => high(a.to_bits(), 128) == high(b.to_bits(), 128),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let error = || NetworkError { text: text.to_owned() };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse().map_err(|_| error())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(width);
        if prefix <= width { Ok(Self { address, prefix }) } else { Err(error()) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses_and_no_others() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.2"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
            ("::/0", "2001:db8::1", "127.0.0.1"),
            ("fd00::/8", "fdff::1", "fe80::1"),
            ("127.0.0.0/8", "::ffff:127.0.0.1", "::1"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{network} {inside}");
            assert!(!network.contains(outside.parse().unwrap()), "{network} {outside}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "10.0.0.0/33", "fd00::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/-1", "example.com/8"] {
            assert!(text.parse::<Network>().is_err(), "{text:?}");
        }
    }
}
