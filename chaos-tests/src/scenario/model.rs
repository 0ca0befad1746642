//! The checked scenario: what is left of a scenario file once every rule held and every role has a name.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use portolan_topology::names::{ClusterName, Locality, RegionName, ServiceId};
use portolan_topology::policy::Scope;
use portolan_topology::topology::Topology;

use crate::measure::Window;

/// A scenario for one topology.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// `metadata.name`.
    pub name: String,
    /// The services that have backends.
    pub services: Vec<Service>,
    /// Who calls them.
    pub clients: Vec<Clients>,
    /// TrafficPolicies, as YAML documents for `portolan policy apply`, applied before time 0.
    pub policies: Vec<String>,
    /// Whether the control planes never reach each other.
    pub block_peers: bool,
    /// How long after a backend's death its readiness goes.
    pub detect: Duration,
    /// What is done, by time.
    pub steps: Vec<Step>,
    /// How long it takes.
    pub duration: Duration,
    /// What must hold; never empty.
    pub expectations: Vec<Expectation>,
}

/// A service with backends in every zone of every cluster.
#[derive(Debug, Clone)]
pub struct Service {
    /// Which.
    pub id: ServiceId,
    /// The Service's port.
    pub port: u16,
    /// Backends in each zone of each cluster.
    pub backends_per_zone: u16,
    /// How long a backend takes to answer.
    pub latency: Duration,
    /// Only here; `None`: everywhere.
    pub within: Option<Scope>,
    /// The service that its backends call once for each request.
    pub calls: Option<ServiceId>,
}

/// Clients of a service in every zone of every cluster.
#[derive(Debug, Clone)]
pub struct Clients {
    /// What they call.
    pub service: ServiceId,
    /// Clients in each zone of each cluster.
    pub per_zone: u16,
    /// Calls a second of each client.
    pub rate: f64,
    /// The deadline of a call.
    pub timeout: Duration,
    /// Whether calls are retried.
    pub retries: bool,
    /// Only here; `None`: everywhere.
    pub within: Option<Scope>,
}

/// One step.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its name, unique.
    pub name: String,
    /// When, after time 0.
    pub at: Duration,
    /// What is done.
    pub action: Action,
}

/// What a step does.
#[derive(Debug, Clone)]
pub enum Action {
    /// SIGKILL.
    Kill {
        /// Whose processes.
        target: Target,
        /// Whether backends die.
        backends: bool,
        /// Whether control planes die.
        control_planes: bool,
    },
    /// Starts again what was killed.
    Restart {
        /// Whose processes.
        target: Target,
    },
    /// Backends turn unready (and go on answering).
    Degrade {
        /// Where.
        scope: Scope,
        /// How many of each zone's, in percent.
        percent: u32,
    },
    /// `portolan drain`.
    Drain {
        /// What.
        scope: Scope,
        /// How long the way out takes.
        over: Duration,
        /// How long the way back takes, once it is given back.
        restore_over: Duration,
    },
    /// `portolan undrain`.
    Undrain {
        /// What.
        scope: Scope,
    },
    /// `portolan policy apply` of this document.
    Policy {
        /// YAML.
        document: String,
    },
    /// Backends are added or taken away, as a Deployment's scale does.
    Scale {
        /// Whose.
        service: ServiceId,
        /// To this many in each zone.
        per_zone: u16,
    },
}

/// Whom a kill or restart is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Everything.
    All,
    /// What is in a scope.
    Scope(Scope),
    /// The control plane that leads the policy group at that moment.
    Leader,
}

/// Something that must hold.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// Its name, unique.
    pub name: String,
    /// Which calls it is about.
    pub window: Between,
    /// Only the clients here; `None`: all.
    pub clients_in: Option<Scope>,
    /// Only calls of this service; `None`: all.
    pub service: Option<ServiceId>,
    /// What must hold.
    pub kind: Wanted,
}

/// The time that an expectation is about, before it is known when the steps really happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Between {
    /// Fixed moments after time 0.
    Times(Window),
    /// From a step (its place in [`Scenario::steps`]) until the next, or the end.
    AfterStep(usize),
}

