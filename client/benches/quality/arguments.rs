//! What of the simulation is run: everything with the seed that the documentation's figures are of, unless told otherwise.

use crate::strategies::Strategy;

/// Of the figures in docs/performance.md.
const SEED: u64 = 42;

pub(crate) struct Arguments {
    scenarios: Vec<String>,
    strategies: Vec<Strategy>,
    pub(crate) seed: u64,
    /// How many times slower whatever starts is at first, if not as the scenario says.
    pub(crate) coldness: Option<f64>,
}

impl Arguments {
    /// `names`: of the scenarios there are.
    pub(crate) fn parse(given: impl Iterator<Item = String>, names: &[&str]) -> Result<Self, String> {
        let mut wanted = Self { scenarios: Vec::new(), strategies: Vec::new(), seed: SEED, coldness: None };
        // Cargo says `--bench` to a benchmark without a harness.
        for argument in given.filter(|argument| !argument.starts_with("--")) {
            if let Some(seed) = argument.strip_prefix("seed=") {
                wanted.seed = seed.parse().map_err(|_| format!("the seed is a whole number, not `{seed}`"))?;
            } else if let Some(times) = argument.strip_prefix("cold=") {
                let coldness = times.parse().ok().filter(|times: &f64| times.is_finite() && *times >= 1.0);
                let mistake = || format!("what is cold is some number of times slower, at least 1, not `{times}`");
                wanted.coldness = Some(coldness.ok_or_else(mistake)?);
            } else if let Some(strategy) = Strategy::ALL.into_iter().find(|strategy| strategy.name() == argument) {
                wanted.strategies.push(strategy);
            } else if names.contains(&argument.as_str()) {
                wanted.scenarios.push(argument);
            } else {
                let strategies = Strategy::ALL.map(Strategy::name).join(", ");
                let scenarios = names.join(", ");
                return Err(format!("`{argument}` is neither a scenario ({scenarios}) nor a strategy ({strategies})"));
            }
        }
        Ok(wanted)
    }

    /// Not all scenarios and strategies are run, so that what spans them is not said.
    pub(crate) fn is_part(&self) -> bool {
        !self.scenarios.is_empty() || !self.strategies.is_empty()
    }

    pub(crate) fn scenario(&self, name: &str) -> bool {
        self.scenarios.is_empty() || self.scenarios.iter().any(|wanted| wanted == name)
    }

    pub(crate) fn strategy(&self, strategy: Strategy) -> bool {
        self.strategies.is_empty() || self.strategies.contains(&strategy)
    }
}
