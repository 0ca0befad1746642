//! Which node publishes for its cluster: the only one always does; of several, the one that holds a Lease.

use std::sync::Arc;

use portolan_federation::Federation;
use portolan_federation::nodes::Election;
use portolan_topology::names::NodeName;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::kube::lease::{Claim, Lease, Standing};

/// How it is decided which node publishes.
pub enum PublisherFrom {
    /// This one does: there is no other.
    Always,
    /// Told: for tests and simulations.
    Given(watch::Receiver<Election>),
    /// Whoever holds this Lease.
    Lease(kube::Client, Box<Claim>),
}

/// The election under way.
pub(crate) struct Publishing {
    election: Arc<watch::Sender<Election>>,
    lease: Option<Lease>,
    _following: Option<AbortOnDropHandle<()>>,
}

impl Publishing {
    /// Begins; what comes of it is in the returned slot.
    pub(crate) fn start(from: PublisherFrom) -> (Self, watch::Receiver<Election>) {
        let election = Arc::new(watch::Sender::new(Election::Another(None)));
        let receiver = election.subscribe();
        let (lease, following) = match from {
            PublisherFrom::Always => {
                election.send_replace(Election::Us { until: None });
                (None, None)
            }
            PublisherFrom::Given(given) => {
                (None, Some(tokio::spawn(follow(given, election.clone(), |given, _| given.clone()))))
            }
            PublisherFrom::Lease(client, claim) => {
                let identity = claim.identity.clone();
                let lease = Lease::start(client, *claim);
                let read = move |standing: &Standing, before: &Election| elected(standing, &identity, before);
                let following = tokio::spawn(follow(lease.standing(), election.clone(), read));
                (Some(lease), Some(following))
            }
        };
        let following = following.map(AbortOnDropHandle::new);
        (Self { election, lease, _following: following }, receiver)
    }

    /// Ends it in order: first this node publishes no more, then another may.
    pub(crate) async fn stop(self, federation: &Federation) {
        drop(self._following);
        self.election.send_replace(Election::Another(None));
        federation.stepped_down().await;
        if let Some(lease) = self.lease {
            lease.release().await;
        }
    }
}

/// Keeps `election` what `read` makes of `from`.
async fn follow<T>(
    mut from: watch::Receiver<T>,
    election: Arc<watch::Sender<Election>>,
    read: impl Fn(&T, &Election) -> Election,
) {
    loop {
        let now = read(&from.borrow_and_update(), &election.borrow());
        election.send_if_modified(|election| std::mem::replace(election, now.clone()) != now);
        if from.changed().await.is_err() {
            return;
        }
    }
}

/// What a Lease says of who publishes.
fn elected(standing: &Standing, identity: &str, before: &Election) -> Election {
    match (&standing.holder, before) {
        _ if standing.mine => Election::Us { until: None },
        // It lapsed, and nobody else is known to hold it: an API server that is away stops nobody from publishing, but it
        // does not say either that nobody else does.
        (Some(holder), Election::Us { until: None }) if holder == identity => {
            Election::Us { until: Some(Instant::now()) }
        }
        (Some(holder), Election::Us { until }) if holder == identity => Election::Us { until: *until },
        (holder, _) => Election::Another(holder.as_deref().and_then(node_of)),
    }
}

/// The name by which a node claims the Lease: unique among its lives, since the Lease of the last one must run out first.
#[must_use]
pub fn identity(node: &NodeName, life: u64) -> String {
    format!("{node}_{life:016x}")
}

fn node_of(identity: &str) -> Option<NodeName> {
    NodeName::new(identity.rsplit_once('_')?.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(mine: bool, holder: Option<&str>) -> Standing {
        Standing { mine, holder: holder.map(str::to_owned), ..Standing::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_renew_goes_on_until_another_is_known() {
        let us = identity(&NodeName::new("portolan-1").unwrap(), 7);
        let held = elected(&standing(true, Some(&us)), &us, &Election::Another(None));
        assert_eq!(held, Election::Us { until: None });
        let lapsed = elected(&standing(false, Some(&us)), &us, &held);
        assert_eq!(lapsed, Election::Us { until: Some(Instant::now()) });
        assert_eq!(elected(&standing(false, Some(&us)), &us, &lapsed), lapsed, "the same moment, whenever it is read");
        let other = identity(&NodeName::new("portolan-2").unwrap(), 9);
        let taken = elected(&standing(false, Some(&other)), &us, &lapsed);
        assert_eq!(taken, Election::Another(Some(NodeName::new("portolan-2").unwrap())));
    }

    #[test]
    fn an_earlier_life_is_not_this_one() {
        let node = NodeName::new("portolan-0").unwrap();
        let before = standing(false, Some(&identity(&node, 1)));
        assert_eq!(elected(&before, &identity(&node, 2), &Election::Another(None)), Election::Another(Some(node)));
    }
}
