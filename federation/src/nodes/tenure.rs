//! Who speaks for the cluster, and with which epoch. Pure.
//!
//! An election says who should; epochs make it safe. No two nodes ever speak with the same one, since each has numbers of
//! its own, and a publisher that hears of a newer one steps down, unless its own election certainly still stands.

use portolan_topology::names::NodeName;
use tokio::time::Instant;

use crate::proto::Publisher;

/// How many nodes a cluster may have. Node `n` speaks with epochs that leave the remainder `n`: so two never share one,
/// whatever they have heard of each other.
pub const MAX_NODES: u64 = 64;

/// What an election says of who publishes for the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Election {
    /// This node does.
    Us {
        /// Before then nobody else can have been elected; `None`: nobody else ever can. Once it is over this node goes on,
        /// since there may be nobody else, and ends when it hears of a newer publisher.
        until: Option<Instant>,
    },
    /// Another node does; `None`: it is not known which, or none.
    Another(Option<NodeName>),
}

/// This node's part in publishing.
#[derive(Debug, Clone)]
pub(crate) struct Tenure {
    /// The remainder that our epochs leave, and by what they are divided.
    place: u64,
    stride: u64,
    election: Election,
    /// The newest publisher of our cluster that was heard of, ours included.
    newest: Publisher,
    ours: Option<Publisher>,
}

impl Tenure {
    /// For the only node of a cluster: every epoch is its own.
    pub(crate) fn alone(highest: u64) -> Self {
        Self::new(0, 1, highest)
    }

    /// For node number `place` of several. `highest` is the highest epoch that is known to have been spoken with.
    pub(crate) fn of_several(place: u64, highest: u64) -> Self {
        Self::new(place, MAX_NODES, highest)
    }

    fn new(place: u64, stride: u64, highest: u64) -> Self {
        let newest = Publisher { epoch: highest, incarnation: 0 };
        Self { place, stride, election: Election::Another(None), newest, ours: None }
    }

    /// What this node speaks with; `None`: it follows.
    pub(crate) fn speaks(&self) -> Option<Publisher> {
        self.ours
    }

    /// The newest publisher that was heard of.
    pub(crate) fn newest(&self) -> Publisher {
        self.newest
    }

    /// The election says something new. `incarnation` is random, for a new epoch if there is to be one.
    pub(crate) fn elected(&mut self, election: Election, now: Instant, incarnation: u64) {
        self.election = election;
        match self.election {
            Election::Another(_) => self.ours = None,
            Election::Us { .. } if self.ours.is_none() && self.stands(now) => self.rise(incarnation),
            Election::Us { .. } => {}
        }
    }

    /// Somebody knows of this publisher of our cluster.
    pub(crate) fn heard(&mut self, publisher: Publisher, now: Instant, incarnation: u64) {
        let newer = publisher.epoch > self.newest.epoch
            || (publisher.epoch == self.newest.epoch && publisher != self.newest && Some(publisher) != self.ours);
        if !newer {
            return;
        }
        self.newest = publisher;
        if self.ours.is_some() {
            // An earlier life of ours, or of a publisher before us: the one that is elected goes above it.
            if self.stands(now) {
                self.rise(incarnation);
            } else {
                self.ours = None;
            }
        }
    }

    /// The run at hand has ended; if we still are the publisher, the next one begins above it.
    pub(crate) fn ended(&mut self, incarnation: u64) {
        if self.ours.is_some() {
            self.rise(incarnation);
        }
    }

    /// Whether nobody else can have been elected.
    fn stands(&self, now: Instant) -> bool {
        matches!(self.election, Election::Us { until } if until.is_none_or(|until| now < until))
    }

    fn rise(&mut self, incarnation: u64) {
        let ours = Publisher { epoch: above(self.newest.epoch, self.place, self.stride), incarnation };
        self.newest = ours;
        self.ours = Some(ours);
    }
}

