//! When an endpoint needs another connection, and when it has one too many. Pure: time is handed in.
//!
//! A peer lets so many streams be open on a connection (SETTINGS_MAX_CONCURRENT_STREAMS). Another connection is opened ahead
//! when three quarters of that are open and stay so, and as many as are missing as soon as a request waits. The last one is
//! closed when the others could do with half of their room for half a minute.

use std::time::Duration;

use tokio::time::Instant;

/// An endpoint gets so many connections at most.
pub(crate) const MOST: usize = 16;
/// Only who is near the limit for so long gets another connection.
const STAYS: Duration = Duration::from_millis(100);
/// A connection that is not needed for so long is closed.
const IDLE: Duration = Duration::from_secs(30);
/// How often an endpoint of several connections is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What was seen of an endpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// Requests that have a stream.
    pub(crate) open: usize,
    /// Requests that wait for one.
    pub(crate) waiting: usize,
    /// Connections, and those that are being opened.
    pub(crate) connections: usize,
    /// How many streams each of them may have.
    pub(crate) limit: usize,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Look again when a request finds little room.
    Rest,
    /// Look again then, or when a request finds none.
    Until(Instant),
    /// Open so many more, and look again.
    Open(usize),
    /// Close the last one, and look again.
    Close,
}

/// Whether so much is near the limit of so much room.
pub(crate) fn is_near(open: usize, room: usize) -> bool {
    open >= room - room / 4
}

/// What an endpoint's connections have been through.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    near_since: Option<Instant>,
    idle_since: Option<Instant>,
    /// A connection more could not be made: none is tried before.
    not_before: Option<Instant>,
}

impl Growth {
    /// A connection more could not be made.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.not_before = Some(now + LOOK);
    }

    /// What to do now.
    pub(crate) fn step(&mut self, now: Instant, seen: Seen) -> Step {
        let Seen { open, waiting, connections, limit } = seen;
        let needed = open.saturating_add(waiting);
        let room = |connections: usize| limit.saturating_mul(connections);
        // A peer that allows no stream allows none on another connection either.
        let near = limit > 0 && is_near(needed, room(connections)) && connections < MOST;
        let idle = connections > 1 && needed <= room(connections - 1) / 2;
        self.near_since = near.then(|| self.near_since.unwrap_or(now));
        self.idle_since = idle.then(|| self.idle_since.unwrap_or(now));
        if let Some(since) = self.near_since {
            let due = if waiting > 0 { now } else { since + STAYS }.max(self.not_before.unwrap_or(now));
            if now < due {
                return Step::Until(due);
            }
            self.near_since = None;
            return Step::Open(needed.div_ceil(limit).saturating_sub(connections).clamp(1, MOST - connections));
        }
        match self.idle_since {
            Some(since) if now >= since + IDLE => {
                self.idle_since = None;
                Step::Close
            }
            _ if connections > 1 => Step::Until(now + LOOK),
            _ => Step::Rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen(open: usize, waiting: usize, connections: usize) -> Seen {
        Seen { open, waiting, connections, limit: 100 }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_stays_near_its_limit_gets_another_and_a_burst_does_not() {
        let (now, mut growth) = (Instant::now(), Growth::default());
        assert_eq!(growth.step(now, seen(74, 0, 1)), Step::Rest);
        assert_eq!(growth.step(now, seen(75, 0, 1)), Step::Until(now + STAYS));
        assert_eq!(growth.step(now + STAYS / 2, seen(10, 0, 1)), Step::Rest, "it was a burst");
        let again = now + STAYS;
        assert_eq!(growth.step(again, seen(90, 0, 1)), Step::Until(again + STAYS));
        assert_eq!(growth.step(again + STAYS, seen(80, 0, 1)), Step::Open(1));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_what_is_missing_at_once_up_to_the_most() {
        let (now, mut growth) = (Instant::now(), Growth::default());
        assert_eq!(growth.step(now, seen(100, 1, 1)), Step::Open(1));
        assert_eq!(growth.step(now, seen(100, 250, 1)), Step::Open(3));
        assert_eq!(growth.step(now, seen(100, 1_000_000, 1)), Step::Open(MOST - 1));
        assert_eq!(growth.step(now, seen(1600, 9, MOST)), Step::Until(now + LOOK));
        growth.failed(now);
        assert_eq!(growth.step(now, seen(100, 1, 1)), Step::Until(now + LOOK), "not dialled in a loop");
        assert_eq!(growth.step(now + LOOK, seen(100, 1, 1)), Step::Open(1));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_not_needed_for_a_while_is_closed() {
        let (now, mut growth) = (Instant::now(), Growth::default());
        assert_eq!(growth.step(now, seen(50, 0, 2)), Step::Until(now + LOOK));
        assert_eq!(growth.step(now + IDLE / 2, seen(51, 0, 2)), Step::Until(now + IDLE / 2 + LOOK), "needed");
        let quiet = now + IDLE;
        assert_eq!(growth.step(quiet, seen(0, 0, 2)), Step::Until(quiet + LOOK));
        assert_eq!(growth.step(quiet + IDLE, seen(0, 0, 2)), Step::Close);
        assert_eq!(growth.step(quiet + IDLE, seen(0, 0, 1)), Step::Rest);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_without_a_limit_has_one_connection_and_one_that_allows_nothing_too() {
        let (now, mut growth) = (Instant::now(), Growth::default());
        let limited = |limit| Seen { open: 1_000_000, waiting: 0, connections: 1, limit };
        assert_eq!(growth.step(now, limited(usize::MAX)), Step::Rest);
        assert_eq!(growth.step(now, Seen { open: 0, waiting: 5, ..limited(0) }), Step::Rest);
    }

    proptest! {
        /// Under any steady demand the number of connections comes to rest, in bounds, with room for all if there may be.
        #[test]
        fn it_comes_to_rest(demand in 0usize..5000, limit in 1usize..300) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let mut now = runtime.block_on(async { Instant::now() });
            let (mut growth, mut connections, mut changed) = (Growth::default(), 1, 0);
            for step in 0..500 {
                let open = demand.min(limit * connections);
                match growth.step(now, Seen { open, waiting: demand - open, connections, limit }) {
                    Step::Open(more) => (connections, changed) = (connections + more, step),
                    Step::Close => (connections, changed) = (connections - 1, step),
                    Step::Until(_) | Step::Rest => now += LOOK,
                }
                prop_assert!((1..=MOST).contains(&connections));
            }
            prop_assert!(changed < 100, "{changed}");
            prop_assert!(connections == MOST || limit * connections >= demand);
        }
    }
}
