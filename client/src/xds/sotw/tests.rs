//! The state machine against a scripted server.

use super::*;
use crate::xds::fixtures::*;
use crate::xds::model::Assignment;
use crate::xds::routing::Routing;
use std::sync::Arc;

pub(super) fn target(name: &str) -> Target {
    format!("xds:///{name}").parse().unwrap()
}

pub(super) fn client() -> SotwClient {
    SotwClient::new(Node { id: "n".to_owned(), ..Node::default() })
}

pub(super) fn requests(client: &mut SotwClient) -> Vec<DiscoveryRequest> {
    std::iter::from_fn(|| client.next_request()).collect()
}

/// `LDS v=1 n=a [x,y]` for each request; an error as `!`.
fn brief(requests: &[DiscoveryRequest]) -> Vec<String> {
    let short = |url: &str| match Kind::of(url).unwrap() {
        Kind::Listener => "LDS",
        Kind::RouteConfiguration => "RDS",
        Kind::Cluster => "CDS",
        Kind::ClusterLoadAssignment => "EDS",
    };
    let line = |request: &DiscoveryRequest| {
        let (version, nonce) = (&request.version_info, &request.response_nonce);
        let error = if request.error_detail.is_some() { " !" } else { "" };
        format!("{} v={version} n={nonce} [{}]{error}", short(&request.type_url), request.resource_names.join(","))
    };
    requests.iter().map(line).collect()
}

pub(super) fn response(kind: Kind, version: &str, nonce: &str, resources: Vec<Any>) -> DiscoveryResponse {
    DiscoveryResponse {
        version_info: version.to_owned(),
        nonce: nonce.to_owned(),
        type_url: kind.type_url().to_owned(),
        resources,
        ..DiscoveryResponse::default()
    }
}

/// The assignment of the only cluster.
pub(super) fn the_one(resolution: &Resolution) -> Arc<Assignment> {
    let Resolution::Routing(routing) = resolution else { panic!("{resolution:?}") };
    let mut assignments = routing.assignments();
    let one = assignments.next().expect("it leads to a cluster");
    assert!(assignments.next().is_none(), "{routing:?}");
    Arc::clone(one)
}

pub(super) fn addresses(resolution: &Resolution) -> Vec<String> {
    let assignment = the_one(resolution);
    let localities = assignment.priorities.iter().flatten();
    localities.flat_map(|locality| locality.endpoints.iter().map(|endpoint| endpoint.address.to_string())).collect()
}

pub(super) fn now(client: &SotwClient, name: &str) -> Resolution {
    client.resolution(&target(name)).unwrap().clone()
}

fn not_found(client: &SotwClient, name: &str) -> (String, String) {
    match now(client, name) {
        Resolution::NotFound { resource, reason } => (resource.to_string(), reason.to_string()),
        other => panic!("{other:?}"),
    }
}

/// A client that has resolved `l` → `r` → `c` → `c` from server 0 at version 1.
fn resolved() -> SotwClient {
    let mut client = client();
    client.watch(target("l"));
    client.connected(ServerIndex(0), false);
    give_all(&mut client, "1");
    client.take_changes();
    client
}

fn give_all(client: &mut SotwClient, version: &str) {
    requests(client);
    client.received(response(Kind::Listener, version, "l", vec![listener("l", "r")]));
    requests(client);
    client.received(response(Kind::RouteConfiguration, version, "r", vec![routes("r", "c")]));
    requests(client);
    client.received(response(Kind::Cluster, version, "c", vec![cluster("c", "")]));
    requests(client);
    client.received(response(Kind::ClusterLoadAssignment, version, "e", vec![assignment("c", &["10.0.0.1:80"])]));
    requests(client);
}

