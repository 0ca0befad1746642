//! Keeps one endpoint connected, as long as it is wanted.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::Slot;
use super::backoff::Backoff;
use super::dial::Dial;
use super::http2::{Driver, Ended, connect};
use crate::balancer::{Balancer, Endpoint, Status};

/// A connection that ends sooner counts as a failed attempt, so that a server that hangs up at once is not dialled in a
/// loop.
const LASTING: Duration = Duration::from_secs(1);

/// Connects, tells the balancer, and connects again when the connection ends, until `stop` is dropped. Open requests
/// end in peace then.
pub(crate) async fn keep(
    endpoint: Arc<Endpoint<Slot>>,
    balancer: Arc<Balancer<Slot>>,
    dial: Arc<dyn Dial>,
    mut stop: oneshot::Receiver<()>,
) {
    let _only_keeper = endpoint.transport().kept.lock().await;
    let mut backoff = Backoff::new();
    let report = |status| balancer.report(&endpoint, status, Instant::now());
    report(Status::Connecting);
    loop {
        let connected = tokio::select! {
            connected = connect(&*dial, endpoint.address()) => connected,
            _ = &mut stop => break,
        };
        let failed = match connected {
            Ok((connection, mut driver)) => {
                let since = Instant::now();
                endpoint.transport().current.store(Some(Arc::new(connection)));
                report(Status::Ready);
                let ended = tokio::select! {
                    ended = driver.run() => Some(ended),
                    _ = &mut stop => None,
                };
                endpoint.transport().current.store(None);
                // The balancer hears of it before any caller does.
                report(Status::Connecting);
                let why = match ended {
                    None => {
                        drain(driver);
                        break;
                    }
                    Some(Ended::Goodbye) => {
                        drain(driver);
                        "the server is going away".to_owned()
                    }
                    Some(Ended::Over(why)) => why,
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

fn drain(driver: Driver) {
    tokio::spawn(driver.drain());
}
