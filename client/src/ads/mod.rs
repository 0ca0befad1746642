//! The ADS client at run time: one stream for all targets of a process, kept up whatever becomes of the servers.
//!
//! [`XdsClient`] is a handle; [`driver`] holds the state machine and decides which server to use, [`dial`] connects, and
//! [`lrs`] reports load. What the resources mean is not decided here.

mod backoff;
pub mod dial;
mod driver;
mod lrs;
mod shared;
mod status;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use envoy_types::pb::envoy::service::status::v3::ClientStatusResponse;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot, watch};

use crate::load::LoadRecorder;
use crate::xds::bootstrap::Bootstrap;
use crate::xds::model::Resolution;
use crate::xds::target::Target;
use dial::{Connect, Tcp};
use driver::{Ask, Driver, Watch};

/// Watches names over ADS. A clone shares the stream; it ends when the last handle and the last receiver are gone.
#[derive(Clone)]
pub struct XdsClient {
    asks: mpsc::UnboundedSender<Ask>,
    load: LoadRecorder,
}

impl XdsClient {
    /// A client of the bootstrap's servers. Connects when the first name is watched. Must be called within a tokio runtime.
    #[must_use]
    pub fn new(bootstrap: Bootstrap) -> Self {
        Self::with(bootstrap, Arc::new(Tcp), StdRng::from_rng(&mut rand_at_the_edge()))
    }

    /// The client that this process already has for the bootstrap, in this runtime; else a new one. So all channels to one
    /// control plane share a stream.
    #[must_use]
    pub fn shared(bootstrap: Bootstrap) -> Self {
        shared::client(bootstrap)
    }

    /// [`XdsClient::new`] with sockets from `connect` and randomness from `random`.
    #[must_use]
    pub fn with(bootstrap: Bootstrap, connect: Arc<dyn Connect>, random: StdRng) -> Self {
        let (asks, receiver) = mpsc::unbounded_channel();
        let load = LoadRecorder::new();
        tokio::spawn(Driver::new(bootstrap, connect, random, load.clone(), receiver).run());
        Self { asks, load }
    }

    /// A slot that always holds what `target` comes to. The name is watched as long as somebody holds the receiver.
    #[must_use]
    pub fn watch(&self, target: Target) -> watch::Receiver<Resolution> {
        let (slot, receiver) = watch::channel(Resolution::Pending);
        // The driver ends only after the last handle: this one is alive.
        let _ = self.asks.send(Ask::Watch(Watch { target, slot }));
        receiver
    }

    /// What this client holds, awaits and refused, as tools for client status discovery (CSDS) read it; without times. To
    /// let them ask, mount the client as a service:
    ///
    /// ```no_run
    /// # use portolan_client::ads::XdsClient;
    /// use envoy_types::pb::envoy::service::status::v3::client_status_discovery_service_server::ClientStatusDiscoveryServiceServer;
    ///
    /// # fn mount(client: &XdsClient) -> tonic::transport::server::Router {
    /// tonic::transport::Server::builder().add_service(ClientStatusDiscoveryServiceServer::new(client.clone()))
    /// # }
    /// ```
    pub async fn status(&self) -> ClientStatusResponse {
        let (answer, answered) = oneshot::channel();
        // The driver lives, unless its runtime is going down: then nothing is held.
        let _ = self.asks.send(Ask::Status(answer));
        answered.await.unwrap_or_default()
    }

    /// Where a balancer counts its requests, for the reports of clusters with `report_load`.
    #[must_use]
    pub fn load(&self) -> &LoadRecorder {
        &self.load
    }
}

impl std::fmt::Debug for XdsClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("XdsClient").finish_non_exhaustive()
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place where a client that was given no randomness takes some")]
fn rand_at_the_edge() -> rand::rngs::ThreadRng {
    rand::rng()
}
