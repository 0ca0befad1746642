//! Services, EndpointSlices, Pods and Nodes as sources keep them: the few fields that count, however they were read, and
//! what they come to together. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use portolan_topology::diagnostic::nearest;
use portolan_topology::duration::DurationText;
use portolan_topology::names::{ServiceId, ZoneName};
use portolan_topology::service::{Endpoint, EndpointsByZone, Health, LocalService, Port};

/// The label by which a slice names its Service.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label by which a Node names its zone.
pub(super) const NODE_ZONE: &str = "topology.kubernetes.io/zone";
/// The label by which a Node names its region. The topology says the region of a zone; a label that says another is told of.
pub(super) const NODE_REGION: &str = "topology.kubernetes.io/region";

/// What our annotations begin with.
const PREFIX: &str = "portolan.dev/";
/// An endpoint's share against its peers; of a Service: each of its endpoints', unless its Pod says otherwise.
const WEIGHT: &str = "weight";
/// Requests a second that a ready endpoint of weight 1 carries; of a Service.
const CAPACITY: &str = "capacity";
/// How long the share of a new endpoint grows; of a Service.
const WARMUP: &str = "warmup";
/// Which of an object's labels names its shard; of a Service: each of its endpoints', unless its Pod says otherwise.
const SHARD_LABEL: &str = "shard-label";
/// The largest weight: a hundred such endpoints stay far from where a priority's sum of weights must end (2³²).
const MAX_WEIGHT: u32 = 1_000;
/// The largest capacity.
const MAX_CAPACITY: u32 = 10_000_000;
/// The longest warm-up.
const MAX_WARMUP: Duration = Duration::from_secs(3600);
/// The longest name of a shard: what a label of Kubernetes holds.
const MAX_SHARD: usize = 63;

/// An object's labels, by key.
pub(super) type Labels<'a> = dyn Fn(&str) -> Option<&'a str> + 'a;

/// What annotations say of an object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Settings {
    /// [`WEIGHT`].
    pub weight: Option<NonZeroU32>,
    /// [`CAPACITY`].
    pub capacity: Option<NonZeroU32>,
    /// [`WARMUP`].
    pub warmup: Option<Duration>,
    /// What the label named by [`SHARD_LABEL`] says.
    pub shard: Option<Arc<str>>,
}

/// What counts of a Pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct PodSettings {
    /// [`WEIGHT`].
    pub weight: Option<NonZeroU32>,
    /// What the label named by [`SHARD_LABEL`] says.
    pub shard: Option<Arc<str>>,
}

impl Settings {
    /// Reads the annotations that are ours. A mistake is told by its annotation's key, and that annotation does not
    /// count; it takes nothing else away, since whoever mistypes a number must not lose a service by it.
    pub(super) fn read<'a>(
        annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
        labels: &Labels<'a>,
    ) -> (Self, Vec<(&'a str, String)>) {
        let mut settings = Self::default();
        let mut mistakes = Vec::new();
        for (key, text) in annotations {
            let read = match key.strip_prefix(PREFIX) {
                None => continue,
                Some(WEIGHT) => whole_number(text, MAX_WEIGHT).map(|weight| settings.weight = Some(weight)),
                Some(CAPACITY) => whole_number(text, MAX_CAPACITY).map(|capacity| settings.capacity = Some(capacity)),
                Some(WARMUP) => duration(text, MAX_WARMUP).map(|warmup| settings.warmup = Some(warmup)),
                Some(SHARD_LABEL) => shard(text, labels).map(|shard| settings.shard = Some(shard)),
                Some(unknown) => Err(unknown_annotation(unknown)),
            };
            if let Err(wrong) = read {
                mistakes.push((key, wrong));
            }
        }
        (settings, mistakes)
    }

    /// The same of a Pod, which has a weight and a shard of its own and nothing else; `None` if it says neither.
    pub(super) fn read_of_pod<'a>(
        annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
        labels: &Labels<'a>,
    ) -> (Option<PodSettings>, Vec<(&'a str, String)>) {
        let (mut weights, mut mistakes) = (Vec::new(), Vec::new());
        for (key, text) in annotations {
            match key.strip_prefix(PREFIX) {
                Some(CAPACITY) => {
                    mistakes.push((key, "it is a Service's; a Pod's share of it is its weight".to_owned()))
                }
                Some(WARMUP) => {
                    mistakes.push((key, "it is a Service's; all of its endpoints warm up alike".to_owned()))
                }
                _ => weights.push((key, text)),
            }
        }
        let (Self { weight, shard, .. }, wrong) = Self::read(weights, labels);
        mistakes.extend(wrong);
        let settings = PodSettings { weight, shard };
        (Some(settings).filter(|settings| *settings != PodSettings::default()), mistakes)
    }
}

