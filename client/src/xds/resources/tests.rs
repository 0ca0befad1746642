//! What is taken and what is refused, by table: one resource, and either what it comes to or the error's text.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::{
    CircuitBreakers, Cluster as ProtoCluster, OutlierDetection as Detection, circuit_breakers::Thresholds,
    circuit_breakers::thresholds::RetryBudget, cluster::ClusterDiscoveryType, cluster::CustomClusterType,
    cluster::LbPolicy,
};
use envoy_types::pb::envoy::config::core::v3::{
    HealthStatus, Metadata, RuntimeDouble, RuntimeFractionalPercent, TransportSocket,
};
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints, cluster_load_assignment, lb_endpoint::HostIdentifier,
};
use envoy_types::pb::envoy::config::listener::v3::Listener as ProtoListener;
use envoy_types::pb::envoy::config::route::v3::{
    HeaderMatcher, NonForwardingAction, RetryPolicy, Route as ProtoRoute, RouteAction, RouteConfiguration, RouteMatch,
    VirtualHost as ProtoHost, WeightedCluster, header_matcher::HeaderMatchSpecifier, retry_policy::RetryBackOff,
    route::Action, route_action::ClusterSpecifier, route_action::MaxStreamDuration, route_match::PathSpecifier,
    weighted_cluster::ClusterWeight,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpFilter, Rds, http_connection_manager::RouteSpecifier, http_filter::ConfigType,
};
use envoy_types::pb::envoy::extensions::load_balancing_policies::common::v3::SlowStartConfig;
use envoy_types::pb::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use envoy_types::pb::envoy::service::discovery::v3::Resource;
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher::MatchPattern};
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, Int64Range, Percent};
use envoy_types::pb::google::protobuf::{BoolValue, Struct, UInt32Value, Value, value::Kind as ValueKind};
use proptest::prelude::*;

use super::*;
use crate::xds::fixtures::*;
use crate::xds::matching::RequestHead;
use crate::xds::model::{Balancing, EndpointHealth, Failback, OutlierDetection, Retry, Warmup};
use crate::xds::routing::{Forward, NoRoute, Route};

fn content(kind: Kind, any: &Any) -> Result<Decoded, String> {
    let (_, content) = decode(kind, any).map_err(|invalid| invalid.to_string())?;
    content.map_err(|invalid| invalid.to_string())
}

#[track_caller]
fn refused(kind: Kind, any: &Any, expected: &str) {
    let error = content(kind, any).expect_err(expected);
    assert!(error.contains(expected), "expected `{expected}`, got `{error}`");
}

fn listener_with(change: impl FnOnce(&mut HttpFilters)) -> Any {
    let mut filters = manager(RouteSpecifier::RouteConfig(RouteConfiguration::default()));
    change(&mut filters);
    listener_of("checkout.shop", &filters)
}
type HttpFilters =
    envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;

fn filter(name: &str, type_url: &str, is_optional: bool) -> HttpFilter {
    let config = Any { type_url: type_url.to_owned(), value: Vec::new() };
    HttpFilter {
        name: name.to_owned(),
        is_optional,
        config_type: Some(ConfigType::TypedConfig(config)),
        ..HttpFilter::default()
    }
}

#[test]
fn a_listener_needs_an_api_listener_and_a_router() {
    let socket = pack(Kind::Listener, &ProtoListener { name: "checkout.shop".to_owned(), ..ProtoListener::default() });
    refused(Kind::Listener, &socket, "field:api_listener.api_listener error:must be set");
    let none = listener_with(|manager| manager.http_filters.clear());
    refused(Kind::Listener, &none, "must end in the router");
    let unknown =
        listener_with(|manager| manager.http_filters.insert(0, filter("fault", "type.googleapis.com/x.Fault", false)));
    refused(Kind::Listener, &unknown, "`type.googleapis.com/x.Fault` is not supported yet");
    let optional =
        listener_with(|manager| manager.http_filters.insert(0, filter("fault", "type.googleapis.com/x.Fault", true)));
    assert!(content(Kind::Listener, &optional).is_ok());
    let first = listener_with(|manager| manager.http_filters.push(filter("other", "type.googleapis.com/x.Y", true)));
    refused(Kind::Listener, &first, "must be the last of the chain");
    let twice =
        listener_with(|manager| manager.http_filters.insert(0, filter("router", "type.googleapis.com/x.Y", true)));
    refused(Kind::Listener, &twice, "duplicate HTTP filter name");
    let hops = listener_with(|manager| manager.xff_num_trusted_hops = 1);
    refused(Kind::Listener, &hops, "xff_num_trusted_hops error:must be zero");
    let no_routes = listener_with(|manager| manager.route_specifier = None);
    refused(Kind::Listener, &no_routes, "neither route_config nor rds");
    let elsewhere = listener_with(|manager| {
        manager.route_specifier =
            Some(RouteSpecifier::Rds(Rds { config_source: None, route_config_name: "r".to_owned() }));
    });
    refused(Kind::Listener, &elsewhere, "rds.config_source error:must be ads or self");
}

