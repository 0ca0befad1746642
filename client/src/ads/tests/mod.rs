//! The driver against scripted control planes.

mod plane;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::load_stats::v3::LoadStatsResponse;
use envoy_types::pb::google::protobuf::Duration as ProtoDuration;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use super::XdsClient;
use crate::xds::bootstrap::{Bootstrap, Origin};
use crate::xds::fixtures::*;
use crate::xds::model::{LocalityName, Resolution};
use crate::xds::resources::Kind;
use plane::{Network, Plane};

type Ads = plane::Peer<
    envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest,
    envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse,
>;

fn bootstrap(servers: &[&str]) -> Bootstrap {
    let servers: Vec<_> = servers
        .iter()
        .map(|uri| serde_json::json!({"server_uri": uri, "channel_creds": [{"type": "insecure"}]}))
        .collect();
    let text = serde_json::json!({"xds_servers": servers, "node": {"id": "n"}}).to_string();
    Bootstrap::parse(&text, Origin::Variable).unwrap()
}

fn client(network: &Arc<Network>, servers: &[&str]) -> XdsClient {
    XdsClient::with(bootstrap(servers), network.clone(), StdRng::seed_from_u64(1))
}

fn watch(client: &XdsClient, name: &str) -> watch::Receiver<Resolution> {
    client.watch(format!("xds:///{name}").parse().unwrap())
}

/// Gives `l` → `r` → `c` → `c` with one endpoint, and hears the last acknowledgement.
async fn give_all(ads: &mut Ads, version: &str, address: &str) {
    give_all_of(ads, version, cluster("c", ""), address).await;
}

async fn give_all_of(ads: &mut Ads, version: &str, cluster: envoy_types::pb::google::protobuf::Any, address: &str) {
    ads.give(Kind::Listener, version, vec![listener("l", "r")]);
    ads.answer_to(Kind::Listener, version).await;
    ads.give(Kind::RouteConfiguration, version, vec![routes("r", "c")]);
    ads.answer_to(Kind::RouteConfiguration, version).await;
    ads.give(Kind::Cluster, version, vec![cluster]);
    ads.answer_to(Kind::Cluster, version).await;
    ads.give(Kind::ClusterLoadAssignment, version, vec![assignment("c", &[address])]);
    let acknowledged = ads.answer_to(Kind::ClusterLoadAssignment, version).await;
    assert_eq!(acknowledged.error_detail, None);
}

fn address(resolution: &Resolution) -> Option<String> {
    let Resolution::Routing(routing) = resolution else { return None };
    Some(routing.assignments().next()?.priorities.first()?.first()?.endpoints.first()?.address.to_string())
}

async fn until(slot: &mut watch::Receiver<Resolution>, wanted: impl Fn(&Resolution) -> bool) -> Resolution {
    let waiting = tokio::time::timeout(Duration::from_secs(300), slot.wait_for(|resolution| wanted(resolution)));
    waiting.await.expect("it never came").expect("the driver lives").clone()
}

async fn until_address(slot: &mut watch::Receiver<Resolution>, wanted: &str) {
    until(slot, |resolution| address(resolution).as_deref() == Some(wanted)).await;
}

async fn resolved(plane: &mut Plane, slot: &mut watch::Receiver<Resolution>) -> Ads {
    let mut ads = plane.ads().await;
    give_all(&mut ads, "1", "10.0.0.1:80").await;
    until_address(slot, "10.0.0.1:80").await;
    ads
}

#[tokio::test(start_paused = true)]
async fn a_name_is_resolved_and_kept_up() {
    let network = Arc::new(Network::default());
    let mut plane = network.plane("one:1", None);
    let client = client(&network, &["one:1"]);
    let mut slot = watch(&client, "l");
    assert_eq!(*slot.borrow(), Resolution::Pending);
    let mut ads = resolved(&mut plane, &mut slot).await;
    ads.give(Kind::ClusterLoadAssignment, "2", vec![assignment("c", &["10.0.0.2:80"])]);
    until_address(&mut slot, "10.0.0.2:80").await;
    assert_eq!(ads.answer_to(Kind::ClusterLoadAssignment, "2").await.version_info, "2");
}

