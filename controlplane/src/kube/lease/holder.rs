//! The Lease's edge: reads and writes the object, and tells who holds it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::candidate::{Act, Candidate, Record};
use super::{Claim, Standing};

/// How long giving it up may take at the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// A node's claim to a Lease: asks for it as long as it lives. Dropped without [`Lease::release`] it runs out by itself.
pub struct Lease {
    standing: watch::Receiver<Standing>,
    release: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Lease {
    /// Begins to ask for it.
    #[must_use]
    pub fn start(client: Client, claim: Claim) -> Self {
        let (slot, standing) = watch::channel(Standing::default());
        let release = CancellationToken::new();
        let holder = Holder {
            api: Api::namespaced(client, &claim.namespace),
            candidate: Candidate::new(claim.identity.clone(), claim.timing),
            claim,
            slot,
            written: None,
        };
        let task = AbortOnDropHandle::new(tokio::spawn(holder.run(release.clone())));
        Self { standing, release, task }
    }

    /// A slot that always holds how it stands.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Gives it up, if it is ours, so that another node takes it at once. What only its holder may do must have ended.
    pub async fn release(self) {
        self.release.cancel();
        let _ = self.task.await;
    }
}

struct Holder {
    api: Api<api::Lease>,
    candidate: Candidate,
    claim: Claim,
    slot: watch::Sender<Standing>,
    /// The object as we wrote it last.
    written: Option<api::Lease>,
}

impl Holder {
    async fn run(mut self, release: CancellationToken) {
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = release.cancelled() => break,
                // Whatever a request does: what could not be renewed in time is not ours any more.
                () = lapse(self.candidate.until()) => {
                    self.candidate.released();
                    self.tell(|standing| standing.mine = false);
                }
                () = sleep_until(next) => {
                    let started = Instant::now();
                    next = started + self.claim.timing.interval;
                    // A request that hangs is given up in time for another, and at the latest when what is ours lapses.
                    let limit = started + self.claim.timing.renew_limit / 2;
                    let limit = self.candidate.until().map_or(limit, |until| until.min(limit));
                    let asked = timeout_at(limit, self.ask());
                    let error = match asked.await {
                        Ok(Ok(())) => None,
                        Ok(Err(error)) => Some(self.in_words(&error)),
                        Err(_) => Some(format!("{}: the API server does not answer", self.claim.name)),
                    };
                    self.report(error);
                }
            }
        }
        let _ = tokio::time::timeout(FAREWELL, self.give_up()).await;
    }

    /// Reads the Lease, and writes it if it is ours or for the taking.
    async fn ask(&mut self) -> Result<(), kube::Error> {
        let found = self.api.get_opt(&self.claim.name).await?;
        let record = found.as_ref().map(Record::of);
        // Not before the answer: what was read is at most as old as the request, and must not count as older than it is.
        let now = Instant::now();
        let (transitions, taken) = match self.candidate.next(record.as_ref(), now) {
            Act::Wait => {
                let record = record.unwrap_or_default();
                self.tell(|standing| {
                    *standing =
                        Standing { mine: false, holder: record.holder, transitions: record.transitions, error: None };
                });
                return Ok(());
            }
            Act::Create => (0, None),
            Act::Take { transitions } => (transitions, found),
        };
        let lease = self.lease(transitions, taken.as_ref());
        let wrote = match taken {
            None => self.api.create(&PostParams::default(), &lease).await,
            Some(_) => self.api.replace(&self.claim.name, &PostParams::default(), &lease).await,
        };
        match wrote {
            Ok(lease) => {
                self.candidate.wrote(now);
                self.written = Some(lease);
                let mine = self.candidate.holds(Instant::now());
                let holder = Some(self.claim.identity.clone());
                self.tell(|standing| *standing = Standing { mine, holder, transitions, error: None });
                Ok(())
            }
            // Somebody was faster: the next look shows who.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The object, ours; over `before`, so that nothing else in it is lost and a concurrent write is refused.
    fn lease(&self, transitions: u32, before: Option<&api::Lease>) -> api::Lease {
        let now = MicroTime(Timestamp::now());
        let mut lease = before.cloned().unwrap_or_else(|| api::Lease {
            metadata: ObjectMeta {
                name: Some(self.claim.name.clone()),
                namespace: Some(self.claim.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: None,
        });
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.claim.identity) {
            spec.acquire_time = Some(now.clone());
        }
        spec.holder_identity = Some(self.claim.identity.clone());
        spec.lease_duration_seconds = Some(i32::try_from(self.claim.timing.duration.as_secs()).unwrap_or(i32::MAX));
        spec.lease_transitions = Some(i32::try_from(transitions).unwrap_or(i32::MAX));
        spec.renew_time = Some(now);
        lease
    }

    async fn give_up(&mut self) {
        let held = self.candidate.holds(Instant::now());
        self.candidate.released();
        self.tell(|standing| standing.mine = false);
        let Some(mut lease) = self.written.take().filter(|_| held) else { return };
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
        }
        if let Err(error) = self.api.replace(&self.claim.name, &PostParams::default(), &lease).await {
            tracing::info!(lease = self.claim.name, %error, "the Lease is not given up: it runs out by itself");
        }
    }

    fn report(&self, error: Option<String>) {
        let now = Instant::now();
        if let Some(error) = &error
            && self.slot.borrow().error.as_ref() != Some(error)
        {
            tracing::warn!(lease = self.claim.name, namespace = self.claim.namespace, %error, "the Lease is not renewed");
        }
        let mine = self.candidate.holds(now);
        self.tell(|standing| {
            standing.mine = mine;
            standing.error = error;
        });
    }

    fn tell(&self, change: impl FnOnce(&mut Standing)) {
        self.slot.send_if_modified(|standing| {
            let before = standing.clone();
            change(standing);
            if standing.mine != before.mine {
                let what = if standing.mine { "ours" } else { "not ours any more" };
                tracing::info!(lease = self.claim.name, holder = ?standing.holder, "the Lease is {what}");
            }
            *standing != before
        });
    }

    fn in_words(&self, error: &kube::Error) -> String {
        let Claim { namespace, name, .. } = &self.claim;
        match error {
            kube::Error::Api(status) if status.code == 403 => {
                format!(
                    "the Lease {namespace}/{name} is forbidden: grant get, create and update on leases ({})",
                    status.message
                )
            }
            other => format!("the Lease {namespace}/{name}: {other}"),
        }
    }
}

async fn lapse(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

impl Record {
    fn of(lease: &api::Lease) -> Self {
        let spec = lease.spec.clone().unwrap_or_default();
        let whole = |number: Option<i32>| u32::try_from(number.unwrap_or_default()).unwrap_or_default();
        Self {
            holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
            duration: Duration::from_secs(whole(spec.lease_duration_seconds).into()),
            transitions: whole(spec.lease_transitions),
            renewed: spec.renew_time.map_or_else(String::new, |time| time.0.to_string()),
        }
    }
}
