//! Why the last call went where it went.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::Picked;
use crate::balancer::{Endpoint, LocalityShare, Pick, RequestInfo};
use crate::connection::Slot;
use crate::routing::Cluster;

/// Where a channel's calls go, and why the last one went where it went. Printed, it is a table and a sentence.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The service.
    pub service: Arc<str>,
    /// Its clusters, by name; none before the control plane has answered.
    pub clusters: Vec<ClusterExplanation>,
    /// The last pick, if there was one.
    pub last: Option<LastPick>,
    /// Why no cluster can be reached, if there is none.
    pub nothing: Option<String>,
}

/// Where the calls to one cluster go.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterExplanation {
    /// Its name.
    pub cluster: Arc<str>,
    /// What each locality takes.
    pub localities: Vec<LocalityShare>,
    /// Why nothing can be picked now, if nothing can.
    pub nothing: Option<String>,
}

impl ClusterExplanation {
    pub(super) fn of(cluster: &Cluster<Slot>, now: Instant) -> Self {
        let nothing = cluster.balancer.pick(&RequestInfo::default()).err().map(|why| why.to_string());
        Self { cluster: Arc::clone(&cluster.name), localities: cluster.balancer.explain(now), nothing }
    }
}

impl fmt::Display for ClusterExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.localities.iter().map(|line| line.locality.to_string()).collect();
        let width = names.iter().map(String::len).max().unwrap_or(0).max("LOCALITY".len());
        if !names.is_empty() {
            writeln!(f, "{:>8}  {:<width$}  {:>9}  {:>6}  BECAUSE", "PRIORITY", "LOCALITY", "USABLE", "SHARE")?;
        }
        for (line, name) in self.localities.iter().zip(names) {
            let usable = format!("{}/{}", line.usable, line.healthy);
            let (priority, share, because) = (line.priority, line.share * 100.0, line.because);
            writeln!(f, "{priority:>8}  {name:<width$}  {usable:>9}  {share:>5.1}%  {because}")?;
        }
        match &self.nothing {
            Some(why) => writeln!(f, "nothing can be picked: {why}"),
            None => Ok(()),
        }
    }
}

/// One pick.
#[derive(Debug, Clone, PartialEq)]
pub struct LastPick {
    /// The endpoint.
    pub picked: Picked,
    /// What was known of it then; its requests in flight have this one among them.
    pub burden: Burden,
    /// The endpoint that it was compared with and preferred to, if there was one.
    pub preferred_to: Option<(SocketAddr, Burden)>,
}

/// What an endpoint bore when a pick looked at it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Burden {
    /// Requests in flight there, from this channel.
    pub in_flight: u32,
    /// How many times slower than its good peers it was; 1 if it was not.
    pub slowness: f32,
}

impl Burden {
    fn of(endpoint: &Endpoint<Slot>) -> Self {
        Self { in_flight: endpoint.in_flight(), slowness: endpoint.slowness() }
    }
}

impl fmt::Display for Burden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in flight", self.in_flight)?;
        // What would be shown as 1.0 is not slow.
        if self.slowness >= 1.05 { write!(f, ", {:.1} times slower", self.slowness) } else { Ok(()) }
    }
}

impl LastPick {
    pub(super) fn new(pick: &Pick<Slot>, picked: Picked) -> Self {
        let other = pick.preferred_to().map(|other| (other.address(), Burden::of(other)));
        Self { picked, burden: Burden::of(pick.endpoint()), preferred_to: other }
    }
}

impl fmt::Display for LastPick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { picked: Picked { address, locality, priority, attempts }, burden, preferred_to } = self;
        write!(f, "{address} in {locality}, priority {priority}, attempt {attempts}: {burden}")?;
        match preferred_to {
            Some((other, theirs)) => write!(f, "; preferred to {other} with {theirs}"),
            None => write!(f, "; compared with no other"),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.service)?;
        for cluster in &self.clusters {
            if self.clusters.len() > 1 {
                writeln!(f, "cluster {}", cluster.cluster)?;
            }
            write!(f, "{cluster}")?;
        }
        if let Some(why) = &self.nothing {
            writeln!(f, "nothing can be picked: {why}")?;
        }
        match &self.last {
            Some(last) => write!(f, "last pick: {last}"),
            None => write!(f, "nothing was picked yet"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pick_tells_what_was_compared() {
        let address = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let picked = Picked { address: address(1), locality: Default::default(), priority: 0, attempts: 1 };
        let burden = Burden { in_flight: 2, slowness: 1.0 };
        let other = Some((address(2), Burden { in_flight: 1, slowness: 3.12 }));
        let text = LastPick { picked, burden, preferred_to: other }.to_string();
        assert_eq!(
            text,
            "10.0.0.1:1 in //, priority 0, attempt 1: 2 in flight; preferred to 10.0.0.1:2 with 1 in flight, 3.1 times slower"
        );
    }
}