/// What must hold.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// The part of the successful calls that stays in the caller's zone.
    InZoneSharePercent {
        /// At least.
        min: f64,
        /// At most.
        max: f64,
    },
    /// Who answers, by region; fractions of 1.
    RegionShares {
        /// The fractions; those not named get 0.
        shares: BTreeMap<RegionName, f64>,
        /// How far off each may be, in points of a hundred.
        tolerance_points: f64,
        /// Whether they are the topology's failover weights.
        from_topology: bool,
    },
    /// Who answers, by cluster; fractions of 1.
    ClusterShares {
        /// The fractions; those not named get 0.
        shares: BTreeMap<ClusterName, f64>,
        /// How far off each may be, in points of a hundred.
        tolerance_points: f64,
    },
    /// The killed scope's traffic moved elsewhere within this time.
    MovedWithin {
        /// The time.
        within: Duration,
        /// What was killed.
        killed: Scope,
    },
    /// Failed calls.
    Failed {
        /// At most as many as were in flight at the kill; otherwise `max` alone counts.
        max_in_flight_at_kill: bool,
        /// At most this many.
        max: Option<usize>,
    },
    /// The returned scope takes its share back as a ramp.
    RampsBackOver {
        /// No faster than this.
        min: Duration,
        /// Through at least so many steps.
        steps: usize,
        /// What was restarted or given back.
        returned: Scope,
    },
    /// The 99th percentile of latency, against another window's.
    P99Within {
        /// At most so many times the other's.
        factor: f64,
        /// The other window.
        of: Window,
    },
    /// The killed processes were seen to end, and nobody answers where they listened.
    ProcessGone {
        /// The kill.
        step: usize,
    },
    /// A policy write is acknowledged within this time after the step.
    WritesWithin {
        /// The time.
        within: Duration,
        /// The step.
        step: usize,
    },
    /// Every revision that was acknowledged is still in the history at the end.
    HistoryKept,
    /// The busiest backend's requests over the mean.
    MaxOverMean {
        /// Whose backends.
        service: ServiceId,
        /// At most.
        max: f64,
        /// From this long after the step on.
        within: Duration,
    },
}

impl Scenario {
    /// The window of an expectation by the scenario's own times.
    #[must_use]
    pub fn planned(&self, between: &Between) -> Window {
        match between {
            Between::Times(window) => *window,
            Between::AfterStep(step) => {
                let until = self.steps.get(step + 1).map_or(self.duration, |next| next.at);
                Window::new(self.steps[*step].at, until)
            }
        }
    }

    /// The localities in which a thing confined to `within` exists: every zone of every cluster there, in order.
    #[must_use]
    pub fn localities(topology: &Topology, within: Option<&Scope>) -> Vec<Locality> {
        let all = topology.clusters().flat_map(|cluster| {
            cluster.zones.iter().map(|zone| Locality {
                region: cluster.region.clone(),
                zone: Some(zone.clone()),
                cluster: cluster.name.clone(),
            })
        });
        all.filter(|locality| within.is_none_or(|scope| scope.contains(locality))).collect()
    }

    /// Whether the scenario writes policy, and so needs the policy group.
    #[must_use]
    pub fn writes_policy(&self) -> bool {
        let by_step = self.steps.iter().any(|step| {
            matches!(step.action, Action::Drain { .. } | Action::Undrain { .. } | Action::Policy { .. })
                || matches!(step.action, Action::Kill { target: Target::Leader, .. })
        });
        by_step || !self.policies.is_empty() || self.probes_writes()
    }

    /// Whether policy writes are tried all the time, to see when they work.
    #[must_use]
    pub fn probes_writes(&self) -> bool {
        let probing = |wanted: &Wanted| matches!(wanted, Wanted::WritesWithin { .. } | Wanted::HistoryKept);
        self.expectations.iter().any(|expectation| probing(&expectation.kind))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Scope(scope) => f.write_str(&spoken(scope)),
            Self::Leader => f.write_str("the policy leader"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill { target, backends, control_planes } => {
                write!(f, "kill {target}")?;
                match (backends, control_planes) {
                    (true, true) => Ok(()),
                    (true, false) => f.write_str(" (backends)"),
                    (false, _) => f.write_str(" (control plane)"),
                }
            }
            Self::Restart { target } => write!(f, "restart {target}"),
            Self::Degrade { scope, percent } => write!(f, "degrade {} by {percent}%", spoken(scope)),
            Self::Drain { scope, .. } => write!(f, "drain {}", spoken(scope)),
            Self::Undrain { scope } => write!(f, "undrain {}", spoken(scope)),
            Self::Policy { .. } => f.write_str("apply a policy"),
            Self::Scale { service, per_zone } => write!(f, "scale {service} to {per_zone} a zone"),
        }
    }
}

/// A scope as people say it: `region us-east`.
fn spoken(scope: &Scope) -> String {
    scope.to_string().replace('=', " ")
}
