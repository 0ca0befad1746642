//! What silence does and does not do, second by second.

use proptest::prelude::*;

use super::*;
use crate::fixtures::topology;

const ANSWERS: Round = Round { answered: 1, refused: 3, silent: 4 };
const REFUSED: Round = Round { answered: 0, refused: 8, silent: 0 };
const SILENT: Round = Round { answered: 0, refused: 0, silent: 8 };
const NO_ENDPOINTS: Round = Round { answered: 0, refused: 0, silent: 0 };

fn name(cluster: &str) -> ClusterName {
    ClusterName::new(cluster).unwrap()
}

/// Our cluster `us` and others, each in a region of its own, all heard at `begin`.
struct World {
    monitor: Monitor,
    begin: Instant,
    others: Vec<ClusterName>,
}

impl World {
    fn new(others: &[&str]) -> Self {
        let clusters: Vec<_> = std::iter::once("us").chain(others.iter().copied()).collect();
        let (mut monitor, begin) = (Monitor::default(), Instant::now());
        monitor.follow(&topology(&clusters), &name("us"), begin);
        let others: Vec<_> = others.iter().map(|cluster| name(cluster)).collect();
        for cluster in &others {
            assert!(monitor.heard(cluster, begin), "the first time");
        }
        Self { monitor, begin, others }
    }

    fn at(&self, seconds: f64) -> Instant {
        self.begin + Duration::from_secs_f64(seconds)
    }

    /// From 0 to `until`, every quarter second: `alive` are heard, due probes come to `round`. The states at the end.
    fn run(&mut self, until: f64, alive: &[&str], round: impl Fn(&str) -> Round) -> BTreeMap<String, Liveness> {
        let mut now = self.begin;
        while now <= self.at(until) {
            for cluster in alive {
                self.monitor.heard(&name(cluster), now);
            }
            for cluster in self.monitor.due(now) {
                self.monitor.probed(&cluster, round(cluster.as_str()), now);
            }
            self.monitor.states(now);
            now += Duration::from_millis(250);
        }
        self.states(until)
    }

    fn states(&mut self, seconds: f64) -> BTreeMap<String, Liveness> {
        let states = self.monitor.states(self.at(seconds));
        states.into_iter().map(|(cluster, state)| (cluster.to_string(), state)).collect()
    }
}

#[tokio::test]
async fn silence_alone_never_fails_a_cluster() {
    for round in [NO_ENDPOINTS, ANSWERS] {
        let mut world = World::new(&["a", "b", "c"]);
        assert_eq!(world.run(1.0, &["b", "c"], |_| round)["a"], Liveness::Fresh);
        assert_eq!(world.run(30.0, &["b", "c"], |_| round)["a"], Liveness::Suspect);
        assert_eq!(world.run(3600.0, &["b", "c"], |_| round)["a"], Liveness::Stale);
    }
}

#[tokio::test]
async fn two_dead_rounds_corroborate_a_death_and_one_does_not() {
    for round in [REFUSED, SILENT] {
        let mut world = World::new(&["a", "b", "c"]);
        assert_eq!(world.run(2.0, &["b", "c"], |_| round)["a"], Liveness::Suspect);
        let states = world.run(3.0, &["b", "c"], |_| round);
        assert_eq!((states["a"], states["b"]), (Liveness::Failed, Liveness::Fresh));
    }
}

#[tokio::test]
async fn a_failed_cluster_is_back_once_heard_or_once_its_endpoints_answer() {
    let mut world = World::new(&["a", "b", "c"]);
    world.run(3.0, &["b", "c"], |_| REFUSED);
    assert_eq!(world.run(10.0, &["b", "c"], |_| ANSWERS)["a"], Liveness::Suspect);
    let mut world = World::new(&["a", "b", "c"]);
    world.run(3.0, &["b", "c"], |_| REFUSED);
    let now = world.at(3.0);
    world.monitor.heard(&name("a"), now);
    assert_eq!(world.states(3.0)["a"], Liveness::Fresh);
}

