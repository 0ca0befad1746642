//! First-hand evidence of a silent cluster: which of its endpoints are tried, and when.

use portolan_topology::names::ClusterName;
use tokio::time::Instant;

use super::Hub;
use crate::probe;

impl Hub {
    /// Begins the rounds of probes that are due.
    pub(super) fn probe(&mut self, now: Instant) {
        if self.followed.states(now).is_some() {
            return;
        }
        for cluster in self.monitor.due(now) {
            let addresses = self.addresses_of(&cluster);
            let net = self.net.clone();
            self.probes.spawn(async move { (cluster, probe::round(net, addresses).await) });
        }
    }

    /// Where a cluster's endpoints can be tried from here: at a sample of them, or at its gateways from another network.
    fn addresses_of(&mut self, cluster: &ClusterName) -> Vec<String> {
        let topology = self.shared.topology.borrow().clone();
        let network = |cluster| topology.cluster(cluster).map(|cluster| &cluster.network);
        if network(cluster) == network(&self.shared.cluster) {
            let sample = self.lists.sample(cluster, probe::SAMPLE, &mut self.rng);
            sample.iter().map(ToString::to_string).collect()
        } else {
            topology.cluster(cluster).map(|cluster| cluster.gateways.clone()).unwrap_or_default()
        }
    }
}
