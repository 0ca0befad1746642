//! The strategies by name.

use crate::baselines::{Connection, PeakEwma, Prequal, RoundRobin, TowerP2c, WeightedRoundRobin};
use crate::draws::Draws;
use crate::measure::Measured;
use crate::ours::Ours;
use crate::policy::Policy;
use crate::sim::{Scenario, Simulation};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy {
    Default,
    Connection,
    RoundRobin,
    WeightedRoundRobin,
    TowerP2c,
    PeakEwma,
    Prequal,
}

impl Strategy {
    pub(crate) const ALL: [Self; 7] = [
        Self::Default,
        Self::Connection,
        Self::RoundRobin,
        Self::WeightedRoundRobin,
        Self::TowerP2c,
        Self::PeakEwma,
        Self::Prequal,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Connection => "connection",
            Self::RoundRobin => "round_robin",
            Self::WeightedRoundRobin => "weighted_round_robin",
            Self::TowerP2c => "tower_p2c",
            Self::PeakEwma => "peak_ewma",
            Self::Prequal => "prequal",
        }
    }

    fn client(self, scenario: &Scenario, seed: u64, client: usize) -> Box<dyn Policy> {
        let (servers, draws) = (scenario.machines.len(), Draws::new(seed, 1000 + client as u64));
        match self {
            Self::Default => Box::new(Ours::new(servers, scenario.zones, draws)),
            Self::Connection => Box::new(Connection::new(servers, draws)),
            Self::RoundRobin => Box::new(RoundRobin::new(servers, draws)),
            Self::WeightedRoundRobin => Box::new(WeightedRoundRobin::new(servers, draws)),
            Self::TowerP2c => Box::new(TowerP2c::new(servers, draws)),
            Self::PeakEwma => Box::new(PeakEwma::new(servers, draws)),
            Self::Prequal => Box::new(Prequal::new(servers, draws)),
        }
    }

    pub(crate) fn run(self, scenario: &Scenario, seed: u64) -> Measured {
        let clients = (0..scenario.clients).map(|client| self.client(scenario, seed, client)).collect();
        Simulation::new(scenario, seed, clients).run()
    }
}
