//! One keeper for each endpoint that the balancer wants connected.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::balancer::{Balancer, Endpoint};

/// Starts the keeper of an endpoint, which ends when the sender of its receiver is dropped.
pub(crate) type Keep<T> = Box<dyn Fn(Arc<Endpoint<T>>, oneshot::Receiver<()>) + Send>;

/// The keepers of a channel. Dropped, it stops them all.
pub(crate) struct Pool<T> {
    balancer: Arc<Balancer<T>>,
    keep: Keep<T>,
    kept: HashMap<SocketAddr, Kept<T>>,
    /// The balancer's wishes that `kept` follows.
    version: Option<u64>,
}

struct Kept<T> {
    endpoint: Arc<Endpoint<T>>,
    /// Dropped, it stops the keeper.
    _stop: oneshot::Sender<()>,
}

impl<T> Pool<T> {
    pub(crate) fn new(balancer: Arc<Balancer<T>>, keep: Keep<T>) -> Self {
        Self { balancer, keep, kept: HashMap::new(), version: None }
    }

    /// Starts and stops keepers, so that exactly the endpoints that are wanted have one. In a runtime only.
    pub(crate) fn reconcile(&mut self) {
        // Before the wishes themselves: what changes in between is seen next time.
        let version = Some(self.balancer.wanted_version());
        if std::mem::replace(&mut self.version, version) == version {
            return;
        }
        let mut before = std::mem::take(&mut self.kept);
        for endpoint in self.balancer.wanted() {
            let address = endpoint.address();
            let same = before.remove(&address).filter(|kept| Arc::ptr_eq(&kept.endpoint, &endpoint));
            self.kept.insert(address, same.unwrap_or_else(|| self.start(endpoint)));
        }
    }

    fn start(&self, endpoint: Arc<Endpoint<T>>) -> Kept<T> {
        let (stop, stopped) = oneshot::channel();
        (self.keep)(Arc::clone(&endpoint), stopped);
        Kept { endpoint, _stop: stop }
    }
}