fn vhosts(hosts: Vec<ProtoHost>) -> Any {
    let routes = RouteConfiguration { name: "r".to_owned(), virtual_hosts: hosts, ..RouteConfiguration::default() };
    pack(Kind::RouteConfiguration, &routes)
}

fn route_config(any: &Any) -> std::sync::Arc<RouteConfig> {
    match content(Kind::RouteConfiguration, any) {
        Ok(Decoded::RouteConfiguration(routes)) => routes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_best_pattern_wins_exact_then_suffix_then_prefix_then_everything() {
    let patterns = ["*", "checkout.*", "check*", "*.shop", "*out.shop", "checkout.shop"];
    let hosts = patterns.iter().map(|pattern| host(pattern, vec![to_cluster(pattern)])).collect();
    let routes = route_config(&vhosts(hosts));
    for (name, winner) in [
        ("checkout.shop", "checkout.shop"),
        ("CHECKOUT.Shop", "checkout.shop"),
        ("layout.shop", "*out.shop"),
        ("cart.shop", "*.shop"),
        ("checkout.bank", "checkout.*"),
        ("checks.bank", "check*"),
        ("cart.bank", "*"),
        // A star stands for at least one character.
        (".shop", "*"),
    ] {
        let route = &routes.find(name).unwrap().routes[0];
        assert_eq!(&*route.forward.as_ref().unwrap().clusters[0].cluster, winner, "{name}");
    }
    for bad in ["", "**", "*.x.*", "a*b"] {
        refused(Kind::RouteConfiguration, &vhosts(vec![host(bad, vec![])]), "invalid domain pattern");
    }
    let none = ProtoHost { name: "h".to_owned(), ..ProtoHost::default() };
    refused(Kind::RouteConfiguration, &vhosts(vec![none]), "virtual_hosts[0].domains error:must not be empty");
}

fn routed(change: impl FnOnce(&mut ProtoRoute, &mut RouteAction)) -> Any {
    let mut route = to_cluster("c");
    let Some(Action::Route(mut action)) = route.action.take() else { unreachable!() };
    change(&mut route, &mut action);
    route.action = route.action.or(Some(Action::Route(action)));
    vhosts(vec![host("*", vec![route])])
}

fn the_route(any: &Any) -> Route {
    let config = route_config(any);
    let [route] = &*config.virtual_hosts[0].routes else { panic!("{config:?}") };
    route.clone()
}

fn forward(any: &Any) -> Forward {
    the_route(any).forward.expect("it leads somewhere")
}

/// What a request with this path and these headers is led to; `-` nowhere, `!` by a route that leads nowhere.
fn led(config: &RouteConfig, path: &str, headers: &[(&str, &str)]) -> String {
    struct Head<'a>(&'a str, &'a [(&'a str, &'a str)]);
    impl RequestHead for Head<'_> {
        fn path(&self) -> &str {
            self.0
        }
        fn header(&self, name: &str) -> Option<std::borrow::Cow<'_, str>> {
            self.1.iter().find(|(held, _)| *held == name).map(|(_, value)| (*value).into())
        }
    }
    let routes = &config.virtual_hosts[0].routes;
    match crate::xds::routing::route(routes, &Head(path, headers), &mut || 0) {
        Ok(at) => routes[at.route].forward.as_ref().unwrap().clusters[at.share].cluster.to_string(),
        Err(NoRoute::NoMatch) => "-".to_owned(),
        Err(NoRoute::NotForwarding) => "!".to_owned(),
    }
}

fn matched(cluster: &str, change: impl FnOnce(&mut RouteMatch)) -> ProtoRoute {
    let mut route = to_cluster(cluster);
    change(route.r#match.as_mut().unwrap());
    route
}

fn on_path(cluster: &str, path: PathSpecifier) -> ProtoRoute {
    matched(cluster, |it| it.path_specifier = Some(path))
}

#[test]
fn the_first_route_whose_path_and_headers_fit_takes_a_call() {
    let regex = |regex: &str| RegexMatcher { regex: regex.to_owned(), ..RegexMatcher::default() };
    let header = |name: &str, specifier| HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(specifier),
        ..HeaderMatcher::default()
    };
    let text = StringMatcher { ignore_case: true, match_pattern: Some(MatchPattern::Prefix("Beta".to_owned())) };
    let config = route_config(&vhosts(vec![host(
        "*",
        vec![
            matched("canary", |it| it.headers = vec![header("X-Channel", HeaderMatchSpecifier::StringMatch(text))]),
            matched("range", |it| {
                let range = Int64Range { start: 1, end: 3 };
                it.headers = vec![header("n", HeaderMatchSpecifier::RangeMatch(range))];
            }),
            on_path("exact", PathSpecifier::Path("/s.Pay/Pay".to_owned())),
            on_path("regex", PathSpecifier::SafeRegex(regex("/s[.]Pay/(Refund|Void)"))),
            matched("loose", |it| {
                it.path_specifier = Some(PathSpecifier::Prefix("/S.PAY/".to_owned()));
                it.case_sensitive = Some(BoolValue { value: false });
            }),
            ProtoRoute {
                action: Some(Action::NonForwardingAction(NonForwardingAction {})),
                ..on_path("", PathSpecifier::Prefix("/s.Admin/".to_owned()))
            },
            on_path("rest", PathSpecifier::Prefix("/s.".to_owned())),
        ],
    )]));
    for (path, headers, cluster) in [
        ("/s.Pay/Pay", &[][..], "exact"),
        ("/s.Pay/Pay", &[("x-channel", "beta-7")], "canary"),
        ("/s.Pay/Pay", &[("n", "2")], "range"),
        ("/s.Pay/Pay", &[("n", "3")], "exact"),
        ("/s.Pay/Void", &[], "regex"),
        ("/s.Pay/VoidAll", &[], "loose"),
        ("/s.pay/Void", &[], "loose"),
        ("/s.Admin/Drop", &[], "!"),
        ("/s.Cart/Get", &[], "rest"),
        ("/other/Get", &[], "-"),
    ] {
        assert_eq!(led(&config, path, headers), cluster, "{path} {headers:?}");
    }
}

