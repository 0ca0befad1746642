//! What the clients of a service with routes are told, class by class.

use std::borrow::Cow;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{Route, RouteAction, RouteConfiguration};
use portolan_client::xds::matching::RequestHead;
use portolan_client::xds::{resources as client, routing};
use portolan_topology::policy::{EffectivePolicy, Retry};
use prost::Message;

use super::build::{Routes, build};
use super::class::ClientClass;
use super::fixtures::{place, planned as locality, service};
use super::name::ResourceName;
use super::tests::{CLASSES, accepted};
use super::*;
use crate::catalog::served::Served;
use crate::gateway::tests::service_routes;

const SHOP: &str = "checkout.shop:8080";

/// The RouteConfiguration of `checkout.shop` under these objects, if there is one.
fn lookup(asked: &str, text: &str, policy: EffectivePolicy, class: ClientClass) -> Lookup {
    let mut shop = service(vec![vec![locality(&place("a"), 1)]], []);
    shop.policy = Arc::new(policy);
    let routes = service_routes(text, "checkout.shop").map_or(Routes::None, Routes::These);
    let name: ResourceName = asked.parse().unwrap();
    build(Kind::Rds, &asked.into(), Some(&name), &Served::Present(Arc::new(shop)), &routes, class)
}

fn told(asked: &str, text: &str, policy: EffectivePolicy, class: ClientClass) -> RouteConfiguration {
    let Lookup::Present(encoded) = lookup(asked, text, policy, class) else { panic!("{class:?}: nothing is said") };
    RouteConfiguration::decode(encoded.bytes().clone()).unwrap()
}

fn routes(text: &str, class: ClientClass) -> Vec<Route> {
    let told = told(SHOP, text, EffectivePolicy::default(), class);
    told.virtual_hosts.into_iter().flat_map(|host| host.routes).collect()
}

fn http(rules: &str) -> String {
    of_kind("HTTPRoute", rules)
}

fn of_kind(kind: &str, rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: r, namespace: shop}}
spec: {{parentRefs: [{{group: '', kind: Service, name: checkout}}], rules: {rules}}}
"
    )
}

fn action(route: &Route) -> &RouteAction {
    match &route.action {
        Some(Action::Route(action)) => action,
        other => panic!("{other:?}"),
    }
}

/// Its clusters with their weights; of a single one without.
fn clusters(route: &Route) -> Vec<(String, u32)> {
    match &action(route).cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => vec![(name.clone(), 0)],
        Some(ClusterSpecifier::WeightedClusters(all)) => {
            all.clusters.iter().map(|it| (it.name.clone(), it.weight.unwrap().value)).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn path(route: &Route) -> String {
    match route.r#match.as_ref().unwrap().path_specifier.as_ref().unwrap() {
        PathSpecifier::Path(path) => format!("={path}"),
        PathSpecifier::Prefix(prefix) => format!("{prefix}*"),
        PathSpecifier::PathSeparatedPrefix(prefix) => format!("{prefix}/*"),
        PathSpecifier::SafeRegex(regex) => format!("~{}", regex.regex),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_split_is_told_to_every_class_and_a_missing_backend_is_a_cluster_without_endpoints() {
    let text = of_kind(
        "GRPCRoute",
        "[{backendRefs: [{name: a, port: 8080, weight: 70}, {group: multicluster.x-k8s.io, kind: ServiceImport, name: b, port: 8080, weight: 20},
          {name: gone, port: 8080, weight: 6}, {name: gone-too, port: 8080, weight: 4}, {name: c, port: 8080, weight: 0}]}]",
    );
    for class in CLASSES {
        let routes = routes(&text, class);
        let expected = [("a.shop.svc.cluster.local:8080", 70), ("b.shop:8080", 20), ("no-backend", 10)]
            .map(|(name, weight)| (name.to_owned(), weight));
        assert_eq!(clusters(&routes[0]), expected, "{class:?}");
        // Whatever a route names can be had: one unanswered cluster would freeze a gRPC client.
        for (name, _) in expected {
            let asked: Arc<str> = name.into();
            let name = asked.parse::<ResourceName>().ok();
            let served = Served::Present(Arc::new(service(vec![vec![locality(&place("a"), 1)]], [])));
            let of = |kind| build(kind, &asked, name.as_ref(), &served, &Routes::None, class);
            let (Lookup::Present(cluster), Lookup::Present(assignment)) = (of(Kind::Cds), of(Kind::Eds)) else {
                panic!("{class:?}: {asked}")
            };
            let cluster = Cluster::decode(cluster.bytes().clone()).unwrap();
            assert_eq!(cluster.eds_cluster_config.unwrap().service_name, *asked);
            let assignment = ClusterLoadAssignment::decode(assignment.bytes().clone()).unwrap();
            assert_eq!(assignment.cluster_name, *asked);
        }
    }
}

