//! Deterministic subsetting: a client of a very large service connects to some of each locality's endpoints, and all clients
//! together load them evenly. Pure; nothing is drawn, so that a client that starts again has the same subset.
//!
//! Two published ways. Whoever knows the client's index among its peers gets *ringsteady* subsets (Ward, Wankadia, Guliani,
//! "Reinventing Backend Subsetting at Google", ACM Queue 20(5), 2022): clients stand on a ring by the binary van der Corput
//! sequence, whose every beginning is spread evenly, and take the endpoints that follow. Endpoints have no index here: their
//! order on the ring is that of their hashes, another one for each [`LOT`] of clients, so that those who share one endpoint
//! do not all share the next. Without an index it is rendezvous hashing by the client's name (gRPC's A68, random
//! subsetting): the endpoints with the lowest hashes of name and address. How many clients an endpoint then has differs as in
//! fair draws.

use std::num::NonZeroUsize;
use std::sync::Arc;

use xxhash_rust::xxh64::xxh64;

use crate::xds::model::{AssignedEndpoint, Assignment, EndpointHealth, LocalityEndpoints};

/// So many clients stand on one ring.
const LOT: u64 = 64;

/// Which part of each locality's endpoints a client uses.
///
/// Only healthy endpoints are chosen, whatever their weights; a locality that has no more of them than the size is used
/// whole. When one endpoint comes or goes, at most two of a subset change by index, and one by name.
///
/// ```
/// # use std::num::NonZeroUsize;
/// use portolan_client::channel::Subset;
///
/// let size = NonZeroUsize::new(20).unwrap();
/// let by_name = Subset::by_name(size, "checkout-7d9f"); // the pod's name, say
/// let by_index = Subset::by_index(size, 17); // a StatefulSet's ordinal, say: more even
/// # assert_ne!(by_name, by_index);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subset {
    size: usize,
    client: Client,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Client {
    Name(Arc<str>),
    Index(u64),
}

impl Subset {
    /// So many endpoints of each locality, for a client of this name: another for each client, the same after a restart.
    pub fn by_name(size: NonZeroUsize, name: &str) -> Self {
        Self { size: size.get(), client: Client::Name(name.into()) }
    }

    /// So many endpoints of each locality, for the client of this index: the first is 0, and none is left out.
    pub fn by_index(size: NonZeroUsize, index: u64) -> Self {
        Self { size: size.get(), client: Client::Index(index) }
    }

    /// The assignment that this client uses; the same if none of its localities is large.
    pub(crate) fn of(&self, assignment: &Arc<Assignment>) -> Arc<Assignment> {
        let is_large = |locality: &LocalityEndpoints| locality.endpoints.iter().filter(is_healthy).count() > self.size;
        if !assignment.priorities.iter().flatten().any(is_large) {
            return Arc::clone(assignment);
        }
        let mut part = Assignment::clone(assignment);
        for locality in part.priorities.iter_mut().flatten().filter(|locality| is_large(locality)) {
            locality.endpoints = self.chosen(&locality.endpoints);
        }
        Arc::new(part)
    }

    /// This client's, of more healthy endpoints than its size.
    fn chosen(&self, endpoints: &[AssignedEndpoint]) -> Vec<AssignedEndpoint> {
        let order = match &self.client {
            Client::Name(name) => xxh64(name.as_bytes(), 0),
            Client::Index(index) => index / LOT,
        };
        let hash = |endpoint: &AssignedEndpoint| xxh64(endpoint.address.to_string().as_bytes(), order);
        let mut ring: Vec<_> = endpoints.iter().filter(is_healthy).map(|it| (hash(it), it.address, it)).collect();
        ring.sort_unstable_by_key(|(hash, address, _)| (*hash, *address));
        let start = match &self.client {
            Client::Name(_) => 0,
            Client::Index(index) => ((u128::from((index % LOT).reverse_bits()) * ring.len() as u128) >> 64) as usize,
        };
        let mine = ring.iter().cycle().skip(start).take(self.size);
        mine.map(|(_, _, endpoint)| AssignedEndpoint::clone(endpoint)).collect()
    }
}