#[tokio::test(start_paused = true)]
async fn a_tool_is_told_what_the_client_holds() {
    use envoy_types::pb::envoy::service::status::v3::ClientStatusRequest;
    use envoy_types::pb::envoy::service::status::v3::client_status_discovery_service_server::ClientStatusDiscoveryService as _;

    let network = Arc::new(Network::default());
    let mut plane = network.plane("one:1", None);
    let client = client(&network, &["one:1"]);
    let mut slot = watch(&client, "l");
    let _ads = resolved(&mut plane, &mut slot).await;
    let asked = client.fetch_client_status(tonic::Request::new(ClientStatusRequest::default())).await;
    let told = asked.unwrap().into_inner();
    let names: Vec<_> = told.config[0].generic_xds_configs.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["l", "r", "c", "c"]);
    assert_eq!(told, client.status().await);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_dialled_before_a_name_is_watched() {
    let network = Arc::new(Network::default());
    let mut plane = network.plane("one:1", None);
    let client = client(&network, &["one:1"]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(network.dialled("one:1"), 0);
    let mut slot = watch(&client, "l");
    resolved(&mut plane, &mut slot).await;
    assert_eq!(network.dialled("one:1"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_starts_before_its_server_waits_for_it() {
    let network = Arc::new(Network::default());
    let client = client(&network, &["one:1"]);
    let mut slot = watch(&client, "l");
    let start = Instant::now();
    tokio::time::sleep(Duration::from_secs(120)).await;
    let dialled = network.dialled("one:1");
    assert!((5..60).contains(&dialled), "{dialled} attempts in {:?}", start.elapsed());
    assert_eq!(*slot.borrow(), Resolution::Pending);
    let mut plane = network.plane("one:1", None);
    resolved(&mut plane, &mut slot).await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_stream_is_taken_up_again_and_the_last_state_stays_meanwhile() {
    let network = Arc::new(Network::default());
    let mut plane = network.plane("one:1", None);
    let client = client(&network, &["one:1"]);
    let mut slot = watch(&client, "l");
    let ads = resolved(&mut plane, &mut slot).await;
    slot.mark_unchanged();
    let broke = Instant::now();
    ads.fail(Status::unavailable("going down"));
    let mut again = plane.ads().await;
    assert!(broke.elapsed() <= Duration::from_millis(250), "{:?}", broke.elapsed());
    let first = again.hear().await;
    assert_eq!((first.version_info.as_str(), first.response_nonce.as_str()), ("1", ""));
    assert!(first.node.is_some());
    assert!(!slot.has_changed().unwrap());
    give_all(&mut again, "2", "10.0.0.2:80").await;
    until_address(&mut slot, "10.0.0.2:80").await;
}

#[tokio::test(start_paused = true)]
async fn a_plane_that_stays_dead_costs_nothing_but_updates() {
    let network = Arc::new(Network::default());
    let mut plane = network.plane("one:1", None);
    let client = client(&network, &["one:1"]);
    let mut slot = watch(&client, "l");
    let ads = resolved(&mut plane, &mut slot).await;
    slot.mark_unchanged();
    network.silence("one:1");
    drop(ads);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(!slot.has_changed().unwrap());
    let mut second = watch(&client, "l");
    until_address(&mut second, "10.0.0.1:80").await;
    let mut plane = network.plane("one:1", None);
    let mut ads = plane.ads().await;
    give_all(&mut ads, "2", "10.0.0.2:80").await;
    until_address(&mut slot, "10.0.0.2:80").await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_resource_is_told_and_the_next_good_one_is_taken() {
    let network = Arc::new(Network::default());
    let mut plane = network.plane("one:1", None);
    let client = client(&network, &["one:1"]);
    let mut slot = watch(&client, "l");
    let mut ads = resolved(&mut plane, &mut slot).await;
    slot.mark_unchanged();
    let gap = assignment_of("c", vec![zone(1, "a", 1, &["10.0.0.2:80"])]);
    ads.give(Kind::ClusterLoadAssignment, "2", vec![gap]);
    let refused = ads.answer_to(Kind::ClusterLoadAssignment, "2").await;
    assert_eq!(refused.version_info, "1");
    assert!(refused.error_detail.unwrap().message.contains("priority 0 is empty"));
    assert!(!slot.has_changed().unwrap());
    ads.give(Kind::ClusterLoadAssignment, "3", vec![assignment("c", &["10.0.0.3:80"])]);
    until_address(&mut slot, "10.0.0.3:80").await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_exist_is_said_at_once_and_a_silence_after_fifteen_seconds() {
    let network = Arc::new(Network::default());
    let mut plane = network.plane("one:1", None);
    let client = client(&network, &["one:1"]);
    let mut said = watch(&client, "absent");
    let mut ads = plane.ads().await;
    let start = Instant::now();
    ads.give(Kind::Listener, "1", vec![absent_listener("absent")]);
    until(
        &mut said,
        |it| matches!(it, Resolution::NotFound { reason, .. } if reason.contains("knows no service `absent`")),
    )
    .await;
    assert!(start.elapsed() < Duration::from_secs(1));

    let mut silent = watch(&client, "silent");
    until(&mut silent, |it| matches!(it, Resolution::NotFound { resource, .. } if &**resource == "Listener `silent`"))
        .await;
    let waited = start.elapsed();
    assert!((Duration::from_secs(14)..Duration::from_secs(17)).contains(&waited), "{waited:?}");

    ads.give(Kind::Listener, "2", vec![listener("silent", "r"), absent_listener("absent")]);
    ads.answer_to(Kind::Listener, "2").await;
    ads.give(Kind::RouteConfiguration, "2", vec![routes("r", "c")]);
    ads.give(Kind::Cluster, "2", vec![cluster("c", "")]);
    ads.answer_to(Kind::RouteConfiguration, "2").await;
    ads.give(Kind::Cluster, "3", vec![cluster("c", "")]);
    ads.answer_to(Kind::Cluster, "3").await;
    ads.give(Kind::ClusterLoadAssignment, "2", vec![assignment("c", &["10.0.0.1:80"])]);
    until_address(&mut silent, "10.0.0.1:80").await;
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_is_left_out_is_gone() {
    let network = Arc::new(Network::default());
    let mut plane = network.plane("one:1", None);
    let client = client(&network, &["one:1"]);
    let mut slot = watch(&client, "l");
    let ads = resolved(&mut plane, &mut slot).await;
    ads.give(Kind::Listener, "2", vec![]);
    until(&mut slot, |it| matches!(it, Resolution::NotFound { resource, .. } if &**resource == "Listener `l`")).await;
}

#[tokio::test(start_paused = true)]
async fn the_next_server_stands_in_until_the_first_is_back() {
    let network = Arc::new(Network::default());
    let mut first = network.plane("one:1", None);
    let mut second = network.plane("two:1", None);
    let client = client(&network, &["one:1", "two:1"]);
    let mut slot = watch(&client, "l");
    let ads = resolved(&mut first, &mut slot).await;
    assert_eq!(network.dialled("two:1"), 0, "the preferred server is enough");

    network.silence("one:1");
    drop(ads);
    let mut stand_in = second.ads().await;
    let request = stand_in.hear().await;
    assert_eq!(request.version_info, "", "another server's versions mean nothing here");
    assert_eq!(address(&slot.borrow()).as_deref(), Some("10.0.0.1:80"));
    give_all(&mut stand_in, "7", "10.0.0.7:80").await;
    until_address(&mut slot, "10.0.0.7:80").await;

    let mut first = network.plane("one:1", None);
    let mut probe = first.ads().await;
    assert_eq!(probe.hear().await.resource_names, ["l"]);
    stand_in.give(Kind::ClusterLoadAssignment, "8", vec![assignment("c", &["10.0.0.6:80"])]);
    until_address(&mut slot, "10.0.0.6:80").await;
    stand_in.give(Kind::ClusterLoadAssignment, "9", vec![assignment("c", &["10.0.0.7:80"])]);
    until_address(&mut slot, "10.0.0.7:80").await;
    probe.give(Kind::Listener, "1", vec![listener("l", "r")]);
    let mut back = first.ads().await;
    stand_in.closed().await;
    assert_eq!(address(&slot.borrow()).as_deref(), Some("10.0.0.7:80"));
    give_all(&mut back, "8", "10.0.0.8:80").await;
    until_address(&mut slot, "10.0.0.8:80").await;
}

#[tokio::test(start_paused = true)]
async fn what_a_stand_in_does_not_know_stays() {
    let network = Arc::new(Network::default());
    let mut first = network.plane("one:1", None);
    let mut second = network.plane("two:1", None);
    let client = client(&network, &["one:1", "two:1"]);
    let mut slot = watch(&client, "l");
    let ads = resolved(&mut first, &mut slot).await;
    slot.mark_unchanged();
    network.silence("one:1");
    drop(ads);
    let mut stand_in = second.ads().await;
    stand_in.give(Kind::Listener, "1", vec![]);
    stand_in.answer_to(Kind::Listener, "1").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!slot.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_reached_but_says_nothing_is_passed_over() {
    let network = Arc::new(Network::default());
    let mut first = network.plane("one:1", None);
    let mut second = network.plane("two:1", None);
    let client = client(&network, &["one:1", "two:1"]);
    let mut slot = watch(&client, "l");
    let mut mute = first.ads().await;
    mute.hear().await;
    let mut ads = second.ads().await;
    give_all(&mut ads, "1", "10.0.0.1:80").await;
    until_address(&mut slot, "10.0.0.1:80").await;
}

#[tokio::test(start_paused = true)]
async fn a_hanging_first_server_does_not_take_the_stand_ins_place() {
    let network = Arc::new(Network::default());
    let _hanging = network.frozen("one:1");
    let mut second = network.plane("two:1", None);
    let client = client(&network, &["one:1", "two:1"]);
    let mut slot = watch(&client, "l");
    let ads = resolved(&mut second, &mut slot).await;
    for i in 2..20 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let address = format!("10.0.0.{i}:80");
        ads.give(Kind::ClusterLoadAssignment, &address, vec![assignment("c", &[&address])]);
        let waited = Instant::now();
        until_address(&mut slot, &address).await;
        assert!(waited.elapsed() < Duration::from_secs(1), "it listens all the time");
    }
    assert!(network.dialled("one:1") > 2, "and the first server is tried again");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_is_dialled_again_even_if_there_is_no_other() {
    let network = Arc::new(Network::default());
    let mut connections = network.frozen("one:1");
    let client = client(&network, &["one:1"]);
    let _slot = watch(&client, "l");
    let mut kept = vec![connections.recv().await.unwrap()];
    let start = Instant::now();
    kept.push(connections.recv().await.unwrap());
    let waited = start.elapsed();
    assert!(waited < Duration::from_secs(40), "a PING is owed after 30 s, and its answer 5 s later: {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_nobody_watches_is_unsubscribed() {
    let network = Arc::new(Network::default());
    let mut plane = network.plane("one:1", None);
    let client = client(&network, &["one:1"]);
    let mut slot = watch(&client, "l");
    let twice = watch(&client, "l");
    let mut ads = resolved(&mut plane, &mut slot).await;
    drop(twice);
    let other = watch(&client, "other");
    assert_eq!(ads.hear().await.resource_names, ["l", "other"], "somebody else still wants it");
    drop(slot);
    assert_eq!(ads.hear().await.resource_names, ["other"]);
    drop((client, other));
    ads.closed().await;
}

#[tokio::test(start_paused = true)]
async fn load_is_reported_as_the_server_asks() {
    let network = Arc::new(Network::default());
    let mut plane = network.plane("one:1", None);
    let client = client(&network, &["one:1"]);
    let mut slot = watch(&client, "l");
    let mut ads = plane.ads().await;
    give_all_of(&mut ads, "1", reporting_cluster("c"), "10.0.0.1:80").await;
    until(&mut slot, |it| matches!(it, Resolution::Routing(routing) if routing.assignments().all(|it| it.report_load)))
        .await;

    let mut lrs = plane.lrs().await;
    let node = lrs.hear().await.node.unwrap();
    assert!(node.client_features.iter().any(|feature| feature == "envoy.lrs.supports_send_all_clusters"));
    let locality = LocalityName { region: "us".into(), zone: "a".into(), sub_zone: "one".into() };
    let load = client.load().locality(&"c".into(), &"".into(), &locality);
    let unasked = client.load().locality(&"elsewhere".into(), &"".into(), &locality);
    for _ in 0..3 {
        load.started();
        unasked.started();
    }
    load.finished(true);
    load.finished(false);
    let asked = Instant::now();
    lrs.say(LoadStatsResponse {
        clusters: vec!["c".to_owned(), "elsewhere".to_owned()],
        load_reporting_interval: Some(ProtoDuration { seconds: 2, nanos: 0 }),
        ..LoadStatsResponse::default()
    });
    let report = lrs.hear().await;
    assert!(asked.elapsed() >= Duration::from_secs(2));
    let [stats] = report.cluster_stats.as_slice() else { panic!("{report:?}") };
    assert_eq!((stats.cluster_name.as_str(), stats.load_report_interval.unwrap().seconds), ("c", 2));
    let [line] = stats.upstream_locality_stats.as_slice() else { panic!("{stats:?}") };
    assert_eq!(line.locality.as_ref().unwrap().zone, "a");
    assert_eq!(
        (
            line.total_issued_requests,
            line.total_successful_requests,
            line.total_error_requests,
            line.total_requests_in_progress
        ),
        (3, 1, 1, 1)
    );

    // The cluster wants no reports any more: the stream ends, the ADS stream does not.
    ads.give(Kind::Cluster, "2", vec![cluster("c", "")]);
    lrs.closed().await;
    ads.answer_to(Kind::Cluster, "2").await;
}

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// Certificate and key in PEM for a host.
    fn issue(&self, host: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn server(&self, host: &str) -> ServerTlsConfig {
        let (certificate, key) = self.issue(host);
        ServerTlsConfig::new()
            .identity(Identity::from_pem(certificate, key))
            .client_ca_root(Certificate::from_pem(self.issuer.pem()))
    }

    /// Writes the files that a client's bootstrap names.
    fn equip(&self, folder: &Path) {
        let (certificate, key) = self.issue("client");
        std::fs::write(folder.join("ca.pem"), self.issuer.pem()).unwrap();
        std::fs::write(folder.join("cert.pem"), certificate).unwrap();
        std::fs::write(folder.join("key.pem"), key).unwrap();
    }
}

fn tls_client(network: &Arc<Network>, folder: &Path, server: &str) -> XdsClient {
    let file = |name: &str| folder.join(name).display().to_string();
    let config = serde_json::json!({
        "ca_certificate_file": file("ca.pem"), "certificate_file": file("cert.pem"), "private_key_file": file("key.pem")
    });
    let creds = serde_json::json!([{"type": "tls", "config": config}]);
    let text = serde_json::json!({"xds_servers": [{"server_uri": server, "channel_creds": creds}]}).to_string();
    let bootstrap = Bootstrap::parse(&text, Origin::Variable).unwrap();
    XdsClient::with(bootstrap, network.clone(), StdRng::seed_from_u64(1))
}

#[tokio::test]
async fn tls_with_a_client_certificate_reaches_the_server_whose_name_it_knows() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    authority.equip(folder.path());
    let network = Arc::new(Network::default());
    let mut plane = network.plane("plane.test:1", Some(authority.server("plane.test")));
    let client = tls_client(&network, folder.path(), "plane.test:1");
    let mut slot = watch(&client, "l");
    resolved(&mut plane, &mut slot).await;
}

#[tokio::test]
async fn tls_to_another_name_or_authority_or_without_files_is_an_error_that_says_so() {
    use super::dial::dial;
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    authority.equip(folder.path());
    let network = Arc::new(Network::default());
    let _wrong_name = network.plane("plane.test:1", Some(authority.server("other.test")));
    let _foreign = network.plane("plane.test:2", Some(Authority::new().server("plane.test")));
    let error = async |server: &str, folder: &Path| {
        let file = |name: &str| folder.join(name).display().to_string();
        let creds = serde_json::json!([{"type": "tls", "config": {"ca_certificate_file": file("ca.pem")}}]);
        let text = serde_json::json!({"xds_servers": [{"server_uri": server, "channel_creds": creds}]}).to_string();
        let bootstrap = Bootstrap::parse(&text, Origin::Variable).unwrap();
        dial(bootstrap.servers[0].clone(), network.clone()).await.unwrap_err().to_string()
    };
    let wrong_name = error("plane.test:1", folder.path()).await;
    assert!(wrong_name.contains("plane.test:1") && wrong_name.contains("not valid for name"), "{wrong_name}");
    let foreign = error("plane.test:2", folder.path()).await;
    assert!(foreign.contains("invalid peer certificate"), "{foreign}");
    let empty = tempfile::tempdir().unwrap();
    let missing = error("plane.test:1", empty.path()).await;
    assert!(missing.contains("ca.pem") && missing.contains("ca_certificate_file"), "{missing}");
    std::fs::write(empty.path().join("ca.pem"), "no certificate").unwrap();
    let hollow = error("plane.test:1", empty.path()).await;
    assert!(hollow.contains("holds no certificate"), "{hollow}");
    let refused = error("nowhere.test:1", folder.path()).await;
    assert!(refused.contains("nobody listens there"), "{refused}");
}

#[tokio::test]
async fn the_real_network_reaches_a_loopback_server() {
    use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
    #[expect(clippy::disallowed_methods, reason = "this test is about real sockets")]
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (service, mut plane) = plane::services();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let router = tonic::transport::Server::builder().add_service(AggregatedDiscoveryServiceServer::new(service));
    tokio::spawn(router.serve_with_incoming(incoming));
    let client = XdsClient::new(bootstrap(&[&address]));
    let mut slot = watch(&client, "l");
    resolved(&mut plane, &mut slot).await;
}
