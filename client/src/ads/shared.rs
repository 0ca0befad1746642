//! One ADS client for each bootstrap and runtime of a process, so that all its channels share a stream.

use std::sync::{Mutex, PoisonError};

use tokio::runtime::{Handle, Id};
use tokio::sync::mpsc;

use super::XdsClient;
use super::driver::Ask;
use crate::load::LoadRecorder;
use crate::xds::bootstrap::Bootstrap;

/// A client that lives as long as somebody outside holds it.
struct Known {
    bootstrap: Bootstrap,
    runtime: Id,
    asks: mpsc::WeakUnboundedSender<Ask>,
    load: LoadRecorder,
}

impl Known {
    fn client(&self) -> Option<XdsClient> {
        // A runtime that was shut down has taken its driver with it.
        let asks = self.asks.upgrade().filter(|asks| !asks.is_closed())?;
        Some(XdsClient { asks, load: self.load.clone() })
    }
}

pub(super) fn client(bootstrap: Bootstrap) -> XdsClient {
    static KNOWN: Mutex<Vec<Known>> = Mutex::new(Vec::new());
    let runtime = Handle::current().id();
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|known| known.client().is_some());
    let same = known.iter().filter(|known| known.bootstrap == bootstrap && known.runtime == runtime);
    if let Some(client) = same.into_iter().find_map(Known::client) {
        return client;
    }
    let client = XdsClient::new(bootstrap.clone());
    known.push(Known { bootstrap, runtime, asks: client.asks.downgrade(), load: client.load.clone() });
    client
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::bootstrap::Origin;

    fn bootstrap(id: &str) -> Bootstrap {
        let server = r#"{"server_uri": "127.0.0.1:1", "channel_creds": [{"type": "insecure"}]}"#;
        let text = format!(r#"{{"xds_servers": [{server}], "node": {{"id": "{id}"}}}}"#);
        Bootstrap::parse(&text, Origin::Variable).unwrap()
    }

    #[tokio::test]
    async fn one_client_for_a_bootstrap_while_somebody_holds_it() {
        let first = client(bootstrap("shared-1"));
        assert!(client(bootstrap("shared-1")).asks.same_channel(&first.asks));
        assert!(!client(bootstrap("shared-2")).asks.same_channel(&first.asks));
        let gone = first.asks.downgrade();
        drop(first);
        assert!(gone.upgrade().is_none(), "knowing a client does not keep it alive");
    }
}