#[test]
fn what_no_grpc_client_can_match_or_do_is_passed_over_or_refused_as_grpc_does_it() {
    let one = |route| vhosts(vec![host("*", vec![route])]);
    let queried = matched("c", |it| it.query_parameters.push(Default::default()));
    assert_eq!(route_config(&one(queried)).virtual_hosts[0].routes.len(), 0);
    let by_header =
        routed(|_, action| action.cluster_specifier = Some(ClusterSpecifier::ClusterHeader("h".to_owned())));
    assert_eq!(route_config(&by_header).virtual_hosts[0].routes.len(), 0);
    let redirected = ProtoRoute { action: None, ..to_cluster("c") };
    assert_eq!(the_route(&one(redirected)).forward, None);

    let at = "virtual_hosts[0].routes[0].";
    refused(
        Kind::RouteConfiguration,
        &routed(|route, _| route.r#match = None),
        &format!("{at}match error:must be set"),
    );
    let path = one(matched("c", |it| it.path_specifier = None));
    refused(Kind::RouteConfiguration, &path, &format!("{at}match error:invalid path specifier"));
    let regex = RegexMatcher { regex: "(".to_owned(), ..RegexMatcher::default() };
    let bad = one(on_path("c", PathSpecifier::SafeRegex(regex.clone())));
    refused(Kind::RouteConfiguration, &bad, &format!("{at}match.safe_regex.regex error:invalid regular expression"));
    let text = |ignore_case, pattern| {
        HeaderMatchSpecifier::StringMatch(StringMatcher { ignore_case, match_pattern: Some(pattern) })
    };
    let good = RegexMatcher { regex: "a".to_owned(), ..RegexMatcher::default() };
    for (name, specifier, problem) in [
        ("", None, "name error:must not be empty"),
        ("h", None, "says nothing of the value"),
        ("h", Some(HeaderMatchSpecifier::RangeMatch(Int64Range { start: 2, end: 1 })), "ends before it begins"),
        ("h", Some(text(false, MatchPattern::SafeRegex(regex))), "string_match.safe_regex.regex error:invalid regular"),
        ("h", Some(text(true, MatchPattern::SafeRegex(good))), "ignore_case error:has no effect"),
    ] {
        let header =
            HeaderMatcher { name: name.to_owned(), header_match_specifier: specifier, ..HeaderMatcher::default() };
        let any = one(matched("c", |it| it.headers = vec![header]));
        refused(Kind::RouteConfiguration, &any, problem);
    }
    let fraction = |denominator, numerator| {
        let fraction = RuntimeFractionalPercent {
            default_value: Some(FractionalPercent { numerator, denominator }),
            ..RuntimeFractionalPercent::default()
        };
        one(matched("c", |it| it.runtime_fraction = Some(fraction)))
    };
    for (denominator, numerator, part) in [(0, 25, 250_000), (1, 25, 2500), (2, 25, 25), (0, 101, 1_000_000)] {
        assert_eq!(the_route(&fraction(denominator, numerator)).matches.per_million, Some(part));
    }
    refused(Kind::RouteConfiguration, &fraction(3, 1), "runtime_fraction.default_value.denominator error:is not known");
    let unsaid = one(matched("c", |it| it.runtime_fraction = Some(Default::default())));
    refused(Kind::RouteConfiguration, &unsaid, "runtime_fraction.default_value error:must be set");
    let empty = routed(|_, action| action.cluster_specifier = Some(ClusterSpecifier::Cluster(String::new())));
    refused(Kind::RouteConfiguration, &empty, "route.cluster error:must not be empty");
}

#[test]
fn weighted_clusters_are_those_with_weight() {
    let weighted = |weights: &[(&str, u32)]| {
        let clusters = weights.iter().map(|(name, weight)| ClusterWeight {
            name: (*name).to_owned(),
            weight: Some(UInt32Value { value: *weight }),
            ..ClusterWeight::default()
        });
        let clusters = WeightedCluster { clusters: clusters.collect(), ..WeightedCluster::default() };
        routed(|_, action| action.cluster_specifier = Some(ClusterSpecifier::WeightedClusters(clusters)))
    };
    let shares = |any: &Any| -> Vec<_> {
        forward(any).clusters.iter().map(|share| (share.cluster.to_string(), share.weight)).collect()
    };
    assert_eq!(shares(&weighted(&[("a", 0), ("b", 5)])), [("b".to_owned(), 5)]);
    assert_eq!(shares(&weighted(&[("a", 1), ("b", 5)])), [("a".to_owned(), 1), ("b".to_owned(), 5)]);
    refused(Kind::RouteConfiguration, &weighted(&[("a", 0)]), "no cluster has weight");
    refused(Kind::RouteConfiguration, &weighted(&[("", 1)]), "weighted_clusters.clusters[0].name error:must not be");
    refused(Kind::RouteConfiguration, &weighted(&[("a", u32::MAX), ("b", 1)]), "exceeds uint32 max");
}

fn seconds(seconds: i64) -> Option<ProtoDuration> {
    Some(ProtoDuration { seconds, nanos: 0 })
}

#[test]
fn grpcs_stream_duration_goes_before_the_routes_timeout() {
    let timeout = |any: &Any| forward(any).timeout;
    assert_eq!(timeout(&routed(|_, _| ())), None);
    assert_eq!(timeout(&routed(|_, action| action.timeout = seconds(2))), Some(Duration::from_secs(2)));
    let both = routed(|_, action| {
        action.timeout = seconds(2);
        action.max_stream_duration =
            Some(MaxStreamDuration { max_stream_duration: seconds(3), ..MaxStreamDuration::default() });
    });
    assert_eq!(timeout(&both), Some(Duration::from_secs(3)));
    for bad in [
        ProtoDuration { seconds: -1, nanos: 0 },
        ProtoDuration { seconds: 0, nanos: 1_000_000_000 },
        ProtoDuration { seconds: i64::MAX, nanos: 0 },
    ] {
        refused(Kind::RouteConfiguration, &routed(|_, action| action.timeout = Some(bad)), "is not a duration");
    }
}

#[test]
fn retries_are_grpcs() {
    let retry = |policy: RetryPolicy| routed(|_, action| action.retry_policy = Some(policy));
    let on = |retry_on: &str| RetryPolicy { retry_on: retry_on.to_owned(), ..RetryPolicy::default() };
    let read = |policy| forward(&retry(policy)).retry;

    let millis = Duration::from_millis;
    let plain = Retry { attempts: 1, on: vec![1, 14], base: millis(25), max: millis(250), per_try_timeout: None };
    assert_eq!(read(on("unavailable, 5xx,cancelled,unavailable")), Some(plain.clone()));
    assert_eq!(read(on("5xx,reset")), None);
    for (limit, wanted) in [(seconds(2), Some(millis(2000))), (seconds(0), None)] {
        let limited = RetryPolicy { per_try_timeout: limit, ..on("unavailable") };
        assert_eq!(read(limited).unwrap().per_try_timeout, wanted);
    }
    let back_off = RetryBackOff { base_interval: seconds(1), max_interval: None };
    let slow =
        RetryPolicy { num_retries: Some(UInt32Value { value: 3 }), retry_back_off: Some(back_off), ..on("internal") };
    let expected = Retry { attempts: 3, on: vec![13], base: millis(1000), max: millis(10_000), ..plain };
    assert_eq!(read(slow), Some(expected));

    let zero = RetryPolicy { num_retries: Some(UInt32Value { value: 0 }), ..on("unavailable") };
    refused(Kind::RouteConfiguration, &retry(zero), "retry_policy.num_retries error:must be greater than 0");
    for (base, max, problem) in
        [(None, None, "must be set"), (seconds(0), None, "greater than 0"), (seconds(2), seconds(1), "not be less")]
    {
        let back_off = Some(RetryBackOff { base_interval: base, max_interval: max });
        refused(
            Kind::RouteConfiguration,
            &retry(RetryPolicy { retry_back_off: back_off, ..on("unavailable") }),
            problem,
        );
    }
}

fn clustered(change: impl FnOnce(&mut ProtoCluster)) -> Any {
    let mut cluster = cluster_of("c", "service");
    change(&mut cluster);
    pack(Kind::Cluster, &cluster)
}

fn ours(name: &str, value: ValueKind) -> Option<Metadata> {
    let fields = [(name.to_owned(), Value { kind: Some(value) })].into();
    Some(Metadata { filter_metadata: [("portolan.dev".to_owned(), Struct { fields })].into(), ..Metadata::default() })
}

#[test]
fn a_cluster_says_what_a_balancer_must_know() {
    let read = |any: &Any| match content(Kind::Cluster, any) {
        Ok(Decoded::Cluster(cluster)) => (*cluster).clone(),
        other => panic!("{other:?}"),
    };
    let plain = Cluster {
        discovery: cluster::Discovery::Eds("service".to_owned()),
        balancing: vec![Balancing::LeastRequest],
        max_retries: None,
        max_requests: Some(500),
        max_pending_requests: None,
        connect_timeout: Duration::from_secs(1),
        outlier_detection: OutlierDetection::default(),
        warmup: Warmup::default(),
        retry_percent: 20,
        failback: Failback::default(),
        report_load: false,
    };
    assert_eq!(read(&clustered(|_| ())), plain);
    let unlimited = clustered(|cluster| cluster.circuit_breakers = None);
    assert_eq!(read(&unlimited), Cluster { max_requests: None, ..plain.clone() });
    let slow = |limit| clustered(|cluster| cluster.connect_timeout = limit);
    assert_eq!(read(&slow(seconds(3))).connect_timeout, Duration::from_secs(3));
    refused(Kind::Cluster, &slow(seconds(0)), "connect_timeout error:must be greater than 0");
    let broken = |thresholds: Thresholds| {
        let breakers = CircuitBreakers { thresholds: vec![thresholds], ..CircuitBreakers::default() };
        let read = read(&clustered(|cluster| cluster.circuit_breakers = Some(breakers)));
        (read.max_pending_requests, read.max_retries)
    };
    let number = |value| Some(UInt32Value { value });
    let limits = Thresholds { max_pending_requests: number(9), max_retries: number(4), ..Thresholds::default() };
    assert_eq!(broken(limits), (Some(9), Some(4)));
    let budget = Some(RetryBudget::default());
    assert_eq!(broken(Thresholds { retry_budget: budget, ..limits }), (Some(9), None), "a budget stands in its place");
    let budgeted = |value: f64| {
        let retry_budget = Some(RetryBudget { budget_percent: Some(Percent { value }), ..RetryBudget::default() });
        let thresholds = vec![Thresholds { retry_budget, ..Thresholds::default() }];
        clustered(|cluster| cluster.circuit_breakers = Some(CircuitBreakers { thresholds, ..Default::default() }))
    };
    assert_eq!(read(&budgeted(5.0)).retry_percent, 5);
    refused(Kind::Cluster, &budgeted(101.0), "retry_budget.budget_percent error:must be from 0 to 100");
    let reporting = clustered(|cluster| cluster.lrs_server = this_server());
    assert!(read(&reporting).report_load);
    let ramped = clustered(|cluster| cluster.metadata = ours("failbackRampMs", ValueKind::NumberValue(1500.0)));
    assert_eq!(read(&ramped).failback, Failback { ramp: Duration::from_millis(1500), ..Failback::default() });
    let held = clustered(|cluster| cluster.metadata = ours("failbackHoldDownMs", ValueKind::NumberValue(0.0)));
    assert_eq!(read(&held).failback, Failback { hold_down: Duration::ZERO, ..Failback::default() });
}

#[test]
fn a_cluster_says_when_an_endpoint_is_broken_and_when_it_is_warm() {
    let read = |any: &Any| match content(Kind::Cluster, any) {
        Ok(Decoded::Cluster(cluster)) => (*cluster).clone(),
        other => panic!("{other:?}"),
    };
    let number = |value| Some(UInt32Value { value });
    let detecting = |detection: Detection| clustered(|cluster| cluster.outlier_detection = Some(detection));
    let whole = Detection {
        consecutive_5xx: number(3),
        interval: seconds(2),
        base_ejection_time: seconds(20),
        max_ejection_percent: number(30),
        ..Detection::default()
    };
    let expected = OutlierDetection {
        consecutive_errors: 3,
        interval: Duration::from_secs(2),
        base_ejection_time: Duration::from_secs(20),
        max_ejection_percent: 30,
        eject_whole_locality: true,
    };
    assert_eq!(read(&detecting(whole.clone())).outlier_detection, expected);
    let one_by_one = clustered(|cluster| {
        cluster.outlier_detection = Some(whole.clone());
        cluster.metadata = ours("ejectWholeLocality", ValueKind::BoolValue(false));
    });
    assert!(!read(&one_by_one).outlier_detection.eject_whole_locality);
    let never = Detection { enforcing_consecutive_5xx: number(0), ..whole.clone() };
    assert_eq!(read(&detecting(never)).outlier_detection.consecutive_errors, u32::MAX);
    let never = Detection { interval: seconds(0), ..whole.clone() };
    refused(Kind::Cluster, &detecting(never), "outlier_detection.interval error:must be greater than 0");
    let all = Detection { max_ejection_percent: number(101), ..whole };
    refused(Kind::Cluster, &detecting(all), "outlier_detection.max_ejection_percent error:must be at most 100");
    let text = ours("ejectWholeLocality", ValueKind::StringValue("no".to_owned()));
    refused(Kind::Cluster, &clustered(|cluster| cluster.metadata = text), "must be true or false");

    let slow = |aggression, percent| {
        let slow_start_config = Some(SlowStartConfig {
            slow_start_window: seconds(30),
            aggression: Some(RuntimeDouble { default_value: aggression, runtime_key: "key".to_owned() }),
            min_weight_percent: Some(Percent { value: percent }),
        });
        let least_request = LeastRequest { slow_start_config, ..LeastRequest::default() };
        let list = policies(vec![policy("least_request.v3.LeastRequest", least_request.encode_to_vec())]);
        clustered(|cluster| cluster.load_balancing_policy = Some(list))
    };
    let expected = Warmup { window: Duration::from_secs(30), aggression: 1.5, least: 0.2 };
    assert_eq!(read(&slow(1.5, 20.0)).warmup, expected);
    refused(Kind::Cluster, &slow(0.0, 20.0), "slow_start_config.aggression error:must be greater than 0");
    refused(Kind::Cluster, &slow(1.0, 101.0), "slow_start_config.min_weight_percent error:must be from 0 to 100");
}

#[test]
fn a_cluster_that_we_cannot_do_is_refused() {
    let dns = clustered(|cluster| cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(1)));
    refused(Kind::Cluster, &dns, "type error:only EDS clusters");
    refused(
        Kind::Cluster,
        &clustered(|cluster| cluster.eds_cluster_config = None),
        "eds_cluster_config error:must be set",
    );
    let elsewhere = clustered(|cluster| cluster.eds_cluster_config.as_mut().unwrap().eds_config = None);
    refused(Kind::Cluster, &elsewhere, "must be ads or self");
    refused(Kind::Cluster, &clustered(|cluster| cluster.lrs_server = ads()), "lrs_server error:must be self");
    let tls = clustered(|cluster| cluster.transport_socket = Some(TransportSocket::default()));
    refused(Kind::Cluster, &tls, "transport_socket error:not supported yet");
    for value in [f64::NAN, -1.0, f64::INFINITY, 1e12] {
        let ramp = clustered(|cluster| cluster.metadata = ours("failbackRampMs", ValueKind::NumberValue(value)));
        refused(Kind::Cluster, &ramp, "portolan.dev.failbackRampMs error:must be a number of milliseconds");
    }
    let text = clustered(|cluster| cluster.metadata = ours("failbackRampMs", ValueKind::StringValue("1s".to_owned())));
    refused(Kind::Cluster, &text, "must be a number of milliseconds");
}

