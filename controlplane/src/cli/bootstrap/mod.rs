//! `portolan bootstrap`: prints what a client must be told before it starts. Where the control plane is, how to talk to it
//! and where the client is come from the flags, and what these leave out from a topology file or a running control plane.

mod envoy;
mod grpc;
mod known;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use portolan_topology::address::HostPort;
use portolan_topology::names::{ClusterName, RegionName, ZoneName};
use portolan_topology::topology::Topology;

use super::ask::{At, Parameters};
use super::{Failure, format, output};
use crate::admin::model::Status;
use crate::gateway::objects::ObjectName;
use crate::topology_file;
use known::Known;

#[derive(Debug, Subcommand)]
pub(super) enum Bootstrap {
    /// Prints the bootstrap of a gRPC client or server: the file that GRPC_XDS_BOOTSTRAP names
    Grpc(Box<Common>),
    /// Prints Envoy's bootstrap, with everything that it needs over one delta stream: `envoy -c FILE`
    Envoy(Box<EnvoyArgs>),
}

#[derive(Debug, Args)]
pub(super) struct Common {
    /// The zone that the client is in
    #[arg(long, value_name = "ZONE")]
    zone: ZoneName,
    /// The cluster that the client is in [default: the control plane's, or the only one in the zone]
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
    /// The xDS port to connect to [default: the control plane's that is asked; with --topology port 7444 of the host in
    /// the cluster's controlPlane.address]
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    server: Option<HostPort>,
    /// The CA that signs control planes, PEM: a path on the client's machine, as are the next two
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// The client's certificate, PEM
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_ca"])]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires_all = ["tls_cert", "tls_ca"])]
    tls_key: Option<PathBuf>,
    /// Connect in plain text
    #[arg(long, conflicts_with = "tls_ca")]
    plaintext: bool,
    /// The client's id, shown by `portolan clients` [default: the variable HOSTNAME, which is a pod's name; else KIND-ZONE]
    #[arg(long, env = "PORTOLAN_NODE_ID", value_name = "ID")]
    node_id: Option<String>,
    /// Read this topology file instead of asking a control plane
    #[arg(long, env = "PORTOLAN_TOPOLOGY", value_name = "FILE")]
    topology: Option<PathBuf>,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
pub(super) struct EnvoyArgs {
    #[command(flatten)]
    common: Common,
    /// The Gateway that this Envoy serves; its listeners, routes and certificates then come from there
    #[arg(long, value_name = "NAMESPACE/NAME")]
    gateway: Option<ObjectName>,
    /// Where Envoy's own admin interface listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9901")]
    admin_listen: SocketAddr,
}

fn host_and_port(text: &str) -> Result<HostPort, String> {
    HostPort::parse(text, None).map_err(|error| error.to_string())
}

/// A client and its control plane: what a bootstrap says.
#[derive(Debug, Clone, PartialEq)]
struct Client {
    id: String,
    region: RegionName,
    zone: ZoneName,
    cluster: ClusterName,
    server: HostPort,
    security: Security,
}

/// How a client talks to its control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Security {
    Plaintext,
    Tls {
        ca: PathBuf,
        /// Certificate and key.
        identity: Option<(PathBuf, PathBuf)>,
    },
}

impl Bootstrap {
    pub(super) fn run(self) -> Result<(), Failure> {
        let text = match self {
            Self::Grpc(common) => grpc::bootstrap(&common.client("grpc")?),
            Self::Envoy(envoy) => {
                let client = envoy.common.client("envoy")?;
                envoy::bootstrap(&client, envoy.gateway.as_ref(), envoy.admin_listen)
            }
        };
        output::print(&format::json(&text));
        Ok(())
    }
}

impl Common {
    fn client(&self, kind: &str) -> Result<Client, Failure> {
        let known = match &self.topology {
            Some(file) => {
                let (topology, _) = Topology::parse(&file.display().to_string(), &topology_file::read(file)?)?;
                Known::from_topology(&topology)
            }
            None => {
                let status: Status = serde_json::from_value(self.at.get("/api/v1/status", Parameters::default())?)?;
                Known::from_status(&status, self.at.host().as_deref())
            }
        };
        let hostname = || std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
        let id = self.node_id.clone().or_else(hostname);
        self.complete(kind, id, &known).map_err(Failure::Usage)
    }

    /// The flags with what they leave out; otherwise what to add.
    fn complete(&self, kind: &str, id: Option<String>, known: &Known) -> Result<Client, String> {
        let place = known.place(&self.zone, self.cluster.as_ref())?;
        Ok(Client {
            id: id.unwrap_or_else(|| format!("{kind}-{}", self.zone)),
            region: place.region.clone(),
            zone: self.zone.clone(),
            cluster: place.cluster.clone(),
            security: self.security(known)?,
            server: match &self.server {
                Some(server) => server.clone(),
                None => known.server(place, self.plaintext)?,
            },
        })
    }

    fn security(&self, known: &Known) -> Result<Security, String> {
        let identity = self.tls_cert.clone().zip(self.tls_key.clone());
        match &self.tls_ca {
            Some(ca) => Ok(Security::Tls { ca: ca.clone(), identity }),
            None if self.plaintext || known.is_plaintext() => Ok(Security::Plaintext),
            None => {
                Err("how is the control plane reached? Add --tls-ca FILE, with --tls-cert and --tls-key unless it \
                         runs with --xds-client-certs optional; or --plaintext"
                    .into())
            }
        }
    }
}
