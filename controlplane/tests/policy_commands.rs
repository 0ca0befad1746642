//! The policy commands as people run them, against a control plane of one voter on loopback.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use portolan_controlplane::catalog::served::{Catalog as _, NameScope, PortRef, Query, Served};
use portolan_controlplane::config::{Config, SourceFrom, TopologyFrom, XdsPort};
use portolan_controlplane::publishing::PublisherFrom;
use portolan_controlplane::source::{Source, SourceStatus};
use portolan_controlplane::{Running, start};
use portolan_federation::PeerPort;
use portolan_federation::certs;
use portolan_federation::disk::MemoryDisk;
use portolan_federation::net::TokioNet;
use portolan_federation::tls::Credentials;
use portolan_topology::names::{Locality, ServiceId};
use portolan_topology::service::{Endpoint, Health, LocalService, LocalServices, Port};
use portolan_topology::topology::Topology;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::watch;

const TOPOLOGY: &str = "
apiVersion: portolan.dev/v1alpha1
kind: Topology
metadata: {name: test}
spec:
  regions:
    - name: us-east
      zones: [us-east-1a, us-east-1b]
      clusters:
        - {name: use1-a, controlPlane: {address: 127.0.0.1, voter: true}}
";

const POLICY: &str = "
apiVersion: portolan.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: checkout, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: checkout}]
  timeout: 2s
";

/// A running control plane; its inputs live as long as it does.
struct ControlPlane {
    running: Running,
    _topology: watch::Sender<Arc<Topology>>,
    _services: watch::Sender<Arc<LocalServices>>,
    _status: watch::Sender<Arc<SourceStatus>>,
    _folder: tempfile::TempDir,
}

/// What a command came to.
#[derive(Debug)]
struct Ran {
    status: i32,
    out: String,
    err: String,
}

/// `checkout.shop` with an endpoint in both zones, `cart.shop` with one in us-east-1b alone.
fn services() -> LocalServices {
    let service = |id: &str, zones: &[&str]| {
        let id: ServiceId = id.parse().unwrap();
        let endpoint = |last: usize| Endpoint {
            address: SocketAddr::from(([10, 0, 0, u8::try_from(last).unwrap()], 8080)),
            weight: NonZeroU32::MIN,
            health: Health::Ready,
            shard: None,
        };
        let zones = zones.iter().enumerate();
        let zones = zones.map(|(number, zone)| (Some(zone.parse().unwrap()), vec![endpoint(number + 1)])).collect();
        let ports = vec![Port { number: 80, name: None }];
        (
            id.clone(),
            Arc::new(LocalService {
                id,
                ports,
                endpoints: BTreeMap::from([(80, zones)]),
                capacity: None,
                warmup: None,
            }),
        )
    };
    let both = &["us-east-1a", "us-east-1b"];
    let services = [service("checkout.shop", both), service("cart.shop", &["us-east-1b"])].into();
    LocalServices { synced: true, services }
}

impl ControlPlane {
    async fn start() -> Self {
        let (topology, _) = Topology::parse("topology.yaml", TOPOLOGY).unwrap();
        let folder = tempfile::tempdir().unwrap();
        certs::dev(folder.path(), &topology, &[], Timestamp::now()).unwrap();
        let cluster = "use1-a".parse().unwrap();
        let credentials = Credentials::from_files(&certs::files_of(folder.path(), &cluster)).unwrap();
        let (topology, topology_stream) = watch::channel(Arc::new(topology));
        let (services, services_stream) = watch::channel(Arc::new(services()));
        let (status, status_stream) = watch::channel(Arc::default());
        let anywhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let config = Config {
            cluster,
            node: "portolan-0".parse().unwrap(),
            topology: TopologyFrom::Given(topology_stream),
            source: SourceFrom::Given(Source {
                services: services_stream,
                gateways: watch::channel(Arc::default()).1,
                status: status_stream,
            }),
            credentials: Arc::new(credentials),
            peers: PeerPort::At(anywhere),
            xds: XdsPort { address: anywhere, tls: None },
            plaintext: None,
            nodes: Vec::new(),
            publisher: PublisherFrom::Always,
            admin: anywhere,
            metrics: anywhere,
        };
        let disk = Arc::new(MemoryDisk::default());
        let running = start(config, Arc::new(TokioNet), disk, StdRng::seed_from_u64(7)).await.unwrap();
        Self { running, _topology: topology, _services: services, _status: status, _folder: folder }
    }

