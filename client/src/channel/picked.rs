//! Who serves a call, told to its caller.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::xds::model::LocalityName;

/// The endpoint that an attempt of a call was sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picked {
    /// Its address.
    pub address: SocketAddr,
    /// Its locality.
    pub locality: LocalityName,
    /// The priority it was picked from, 0 the highest.
    pub priority: u32,
    /// Which attempt this is, from 1; transparent ones count.
    pub attempts: u32,
}

impl Picked {
    /// The endpoint of the last attempt of a call that failed in the channel. `None` if there was none, or if the status
    /// came from a server.
    pub fn of(status: &tonic::Status) -> Option<&Self> {
        super::CallError::of(status)?.picked.as_ref()
    }
}

/// Told of each attempt of a call, before it is sent: put it into the request's extensions.
///
/// ```
/// # use portolan_client::channel::CallObserver;
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(CallObserver::new(|picked| println!("to {}", picked.address)));
/// ```
#[derive(Clone)]
pub struct CallObserver(Arc<dyn Fn(&Picked) + Send + Sync>);

impl CallObserver {
    /// Calls `told` at each attempt. It must not block.
    pub fn new(told: impl Fn(&Picked) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }

    pub(super) fn tell(&self, picked: &Picked) {
        (self.0)(picked);
    }
}

impl std::fmt::Debug for CallObserver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CallObserver")
    }
}
