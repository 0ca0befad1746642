//! Which strategy a cluster's balancer has: the application's own word, then the control plane's, then the default.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::balancer::strategies::{
    HotCold, Maglev, PeakEwma, PrefixAffinity, RequestCost, RingHash, WeightedRoundRobin,
};
use crate::balancer::{Chosen, LeastRequest};
use crate::xds::model::Balancing;

type Make = Arc<dyn Fn() -> Chosen + Send + Sync>;

/// The strategies that a channel can use.
#[derive(Clone, Default)]
pub struct Strategies {
    fixed: Option<Chosen>,
    registered: BTreeMap<String, Make>,
}

impl fmt::Debug for Strategies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registered: Vec<_> = self.registered.keys().collect();
        f.debug_struct("Strategies").field("fixed", &self.fixed).field("registered", &registered).finish()
    }
}

impl<S: Into<Chosen>> From<S> for Strategies {
    /// This one, whatever the control plane says.
    fn from(strategy: S) -> Self {
        Self { fixed: Some(strategy.into()), registered: BTreeMap::new() }
    }
}

impl Strategies {
    /// One that the control plane may choose by this name; `make` is called for each cluster that gets it.
    pub fn register(&mut self, name: &str, make: impl Fn() -> Chosen + Send + Sync + 'static) {
        self.registered.insert(name.to_owned(), Arc::new(make));
    }

    /// The strategy for a cluster that prefers these, in order.
    pub(super) fn choose(&self, preferred: &[Balancing]) -> Chosen {
        let known = || preferred.iter().find_map(|balancing| self.make(balancing));
        self.fixed.clone().or_else(known).unwrap_or_default()
    }

    fn make(&self, balancing: &Balancing) -> Option<Chosen> {
        Some(match balancing {
            Balancing::LeastRequest => LeastRequest.into(),
            Balancing::WeightedRoundRobin(weighting) => WeightedRoundRobin::from(*weighting).into(),
            Balancing::PeakEwma => PeakEwma::default().into(),
            Balancing::RingHash(ring) => RingHash::from(*ring).into(),
            Balancing::Maglev(lookup) => Maglev::from(*lookup).into(),
            Balancing::HotCold => HotCold.into(),
            Balancing::RequestCost => RequestCost.into(),
            Balancing::PrefixAffinity => PrefixAffinity::default().into(),
            Balancing::Custom(name) => self.registered.get(&**name)?(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::balancing::{Lookup, Ring, TableSize, Weighting};

    #[test]
    fn the_applications_word_goes_before_the_control_planes_and_what_is_not_known_is_passed_over() {
        let mut strategies = Strategies::default();
        strategies.register("shop.Mine", || RequestCost.into());
        let chosen = |strategies: &Strategies, preferred: &[Balancing]| format!("{:?}", strategies.choose(preferred));
        let default = format!("{:?}", Chosen::default());
        let maglev = || Balancing::Maglev(Lookup::default());
        let custom = |name: &str| Balancing::Custom(name.into());
        assert_eq!(chosen(&strategies, &[]), default);
        assert!(chosen(&strategies, &[maglev()]).contains("Maglev"));
        assert!(chosen(&strategies, &[custom("shop.Mine"), maglev()]).contains("RequestCost"));
        assert!(chosen(&strategies, &[custom("shop.Other"), maglev()]).contains("Maglev"));
        assert_eq!(chosen(&strategies, &[custom("shop.Other")]), default);
        assert!(chosen(&HotCold.into(), &[maglev()]).contains("HotCold"));
    }

    #[test]
    fn settings_reach_the_strategy() {
        let chosen = |balancing| format!("{:?}", Strategies::default().choose(&[balancing]));
        let ring = chosen(Balancing::RingHash(Ring { least: 7, most: 70, bound_percent: 150 }));
        assert!(ring.contains("RingHash { bound: 1.5, least: 7, most: 70 }"), "{ring}");
        let maglev = chosen(Balancing::Maglev(Lookup { size: TableSize::new(1009), bound_percent: 110 }));
        assert!(maglev.contains("Maglev { bound: 1.1, size: Some(TableSize(1009)) }"), "{maglev}");
        let weighting = Weighting { error_penalty: 2.5, ..Weighting::default() };
        let weighted = chosen(Balancing::WeightedRoundRobin(weighting));
        assert!(weighted.contains(&format!("{weighting:?}")), "{weighted}");
    }
}
