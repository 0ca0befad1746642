//! The clients: each calls its service at a steady rate, whatever becomes of earlier calls (an open loop), and every call
//! is kept.
//!
//! They run in the runner's own process, each over a channel of its own to its own cluster's control plane: clients of a
//! killed region stay alive.

mod log;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::caller::{Caller, Sent};
use crate::measure::{BackendId, Call, ClientId};
use crate::runner::{ClientSite, RunPaths, Site, place};

pub use log::{Live, Log};

/// How long a client may take until its first call succeeds.
const FIRST_CALL_WITHIN: Duration = Duration::from_secs(40);
/// Between two tries of that.
const TRY_EVERY: Duration = Duration::from_millis(100);

/// Who is behind a name or an address.
#[derive(Debug)]
pub struct Directory {
    by_name: HashMap<String, BackendId>,
    by_address: HashMap<SocketAddr, BackendId>,
}

impl Directory {
    /// Of all backends of a site.
    #[must_use]
    pub fn new(site: &Site) -> Self {
        let ids = || (0..).map(BackendId);
        Self {
            by_name: site.backends.iter().map(|backend| backend.name.clone()).zip(ids()).collect(),
            by_address: site.backends.iter().map(|backend| backend.address).zip(ids()).collect(),
        }
    }
}

/// Clients that are connected and may begin.
#[derive(Debug)]
pub struct Clients {
    callers: Vec<(ClientSite, Caller)>,
    directory: Arc<Directory>,
}

/// Clients that are calling.
#[derive(Debug)]
pub struct Load {
    log: Arc<Log>,
    stop: CancellationToken,
    clients: TaskTracker,
    longest: Duration,
}

impl Clients {
    /// Connects all, and waits until each had a call answered.
    pub async fn connect(site: &Site, paths: &RunPaths) -> anyhow::Result<Self> {
        let mut connecting = JoinSet::new();
        for (index, client) in site.clients.iter().cloned().enumerate() {
            let bootstrap = paths.bootstrap(&place(&client.locality));
            connecting.spawn(async move {
                let target = format!("xds:///{}", client.group.service);
                let caller = Caller::connect(&target, &bootstrap)?;
                first_call(&client, &caller).await?;
                anyhow::Ok((index, client, caller))
            });
        }
        let mut connected = Vec::new();
        while let Some(client) = connecting.join_next().await {
            connected.push(client.context("a client's task failed")??);
        }
        connected.sort_by_key(|(index, ..)| *index);
        let callers = connected.into_iter().map(|(_, client, caller)| (client, caller)).collect();
        Ok(Self { callers, directory: Arc::new(Directory::new(site)) })
    }

    /// Begins to call; `zero` is the run's time 0.
    #[must_use]
    pub fn start(self, zero: Instant) -> Load {
        let log = Arc::new(Log::new(zero));
        let stop = CancellationToken::new();
        let clients = TaskTracker::new();
        let longest = self.callers.iter().map(|(client, _)| client.group.timeout).max().unwrap_or_default();
        let count = self.callers.len().max(1) as f64;
        for ((index, id), (client, caller)) in (0_u32..).zip((0..).map(ClientId)).zip(self.callers) {
            let period = Duration::from_secs_f64(1.0 / client.group.rate);
            // Evenly out of step: otherwise all would call in the same instant.
            let begin = zero + period.mul_f64(f64::from(index) / count);
            let calls = CallsOf {
                id,
                caller,
                timeout: client.group.timeout,
                log: Arc::clone(&log),
                directory: Arc::clone(&self.directory),
            };
            clients.spawn(calls.run(begin, period, clients.clone(), stop.clone()));
        }
        Load { log, stop, clients, longest }
    }
}

async fn first_call(client: &ClientSite, caller: &Caller) -> anyhow::Result<()> {
    let deadline = Instant::now() + FIRST_CALL_WITHIN;
    loop {
        match caller.call(client.group.timeout).await {
            Ok(_) => return Ok(()),
            Err(status) if Instant::now() > deadline => {
                let (service, locality) = (&client.group.service, &client.locality);
                let within = FIRST_CALL_WITHIN.as_secs();
                anyhow::bail!(
                    "no client in {locality} got an answer from {service} within {within} s; the last said: {}",
                    status.message()
                );
            }
            Err(_) => tokio::time::sleep(TRY_EVERY).await,
        }
    }
}

impl Load {
    /// The calls so far.
    #[must_use]
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Calls no more, and waits until the last call ended.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.clients.close();
        // A call that outlives twice its deadline is a bug of the client, which shows as a call that is not there.
        let _ = tokio::time::timeout(self.longest * 2 + Duration::from_secs(1), self.clients.wait()).await;
    }
}

#[derive(Debug, Clone)]
struct CallsOf {
    id: ClientId,
    caller: Caller,
    timeout: Duration,
    log: Arc<Log>,
    directory: Arc<Directory>,
}

impl CallsOf {
    async fn run(self, begin: Instant, period: Duration, calls: TaskTracker, stop: CancellationToken) {
        let mut ticks = tokio::time::interval_at(begin, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let this = self.clone();
            calls.spawn(async move { this.one().await });
        }
    }

    async fn one(self) {
        let start = Instant::now();
        let (result, attempts) = self.caller.call_observed(self.timeout).await;
        let end = Instant::now();
        let sent_to = |sent: &Sent| self.directory.by_address.get(&sent.address).copied();
        let called = |name: &str| self.directory.by_name.get(name).copied();
        let backend = attempts.last().and_then(sent_to);
        let (backend, callee, ok) = match &result {
            Ok(reply) => (called(&reply.backend).or(backend), called(&reply.callee), true),
            Err(_) => (backend, None, false),
        };
        let call = Call {
            client: self.id,
            start: self.log.since_zero(start),
            sent: self.log.since_zero(attempts.last().map_or(start, |sent| sent.at)),
            end: self.log.since_zero(end),
            backend,
            callee,
            ok,
        };
        // An attempt ends, at the latest, when the next one is sent.
        let earlier = attempts.windows(2).filter_map(|pair| {
            let at = [pair[0].at, pair[1].at].map(|at| self.log.since_zero(at));
            sent_to(&pair[0]).map(|backend| (backend, at[0], at[1]))
        });
        self.log.push(call, earlier, result.err().map(|status| format!("{:?}: {}", status.code(), status.message())));
    }
}