#[test]
fn what_is_asked_of_an_authority_stays_there() {
    let text = http("[{backendRefs: [{name: gone, port: 1}]}]");
    let asked = "xdstp://auth/envoy.config.route.v3.RouteConfiguration/checkout.shop:8080";
    let told = told(asked, &text, EffectivePolicy::default(), ClientClass::GrpcGo);
    let [(cluster, _)] = &clusters(&told.virtual_hosts[0].routes[0])[..] else { panic!() };
    assert_eq!(cluster, "xdstp://auth/envoy.config.cluster.v3.Cluster/no-backend");
    let asked: Arc<str> = cluster.as_str().into();
    let built = build(Kind::Cds, &asked, None, &Served::Absent, &Routes::None, ClientClass::GrpcGo);
    let Lookup::Present(encoded) = built else { panic!("{built:?}") };
    let of = Cluster::decode(encoded.bytes().clone()).unwrap().eds_cluster_config.unwrap().service_name;
    assert_eq!(of, "xdstp://auth/envoy.config.endpoint.v3.ClusterLoadAssignment/no-backend");
    let built = build(Kind::Eds, &of.into(), None, &Served::Absent, &Routes::None, ClientClass::GrpcGo);
    assert!(matches!(built, Lookup::Present(_)));
}

#[test]
fn paths_are_said_in_the_words_that_each_class_has() {
    let text = http(
        "[{matches: [{path: {type: Exact, value: /s.S/M}}, {path: {type: Exact, value: /s.S}}, {path: {value: /s.S}},
           {path: {value: /s.S/N}}, {path: {value: /s.S/N/x}}, {path: {type: RegularExpression, value: '/s.S/[A-F].*'}},
           {path: {value: /}}]}]",
    );
    let paths = |class| routes(&text, class).iter().map(path).collect::<Vec<_>>();
    let grpc = ["=/s.S/M", "~/s.S/[A-F].*", "=/s.S/N", "/s.S/*", "*"];
    for class in CLASSES.into_iter().filter(|class| *class != ClientClass::Envoy) {
        assert_eq!(paths(class), grpc, "{class:?}: what no gRPC call is like is left out");
    }
    let envoy = ["=/s.S/M", "=/s.S", "~/s.S/[A-F].*", "/s.S/N/x/*", "/s.S/N/*", "/s.S/*", "/*", "*"];
    assert_eq!(paths(ClientClass::Envoy), envoy, "the last is what refuses all others");
}

#[test]
fn a_grpc_method_is_an_exact_path_and_headers_are_said_in_the_words_that_each_class_has() {
    let text = of_kind(
        "GRPCRoute",
        "[{matches: [{method: {service: pkg.S, method: M}, headers: [{name: Lane, value: blue}, {name: x, type: RegularExpression, value: 'a.*'}]}]}]",
    );
    for class in CLASSES {
        let route = routes(&text, class).remove(0);
        assert_eq!(path(&route), "=/pkg.S/M");
        let matching = route.r#match.unwrap();
        let names: Vec<_> = matching.headers.iter().map(|header| header.name.as_str()).collect();
        assert_eq!(names, ["lane", "x"]);
        let old = matching
            .headers
            .iter()
            .any(|header| !matches!(header.header_match_specifier, Some(HeaderMatchSpecifier::StringMatch(_))));
        assert_eq!(old, class != ClientClass::Envoy, "{class:?}: releases of gRPC know no others");
    }
}