fn whole_number(text: &str, most: u32) -> Result<NonZeroU32, String> {
    let number = text.trim().parse().ok().filter(|number: &NonZeroU32| number.get() <= most);
    number.ok_or_else(|| format!("`{}` is not a whole number from 1 to {most}", short(text)))
}

fn duration(text: &str, most: Duration) -> Result<Duration, String> {
    let given = text.trim().parse::<DurationText>().ok().map(|DurationText(given)| given);
    let given = given.filter(|given| !given.is_zero() && *given <= most);
    let most = DurationText(most);
    given.ok_or_else(|| format!("`{}` is not a duration such as `30s` or `2m`, above 0s and up to {most}", short(text)))
}

fn shard(label: &str, labels: &Labels<'_>) -> Result<Arc<str>, String> {
    match labels(label.trim()) {
        None => Err(format!("it has no label `{}`", short(label))),
        Some("") => Err(format!("its label `{}` is empty", short(label))),
        Some(shard) if shard.len() > MAX_SHARD => Err(format!("`{}` is longer than {MAX_SHARD} letters", short(shard))),
        Some(shard) => Ok(shard.into()),
    }
}

fn unknown_annotation(name: &str) -> String {
    let known = [WEIGHT, CAPACITY, WARMUP, SHARD_LABEL];
    match nearest(name, known) {
        Some(known) => format!("unknown annotation; did you mean `{PREFIX}{known}`?"),
        None => {
            let [first @ .., last] = known.map(|name| format!("`{PREFIX}{name}`"));
            format!("unknown annotation; {} and {last} are known", first.join(", "))
        }
    }
}

/// Somebody's text, cut where it would fill a screen.
fn short(text: &str) -> String {
    const MOST: usize = 40;
    let mut shown: String = text.chars().take(MOST).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    pub id: ServiceId,
    /// Those of TCP, in its order.
    pub ports: Vec<Port>,
    pub settings: Settings,
}

/// An EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slice {
    pub service: ServiceId,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<SliceEndpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SlicePort {
    pub name: Option<String>,
    pub number: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SliceEndpoint {
    pub address: IpAddr,
    /// As the slice says.
    pub zone: Option<ZoneName>,
    pub health: Health,
    /// Where it runs, if the slice names no zone.
    pub node: Option<Box<str>>,
    /// The Pod behind it.
    pub pod: Option<Box<str>>,
}

/// What stands around a cluster's services.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    /// What Pods say, by namespace and name.
    pub pods: HashMap<(String, String), PodSettings>,
    /// Zones by Node.
    pub nodes: HashMap<String, ZoneName>,
}

impl Surroundings {
    /// What the Pod behind it says.
    fn pod(&self, service: &Service, endpoint: &SliceEndpoint) -> Option<&PodSettings> {
        let pod = endpoint.pod.as_ref().filter(|_| !self.pods.is_empty())?;
        self.pods.get(&(service.id.namespace().to_owned(), pod.to_string()))
    }

    fn zone(&self, endpoint: &SliceEndpoint) -> Option<ZoneName> {
        let of_node = || self.nodes.get(endpoint.node.as_deref()?).cloned();
        endpoint.zone.clone().or_else(of_node)
    }

    /// What a Service and its slices come to.
    pub(super) fn local_service(&self, service: &Service, slices: &[&Slice]) -> LocalService {
        let of_port = |port: &Port| (port.number, self.endpoints(service, port, slices));
        LocalService {
            id: service.id.clone(),
            ports: service.ports.clone(),
            endpoints: service.ports.iter().map(of_port).collect(),
            capacity: service.settings.capacity,
            warmup: service.settings.warmup,
        }
    }