#[test]
fn of_a_list_of_policies_the_first_known_one_counts() {
    let with = |list| clustered(|cluster| cluster.load_balancing_policy = Some(list));
    let read = |list| match content(Kind::Cluster, &with(list)) {
        Ok(Decoded::Cluster(cluster)) => cluster.balancing.clone(),
        other => panic!("{other:?}"),
    };
    let unknown = || policy("random.v3.Random", Vec::new());
    let choices = |count: u32| {
        let choice_count = Some(UInt32Value { value: count });
        policy(
            "least_request.v3.LeastRequest",
            LeastRequest { choice_count, ..LeastRequest::default() }.encode_to_vec(),
        )
    };
    let named = |name: &str, fields: &[&str]| {
        let fields = fields.iter().map(|field| ((*field).to_owned(), Value::default())).collect();
        let type_url = format!("type.googleapis.com/{name}");
        let value = balancing::TypedStruct { type_url, value: Some(Struct { fields }) }.encode_to_vec();
        Any { type_url: "type.googleapis.com/xds.type.v3.TypedStruct".to_owned(), value }
    };
    for (name, expected) in [
        ("round_robin.v3.RoundRobin", Balancing::LeastRequest),
        ("client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin", Balancing::WeightedRoundRobin),
        ("ring_hash.v3.RingHash", Balancing::RingHash),
        ("maglev.v3.Maglev", Balancing::Maglev),
    ] {
        assert_eq!(read(policies(vec![unknown(), policy(name, Vec::new()), choices(2)])), [expected]);
    }
    assert_eq!(read(portolan_policy()), [Balancing::LeastRequest]);
    assert_eq!(read(policies(vec![choices(7)])), [Balancing::LeastRequest]);
    assert_eq!(read(policies(vec![named("portolan.PeakEwma", &[]), choices(2)])), [Balancing::PeakEwma]);
    let custom = |name: &str| Balancing::Custom(name.into());
    let list = policies(vec![named("shop.Mine", &["any"]), named("portolan.Later", &[]), choices(2), unknown()]);
    assert_eq!(read(list), [custom("shop.Mine"), custom("portolan.Later"), Balancing::LeastRequest]);
    assert_eq!(read(policies(vec![named("shop.Mine", &[])])), [custom("shop.Mine")]);
    let settings = policies(vec![named("portolan.PeakEwma", &["decay"])]);
    refused(Kind::Cluster, &with(settings), "value.decay error:portolan.PeakEwma has no settings");
    refused(Kind::Cluster, &with(policies(vec![named("", &[])])), "type_url error:names no policy");
    refused(Kind::Cluster, &with(policies(vec![unknown()])), "no supported load balancing policy");
    refused(Kind::Cluster, &with(policies(vec![])), "no supported load balancing policy");
    refused(Kind::Cluster, &with(policies(vec![choices(1)])), "choice_count error:must be at least 2");
    let broken = policy("wrr_locality.v3.WrrLocality", vec![0xff; 4]);
    refused(Kind::Cluster, &with(policies(vec![broken])), "cannot be parsed");

    let mut nested = policies(vec![policy("round_robin.v3.RoundRobin", Vec::new())]);
    for _ in 0..20 {
        let wrr = envoy_types::pb::envoy::extensions::load_balancing_policies::wrr_locality::v3::WrrLocality {
            endpoint_picking_policy: Some(nested),
        };
        nested = policies(vec![policy("wrr_locality.v3.WrrLocality", wrr.encode_to_vec())]);
    }
    refused(Kind::Cluster, &with(nested), "nested too deep");

    let legacy = |lb_policy: LbPolicy| {
        clustered(|cluster| {
            cluster.load_balancing_policy = None;
            cluster.lb_policy = lb_policy.into();
        })
    };
    assert!(content(Kind::Cluster, &legacy(LbPolicy::RoundRobin)).is_ok());
    refused(Kind::Cluster, &legacy(LbPolicy::RingHash), "lb_policy error:LB policy is not supported");
}

