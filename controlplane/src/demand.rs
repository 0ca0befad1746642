//! What our own clients ask for, from their load reports, damped: steady traffic changes nothing, so that it gossips
//! and plans nothing.

use std::sync::Arc;
use std::time::Duration;

use portolan_topology::names::ClusterName;
use tokio::sync::watch;

use crate::catalog::Demand;
use crate::lrs::store::{LoadSnapshot, LoadStore};

/// How often load reports are looked at.
const EVERY: Duration = Duration::from_secs(2);
/// A rate is told anew when it differs from the one told by this part of it…
const STEP: f64 = 0.1;
/// … and by this many requests per second.
const LEAST_STEP: f64 = 1.0;

/// Keeps `slot` up to date, until nobody listens.
pub(crate) async fn run(cluster: ClusterName, store: Arc<LoadStore>, slot: watch::Sender<Arc<Demand>>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = slot.closed() => return,
        }
        let measured = own(&cluster, &store.snapshot());
        slot.send_if_modified(|told| {
            let damped = damp(told, measured);
            let differs = **told != damped;
            if differs {
                *told = Arc::new(damped);
            }
            differs
        });
    }
}

/// What the clients of our own cluster ask for. Siblings' clients that report here are counted where they live.
fn own(cluster: &ClusterName, snapshot: &LoadSnapshot) -> Demand {
    let demand = snapshot.demand().into_iter().filter(|((_, source), _)| source.cluster == *cluster);
    demand.map(|((service, source), rate)| ((service, source.zone), rate)).collect()
}

/// `measured`, with what is told already where the two are close.
fn damp(told: &Demand, measured: Demand) -> Demand {
    let damped = measured.into_iter().map(|(key, rate)| {
        let told = told.get(&key).copied().filter(|told| (rate - told).abs() <= (STEP * told).max(LEAST_STEP));
        (key, told.unwrap_or(rate))
    });
    damped.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(rates: &[(&str, f64)]) -> Demand {
        rates.iter().map(|(service, rate)| ((service.parse().unwrap(), None), *rate)).collect()
    }

    #[test]
    fn what_hardly_moves_is_told_once() {
        let told = demand(&[("a.shop", 100.0), ("b.shop", 3.0), ("c.shop", 5.0)]);
        let damped = damp(&told, demand(&[("a.shop", 109.0), ("b.shop", 3.9), ("d.shop", 0.5)]));
        assert_eq!(damped, demand(&[("a.shop", 100.0), ("b.shop", 3.0), ("d.shop", 0.5)]));
        assert_eq!(damp(&told, demand(&[("a.shop", 111.0)])), demand(&[("a.shop", 111.0)]));
    }

    #[test]
    fn a_slow_drift_is_told_in_the_end() {
        let mut told = demand(&[("a.shop", 100.0)]);
        for rate in 100..=200 {
            told = damp(&told, demand(&[("a.shop", f64::from(rate))]));
        }
        let at = told.values().next().copied().unwrap();
        assert!((180.0..=200.0).contains(&at), "{at}");
    }
}
