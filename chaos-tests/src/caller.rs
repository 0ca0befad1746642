//! A client of the test service over the Portolan client library: what the scenario's clients and the backends that call
//! others use.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use portolan_client::channel::{CallObserver, Channel};
use portolan_client::xds::bootstrap::{Bootstrap, Origin};
use tokio::time::Instant;
use tonic::{Request, Status};

use crate::echo::echo_client::EchoClient;
use crate::echo::{CallReply, CallRequest};

/// Calls one service.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    client: EchoClient<Channel>,
}

/// An attempt as it was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// To whom.
    pub address: SocketAddr,
    /// When.
    pub at: Instant,
}

impl Caller {
    /// A caller of an xDS name, as the bootstrap file says. Needs a tokio runtime.
    pub(crate) fn connect(target: &str, bootstrap: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(bootstrap).with_context(|| bootstrap.display().to_string())?;
        let bootstrap = Bootstrap::parse(&text, Origin::File(bootstrap.to_owned()))?;
        let channel = Channel::builder(target).bootstrap(bootstrap).build()?;
        Ok(Self { client: EchoClient::new(channel) })
    }

    /// One call.
    pub(crate) async fn call(&self, timeout: Duration) -> Result<CallReply, Status> {
        self.send(Request::new(CallRequest {}), timeout).await
    }

    /// One call, and every attempt that it took.
    pub(crate) async fn call_observed(&self, timeout: Duration) -> (Result<CallReply, Status>, Vec<Sent>) {
        let attempts = Arc::new(Mutex::new(Vec::with_capacity(1)));
        let seen = Arc::clone(&attempts);
        let mut request = Request::new(CallRequest {});
        request.extensions_mut().insert(CallObserver::new(move |picked| {
            seen.lock().push(Sent { address: picked.address, at: Instant::now() });
        }));
        let result = self.send(request, timeout).await;
        let attempts = std::mem::take(&mut *attempts.lock());
        (result, attempts)
    }

    async fn send(&self, mut request: Request<CallRequest>, timeout: Duration) -> Result<CallReply, Status> {
        request.set_timeout(timeout);
        // A clone shares its connections; generated clients want to be called exclusively.
        self.client.clone().call(request).await.map(tonic::Response::into_inner)
    }
}
