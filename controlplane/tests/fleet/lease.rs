//! A Lease as an API server keeps it, for nodes in simulated time. The real one is tested against a real API server.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portolan_federation::nodes::Election;
use portolan_topology::names::NodeName;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// As the real one: how long it lasts, when its holder stops counting on it, and how often it is looked at.
const DURATION: Duration = Duration::from_secs(10);
const RENEW_LIMIT: Duration = Duration::from_secs(7);
const LOOK: Duration = Duration::from_secs(2);

/// A node in one of its lives.
type Claimant = (NodeName, u64);

/// The Lease.
#[derive(Default)]
pub struct SimLease {
    /// Who holds it, and since which moment of the simulation unrenewed.
    held: Mutex<Option<(Claimant, Duration)>>,
    /// The nodes that do not reach it.
    pub cut: Mutex<BTreeSet<&'static str>>,
}

impl SimLease {
    /// Claims it on the host that calls, for as long as somebody listens.
    pub fn claim(self: Arc<Self>, node: NodeName, life: u64) -> watch::Receiver<Election> {
        let (slot, receiver) = watch::channel(Election::Another(None));
        tokio::spawn(async move {
            let (us, mut renewed) = ((node, life), None);
            while !slot.is_closed() {
                match self.ask(&us) {
                    Some(election) => {
                        renewed = matches!(election, Election::Us { .. }).then(Instant::now);
                        slot.send_replace(election);
                    }
                    None if renewed.is_some_and(|at: Instant| at.elapsed() >= RENEW_LIMIT) => {
                        slot.send_replace(Election::Us { until: renewed });
                    }
                    None => {}
                }
                sleep(LOOK).await;
            }
        });
        receiver
    }

    /// What it says; `None`: it cannot be reached.
    fn ask(&self, us: &Claimant) -> Option<Election> {
        if self.cut.lock().iter().any(|cut| *cut == us.0.as_str()) {
            return None;
        }
        let now = turmoil::sim_elapsed().unwrap_or_default();
        let mut held = self.held.lock();
        let election = match &*held {
            Some((holder, since)) if holder != us && now < *since + DURATION => {
                Election::Another(Some(holder.0.clone()))
            }
            _ => {
                *held = Some((us.clone(), now));
                Election::Us { until: None }
            }
        };
        Some(election)
    }
}
