//! Whether the other clusters' peer ports can be reached from here, and who answers there.

use std::io;
use std::time::Duration;

use futures::future::join_all;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::{SignedDuration, Timestamp};
use portolan_federation::identity::SpiffeId;
use portolan_federation::net::{Net as _, TokioNet};
use portolan_federation::tls::{self, Credentials};
use portolan_topology::names::ClusterName;
use portolan_topology::topology::{Cluster, Topology};
use tokio_util::task::AbortOnDropHandle;

use super::clock;
use super::finding::Finding;

/// How long one peer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// What was seen of one peer.
pub(super) struct Peer {
    pub(super) cluster: ClusterName,
    pub(super) finding: Finding,
    /// By how much its clock is ahead, if it told.
    pub(super) ahead: Option<SignedDuration>,
}

/// Dials every cluster but `own`. With `credentials` each must answer as the cluster that it is, and let us in.
pub(super) async fn look(
    topology: &Topology,
    own: Option<&ClusterName>,
    credentials: Option<&Credentials>,
) -> Vec<Peer> {
    let others = topology.clusters().filter(|cluster| Some(&cluster.name) != own);
    join_all(others.map(|cluster| one(topology, cluster, credentials))).await
}

async fn one(topology: &Topology, cluster: &Cluster, credentials: Option<&Credentials>) -> Peer {
    let at = &cluster.control_plane;
    let host = if at.host.contains(':') { format!("[{}]", at.host) } else { at.host.clone() };
    let address = format!("{host}:{}", at.port);
    let name = &cluster.name;
    let (finding, ahead) = match credentials {
        None => match tokio::time::timeout(LIMIT, TokioNet.dial(&address)).await.map_err(io::Error::from).flatten() {
            Ok(_) => (Finding::good("peers", format!("{name}: {address} answers")), None),
            Err(error) => (unreachable(name, &address, &error), None),
        },
        Some(credentials) => {
            let asked = tokio::time::timeout(LIMIT, greet(topology, name, &address, credentials));
            match asked.await.map_err(io::Error::from).flatten() {
                Ok(ahead) => {
                    let seen = format!("{name}: {address} answers as {name}, and takes our certificate");
                    (Finding::good("peers", seen), ahead)
                }
                Err(error) => (unreachable(name, &address, &error), None),
            }
        }
    };
    Peer { cluster: name.clone(), finding, ahead }
}

fn unreachable(name: &ClusterName, address: &str, error: &io::Error) -> Finding {
    let mend = match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            "both clusters' certificates must come from one CA and carry the cluster's SPIFFE id"
        }
        io::ErrorKind::ConnectionRefused => "is a control plane there? see the topology's controlPlane.address",
        _ => "is the address right, and the port open in every firewall on the way?",
    };
    Finding::bad("peers", format!("{name}: {address}: {error}"), mend)
}

/// Shakes hands and asks for anything: only who is let in gets an answer, and an answer has a date.
async fn greet(
    topology: &Topology,
    name: &ClusterName,
    address: &str,
    credentials: &Credentials,
) -> io::Result<Option<SignedDuration>> {
    let expected = SpiffeId::of_cluster(&topology.name, name).map_err(io::Error::other)?;
    let config = credentials.client(expected).map_err(io::Error::other)?;
    let stream = tls::dial(&TokioNet, config, address).await?;
    // Who is not let in is told so by the end of the connection.
    let refused = |error: hyper::Error| {
        io::Error::new(io::ErrorKind::ConnectionReset, format!("it does not take our certificate ({error})"))
    };
    let (mut sender, connection) =
        http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(refused)?;
    let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = hyper::Request::get(format!("https://{address}/")).body(Empty::new()).map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(refused)?;
    Ok(clock::ahead(response.headers(), Timestamp::now()))
}