#[test]
fn each_resource_leads_to_the_next_and_each_response_is_acknowledged() {
    let mut client = client();
    client.watch(target("l"));
    assert!(requests(&mut client).is_empty(), "there is no stream yet");
    client.connected(ServerIndex(0), false);

    let first = requests(&mut client);
    assert_eq!(brief(&first), ["LDS v= n= [l]"]);
    assert_eq!(first[0].node.as_ref().unwrap().id, "n");

    assert_eq!(
        client.received(response(Kind::Listener, "1", "a", vec![listener("l", "r")])),
        Outcome::Accepted(Kind::Listener)
    );
    let then = requests(&mut client);
    assert_eq!(brief(&then), ["LDS v=1 n=a [l]", "RDS v= n= [r]"]);
    assert!(then.iter().all(|request| request.node.is_none()));

    client.received(response(Kind::RouteConfiguration, "2", "b", vec![routes("r", "c")]));
    assert_eq!(brief(&requests(&mut client)), ["RDS v=2 n=b [r]", "CDS v= n= [c]"]);
    client.received(response(Kind::Cluster, "3", "c", vec![cluster("c", "service")]));
    assert_eq!(brief(&requests(&mut client)), ["CDS v=3 n=c [c]", "EDS v= n= [service]"]);
    assert_eq!(now(&client, "l"), Resolution::Pending);
    assert!(client.take_changes().is_empty());

    client.received(response(Kind::ClusterLoadAssignment, "4", "d", vec![assignment("service", &["10.0.0.1:80"])]));
    assert_eq!(brief(&requests(&mut client)), ["EDS v=4 n=d [service]"]);
    let changes = client.take_changes();
    assert_eq!(changes.len(), 1);
    assert_eq!(addresses(&changes[0].1), ["10.0.0.1:80"]);
    let made = the_one(&changes[0].1);
    assert_eq!((&*made.cluster, &*made.eds_service, made.max_requests), ("c", "service", Some(500)));
    assert_eq!(client.unanswered().count(), 0);
}

#[test]
fn the_same_again_changes_nothing() {
    let mut client = resolved();
    let before = now(&client, "l");
    give_all(&mut client, "2");
    assert!(client.take_changes().is_empty());
    let (Resolution::Routing(before), Resolution::Routing(after)) = (before, now(&client, "l")) else { panic!() };
    assert!(Arc::ptr_eq(&before, &after));
}

#[test]
fn a_bad_resource_is_refused_and_the_good_ones_beside_it_are_taken() {
    let mut client = client();
    client.watch(target("l"));
    client.watch(target("m"));
    client.connected(ServerIndex(0), false);
    requests(&mut client);
    client.received(response(Kind::Listener, "1", "a", vec![listener("l", "r"), absent_listener("m")]));
    requests(&mut client);

    let broken = Any { type_url: Kind::Listener.type_url().to_owned(), value: vec![0xff] };
    let bad = pack(
        Kind::Listener,
        &envoy_types::pb::envoy::config::listener::v3::Listener { name: "l".to_owned(), ..Default::default() },
    );
    let outcome = client.received(response(Kind::Listener, "2", "b", vec![broken, bad, listener("m", "r2")]));
    let Outcome::Rejected(Kind::Listener, error) = outcome else { panic!("{outcome:?}") };
    assert!(
        error.contains("resource index 0: ")
            && error.contains("resource index 1: l: errors validating Listener resource: ["),
        "{error}"
    );
    let sent = requests(&mut client);
    assert_eq!(brief(&sent), ["LDS v=1 n=b [l,m] !", "RDS v= n= [r,r2]"]);
    let detail = sent[0].error_detail.as_ref().unwrap();
    assert_eq!((detail.code, &detail.message), (INVALID_ARGUMENT, &error));

    // Recovery: a good response is acknowledged with its version.
    client.received(response(Kind::Listener, "3", "c", vec![listener("l", "r"), listener("m", "r2")]));
    assert_eq!(brief(&requests(&mut client)), ["LDS v=3 n=c [l,m]"]);
}

#[test]
fn a_refused_resource_without_a_good_one_before_it_is_an_error_of_its_target() {
    let mut client = client();
    client.watch(target("l"));
    client.connected(ServerIndex(0), false);
    requests(&mut client);
    let bad = pack(
        Kind::Listener,
        &envoy_types::pb::envoy::config::listener::v3::Listener { name: "l".to_owned(), ..Default::default() },
    );
    client.received(response(Kind::Listener, "1", "a", vec![bad]));
    let (resource, reason) = not_found(&client, "l");
    assert_eq!(resource, "Listener `l`");
    assert!(reason.starts_with("it is invalid: field:api_listener"), "{reason}");
    give_all(&mut client, "2");
    assert_eq!(addresses(&now(&client, "l")), ["10.0.0.1:80"]);
}

