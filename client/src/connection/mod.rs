//! Connections to endpoints: HTTP/2 over TCP, with TLS or without, opened ahead of traffic, opened again when they end.
//!
//! One task keeps one endpoint's connection and tells the balancer what becomes of it. A dead peer is noticed by the
//! rule of [`liveness`]. Nothing here chooses an endpoint or repeats a request.

pub(crate) mod backoff;
pub mod dial;
mod http2;
mod keeper;
mod liveness;
mod pool;
mod tls;
mod wire;

pub use self::dial::{Dial, Tcp, Transport};
pub(crate) use self::http2::{Connection, Owed};
pub(crate) use self::pool::{Keep, Pool};
pub use self::tls::{Tls, TlsError};

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::balancer::Balancer;

/// Starts the tasks that keep endpoints connected over HTTP/2.
pub(crate) fn keeper(dial: Arc<dyn Dial>, balancer: &Arc<Balancer<Slot>>) -> Keep<Slot> {
    let balancer = Arc::clone(balancer);
    Box::new(move |endpoint, stop| {
        tokio::spawn(keeper::keep(endpoint, Arc::clone(&balancer), Arc::clone(&dial), stop));
    })
}

/// What the channel keeps with each endpoint: the connection that takes new requests, if there is one.
#[derive(Debug, Default)]
pub struct Slot {
    current: ArcSwapOption<Connection>,
    /// Held by the keeper: one that is to stop must be gone before the next one begins, or its last words would come
    /// after the other's first.
    kept: tokio::sync::Mutex<()>,
}

impl Slot {
    /// Whether requests can be sent to it now.
    pub fn is_connected(&self) -> bool {
        self.current.load().is_some()
    }

    /// Forgets a connection that turned out to be dead, if it is still the current one.
    pub(crate) fn forget(&self, dead: &Arc<Connection>) {
        self.current.compare_and_swap(dead, None);
    }

    /// A handle to the connection, for one request.
    pub(crate) fn connection(&self) -> Option<Arc<Connection>> {
        self.current.load_full()
    }
}
