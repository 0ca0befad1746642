//! RouteConfigurations: which are taken, and where their calls go.

use envoy_types::pb::envoy::config::route::v3::route_action::HashPolicy as ProtoHash;
use envoy_types::pb::envoy::config::route::v3::route_action::hash_policy::{self, PolicySpecifier};
use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;

use super::*;
use crate::xds::hashing::{HashOn, HashPolicy, Rewrite};

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

#[test]
fn a_routes_hash_is_of_headers_and_of_the_channel() {
    let with = |policies: Vec<ProtoHash>| routed(|_, action| action.hash_policy = policies);
    let on = |specifier| ProtoHash { policy_specifier: Some(specifier), terminal: false };
    let header = |name: &str, rewrite: Option<(&str, &str)>| {
        let regex_rewrite = rewrite.map(|(regex, substitution)| RegexMatchAndSubstitute {
            pattern: Some(RegexMatcher { regex: regex.to_owned(), ..RegexMatcher::default() }),
            substitution: substitution.to_owned(),
        });
        on(PolicySpecifier::Header(hash_policy::Header { header_name: name.to_owned(), regex_rewrite }))
    };
    let state = |key: &str| on(PolicySpecifier::FilterState(hash_policy::FilterState { key: key.to_owned() }));
    let cookie = on(PolicySpecifier::Cookie(hash_policy::Cookie::default()));
    let given = vec![
        ProtoHash { terminal: true, ..header("X-User", None) },
        header("x-path", Some(("/a/(.*)", r"\1"))),
        cookie,
        state("other"),
        state("io.grpc.channel_id"),
        ProtoHash::default(),
    ];
    let hash = |name: &str, rewrite| HashOn::Header { name: name.to_owned(), rewrite };
    let rewrite = Some(Rewrite::new("/a/(.*)", r"\1").unwrap());
    let expected = [
        HashPolicy { on: hash("x-user", None), terminal: true },
        HashPolicy { on: hash("x-path", rewrite), terminal: false },
        HashPolicy { on: HashOn::Channel, terminal: false },
    ];
    assert_eq!(forward(&with(given)).hash, expected);
    let at = "virtual_hosts[0].routes[0].route.hash_policy[0].header.";
    for (bad, problem) in [
        (header("", None), "header_name error:must not be empty"),
        (header("a", Some(("(", ""))), "regex_rewrite error:invalid regular expression"),
        (header("a", Some(("a", r"\1"))), "regex_rewrite error:the substitution names no group by"),
    ] {
        refused(Kind::RouteConfiguration, &with(vec![bad]), &format!("{at}{problem}"));
    }
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