#[test]
fn one_name_twice_in_a_response_is_refused() {
    let mut client = resolved();
    let twice = vec![listener("l", "r"), listener("l", "r")];
    let Outcome::Rejected(_, error) = client.received(response(Kind::Listener, "2", "b", twice)) else { panic!() };
    assert!(error.contains("duplicate resource name `l`"), "{error}");
}

#[test]
fn a_service_that_is_known_not_to_exist_is_not_found_at_once() {
    let mut client = client();
    client.watch(target("l"));
    client.connected(ServerIndex(0), false);
    requests(&mut client);
    client.received(response(Kind::Listener, "1", "a", vec![absent_listener("l")]));
    let (resource, reason) = not_found(&client, "l");
    assert_eq!(
        (resource.as_str(), reason.as_str()),
        ("Listener `l`", "it has no virtual host: the control plane knows no service `l`")
    );

    // The form for clients that cannot take a route configuration without virtual hosts.
    client.received(response(Kind::Listener, "2", "b", vec![listener("l", "r")]));
    requests(&mut client);
    let hosts = vec![host("*", vec![])];
    let routes = envoy_types::pb::envoy::config::route::v3::RouteConfiguration {
        name: "r".to_owned(),
        virtual_hosts: hosts,
        ..Default::default()
    };
    client.received(response(Kind::RouteConfiguration, "1", "c", vec![pack(Kind::RouteConfiguration, &routes)]));
    assert_eq!(not_found(&client, "l").0, "RouteConfiguration `r`");

    give_all(&mut client, "3");
    assert_eq!(addresses(&now(&client, "l")), ["10.0.0.1:80"]);
}

#[test]
fn silence_ends_when_the_driver_says_so() {
    let mut client = client();
    client.watch(target("l"));
    assert_eq!(client.unanswered().count(), 0, "nothing was asked yet");
    client.connected(ServerIndex(0), false);
    requests(&mut client);
    assert_eq!(client.unanswered().collect::<Vec<_>>(), [(Kind::Listener, "l")]);
    client.timed_out(Kind::Listener, "l");
    assert_eq!(not_found(&client, "l").1, "the control plane does not have it");
    assert_eq!(client.unanswered().count(), 0);
    client.timed_out(Kind::Cluster, "never asked");
    give_all(&mut client, "1");
    assert_eq!(addresses(&now(&client, "l")), ["10.0.0.1:80"]);
    client.timed_out(Kind::Listener, "l");
    assert_eq!(addresses(&now(&client, "l")), ["10.0.0.1:80"], "it was answered in time");
}

#[test]
fn leaving_out_deletes_listeners_and_clusters_but_not_routes_and_endpoints() {
    let mut client = resolved();
    client.received(response(Kind::RouteConfiguration, "2", "x", vec![]));
    client.received(response(Kind::ClusterLoadAssignment, "2", "x", vec![]));
    assert_eq!(addresses(&now(&client, "l")), ["10.0.0.1:80"]);

    client.received(response(Kind::Cluster, "2", "x", vec![]));
    assert_eq!(not_found(&client, "l").0, "Cluster `c`");
    client.received(response(Kind::Cluster, "3", "y", vec![cluster("c", "")]));
    requests(&mut client);
    client.received(response(Kind::ClusterLoadAssignment, "3", "y", vec![assignment("c", &["10.0.0.2:80"])]));
    assert_eq!(addresses(&now(&client, "l")), ["10.0.0.2:80"]);

    client.received(response(Kind::Listener, "2", "x", vec![]));
    assert_eq!(not_found(&client, "l").0, "Listener `l`");
}

#[test]
fn a_server_that_ignores_deletion_deletes_nothing() {
    let mut client = client();
    client.watch(target("l"));
    client.connected(ServerIndex(0), true);
    give_all(&mut client, "1");
    client.received(response(Kind::Listener, "2", "x", vec![]));
    assert_eq!(addresses(&now(&client, "l")), ["10.0.0.1:80"]);
}