fn one_zone(change: impl FnOnce(&mut LocalityLbEndpoints)) -> Any {
    let mut zone = zone(0, "a", 1, &["10.0.0.1:80"]);
    change(&mut zone);
    assignment_of("s", vec![zone])
}

fn one_endpoint(change: impl FnOnce(&mut LbEndpoint)) -> Any {
    one_zone(|zone| change(&mut zone.lb_endpoints[0]))
}

fn priorities(any: &Any) -> Vec<Vec<crate::xds::model::LocalityEndpoints>> {
    match content(Kind::ClusterLoadAssignment, any) {
        Ok(Decoded::ClusterLoadAssignment(endpoints)) => endpoints.priorities.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn endpoints_come_by_priority_and_locality() {
    let any = assignment_of(
        "s",
        vec![zone(1, "b", 2, &["10.0.0.2:80"]), zone(0, "a", 7, &["::1:80"]), zone(0, "c", 0, &["10.0.0.2:80"])],
    );
    let read = priorities(&any);
    assert_eq!(read.len(), 2);
    assert_eq!(read[0].len(), 1, "a locality without weight is passed over");
    assert_eq!((&*read[0][0].locality.zone, read[0][0].weight), ("a", 7));
    assert_eq!(read[0][0].endpoints[0].address, "[::1]:80".parse().unwrap());
    assert_eq!(&*read[1][0].locality.zone, "b");
    assert!(priorities(&assignment_of("s", vec![])).is_empty());
}

#[test]
fn health_decides_who_takes_requests() {
    for (status, health) in [
        (HealthStatus::Unknown, EndpointHealth::Healthy),
        (HealthStatus::Healthy, EndpointHealth::Healthy),
        (HealthStatus::Draining, EndpointHealth::Draining),
        (HealthStatus::Unhealthy, EndpointHealth::Unhealthy),
        (HealthStatus::Timeout, EndpointHealth::Unhealthy),
        (HealthStatus::Degraded, EndpointHealth::Unhealthy),
    ] {
        let read = priorities(&one_endpoint(|endpoint| endpoint.health_status = status.into()));
        assert_eq!(read[0][0].endpoints[0].health, health);
    }
    let unheard_of = priorities(&one_endpoint(|endpoint| endpoint.health_status = 99));
    assert_eq!(unheard_of[0][0].endpoints[0].health, EndpointHealth::Unhealthy);
}

#[test]
fn an_assignment_that_c_core_refuses_is_refused() {
    let refused = |any: &Any, expected: &str| refused(Kind::ClusterLoadAssignment, any, expected);
    refused(&assignment_of("s", vec![zone(1, "a", 1, &["10.0.0.1:80"])]), "priority 0 is empty");
    refused(&assignment_of("s", vec![zone(0, "a", 1, &[]), zone(2, "b", 1, &[])]), "priority 1 is empty");
    refused(&assignment_of("s", vec![zone(0, "a", 0, &[]), zone(1, "b", 1, &[])]), "priority 0 is empty");
    refused(&one_zone(|zone| zone.locality = None), "endpoints[0].locality error:must be set");
    let twice = vec![zone(0, "a", 1, &["10.0.0.1:80"]), zone(1, "b", 1, &["10.0.0.1:80"])];
    refused(&assignment_of("s", twice), "duplicate endpoint address 10.0.0.1:80");
    refused(
        &assignment_of("s", vec![zone(0, "a", 1, &[]), zone(0, "a", 1, &[])]),
        "duplicate locality us/a/one in priority 0",
    );
    refused(&assignment_of("s", vec![zone(0, "a", u32::MAX, &[]), zone(0, "b", 1, &[])]), "exceeds uint32 max");
    refused(&one_zone(|zone| zone.lb_endpoints = vec![endpoint("shop.local:80")]), "host names are not resolved");
    refused(&one_zone(|zone| zone.lb_endpoints = vec![endpoint("10.0.0.1:70000")]), "must be between 1 and 65535");
    refused(
        &one_endpoint(|endpoint| endpoint.load_balancing_weight = Some(UInt32Value { value: 0 })),
        "load_balancing_weight error:must be greater",
    );
    refused(
        &one_endpoint(|endpoint| endpoint.host_identifier = Some(HostIdentifier::EndpointName("e".to_owned()))),
        "endpoint error:must be set",
    );
    let heavy = |endpoint: &mut LbEndpoint| endpoint.load_balancing_weight = Some(UInt32Value { value: u32::MAX });
    let sum = one_zone(|zone| {
        zone.lb_endpoints.push(endpoint("10.0.0.2:80"));
        zone.lb_endpoints.iter_mut().for_each(heavy);
    });
    refused(&sum, "sum of endpoint weights exceeds");

    use cluster_load_assignment::{Policy, policy::DropOverload};
    let percent = envoy_types::pb::envoy::r#type::v3::FractionalPercent { numerator: 5, denominator: 0 };
    let drop = DropOverload { category: "lb".to_owned(), drop_percentage: Some(percent) };
    let policy = Some(Policy { drop_overloads: vec![drop], ..Policy::default() });
    let drops = ClusterLoadAssignment { cluster_name: "s".to_owned(), policy, ..ClusterLoadAssignment::default() };
    refused(&pack(Kind::ClusterLoadAssignment, &drops), "drop_overloads error:not supported yet");
}

#[test]
fn a_resource_may_come_in_its_wrapper() {
    let inner = cluster("c", "");
    let wrapper = |resource| any_of(WRAPPER, &Resource { name: "c".to_owned(), resource, ..Resource::default() });
    assert_eq!(unwrap(wrapper(Some(inner.clone()))).unwrap(), inner);
    assert!(unwrap(wrapper(None)).unwrap_err().to_string().contains("is empty"));
    assert_eq!(unwrap(inner.clone()).unwrap(), inner);
    let nested = unwrap(wrapper(Some(wrapper(Some(inner))))).unwrap();
    assert!(content(Kind::Cluster, &nested).unwrap_err().contains("among resources of Cluster"));
}

fn good() -> Vec<(Kind, Any)> {
    vec![
        (Kind::Listener, listener("l", "r")),
        (Kind::Listener, absent_listener("l")),
        (Kind::RouteConfiguration, routes("r", "c")),
        (Kind::Cluster, reporting_cluster("c")),
        (Kind::ClusterLoadAssignment, assignment("s", &["10.0.0.1:80", "10.0.0.2:80"])),
    ]
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for kind in Kind::ALL {
            let _ = content(kind, &Any { type_url: kind.type_url().to_owned(), value: bytes.clone() });
        }
    }

    /// Good resources with some bytes changed come further in than noise.
    #[test]
    fn broken_resources_never_panic(which in 0usize..5, changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let (kind, mut any) = good().swap_remove(which);
        for (at, byte) in changes {
            let at = at.index(any.value.len());
            any.value[at] = byte;
        }
        let _ = content(kind, &any);
    }
}

#[test]
fn an_aggregate_names_its_clusters_in_order() {
    let read = |any: &Any| match content(Kind::Cluster, any) {
        Ok(Decoded::Cluster(cluster)) => cluster.discovery.clone(),
        other => panic!("{other:?}"),
    };
    let expected = cluster::Discovery::Aggregate(vec!["near".into(), "far".into()]);
    assert_eq!(read(&aggregate("all", &["near", "far"])), expected);
    refused(Kind::Cluster, &aggregate("all", &[]), "cluster_type.typed_config.clusters error:must not be empty");
    let custom = |name: &str, config| {
        clustered(|cluster| {
            let custom = CustomClusterType { name: name.to_owned(), typed_config: config };
            cluster.cluster_discovery_type = Some(ClusterDiscoveryType::ClusterType(custom));
        })
    };
    refused(Kind::Cluster, &custom("envoy.clusters.aggregate", None), "cluster_type.typed_config error:must be set");
    let other = Any { type_url: "type.googleapis.com/x.Y".to_owned(), value: Vec::new() };
    refused(Kind::Cluster, &custom("envoy.clusters.aggregate", Some(other.clone())), "unsupported type");
    refused(Kind::Cluster, &custom("envoy.clusters.redis", Some(other)), "only EDS clusters and aggregates of them");
}