    /// The endpoints of one port. An address that several slices list stands once: where it is best off. A Pod that
    /// goes may leave its address to the next while both are listed.
    fn endpoints(&self, service: &Service, port: &Port, slices: &[&Slice]) -> EndpointsByZone {
        let mut best: BTreeMap<SocketAddr, &SliceEndpoint> = BTreeMap::new();
        for slice in slices {
            // A Service's port is joined to a slice's by name; a single port has none on either side.
            let Some(target) = slice.ports.iter().find(|target| target.name == port.name) else { continue };
            for endpoint in &slice.endpoints {
                let address = SocketAddr::new(endpoint.address, target.number);
                let known = best.entry(address).or_insert(endpoint);
                if rank(endpoint.health) < rank(known.health) {
                    *known = endpoint;
                }
            }
        }
        let mut zones = EndpointsByZone::new();
        for (address, endpoint) in best {
            let pod = self.pod(service, endpoint);
            let weight = pod.and_then(|pod| pod.weight).or(service.settings.weight).unwrap_or(NonZeroU32::MIN);
            let shard = pod.and_then(|pod| pod.shard.clone()).or_else(|| service.settings.shard.clone());
            let listed = Endpoint { address, weight, health: endpoint.health, shard };
            zones.entry(self.zone(endpoint)).or_default().push(listed);
        }
        // They stay for as long as nothing changes.
        zones.values_mut().for_each(Vec::shrink_to_fit);
        zones
    }
}

/// Lower is better off.
fn rank(health: Health) -> u8 {
    match health {
        Health::Ready => 0,
        Health::Draining => 1,
        Health::NotReady => 2,
    }
}

/// An endpoint's health by its conditions. Absent ones mean: ready, as ready as serving, not terminating.
pub(super) fn health(ready: Option<bool>, serving: Option<bool>, terminating: Option<bool>) -> Health {
    let ready = ready.unwrap_or(true);
    if terminating.unwrap_or(false) {
        if serving.unwrap_or(ready) { Health::Draining } else { Health::NotReady }
    } else if ready {
        Health::Ready
    } else {
        Health::NotReady
    }
}

/// Whether a port's protocol is one that xDS clients speak.
pub(super) fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}

/// A port's name; an empty one is none.
pub(super) fn port_name(name: Option<&str>) -> Option<String> {
    name.filter(|name| !name.is_empty()).map(str::to_owned)
}