#[test]
fn a_broken_stream_changes_nothing_and_the_next_one_takes_up_its_versions() {
    let mut client = resolved();
    client.disconnected();
    assert!(requests(&mut client).is_empty());
    assert_eq!(client.received(response(Kind::Listener, "9", "late", vec![])), Outcome::Ignored);
    assert_eq!(addresses(&now(&client, "l")), ["10.0.0.1:80"]);

    client.connected(ServerIndex(0), false);
    let again = requests(&mut client);
    assert_eq!(brief(&again), ["LDS v=1 n= [l]", "RDS v=1 n= [r]", "CDS v=1 n= [c]", "EDS v=1 n= [c]"]);
    assert!(again[0].node.is_some() && again[1].node.is_none());
    assert_eq!(client.unanswered().count(), 0, "it is all held");

    // Something that is not held: a version would say that it is.
    client.disconnected();
    client.watch(target("m"));
    client.connected(ServerIndex(0), false);
    assert_eq!(brief(&requests(&mut client))[0], "LDS v= n= [l,m]");
}

#[test]
fn a_server_that_came_back_may_need_time_to_know_what_it_served() {
    let mut client = resolved();
    client.connected(ServerIndex(0), false);
    requests(&mut client);
    client.received(response(Kind::Listener, "2", "x", vec![]));
    assert_eq!(addresses(&now(&client, "l")), ["10.0.0.1:80"], "it is not gone yet");
    assert_eq!(client.unanswered().collect::<Vec<_>>(), [(Kind::Listener, "l")]);
    client.received(response(Kind::Listener, "3", "y", vec![listener("l", "r")]));
    assert_eq!(client.unanswered().count(), 0);

    client.connected(ServerIndex(0), false);
    requests(&mut client);
    client.received(response(Kind::Listener, "4", "x", vec![]));
    client.timed_out(Kind::Listener, "l");
    assert_eq!(not_found(&client, "l").0, "Listener `l`");
}

#[test]
fn another_server_is_asked_without_versions_and_its_absences_say_nothing() {
    let mut client = resolved();
    client.connected(ServerIndex(1), false);
    assert_eq!(brief(&requests(&mut client)), ["LDS v= n= [l]", "RDS v= n= [r]", "CDS v= n= [c]", "EDS v= n= [c]"]);
    client.received(response(Kind::Listener, "1", "x", vec![]));
    assert_eq!(client.unanswered().count(), 0);
    assert_eq!(addresses(&now(&client, "l")), ["10.0.0.1:80"]);

    client.received(response(Kind::ClusterLoadAssignment, "1", "x", vec![assignment("c", &["10.0.0.9:80"])]));
    assert_eq!(addresses(&now(&client, "l")), ["10.0.0.9:80"], "but its updates are taken");
    client.received(response(Kind::Listener, "2", "y", vec![absent_listener("l")]));
    assert_eq!(not_found(&client, "l").0, "Listener `l`", "and so is a plain word");
}

#[test]
fn until_a_new_cluster_is_complete_the_old_one_serves_on() {
    let mut client = resolved();
    client.received(response(Kind::RouteConfiguration, "2", "b", vec![routes("r", "d")]));
    assert_eq!(brief(&requests(&mut client)), ["RDS v=2 n=b [r]", "CDS v=1 n=c [c,d]"]);
    client.received(response(Kind::Cluster, "2", "x", vec![cluster("c", ""), cluster("d", "")]));
    assert_eq!(brief(&requests(&mut client)), ["CDS v=2 n=x [c,d]", "EDS v=1 n=e [c,d]"]);
    assert!(client.take_changes().is_empty());
    client.received(response(Kind::ClusterLoadAssignment, "2", "y", vec![assignment("d", &["10.0.0.2:80"])]));
    assert_eq!(addresses(&now(&client, "l")), ["10.0.0.2:80"]);
    assert_eq!(brief(&requests(&mut client)), ["CDS v=2 n=x [d]", "EDS v=2 n=y [d]"], "and is let go");
}

#[test]
fn what_is_wanted_no_more_is_unsubscribed_and_names_nothing_at_the_end() {
    let mut client = resolved();
    client.watch(target("m"));
    assert_eq!(brief(&requests(&mut client)), ["LDS v=1 n=l [l,m]"]);
    client.unwatch(&target("m"));
    client.unwatch(&target("l"));
    assert_eq!(brief(&requests(&mut client)), ["LDS v=1 n=l []", "RDS v=1 n=r []", "CDS v=1 n=c []", "EDS v=1 n=e []"]);
    assert!(requests(&mut client).is_empty());
    assert_eq!(client.resolution(&target("l")), None);
    client.connected(ServerIndex(0), false);
    assert!(requests(&mut client).is_empty(), "an empty first request would be a wildcard");
}

