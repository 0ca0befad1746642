//! Connections to endpoints: HTTP/2 over TCP, with TLS or without, opened ahead of traffic, opened again when they end.
//!
//! One task keeps one endpoint's connections, one or by the rule of [`growth`] more, and tells the balancer what becomes of
//! them. A dead peer is noticed by the rule of [`liveness`]. Nothing here chooses an endpoint or repeats a request.

pub(crate) mod backoff;
pub mod dial;
mod growth;
mod held;
mod http2;
mod keeper;
mod liveness;
mod pool;
mod slot;
mod tls;
mod wire;

pub use self::dial::{Dial, Tcp, Transport};
pub(crate) use self::http2::Owed;
pub(crate) use self::pool::{Keep, Pool};
pub use self::slot::Slot;
pub use self::tls::{Tls, TlsError};

use std::sync::Arc;

use crate::balancer::Balancer;

/// Starts the tasks that keep endpoints connected over HTTP/2.
pub(crate) fn keeper(dial: Arc<dyn Dial>, balancer: &Arc<Balancer<Slot>>) -> Keep<Slot> {
    let balancer = Arc::clone(balancer);
    Box::new(move |endpoint, stop| {
        tokio::spawn(keeper::keep(endpoint, Arc::clone(&balancer), Arc::clone(&dial), stop));
    })
}