#[test]
fn what_no_route_matches_fails_unavailable() {
    let one = http("[{matches: [{path: {type: Exact, value: /s.S/M}}]}]");
    let none = http("[{matches: [{method: GET}]}]");
    let refused = |routes: Vec<Route>| match routes.last().unwrap().action.as_ref().unwrap() {
        Action::DirectResponse(refusal) => refusal.status,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(routes(&one, ClientClass::Envoy)), 503);
    assert_eq!(routes(&one, ClientClass::GrpcJava).len(), 1, "of itself, for want of a route");
    let hosts = |class| told(SHOP, &none, EffectivePolicy::default(), class).virtual_hosts.len();
    assert_eq!(hosts(ClientClass::GrpcJava), 0, "which would say INTERNAL of a host without routes");
    assert_eq!(hosts(ClientClass::GrpcJs), 1, "which knows no other way");
    let post = http("[{matches: [{method: POST}]}]");
    assert_eq!(routes(&post, ClientClass::GrpcGo)[0].r#match.as_ref().unwrap().headers, [], "every gRPC call is one");
}

#[test]
fn without_backends_calls_go_to_the_service_by_the_name_that_was_asked() {
    let text = http("[{}]");
    for (asked, cluster) in
        [(SHOP, SHOP), ("checkout.shop.svc.cluster.local:8080", "checkout.shop.svc.cluster.local:8080")]
    {
        let told = told(asked, &text, EffectivePolicy::default(), ClientClass::GrpcGo);
        assert_eq!(clusters(&told.virtual_hosts[0].routes[0]), [(cluster.to_owned(), 0)]);
    }
}

#[test]
fn a_port_and_an_import_have_their_own_names_alone() {
    let with = |parent: &str| {
        http("[{backendRefs: [{name: a, port: 1}]}]").replace("{group: '', kind: Service, name: checkout}", parent)
    };
    let leads = |asked: &str, text: &str| {
        let told = told(asked, text, EffectivePolicy::default(), ClientClass::GrpcGo);
        clusters(&told.virtual_hosts[0].routes[0]).remove(0).0
    };
    let local = "checkout.shop.svc.cluster.local:8080";
    let away = "a.shop.svc.cluster.local:1";
    let import = with("{group: multicluster.x-k8s.io, kind: ServiceImport, name: checkout}");
    assert_eq!((leads(SHOP, &import).as_str(), leads(local, &import).as_str()), (away, local));
    assert_eq!(leads(SHOP, &with("{group: '', kind: Service, name: checkout, port: 8080}")), away);
    assert_eq!(leads(SHOP, &with("{group: '', kind: Service, name: checkout, port: 9}")), SHOP);
}

#[test]
fn limits_are_the_rules_and_the_policy_s_where_a_rule_says_nothing() {
    let policy = EffectivePolicy {
        timeout: Some(Duration::from_secs(9)),
        retry: Some(Retry { per_try_timeout: Some(Duration::from_secs(3)), ..Retry::default() }),
        ..EffectivePolicy::default()
    };
    let limits = |rule: &str, policy: &EffectivePolicy, class| {
        let told = told(SHOP, &http(&format!("[{{{rule}}}]")), policy.clone(), class);
        let action = action(&told.virtual_hosts[0].routes[0]).clone();
        let whole = match class {
            ClientClass::Envoy => action.timeout,
            _ => action.max_stream_duration.and_then(|it| it.max_stream_duration),
        };
        let retry = action.retry_policy;
        (
            whole.map(|it| it.seconds),
            retry.as_ref().and_then(|it| it.per_try_timeout).map(|it| it.seconds),
            retry.is_some(),
        )
    };
    let go = ClientClass::GrpcGo;
    assert_eq!(limits("", &policy, ClientClass::Envoy), (Some(9), Some(3), true));
    assert_eq!(limits("", &policy, go), (Some(9), None, true));
    assert_eq!(limits("timeouts: {request: 2s}", &policy, go), (Some(2), None, true));
    assert_eq!(limits("timeouts: {request: 0s}", &policy, go), (None, None, true));
    assert_eq!(
        limits("timeouts: {request: 5s, backendRequest: 2s}", &policy, ClientClass::Envoy),
        (Some(5), Some(2), true)
    );
    let none = EffectivePolicy { retry: None, ..EffectivePolicy::default() };
    assert_eq!(
        limits("timeouts: {request: 5s, backendRequest: 2s}", &none, go),
        (Some(2), None, false),
        "one try is the whole"
    );
}

#[test]
fn a_route_to_what_is_not_known_yet_is_not_said_yet() {
    let text = http("[{backendRefs: [{name: late, port: 1}, {name: a, port: 1}]}]");
    assert_eq!(lookup(SHOP, &text, EffectivePolicy::default(), ClientClass::GrpcGo), Lookup::Unknown);
}

/// A call, as a client looks at it.
struct Call(&'static str, &'static [(&'static str, &'static str)]);

impl RequestHead for Call {
    fn path(&self) -> &str {
        self.0
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.1.iter().find(|(header, _)| *header == name).map(|(_, value)| Cow::Borrowed(*value))
    }
}

#[test]
fn our_own_client_reads_what_every_class_is_told_and_goes_where_it_leads() {
    let text = of_kind(
        "GRPCRoute",
        "[{matches: [{method: {service: pkg.S, method: M}, headers: [{name: lane, value: blue}]}], backendRefs: [{name: checkout, port: 8080}]}, \
          {matches: [{headers: [{name: lane, type: RegularExpression, value: 'gr.*'}]}], backendRefs: [{name: canary, port: 8080}]}]",
    );
    for class in CLASSES {
        let Lookup::Present(encoded) = lookup(SHOP, &text, EffectivePolicy::default(), class) else { panic!() };
        let client::Decoded::RouteConfiguration(read) = accepted(&encoded) else { panic!("{class:?}") };
        let routes = &read.virtual_hosts[0].routes;
        let goes = |call: Call| {
            let routed = routing::route(routes, &call, &mut || 0).map_err(|refusal| refusal.to_string())?;
            Ok(routes[routed.route].forward.as_ref().unwrap().clusters[routed.share].cluster.to_string())
        };
        let blue = goes(Call("/pkg.S/M", &[("lane", "blue")]));
        assert_eq!(blue, Ok("checkout.shop.svc.cluster.local:8080".to_owned()), "{class:?}");
        let green = goes(Call("/pkg.S/Other", &[("lane", "green")]));
        assert_eq!(green, Ok("canary.shop.svc.cluster.local:8080".to_owned()), "{class:?}");
        let lost: Result<String, String> = goes(Call("/pkg.S/Other", &[("lane", "blue")]));
        assert!(lost.is_err(), "{class:?}: {lost:?}");
    }
}