#[test]
fn what_was_never_asked_for_is_ignored() {
    let mut client = client();
    client.connected(ServerIndex(0), false);
    assert_eq!(client.received(response(Kind::Cluster, "1", "a", vec![cluster("c", "")])), Outcome::Ignored);
    let unknown =
        DiscoveryResponse { type_url: "type.googleapis.com/unknown".to_owned(), ..DiscoveryResponse::default() };
    assert_eq!(client.received(unknown), Outcome::Ignored);
    assert!(requests(&mut client).is_empty());
}

#[test]
fn two_targets_share_what_they_have_in_common() {
    let mut client = resolved();
    client.watch(target("m"));
    requests(&mut client);
    client.received(response(Kind::Listener, "2", "b", vec![listener("l", "r"), listener("m", "r")]));
    assert_eq!(addresses(&now(&client, "m")), ["10.0.0.1:80"], "nothing more had to be asked for");
    assert_eq!(client.take_changes().len(), 1);
    client.unwatch(&target("l"));
    assert_eq!(brief(&requests(&mut client)), ["LDS v=2 n=b [m]"]);
}

#[test]
fn calls_whose_route_says_nothing_take_their_timeout_from_the_listener() {
    use envoy_types::pb::envoy::config::core::v3::HttpProtocolOptions;
    use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
        Rds, http_connection_manager::RouteSpecifier,
    };
    use envoy_types::pb::google::protobuf::Duration as ProtoDuration;
    use std::time::Duration;

    let mut client = resolved();
    let made = |client: &SotwClient| -> Arc<Routing> {
        let Resolution::Routing(made) = now(client, "l") else { panic!() };
        made
    };
    assert_eq!(made(&client).timeout, None);
    let rds = Rds { config_source: ads(), route_config_name: "r".to_owned() };
    let mut with_limit = manager(RouteSpecifier::Rds(rds));
    let limit = Some(ProtoDuration { seconds: 4, nanos: 0 });
    with_limit.common_http_protocol_options =
        Some(HttpProtocolOptions { max_stream_duration: limit, ..Default::default() });
    client.received(response(Kind::Listener, "2", "x", vec![listener_of("l", &with_limit)]));
    assert_eq!(made(&client).timeout, Some(Duration::from_secs(4)));
    with_limit.common_http_protocol_options.as_mut().unwrap().max_stream_duration = Some(ProtoDuration::default());
    client.received(response(Kind::Listener, "3", "y", vec![listener_of("l", &with_limit)]));
    assert_eq!(made(&client).timeout, None, "zero is no limit");
}

/// A RouteConfiguration `r` that sends `/s/A` to `a` and the rest to `b`.
fn parted() -> Any {
    use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, RouteMatch, route_match::PathSpecifier};
    let mut first = to_cluster("a");
    first.r#match =
        Some(RouteMatch { path_specifier: Some(PathSpecifier::Path("/s/A".to_owned())), ..RouteMatch::default() });
    let hosts = vec![host("*", vec![first, to_cluster("b")])];
    let routes = RouteConfiguration { name: "r".to_owned(), virtual_hosts: hosts, ..RouteConfiguration::default() };
    pack(Kind::RouteConfiguration, &routes)
}

fn routing(client: &SotwClient) -> Arc<Routing> {
    let Resolution::Routing(routing) = now(client, "l") else { panic!("{:?}", now(client, "l")) };
    routing
}