#[tokio::test]
async fn when_most_regions_are_silent_it_is_us() {
    let mut world = World::new(&["a", "b", "c"]);
    let states = world.run(600.0, &["c"], |_| SILENT);
    assert_eq!((states["a"], states["b"], states["c"]), (Liveness::Isolated, Liveness::Isolated, Liveness::Fresh));
}

#[tokio::test]
async fn silence_while_we_were_cut_off_is_no_evidence_against_those_heard_last() {
    let mut world = World::new(&["a", "b", "c"]);
    assert_eq!(world.run(60.0, &[], |_| SILENT)["a"], Liveness::Isolated);
    for cluster in ["b", "c"] {
        let now = world.at(60.5);
        world.monitor.heard(&name(cluster), now);
    }
    assert_eq!(world.states(60.5)["a"], Liveness::Stale, "it may be heard at any moment");
    // What is found from now on counts, and is looked for at once.
    for seconds in [60.5, 61.0] {
        let now = world.at(seconds);
        assert_eq!(world.monitor.due(now), [name("a")]);
        world.monitor.probed(&name("a"), SILENT, now);
    }
    assert_eq!(world.states(61.0)["a"], Liveness::Failed);
}

#[tokio::test]
async fn a_refusal_or_an_answer_shows_that_it_is_not_us() {
    let mut world = World::new(&["a", "b", "c"]);
    let states = world.run(10.0, &["c"], |cluster| if cluster == "a" { REFUSED } else { SILENT });
    assert_eq!((states["a"], states["b"]), (Liveness::Failed, Liveness::Failed));
    let mut world = World::new(&["a", "b", "c"]);
    assert_eq!(world.run(90.0, &["c"], |_| ANSWERS)["a"], Liveness::Stale);
}

#[tokio::test]
async fn two_clusters_cannot_tell_a_lost_world_from_a_lost_self() {
    let mut world = World::new(&["a"]);
    assert_eq!(world.run(5.0, &[], |_| SILENT)["a"], Liveness::Failed);
}

#[tokio::test]
async fn a_cluster_is_believed_when_it_says_it_failed() {
    let mut world = World::new(&["a", "b"]);
    world.monitor.says_failed(&name("a"), true);
    assert_eq!(world.run(1.0, &["a", "b"], |_| ANSWERS)["a"], Liveness::Failed);
}

#[tokio::test]
async fn a_probe_is_asked_for_once_until_it_ended() {
    let mut world = World::new(&["a", "b", "c"]);
    let now = world.at(2.0);
    assert_eq!(world.monitor.due(now).len(), 3);
    assert!(world.monitor.due(now).is_empty());
    world.monitor.probed(&name("a"), SILENT, now);
    assert_eq!(world.monitor.due(now + PROBE_AGAIN), [name("a")]);
}

proptest! {
    /// Whatever happens: who was heard just now is fresh, and nobody fails without two dead rounds.
    #[test]
    fn no_history_fails_a_cluster_without_evidence(
        events in prop::collection::vec((0u8..3, 0u8..3, 1u16..5000), 0..60)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new(&["a", "b", "c"]);
            let mut now = world.begin;
            let mut dead_rounds = [0; 3];
            for (who, what, millis) in events {
                now += Duration::from_millis(millis.into());
                let cluster = world.others[usize::from(who)].clone();
                let dead = &mut dead_rounds[usize::from(who)];
                match what {
                    0 => {
                        world.monitor.heard(&cluster, now);
                        *dead = 0;
                        assert_eq!(world.monitor.states(now)[&cluster], Liveness::Fresh);
                    }
                    1 => {
                        *dead += 1;
                        world.monitor.probed(&cluster, SILENT, now);
                    }
                    _ => world.monitor.probed(&cluster, ANSWERS, now),
                }
                for (cluster, state) in world.monitor.states(now) {
                    let at = world.others.iter().position(|other| *other == cluster).unwrap();
                    assert!(state != Liveness::Failed || dead_rounds[at] >= 2);
                }
            }
        });
    }
}