/// The lowest epoch above `epoch` that leaves the remainder `place`.
fn above(epoch: u64, place: u64, stride: u64) -> u64 {
    let next = epoch.saturating_add(1);
    next.saturating_add((place + stride - next % stride) % stride)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    #[test]
    fn an_epoch_is_the_next_of_its_own_node() {
        assert_eq!((above(0, 0, 1), above(7, 0, 1)), (1, 8));
        assert_eq!((above(0, 0, 64), above(0, 1, 64), above(1, 1, 64), above(65, 2, 64)), (64, 1, 65, 66));
    }

    #[tokio::test(start_paused = true)]
    async fn a_publisher_without_its_lease_goes_on_until_it_hears_of_another() {
        let now = Instant::now();
        let mut tenure = Tenure::of_several(1, 0);
        tenure.elected(Election::Us { until: Some(now + LEASE) }, now, 7);
        let ours = tenure.speaks().unwrap();
        let later = now + 2 * LEASE;
        tenure.heard(ours, later, 8);
        assert_eq!(tenure.speaks(), Some(ours), "its own name is no news");
        tenure.heard(Publisher { epoch: ours.epoch + 1, incarnation: 3 }, later, 8);
        assert_eq!(tenure.speaks(), None);
        tenure.elected(Election::Us { until: Some(now + LEASE) }, later, 9);
        assert_eq!(tenure.speaks(), None, "an election that is over begins nothing");
        tenure.elected(Election::Us { until: Some(later + LEASE) }, later, 9);
        assert!(tenure.speaks().unwrap().epoch > ours.epoch + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_elected_goes_above_what_others_remember() {
        let now = Instant::now();
        let mut tenure = Tenure::alone(0);
        tenure.elected(Election::Us { until: None }, now, 7);
        tenure.heard(Publisher { epoch: 900, incarnation: 1 }, now, 8);
        assert_eq!(tenure.speaks(), Some(Publisher { epoch: 901, incarnation: 8 }));
        tenure.heard(Publisher { epoch: 901, incarnation: 1 }, now, 9);
        assert_eq!(tenure.speaks(), Some(Publisher { epoch: 902, incarnation: 9 }));
    }

    /// What happens to three nodes that share one lease.
    #[derive(Debug, Clone)]
    enum Event {
        /// Node `n` asks the lease: renews or takes it if it can.
        Asks(usize),
        /// Node `to` hears what node `from` knows.
        Tells { from: usize, to: usize },
        /// So many seconds pass.
        Passes(u64),
        /// Node `n` is killed and starts with what its disk has, or with nothing.
        Restarts { node: usize, wiped: bool },
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => (0..3_usize).prop_map(Event::Asks),
            3 => (0..3_usize, 0..3_usize).prop_map(|(from, to)| Event::Tells { from, to }),
            2 => (1..8_u64).prop_map(Event::Passes),
            1 => (0..3_usize, any::<bool>()).prop_map(|(node, wiped)| Event::Restarts { node, wiped }),
        ]
    }

    proptest! {
        #[test]
        fn no_two_nodes_ever_speak_with_one_epoch_and_the_elected_has_the_last_word(
            events in proptest::collection::vec(event(), 1..120),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().start_paused(true).enable_time().build().unwrap();
            let mut now = runtime.block_on(async { Instant::now() });
            let mut nodes: Vec<_> = (0..3).map(|place| Tenure::of_several(place, 0)).collect();
            let mut lease: Option<(usize, Instant)> = None;
            let mut spoken: BTreeMap<u64, usize> = BTreeMap::new();
            let mut incarnation = 0;
            for event in events {
                incarnation += 1;
                match event {
                    Event::Asks(node) => {
                        if lease.is_none_or(|(holder, until)| holder == node || until <= now) {
                            lease = Some((node, now + LEASE));
                            nodes[node].elected(Election::Us { until: Some(now + LEASE) }, now, incarnation);
                            prop_assert!(nodes[node].speaks().is_some());
                        } else {
                            nodes[node].elected(Election::Another(None), now, incarnation);
                        }
                    }
                    Event::Tells { from, to } => {
                        let heard = nodes[from].newest();
                        if heard.epoch > 0 {
                            nodes[to].heard(heard, now, incarnation);
                        }
                    }
                    Event::Passes(seconds) => now += Duration::from_secs(seconds),
                    Event::Restarts { node, wiped } => {
                        let highest = if wiped { 0 } else { nodes[node].newest().epoch };
                        nodes[node] = Tenure::of_several(node as u64, highest);
                    }
                }
                for (n, node) in nodes.iter().enumerate() {
                    if let Some(publisher) = node.speaks() {
                        prop_assert_eq!(*spoken.entry(publisher.epoch).or_insert(n), n);
                        prop_assert_eq!(publisher, node.newest(), "it speaks below what it has heard of");
                    }
                }
            }
            // Everybody asks, and everybody hears of everybody: one is left, and it is the newest.
            let holder = lease.filter(|(_, until)| *until > now).map_or(0, |(holder, _)| holder);
            nodes[holder].elected(Election::Us { until: Some(now + LEASE) }, now, 1_000);
            for round in 0..3 {
                for (from, to) in (0..3).flat_map(|from| (0..3).map(move |to| (from, to))) {
                    let heard = nodes[from].newest();
                    nodes[to].heard(heard, now, 2_000 + round);
                }
            }
            for (n, node) in nodes.iter_mut().enumerate() {
                if n != holder {
                    node.elected(Election::Another(None), now, 3_000);
                }
            }
            let speaking: Vec<_> = nodes.iter().filter_map(Tenure::speaks).collect();
            prop_assert_eq!(speaking.len(), 1);
            prop_assert!(nodes.iter().all(|node| node.newest().epoch <= speaking[0].epoch));
        }
    }
}