#[test]
fn routes_are_taken_when_all_their_clusters_are_known_and_the_old_ones_serve_until_then() {
    let mut client = resolved();
    client.received(response(Kind::RouteConfiguration, "2", "b", vec![parted()]));
    assert_eq!(brief(&requests(&mut client)), ["RDS v=2 n=b [r]", "CDS v=1 n=c [a,b,c]"]);
    client.received(response(Kind::Cluster, "2", "x", vec![cluster("a", ""), cluster("b", ""), cluster("c", "")]));
    assert_eq!(brief(&requests(&mut client)), ["CDS v=2 n=x [a,b,c]", "EDS v=1 n=e [a,b,c]"]);
    client.received(response(Kind::ClusterLoadAssignment, "2", "y", vec![assignment("a", &["10.0.0.2:80"])]));
    assert_eq!(addresses(&now(&client, "l")), ["10.0.0.1:80"], "b is not known yet");
    client.received(response(Kind::ClusterLoadAssignment, "3", "z", vec![assignment("b", &["10.0.0.3:80"])]));
    assert_eq!(routing(&client).clusters.keys().map(|name| &**name).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(brief(&requests(&mut client)), ["CDS v=2 n=x [a,b]", "EDS v=3 n=z [a,b]"], "c is let go");

    // What changes in one cluster leaves the other as it is.
    let before = routing(&client);
    client.received(response(Kind::ClusterLoadAssignment, "4", "w", vec![assignment("b", &["10.0.0.4:80"])]));
    let after = routing(&client);
    let same =
        |name: &str| Arc::ptr_eq(before.clusters[name].as_ref().unwrap(), after.clusters[name].as_ref().unwrap());
    assert!(same("a") && !same("b") && Arc::ptr_eq(&before.routes, &after.routes));
}

#[test]
fn a_cluster_that_is_not_there_fails_its_own_calls_alone() {
    let mut client = resolved();
    client.received(response(Kind::RouteConfiguration, "2", "b", vec![parted()]));
    requests(&mut client);
    client.received(response(Kind::Cluster, "2", "x", vec![cluster("b", ""), cluster("c", "")]));
    requests(&mut client);
    client.received(response(Kind::ClusterLoadAssignment, "2", "y", vec![assignment("b", &["10.0.0.3:80"])]));
    assert_eq!(addresses(&now(&client, "l")), ["10.0.0.1:80"], "a may still come");
    client.timed_out(Kind::Cluster, "a");
    let missing = routing(&client).clusters["a"].clone().unwrap_err();
    assert_eq!((&*missing.resource, &*missing.reason), ("Cluster `a`", "the control plane does not have it"));
    assert!(routing(&client).clusters["b"].is_ok());
    client.timed_out(Kind::Cluster, "b");
    client.received(response(Kind::Cluster, "3", "z", vec![]));
    assert_eq!(not_found(&client, "l").0, "Cluster `a`", "without any cluster there is no service");
}

/// A client whose routes lead to the cluster `all`, which these resources make.
fn aggregated(clusters: Vec<Any>) -> SotwClient {
    let mut client = client();
    client.watch(target("l"));
    client.connected(ServerIndex(0), false);
    requests(&mut client);
    client.received(response(Kind::Listener, "1", "l", vec![listener("l", "r")]));
    requests(&mut client);
    client.received(response(Kind::RouteConfiguration, "1", "r", vec![routes("r", "all")]));
    requests(&mut client);
    // What an aggregate names is asked for once it is known, and the whole is given again.
    for _ in 0..=clusters.len() {
        client.received(response(Kind::Cluster, "1", "c", clusters.clone()));
        requests(&mut client);
    }
    client
}

#[test]
fn an_aggregates_clusters_are_its_priorities_in_order() {
    let clusters = || {
        let (all, rest) = (aggregate("all", &["near", "rest", "near"]), aggregate("rest", &["far", "near"]));
        vec![all, rest, reporting_cluster("near"), cluster("far", "endpoints-of-far")]
    };
    let mut client = aggregated(clusters());
    let near = assignment_of("near", vec![zone(0, "a", 1, &["10.0.0.1:80"]), zone(1, "b", 1, &["10.0.0.2:80"])]);
    client.received(response(Kind::ClusterLoadAssignment, "1", "e", vec![near]));
    assert_eq!(now(&client, "l"), Resolution::Pending, "far is awaited");
    let far = assignment("endpoints-of-far", &["10.0.0.3:80"]);
    client.received(response(Kind::ClusterLoadAssignment, "2", "f", vec![far]));
    let made = the_one(&now(&client, "l"));
    assert_eq!((&*made.cluster, made.priorities.len()), ("all", 3));
    assert_eq!(addresses(&now(&client, "l")), ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    assert_eq!(made.max_requests, Some(500), "as its first cluster says");
    let reported = |priority| made.reported(priority).map(|(cluster, _)| &**cluster);
    assert_eq!([reported(0), reported(1), reported(2)], [Some("near"), Some("near"), None]);
    assert_eq!(made.reported_clusters().map(|name| &**name).collect::<Vec<_>>(), ["near"]);
    assert_eq!(&**made.cluster_of(2), "far");

    // One that goes away leaves the others; without any there is no service.
    client.received(response(
        Kind::Cluster,
        "3",
        "g",
        clusters().into_iter().filter(|it| *it != clusters()[2]).collect(),
    ));
    assert_eq!(addresses(&now(&client, "l")), ["10.0.0.3:80"]);
    client.received(response(Kind::Cluster, "4", "h", clusters()[..2].to_vec()));
    assert_eq!(not_found(&client, "l").0, "Cluster `near`");
}

#[test]
fn an_aggregate_that_holds_itself_or_nests_too_deep_is_none() {
    let mut client = aggregated(vec![aggregate("all", &["b"]), aggregate("b", &["all"])]);
    let (resource, reason) = not_found(&client, "l");
    assert_eq!((resource.as_str(), reason.as_str()), ("Cluster `all`", "it is an aggregate that holds itself"));
    client.received(response(Kind::Cluster, "2", "x", vec![aggregate("all", &["b"]), cluster("b", "")]));
    requests(&mut client);
    client.received(response(Kind::ClusterLoadAssignment, "1", "e", vec![assignment("b", &["10.0.0.1:80"])]));
    assert_eq!(addresses(&now(&client, "l")), ["10.0.0.1:80"]);

    // `all` holds 1, which holds 2, and so on; the last is no aggregate.
    let chain = |last: usize| {
        let name = |i: usize| if i == 0 { "all".to_owned() } else { i.to_string() };
        let mut clusters: Vec<Any> = (0..last).map(|i| aggregate(&name(i), &[&name(i + 1)])).collect();
        clusters.push(cluster(&name(last), ""));
        clusters
    };
    let deep = aggregated(chain(16));
    assert_eq!(
        not_found(&deep, "l"),
        ("Cluster `16`".to_owned(), "it stands below more than 15 aggregates".to_owned())
    );
    let mut deepest = aggregated(chain(15));
    deepest.received(response(Kind::ClusterLoadAssignment, "1", "e", vec![assignment("15", &["10.0.0.1:80"])]));
    assert_eq!(addresses(&now(&deepest, "l")), ["10.0.0.1:80"]);
}

#[test]
fn status_tells_what_is_held_awaited_absent_and_refused() {
    use envoy_types::pb::envoy::admin::v3::ClientResourceStatus;

    let mut client = resolved();
    client.watch(target("m"));
    client.watch(target("n"));
    requests(&mut client);
    client.timed_out(Kind::Listener, "n");
    let bad = pack(
        Kind::Listener,
        &envoy_types::pb::envoy::config::listener::v3::Listener { name: "l".to_owned(), ..Default::default() },
    );
    client.received(response(Kind::Listener, "2", "x", vec![bad]));
    let status = client.status();
    let [config] = &status.config[..] else { panic!("{status:?}") };
    assert_eq!(config.node.as_ref().unwrap().id, "n");
    let told: Vec<_> = config
        .generic_xds_configs
        .iter()
        .map(|it| (it.name.as_str(), it.client_status(), it.version_info.as_str(), it.xds_config.is_some()))
        .collect();
    assert_eq!(
        told,
        [
            ("l", ClientResourceStatus::Nacked, "1", true),
            ("m", ClientResourceStatus::Requested, "", false),
            ("n", ClientResourceStatus::DoesNotExist, "", false),
            ("r", ClientResourceStatus::Acked, "1", true),
            ("c", ClientResourceStatus::Acked, "1", true),
            ("c", ClientResourceStatus::Acked, "1", true),
        ]
    );
    let failure = config.generic_xds_configs[0].error_state.as_ref().unwrap();
    assert_eq!(failure.version_info, "2");
    assert!(failure.details.starts_with("errors validating Listener resource: [field:api_listener"), "{failure:?}");

    client.received(response(Kind::Listener, "3", "y", vec![listener("l", "r")]));
    let mended = &client.status().config[0].generic_xds_configs[0];
    assert_eq!((mended.client_status(), mended.version_info.as_str()), (ClientResourceStatus::Acked, "3"));
    assert_eq!(mended.error_state, None);
}