    /// Runs `portolan` with `words` as arguments and `input` on standard input.
    async fn run(&self, words: &[&str], input: &str) -> Ran {
        let mut child = Command::new(env!("CARGO_BIN_EXE_portolan"))
            .args(words)
            .env("PORTOLAN_ADDRESS", self.running.addresses().admin.to_string())
            .env("USER", "ada")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that reads no input may be gone before this.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { status: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Runs a command that must succeed, and gives its output.
    #[track_caller]
    fn done(ran: Ran) -> String {
        assert_eq!(ran.status, 0, "{ran:?}");
        ran.out
    }

    async fn ok(&self, words: &[&str], input: &str) -> String {
        Self::done(self.run(words, input).await)
    }

    /// Runs a command that must fail, and gives what it says.
    async fn fails(&self, status: i32, words: &[&str], input: &str) -> String {
        let ran = self.run(words, input).await;
        assert_eq!((ran.status, ran.out.as_str()), (status, ""), "{words:?} {ran:?}");
        ran.err
    }

    /// Waits until clients in us-east-1a send this share of `checkout.shop` to their own zone.
    async fn own_share_becomes(&self, wanted: f64) {
        let client = Locality {
            region: "us-east".parse().unwrap(),
            zone: Some("us-east-1a".parse().unwrap()),
            cluster: "use1-a".parse().unwrap(),
        };
        let service = "checkout.shop".parse().unwrap();
        let query = Query { service, port: PortRef::First, scope: NameScope::Federation, client: client.clone() };
        let share = |served: &Served| match served {
            Served::Present(service) => {
                let places = service.plan.priorities.iter().flatten();
                Some(places.filter(|place| place.locality == client).map(|place| place.share).sum::<f64>())
            }
            _ => None,
        };
        let mut slot = self.running.catalog().watch(query);
        let there = slot.wait_for(|served| share(served).is_some_and(|share| (share - wanted).abs() < 0.01));
        tokio::time::timeout(Duration::from_secs(20), there).await.expect("the share does not come").unwrap();
    }
}

/// The revision in `… at rN`.
fn revision(written: &str) -> u64 {
    written.trim().rsplit_once("at r").unwrap_or_else(|| panic!("{written:?}")).1.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_applied_read_guarded_rolled_back_and_removed() {
    let portolan = ControlPlane::start().await;
    let key = "TrafficPolicy/shop/checkout";
    let apply = |more: &'static [&str]| [&["policy", "apply", "-f", "-"], more].concat();

    assert_eq!(
        portolan.ok(&apply(&["--dry-run"]), POLICY).await,
        "TrafficPolicy/shop/checkout would be created (dry run)\n"
    );
    assert_eq!(portolan.ok(&["policy", "list"], "").await, "no policy objects\n");

    let written = portolan.ok(&apply(&["--expect-revision", "0"]), POLICY).await;
    let first = revision(&written);
    assert_eq!(written, format!("TrafficPolicy/shop/checkout created at r{first}\n"));
    assert_eq!(portolan.ok(&apply(&[]), POLICY).await, "TrafficPolicy/shop/checkout unchanged\n");

    // What is printed can be applied again as it is.
    let yaml = portolan.ok(&["policy", "get", key, "-o", "yaml", "--consistent"], "").await;
    assert!(yaml.contains("timeout: 2s") && yaml.contains(&format!("revision: {first}")), "{yaml}");
    assert!(yaml.contains("by: ada"), "{yaml}");
    assert_eq!(portolan.ok(&apply(&[]), &yaml).await, "TrafficPolicy/shop/checkout unchanged\n");
    let json = portolan.ok(&["policy", "get", "trafficpolicy/shop/checkout", "-o", "json"], "").await;
    assert_eq!(portolan.ok(&apply(&[]), &json).await, "TrafficPolicy/shop/checkout unchanged\n");

    let slower = POLICY.replace("2s", "3s");
    let refused = portolan.fails(1, &apply(&["--expect-revision", "0"]), &slower).await;
    assert_eq!(
        refused,
        format!(
            "portolan: TrafficPolicy/shop/checkout is at revision {first}, it was expected not to exist; nothing was \
             written: read it and try again\n"
        )
    );
    let second = revision(&portolan.ok(&apply(&[]), &slower).await);
    assert!(second > first);

    let to = first.to_string();
    let back = portolan.ok(&["policy", "rollback", key, "--to-revision", &to], "").await;
    assert_eq!(back, format!("TrafficPolicy/shop/checkout changed at r{}\n", revision(&back)));
    assert!(portolan.ok(&["policy", "get", key, "-o", "yaml"], "").await.contains("timeout: 2s"));

    portolan.ok(&["policy", "delete", key], "").await;
    let gone = portolan.fails(1, &["policy", "get", key], "").await;
    assert_eq!(gone, "portolan: there is no TrafficPolicy/shop/checkout\n");
    let history = portolan.ok(&["policy", "history", key], "").await;
    let changes: Vec<&str> = history.lines().skip(1).filter_map(|line| line.rsplit("  ").next()).collect();
    assert_eq!(changes, ["written", "written", "written", "removed"]);
    portolan.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_moves_traffic_away_and_undrain_gives_it_back() {
    let portolan = ControlPlane::start().await;
    portolan.own_share_becomes(1.0).await;
    let drain = ["drain", "zone=us-east-1a", "--reason", "kernel upgrade", "--over", "0s", "--restore-over", "0s"];
    let drained = portolan.ok(&drain, "").await;
    assert_eq!(drained, format!("Drain/zone-us-east-1a created at r{}\n", revision(&drained)));
    portolan.own_share_becomes(0.0).await;

    let listed = portolan.ok(&["policy", "list", "--kind", "drain", "-o", "wide"], "").await;
    let line = listed.lines().nth(1).unwrap_or_default();
    let cells: Vec<&str> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    assert_eq!((cells[2], cells[4], cells[7]), ("zone-us-east-1a", "zone=us-east-1a", "ada"), "{listed}");

    let other = portolan.fails(1, &["undrain", "zone=us-east-1b"], "").await;
    assert_eq!(other, "portolan: zone=us-east-1b is not drained; drained: zone=us-east-1a\n");
    portolan.ok(&["undrain", "zone=us-east-1a"], "").await;
    portolan.own_share_becomes(1.0).await;
    portolan.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_says_first_which_services_it_would_leave_nothing() {
    let portolan = ControlPlane::start().await;
    let refused = portolan.fails(1, &["drain", "zone=us-east-1b", "--reason", "x"], "").await;
    assert_eq!(
        refused,
        "portolan: this leaves cart.shop nothing ready that is not drained, so what is drained would serve on; force \
         it if that is meant\n"
    );
    let refused = portolan.fails(1, &["drain", "region=us-east", "--reason", "x"], "").await;
    assert!(refused.contains("this leaves 2 services (cart.shop, checkout.shop) nothing"), "{refused}");
    assert_eq!(portolan.ok(&["policy", "list"], "").await, "no policy objects\n");

    let one = ["drain", "zone=us-east-1b", "--reason", "x", "--service", "checkout.shop", "--dry-run"];
    assert_eq!(portolan.ok(&one, "").await, "Drain/zone-us-east-1b would be created (dry run)\n");
    let forced = portolan.run(&["drain", "zone=us-east-1b", "--reason", "x", "--force"], "").await;
    assert_eq!(forced.status, 0, "{forced:?}");
    assert!(forced.err.starts_with("portolan: warning: this leaves cart.shop nothing"), "{forced:?}");
    portolan.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_say_where_what_was_expected_and_what_may_be_meant() {
    let portolan = ControlPlane::start().await;
    for (status, words, input, wanted) in [
        (
            1,
            &["drain", "region=us-eats", "--reason", "x"][..],
            "",
            "unknown region `us-eats`; expected `us-east`; did you mean `us-east`?",
        ),
        (
            1,
            &["drain", "cluster=use1-b", "--reason", "x"],
            "",
            "unknown cluster `use1-b`; expected `use1-a`; did you mean `use1-a`?",
        ),
        (1, &["drain", "zone=us-east-1a", "--reason", " "], "", "the reason is empty"),
        (
            2,
            &["drain", "us-east", "--reason", "x"],
            "",
            "`us-east` is not a scope: expected region=NAME, cluster=NAME or zone=NAME",
        ),
        (2, &["drain", "region=us-east"], "", "--reason"),
        (2, &["drain", "region=us-east", "--reason", "x", "--over", "5"], "", "not a duration"),
        (2, &["drain", "region=us-east", "--reason", "x", "--percent", "0"], "", "1..=100"),
        (2, &["policy", "get", "checkout"], "", "expected TrafficPolicy/NAMESPACE/NAME or Drain/NAME"),
        (1, &["policy", "get", "Drain/x"], "", "there is no Drain/x"),
        (1, &["policy", "apply", "-f", "-"], "kind: [", "stdin:1:"),
        (1, &["policy", "apply", "-f", "-"], "", "stdin: there is no object in it"),
        (1, &["policy", "apply", "-f", "-"], &POLICY.replace("timeout", "timeuot"), "did you mean `timeout`?"),
        (1, &["policy", "apply", "-f", "/nonexistent/policy.yaml"], "", "/nonexistent/policy.yaml cannot be read"),
        (1, &["policy", "delete", "Drain/x"], "", "there is no Drain/x"),
        (1, &["undrain", "region=us-east"], "", "region=us-east is not drained; nothing is"),
        (1, &["policy", "list", "--address", "127.0.0.1:1"], "", "no control plane answers at 127.0.0.1:1"),
    ] {
        let said = portolan.fails(status, words, input).await;
        assert!(said.contains(wanted), "{words:?}: {said}");
    }
    assert_eq!(portolan.ok(&["policy", "list"], "").await, "no policy objects\n");
    portolan.running.stop().await;
}