/// A port's number, if it is one.
pub(super) fn port_number(number: i64) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_read_or_named() {
        let read = |key: &'static str, text: &'static str| {
            let (settings, mistakes) = Settings::read([("other/weight", "x"), (key, text)], &|_| None);
            (settings.weight.map(NonZeroU32::get), settings.capacity.map(NonZeroU32::get), mistakes)
        };
        assert_eq!(read("portolan.dev/weight", "20"), (Some(20), None, vec![]));
        assert_eq!(read("portolan.dev/capacity", " 250 "), (None, Some(250), vec![]));
        for hostile in ["-1", "0", "1e30", "abc", "", "1.5", "NaN", "99999999999999999999", "1001"] {
            let (weight, _, mistakes) = read("portolan.dev/weight", hostile);
            assert_eq!((weight, mistakes.len()), (None, 1), "{hostile}");
            assert_eq!(mistakes[0].1, format!("`{hostile}` is not a whole number from 1 to 1000"));
        }
        let (.., mistakes) = read("portolan.dev/wieght", "1");
        assert_eq!(
            mistakes,
            [("portolan.dev/wieght", "unknown annotation; did you mean `portolan.dev/weight`?".into())]
        );
        let long = "9".repeat(10_000).leak();
        assert!(read("portolan.dev/weight", long).2[0].1.len() < 120);
    }

    #[test]
    fn a_warm_up_is_a_duration() {
        let read = |text: &'static str| {
            let (settings, mistakes) = Settings::read([("portolan.dev/warmup", text)], &|_| None);
            (settings.warmup.map(|warmup| warmup.as_secs()), mistakes.into_iter().map(|(_, wrong)| wrong).next())
        };
        assert_eq!(read("90s"), (Some(90), None));
        assert_eq!(read(" 1h "), (Some(3600), None));
        for hostile in ["0s", "-5s", "2h", "60", "1e9s", "soon", "", "99999999999999999999h"] {
            let (warmup, mistake) = read(hostile);
            let wanted = format!("`{hostile}` is not a duration such as `30s` or `2m`, above 0s and up to 1h");
            assert_eq!((warmup, mistake), (None, Some(wanted)));
        }
    }

    #[test]
    fn a_shard_is_what_the_label_says_that_is_named() {
        let long = "x".repeat(64).leak();
        let labels = |key: &str| match key {
            "region" => Some("eu"),
            "empty" => Some(""),
            "long" => Some(&*long),
            _ => None,
        };
        let read = |text: &'static str| {
            let (settings, mistakes) = Settings::read([("portolan.dev/shard-label", text)], &labels);
            (settings.shard, mistakes.into_iter().map(|(_, wrong)| wrong).next())
        };
        assert_eq!(read("region"), (Some("eu".into()), None));
        assert_eq!(read("zone"), (None, Some("it has no label `zone`".to_owned())));
        assert_eq!(read("empty"), (None, Some("its label `empty` is empty".to_owned())));
        let wrong = format!("`{}…` is longer than 63 letters", "x".repeat(40));
        assert_eq!(read("long"), (None, Some(wrong)));
    }

    #[test]
    fn health_follows_the_conditions() {
        let (yes, no) = (Some(true), Some(false));
        for (ready, serving, terminating, wanted) in [
            (None, None, None, Health::Ready),
            (yes, yes, no, Health::Ready),
            (no, yes, yes, Health::Draining),
            (no, no, yes, Health::NotReady),
            (no, yes, no, Health::NotReady),
            (yes, None, yes, Health::Draining),
        ] {
            assert_eq!(health(ready, serving, terminating), wanted, "{ready:?} {serving:?} {terminating:?}");
        }
    }

    #[test]
    fn a_pods_weight_beats_its_services_and_a_nodes_zone_stands_in_for_a_missing_one() {
        let weight = |number| NonZeroU32::new(number).unwrap();
        let zone: ZoneName = "z-1".parse().unwrap();
        let big = PodSettings { weight: Some(weight(8)), shard: Some("eu".into()) };
        let around = Surroundings {
            pods: [(("shop".to_owned(), "big".to_owned()), big)].into(),
            nodes: [("n".to_owned(), zone.clone())].into(),
        };
        let service = Service {
            id: "checkout.shop".parse().unwrap(),
            ports: vec![Port { number: 80, name: None }],
            settings: Settings {
                weight: Some(weight(2)),
                capacity: Some(weight(50)),
                warmup: Some(Duration::from_secs(9)),
                shard: Some("us".into()),
            },
        };
        let endpoint = |last, pod: &str, node: Option<&str>| SliceEndpoint {
            address: IpAddr::from([10, 1, 0, last]),
            zone: None,
            health: Health::Ready,
            node: node.map(Into::into),
            pod: Some(pod.into()),
        };
        let slice = Slice {
            service: service.id.clone(),
            ports: vec![SlicePort { name: None, number: 8080 }],
            endpoints: vec![endpoint(1, "big", Some("n")), endpoint(2, "small", Some("unknown"))],
        };
        let local = around.local_service(&service, &[&slice]);
        assert_eq!(local.endpoints[&80][&Some(zone)][0].weight, weight(8));
        assert_eq!(local.endpoints[&80][&None][0].weight, weight(2));
        let shards = local.endpoints[&80].values().map(|endpoints| endpoints[0].shard.as_deref());
        assert_eq!(shards.collect::<Vec<_>>(), [Some("us"), Some("eu")]);
        assert_eq!((local.capacity, local.warmup), (Some(weight(50)), Some(Duration::from_secs(9))));
    }
}