fn is_healthy(endpoint: &&AssignedEndpoint) -> bool {
    endpoint.health == EndpointHealth::Healthy
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    fn endpoints(n: u32) -> Vec<AssignedEndpoint> {
        let address = |i: u32| SocketAddr::from((std::net::Ipv4Addr::from_bits(0x0a00_0000 + i), 8080));
        let endpoint = |i| AssignedEndpoint { address: address(i), weight: 1, health: EndpointHealth::Healthy };
        (0..n).map(endpoint).collect()
    }

    fn clients(size: usize, n: u64, by_index: bool) -> Vec<Subset> {
        let size = NonZeroUsize::new(size).unwrap();
        let client =
            |i| if by_index { Subset::by_index(size, i) } else { Subset::by_name(size, &format!("client-{i}")) };
        (0..n).map(client).collect()
    }

    fn addresses(subset: &Subset, of: &[AssignedEndpoint]) -> BTreeSet<SocketAddr> {
        subset.chosen(of).iter().map(|endpoint| endpoint.address).collect()
    }

    /// The fewest and the most clients that an endpoint has, and the mean.
    fn spread(clients: &[Subset], endpoints: &[AssignedEndpoint]) -> (u32, u32, f64) {
        let mut loads: HashMap<SocketAddr, u32> = endpoints.iter().map(|endpoint| (endpoint.address, 0)).collect();
        for client in clients {
            let chosen = client.chosen(endpoints);
            chosen.iter().for_each(|endpoint| *loads.get_mut(&endpoint.address).unwrap() += 1);
        }
        let mean = f64::from(loads.values().sum::<u32>()) / loads.len() as f64;
        (*loads.values().min().unwrap(), *loads.values().max().unwrap(), mean)
    }

    #[test]
    fn what_is_not_healthy_is_not_chosen_and_what_is_not_large_is_whole() {
        let mut all = endpoints(30);
        all[..20].iter_mut().for_each(|endpoint| endpoint.health = EndpointHealth::Unhealthy);
        let locality = LocalityEndpoints { locality: Default::default(), weight: 1, endpoints: all };
        let assignment = Arc::new(Assignment { priorities: vec![vec![locality]], ..Assignment::default() });
        let of_size = |size| clients(size, 1, false)[0].of(&assignment);
        assert!(Arc::ptr_eq(&of_size(10), &assignment));
        let part = of_size(9);
        assert_eq!(part.priorities[0][0].endpoints.len(), 9);
        assert!(part.priorities[0][0].endpoints.iter().all(|endpoint| endpoint.health == EndpointHealth::Healthy));
    }

    #[test]
    fn a_full_lot_of_clients_by_index_loads_endpoints_within_one_of_the_mean() {
        for n in [100, 1000, 3333] {
            let (least, most, mean) = spread(&clients(50, LOT, true), &endpoints(n));
            assert!(f64::from(least) > mean - 1.0 && f64::from(most) < mean + 1.0, "{n}: {least} {most} {mean}");
        }
    }

    #[test]
    fn many_clients_by_index_load_more_evenly_than_by_name_and_those_as_in_fair_draws() {
        let endpoints = endpoints(500);
        let (least, most, mean) = spread(&clients(20, 2000, true), &endpoints);
        assert!(f64::from(least) > mean * 0.85 && f64::from(most) < mean * 1.15, "{least} {most} {mean}");
        let (least, most, mean) = spread(&clients(20, 2000, false), &endpoints);
        // Five standard deviations.
        let bound = 5.0 * mean.sqrt();
        assert!(f64::from(least) > mean - bound && f64::from(most) < mean + bound, "{least} {most} {mean}");
    }

    proptest! {
        /// One endpoint that comes or goes changes at most two of a subset by index, and one by name.
        #[test]
        fn a_change_moves_few(n in 2u32..300, size in 1usize..60, client in 0u64..200, gone in any::<prop::sample::Index>(), by_index: bool) {
            prop_assume!(n as usize > size + 1);
            let all = endpoints(n);
            let mut fewer = all.clone();
            fewer.remove(gone.index(all.len()));
            let subset = clients(size, client + 1, by_index).pop().unwrap();
            let (before, after) = (addresses(&subset, &all), addresses(&subset, &fewer));
            prop_assert_eq!((before.len(), after.len()), (size, size));
            let most = if by_index { 2 } else { 1 };
            prop_assert!(before.difference(&after).count() <= most);
        }
    }
}
