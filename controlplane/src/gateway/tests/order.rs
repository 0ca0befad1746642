//! The order in which matches are tried, and which host's routes a request meets.

use proptest::prelude::*;

use super::*;
use crate::gateway::hostname::Hostname;

fn routes(rules: &[(&str, &str, &str)]) -> String {
    let mut text = GATEWAY.to_owned();
    for (name, made, spec) in rules {
        let kind = if spec.contains("service:") { "GRPCRoute" } else { "HTTPRoute" };
        text += &format!(
            "---
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: {name}, namespace: shop, creationTimestamp: {made}}}
spec: {{parentRefs: [{{name: edge}}], {spec}}}
"
        );
    }
    text
}

fn order(rules: &[(&str, &str, &str)]) -> Vec<String> {
    shown(&planned(&routes(rules))).lines().skip(3).map(|line| line.trim().to_owned()).collect()
}

#[test]
fn the_more_specific_match_goes_first() {
    let spec = "rules: [
      {matches: [{path: {value: /}}], backendRefs: [{name: a, port: 1}]},
      {matches: [{path: {value: /a}, method: GET}], backendRefs: [{name: b, port: 1}]},
      {matches: [{path: {value: /a}, headers: [{name: X, value: y}, {name: x, value: z}]}], backendRefs: [{name: c, port: 1}]},
      {matches: [{path: {value: /a}, queryParams: [{name: q, value: y}]}], backendRefs: [{name: d, port: 1}]},
      {matches: [{path: {value: /a/b/}}], backendRefs: [{name: e, port: 1}]},
      {matches: [{path: {type: RegularExpression, value: '/a/.*'}}], backendRefs: [{name: f, port: 1}]},
      {matches: [{path: {type: Exact, value: /a}}], backendRefs: [{name: g, port: 1}]}]";
    assert_eq!(
        order(&[("r", "2026-01-01T00:00:00Z", spec)]),
        [
            "=/a -> g.shop:1*1",
            "~/a/.* -> f.shop:1*1",
            "/a/b/* -> e.shop:1*1",
            "/a/* GET -> b.shop:1*1",
            "/a/* x=y -> c.shop:1*1",
            "/a/* ?q=y -> d.shop:1*1",
            "/* -> a.shop:1*1",
        ]
    );
}

#[test]
fn of_equal_matches_the_older_route_goes_first_then_the_name_then_the_rule() {
    let to = |name: &str| format!("rules: [{{backendRefs: [{{name: {name}, port: 1}}]}}]");
    let (a, b, c) = (to("a"), to("b"), to("c"));
    let order = order(&[
        ("z", "2026-01-01T00:00:00Z", &a),
        ("y", "2026-01-02T00:00:00Z", &b),
        ("x", "2026-01-02T00:00:00Z", &c),
    ]);
    assert_eq!(order, ["/* -> a.shop:1*1", "/* -> c.shop:1*1", "/* -> b.shop:1*1"]);
}

#[test]
fn grpc_calls_are_looked_up_by_service_then_method() {
    let spec = "rules: [
      {backendRefs: [{name: a, port: 1}], matches: [{method: {service: '', method: M}}]},
      {backendRefs: [{name: b, port: 1}], matches: [{method: {service: s.S}}]},
      {backendRefs: [{name: c, port: 1}], matches: [{method: {service: s.S, method: M}}]}]";
    assert_eq!(
        order(&[("r", "2026-01-01T00:00:00Z", spec)]),
        ["grpc =/s.S/M -> h2 c.shop:1*1", "grpc /s.S/* -> h2 b.shop:1*1", "grpc ~/[^/]+/M -> h2 a.shop:1*1"]
    );
}

#[test]
fn a_request_that_the_narrower_host_does_not_match_goes_to_the_wider() {
    let order = order(&[
        (
            "narrow",
            "2026-01-02T00:00:00Z",
            "hostnames: [a.test], rules: [{matches: [{path: {value: /x}}], backendRefs: [{name: n, port: 1}]}]",
        ),
        (
            "wide",
            "2026-01-01T00:00:00Z",
            "hostnames: ['*.test'], rules: [{matches: [{path: {type: Exact, value: /y}}], backendRefs: [{name: w, port: 1}]}]",
        ),
    ]);
    assert_eq!(order, ["*.test", "=/y -> w.shop:1*1", "a.test", "/x/* -> n.shop:1*1", "=/y -> w.shop:1*1"]);
}

#[test]
fn a_listener_for_a_narrower_host_has_it_alone() {
    let text = routes(&[(
        "r",
        "2026-01-01T00:00:00Z",
        "hostnames: [a.test, b.test], rules: [{backendRefs: [{name: a, port: 1}]}]",
    )])
    .replace(
        "{name: web, port: 8080, protocol: HTTP}",
        "{name: web, port: 8080, protocol: HTTP, hostname: '*.test'}\n  - {name: own, port: 8080, protocol: HTTP, hostname: a.test, allowedRoutes: {kinds: [{kind: GRPCRoute}]}}",
    );
    let planned = planned(&text);
    assert_eq!(shown(&planned), "shop/edge\n 8080 http\n  *.test\n  a.test\n  b.test\n   /* -> a.shop:1*1\n");
}

fn hosts() -> impl Strategy<Value = String> {
    prop::sample::select(&["a.test", "b.test", "*.test", "*.a.test", "x.a.test"][..]).prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whoever asks for a host meets exactly the routes whose host names cover it, the narrowest first.
    #[test]
    fn every_host_meets_the_routes_that_cover_it(given in prop::collection::vec(prop::collection::btree_set(hosts(), 1..4), 1..4)) {
        let specs: Vec<_> = given.iter().enumerate().map(|(at, hosts)| {
            let hosts: Vec<_> = hosts.iter().map(|host| format!("'{host}'")).collect();
            format!("hostnames: [{}], rules: [{{backendRefs: [{{name: s{at}, port: 1}}]}}]", hosts.join(", "))
        }).collect();
        let names: Vec<_> = (0..given.len()).map(|at| format!("r{at}")).collect();
        let rules: Vec<_> = names.iter().zip(&specs).map(|(name, spec)| (name.as_str(), "2026-01-01T00:00:00Z", spec.as_str())).collect();
        let planned = planned(&routes(&rules));
        let gateway = planned.gateways.values().next().unwrap();
        let site = gateway.ports.values().flat_map(PortPlan::sites).next().unwrap();
        for (host, routes) in &site.hosts {
            let mut expected: Vec<_> = given.iter().enumerate().flat_map(|(at, hosts)| hosts.iter().filter_map(move |text| {
                let of = Hostname::read(Some(text)).unwrap();
                of.covers(host).then(|| (of.narrowness(), at))
            })).collect();
            expected.sort();
            let met: Vec<_> = routes.iter().map(show_route).collect();
            let expected: Vec<_> = expected.into_iter().map(|(_, at)| format!("/* -> s{at}.shop:1*1")).collect();
            prop_assert_eq!(met, expected);
        }
    }
}
