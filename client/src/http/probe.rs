//! Whether an endpoint can be reached: a TCP connection is made to it, and again when there is doubt.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::balancer::{Balancer, Endpoint, Status};
use crate::connection::backoff::Backoff;
use crate::connection::{Dial, Keep};

/// Without any doubt it is looked at again after this.
const INTERVAL: Duration = Duration::from_secs(10);

/// What the layer keeps with an endpoint.
#[derive(Debug, Default)]
pub struct Probe {
    doubted: Notify,
}

impl Probe {
    /// A request to it failed below HTTP.
    pub(super) fn look_again(&self) {
        self.doubted.notify_one();
    }
}

/// Starts the tasks that look at endpoints.
pub(super) fn keeper(dial: Arc<dyn Dial>, balancer: &Arc<Balancer<Probe>>) -> Keep<Probe> {
    let balancer = Arc::clone(balancer);
    Box::new(move |endpoint, stop| {
        let keep = keep(endpoint, Arc::clone(&balancer), Arc::clone(&dial));
        tokio::spawn(async move {
            tokio::select! {
                () = keep => {}
                _ = stop => {}
            }
        });
    })
}

async fn keep(endpoint: Arc<Endpoint<Probe>>, balancer: Arc<Balancer<Probe>>, dial: Arc<dyn Dial>) {
    let mut backoff = Backoff::new();
    let report = |status| balancer.report(&endpoint, status, Instant::now());
    report(Status::Connecting);
    loop {
        let address = endpoint.address();
        let limit = balancer.connect_timeout();
        let why = match timeout(limit, dial.dial(address)).await {
            Ok(Ok(_)) => {
                backoff.reset();
                report(Status::Ready);
                // A doubt from before this answer is answered, too, by the next look.
                let _ = timeout(INTERVAL, endpoint.transport().doubted.notified()).await;
                continue;
            }
            Ok(Err(error)) => format!("{address}: connect: {error}"),
            Err(_) => format!("{address}: no connection within {limit:?}"),
        };
        report(Status::Down(why.into()));
        sleep(backoff.next(balancer.rng())).await;
    }
}
