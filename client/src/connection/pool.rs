//! One keeper for each endpoint that the balancer wants connected.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::dial::Dial;
use super::{Slot, keeper};
use crate::balancer::{Balancer, Endpoint};

/// The keepers of a channel. Dropped, it closes every connection once its requests have ended.
#[derive(Debug)]
pub(crate) struct Pool {
    balancer: Arc<Balancer<Slot>>,
    dial: Arc<dyn Dial>,
    kept: HashMap<SocketAddr, Kept>,
    /// The balancer's wishes that `kept` follows.
    version: Option<u64>,
}

#[derive(Debug)]
struct Kept {
    endpoint: Arc<Endpoint<Slot>>,
    /// Dropped, it stops the keeper.
    _stop: oneshot::Sender<()>,
}

impl Pool {
    pub(crate) fn new(balancer: Arc<Balancer<Slot>>, dial: Arc<dyn Dial>) -> Self {
        Self { balancer, dial, kept: HashMap::new(), version: None }
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
            self.kept.insert(address, same.unwrap_or_else(|| self.keep(endpoint)));
        }
    }

    fn keep(&self, endpoint: Arc<Endpoint<Slot>>) -> Kept {
        let (stop, stopped) = oneshot::channel();
        let keeper = keeper::keep(Arc::clone(&endpoint), Arc::clone(&self.balancer), Arc::clone(&self.dial), stopped);
        tokio::spawn(keeper);
        Kept { endpoint, _stop: stop }
    }
}
