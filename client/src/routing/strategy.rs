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
            Balancing::WeightedRoundRobin => WeightedRoundRobin::default().into(),
            Balancing::PeakEwma => PeakEwma::default().into(),
            Balancing::RingHash => RingHash::default().into(),
            Balancing::Maglev => Maglev::default().into(),
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

    #[test]
    fn the_applications_word_goes_before_the_control_planes_and_what_is_not_known_is_passed_over() {
        let mut strategies = Strategies::default();
        strategies.register("shop.Mine", || RequestCost.into());
        let chosen = |strategies: &Strategies, preferred: &[Balancing]| format!("{:?}", strategies.choose(preferred));
        let default = format!("{:?}", Chosen::default());
        let custom = |name: &str| Balancing::Custom(name.into());
        assert_eq!(chosen(&strategies, &[]), default);
        assert!(chosen(&strategies, &[Balancing::Maglev]).contains("Maglev"));
        assert!(chosen(&strategies, &[custom("shop.Mine"), Balancing::Maglev]).contains("RequestCost"));
        assert!(chosen(&strategies, &[custom("shop.Other"), Balancing::Maglev]).contains("Maglev"));
        assert_eq!(chosen(&strategies, &[custom("shop.Other")]), default);
        assert!(chosen(&HotCold.into(), &[Balancing::Maglev]).contains("HotCold"));
    }
}
