//! Keeps one endpoint connected, as long as it is wanted.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::Slot;
use super::backoff::Backoff;
use super::dial::Dial;
use super::held::Held;
use super::http2::{Ended, connect};
use crate::balancer::{Balancer, Endpoint, Status};

/// A connection that ends sooner counts as a failed attempt, so that a server that hangs up at once is not dialled in a
/// loop.
const LASTING: Duration = Duration::from_secs(1);

/// Why a connection to a silent peer is given up.
const SILENT: &str = "the peer answered neither a request nor a PING";

/// Connects, tells the balancer, and connects again when the connection ends, until `stop` is dropped. Open requests
/// end in peace then.
pub(crate) async fn keep(
    endpoint: Arc<Endpoint<Slot>>,
    balancer: Arc<Balancer<Slot>>,
    dial: Arc<dyn Dial>,
    mut stop: oneshot::Receiver<()>,
) {
    let slot = endpoint.transport();
    let _only_keeper = slot.kept.lock().await;
    let mut backoff = Backoff::new();
    let report = |status| balancer.report(&endpoint, status, Instant::now());
    report(Status::Connecting);
    loop {
        let limit = balancer.connect_timeout();
        let connected = tokio::select! {
            connected = connect(&*dial, endpoint.address(), limit, Arc::clone(slot.crowd())) => connected,
            _ = &mut stop => break,
        };
        let failed = match connected {
            Ok(first) => {
                let since = Instant::now();
                let mut held = Held::new(&endpoint, &balancer, &*dial, first);
                report(Status::Ready);
                let ended = tokio::select! {
                    ended = held.run() => Some(ended),
                    _ = &mut stop => None,
                };
                held.refuse();
                // The balancer hears of it before any caller does.
                report(match &ended {
                    Some(Ended::Silent) => Status::Down(format!("{}: {SILENT}", endpoint.address()).into()),
                    _ => Status::Connecting,
                });
                held.close().await;
                let why = match ended {
                    None => break,
                    Some(Ended::Goodbye) => "the server is going away".to_owned(),
                    Some(Ended::Over(why)) => why,
                    Some(Ended::Silent) => SILENT.to_owned(),
                };
                tracing::debug!(address = %endpoint.address(), why, "connection ended");
                if since.elapsed() >= LASTING {
                    backoff.reset();
                    continue;
                }
                format!("{}: {why}", endpoint.address())
            }
            Err(why) => why,
        };
        report(Status::Down(failed.into()));
        tokio::select! {
            () = sleep(backoff.next(balancer.rng())) => {}
            _ = &mut stop => break,
        }
    }
    report(Status::Idle);
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use futures::future::BoxFuture;

    use super::*;
    use crate::balancer::LeastRequest;
    use crate::connection::Transport;
    use crate::xds::model::{AssignedEndpoint, Assignment, EndpointHealth, LocalityEndpoints};

    /// Counts dials, none of which is ever answered.
    #[derive(Debug, Default)]
    struct Silence(AtomicUsize);

    impl Dial for Silence {
        fn dial(&self, _: SocketAddr) -> BoxFuture<'_, std::io::Result<Box<dyn Transport>>> {
            self.0.fetch_add(1, Relaxed);
            Box::pin(std::future::pending())
        }
    }

    async fn settle() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_keeper_begins_when_the_one_before_it_is_gone() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let endpoints = vec![AssignedEndpoint { address, weight: 1, health: EndpointHealth::Healthy }];
        let locality = LocalityEndpoints { locality: Default::default(), weight: 1, endpoints };
        let balancer = Arc::new(Balancer::new(LeastRequest, 1));
        let assignment = Assignment {
            cluster: "c".into(),
            eds_service: "".into(),
            priorities: vec![vec![locality]],
            ..Assignment::default()
        };
        balancer.assign(Arc::new(assignment), Instant::now());
        let endpoint = balancer.wanted().remove(0);
        let dial = Arc::new(Silence::default());
        let start = || {
            let (stop, stopped) = oneshot::channel();
            let (endpoint, balancer, dial) = (Arc::clone(&endpoint), Arc::clone(&balancer), Arc::clone(&dial));
            tokio::spawn(keep(endpoint, balancer, dial, stopped));
            stop
        };
        let first = start();
        let _second = start();
        settle().await;
        assert_eq!(dial.0.load(Relaxed), 1, "the second waits");
        drop(first);
        settle().await;
        assert_eq!(dial.0.load(Relaxed), 2);
    }
}
