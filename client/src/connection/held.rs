//! The connections of one endpoint that is connected: run, opened when there are too few, closed when there are too many.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::Slot;
use super::dial::Dial;
use super::growth::{Growth, Step};
use super::http2::{Connection, Driver, Ended, connect};
use crate::balancer::{Balancer, Endpoint};

/// One or more connections.
pub(super) struct Held<'a> {
    endpoint: &'a Endpoint<Slot>,
    balancer: &'a Balancer<Slot>,
    dial: &'a dyn Dial,
    growth: Growth,
    running: FuturesUnordered<BoxFuture<'static, Run>>,
    opening: FuturesUnordered<BoxFuture<'a, Result<(Connection, Driver), String>>>,
    /// Those that take requests, and what stops each of them when it is dropped.
    taking: Vec<(Arc<Connection>, oneshot::Sender<()>)>,
}

/// A connection that ended or, without a word, was stopped.
struct Run {
    connection: Arc<Connection>,
    driver: Driver,
    ended: Option<Ended>,
}

impl<'a> Held<'a> {
    /// With its first connection.
    pub(super) fn new(
        endpoint: &'a Endpoint<Slot>,
        balancer: &'a Balancer<Slot>,
        dial: &'a dyn Dial,
        first: (Connection, Driver),
    ) -> Self {
        let (running, opening) = Default::default();
        let growth = Growth::default();
        let mut held = Self { endpoint, balancer, dial, growth, running, opening, taking: Vec::new() };
        held.add(first);
        held
    }

    fn slot(&self) -> &'a Slot {
        self.endpoint.transport()
    }

    fn add(&mut self, (connection, mut driver): (Connection, Driver)) {
        let connection = Arc::new(connection);
        let (stop, stopped) = oneshot::channel();
        self.slot().add(&connection);
        self.taking.push((Arc::clone(&connection), stop));
        let run = async move {
            let ended = tokio::select! {
                ended = driver.run() => Some(ended),
                _ = stopped => None,
            };
            Run { connection, driver, ended }
        };
        self.running.push(run.boxed());
    }

    /// Runs until no connection takes requests, for the reason of the last, or the peer is silent on one of them: then it
    /// is on all. Cancel-safe.
    pub(super) async fn run(&mut self) -> Ended {
        loop {
            // Before the look: what presses after it is told.
            self.slot().rest();
            let wake = match self.growth.step(Instant::now(), self.slot().seen(self.opening.len())) {
                Step::Open(more) => {
                    (0..more).for_each(|_| self.open());
                    continue;
                }
                Step::Close => {
                    self.stop_last();
                    continue;
                }
                Step::Until(at) => Some(at),
                Step::Rest => None,
            };
            let look = async {
                match wake {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let slot = self.slot();
            tokio::select! {
                Some(run) = self.running.next() => if let Some(ended) = self.ended(run) {
                    return ended;
                },
                Some(opened) = self.opening.next() => match opened {
                    Ok(one) => self.add(one),
                    Err(why) => {
                        tracing::debug!(why, "no further connection");
                        self.growth.failed(Instant::now());
                    }
                },
                () = slot.pressed() => {}
                () = look => {}
            }
        }
    }

    fn open(&self) {
        let (address, crowd) = (self.endpoint.address(), Arc::clone(self.slot().crowd()));
        self.opening.push(connect(self.dial, address, self.balancer.connect_timeout(), crowd).boxed());
    }

    fn stop_last(&mut self) {
        if let Some(last) = self.slot().last() {
            self.let_go(&last);
        }
    }

    /// It takes no more requests.
    fn let_go(&mut self, connection: &Arc<Connection>) {
        self.slot().forget(connection);
        self.taking.retain(|(other, _)| !Arc::ptr_eq(other, connection));
    }

    /// Takes leave of one; why it was the last, if it was.
    fn ended(&mut self, run: Run) -> Option<Ended> {
        let Run { connection, driver, ended } = run;
        self.let_go(&connection);
        drop(connection);
        match ended {
            None => {
                drain(driver);
                None
            }
            Some(Ended::Silent) => Some(Ended::Silent),
            Some(ended) => {
                if matches!(ended, Ended::Goodbye) {
                    drain(driver);
                }
                if !self.taking.is_empty() {
                    tracing::debug!(address = %self.endpoint.address(), ?ended, "one of several connections ended");
                    return None;
                }
                Some(ended)
            }
        }
    }

    /// No connection takes requests any more.
    pub(super) fn refuse(&mut self) {
        for (connection, _stop) in self.taking.drain(..) {
            self.endpoint.transport().forget(&connection);
        }
    }

    /// Lets open requests end in peace.
    pub(super) async fn close(mut self) {
        self.refuse();
        while let Some(Run { connection, driver, ended }) = self.running.next().await {
            drop(connection);
            if matches!(ended, None | Some(Ended::Goodbye)) {
                drain(driver);
            }
        }
    }
}

fn drain(driver: Driver) {
    tokio::spawn(driver.drain());
}
