//! Routes whose parent is a service: what they come to, and what is said of them.

use proptest::prelude::*;

use super::*;
use crate::catalog::served::NameScope;

/// Routes of `checkout.shop`: each its kind, name and what follows `parentRefs` in its spec.
fn routes(given: &[(&str, &str, &str)]) -> String {
    let parent = "[{group: '', kind: Service, name: checkout}]";
    given.iter().map(|(kind, name, spec)| route(kind, name, parent, spec)).collect()
}

fn route(kind: &str, name: &str, parents: &str, spec: &str) -> String {
    format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: {name}, namespace: shop}}
spec: {{parentRefs: {parents}, {spec}}}
"
    )
}

/// What calls of `checkout.shop:8080` meet.
fn met(text: &str) -> Vec<String> {
    let routes = service_routes(text, "checkout.shop").expect("routes");
    let met = routes.of(8080, NameScope::Federation).expect("some are attached");
    met.into_iter().map(|route| show_route(&route.plan)).collect()
}

#[test]
fn the_routes_of_a_service_are_merged_in_the_order_of_matching() {
    let text = routes(&[
        (
            "GRPCRoute",
            "b",
            "rules: [{backendRefs: [{name: a, port: 1}]}, {matches: [{headers: [{name: lane, value: blue}]}], backendRefs: [{name: b, port: 1}]}]",
        ),
        (
            "GRPCRoute",
            "a",
            "rules: [{matches: [{method: {service: s.S, method: M}}, {method: {service: s.S}}], backendRefs: [{name: c, port: 1, namespace: other}]}]",
        ),
    ]);
    assert_eq!(
        met(&text),
        [
            "grpc =/s.S/M -> h2 c.other:1*1",
            "grpc /s.S/* -> h2 c.other:1*1",
            "grpc /* lane=blue -> h2 b.shop:1*1",
            "grpc /* -> h2 a.shop:1*1",
        ]
    );
    assert_eq!(troubles(&planned(&text)), [""; 0], "no grant is needed: its clients could call the other service, too");
}

#[test]
fn one_parent_may_be_a_gateway_and_another_a_service() {
    let both = route(
        "HTTPRoute",
        "r",
        "[{name: edge}, {group: '', kind: Service, name: checkout}]",
        "rules: [{backendRefs: [{name: a, port: 1}]}]",
    );
    let planned = planned(&format!("{GATEWAY}{both}"));
    assert_eq!(planned.gateways.len(), 1);
    assert_eq!(planned.services.len(), 1);
    let told: Vec<_> = planned.statuses.routes.values().flatten().map(|parent| parent.conditions.len()).collect();
    assert_eq!(told, [2, 2], "each parent has its own conditions");
}

#[test]
fn what_cannot_be_had_without_a_proxy_or_at_all_is_said() {
    let backend = "backendRefs: [{name: a, port: 1}]";
    let service = "[{group: '', kind: Service, name: checkout}]";
    let set = "requestHeaderModifier: {set: [{name: a, value: b}]}";
    for (parents, spec, expected) in [
        (
            service,
            format!("hostnames: [a.test], rules: [{{{backend}}}]"),
            "Accepted UnsupportedValue: `hostnames` mean nothing",
        ),
        (
            service,
            format!("rules: [{{matches: [{{queryParams: [{{name: q, value: v}}]}}], {backend}}}]"),
            "Accepted UnsupportedValue: `queryParams` match nothing",
        ),
        (
            service,
            format!("rules: [{{filters: [{{type: RequestHeaderModifier, {set}}}], {backend}}}]"),
            "Accepted UnsupportedValue: the filter `RequestHeaderModifier` needs a proxy",
        ),
        (
            service,
            "rules: [{filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]}]".to_owned(),
            "Accepted UnsupportedValue: the filter `RequestRedirect` needs a proxy",
        ),
        (
            service,
            format!("rules: [{{filters: [{{type: URLRewrite, urlRewrite: {{hostname: a.test}}}}], {backend}}}]"),
            "Accepted UnsupportedValue: the filter `URLRewrite` needs a proxy",
        ),
        (
            service,
            format!("rules: [{{matches: [{{headers: [{{name: a-bin, value: v}}]}}], {backend}}}]"),
            "Accepted UnsupportedValue: gRPC clients match no binary header, such as `a-bin`",
        ),
        (
            service,
            "rules: [{backendRefs: [{name: gone, port: 1}]}]".to_owned(),
            "ResolvedRefs BackendNotFound: there is no Service shop/gone with the port 1",
        ),
        (
            "[{group: '', kind: Service, name: gone}]",
            format!("rules: [{{{backend}}}]"),
            "Accepted NoMatchingParent: there is no Service shop/gone",
        ),
        (
            "[{group: '', kind: Service, name: checkout, namespace: other}]",
            format!("rules: [{{{backend}}}]"),
            "Accepted UnsupportedValue: a route for the Service other/checkout must stand in the namespace other: from another it would concern only that namespace's clients, and clients do not say theirs",
        ),
        (
            "[{group: '', kind: Service, name: checkout, sectionName: grpc}]",
            format!("rules: [{{{backend}}}]"),
            "Accepted UnsupportedValue: `sectionName` of a Service is not supported yet: expected `port`",
        ),
        (
            "[{kind: Service, name: checkout}]",
            format!("rules: [{{{backend}}}]"),
            "Accepted UnsupportedValue: the group of a Service is `\"\"`, which must be said: expected {group: \"\", kind: Service, name: checkout}",
        ),
    ] {
        let text = route("HTTPRoute", "r", parents, &spec);
        let told = troubles(&planned(&text));
        let [trouble] = &told[..] else { panic!("{spec}: {told:?}") };
        assert!(trouble.starts_with(&format!("HTTPRoute shop/r: {expected}")), "{trouble}");
        let refused = expected.starts_with("Accepted");
        assert_eq!(planned(&text).services.is_empty(), refused, "{spec}: what is refused steers nothing");
    }
}

#[test]
fn beside_a_grpc_route_no_http_route_of_the_same_port_counts() {
    let grpc = route(
        "GRPCRoute",
        "g",
        "[{group: '', kind: Service, name: checkout, port: 8080}]",
        "rules: [{backendRefs: [{name: g, port: 1}]}]",
    );
    let http = |port: &str| {
        route(
            "HTTPRoute",
            "h",
            &format!("[{{group: '', kind: Service, name: checkout{port}}}]"),
            "rules: [{backendRefs: [{name: h, port: 1}]}]",
        )
    };
    for port in ["", ", port: 8080"] {
        let text = format!("{}{grpc}", http(port));
        assert_eq!(met(&text), ["grpc /* -> h2 g.shop:1*1"]);
        let told = troubles(&planned(&text));
        assert_eq!(
            told,
            [
                "HTTPRoute shop/h: Accepted Conflicted: a GRPCRoute is attached to checkout.shop, and beside one no HTTPRoute counts"
            ]
        );
    }
    let text = format!("{}{grpc}", http(", port: 9090"));
    assert_eq!(met(&text), ["grpc /* -> h2 g.shop:1*1"]);
    assert_eq!(troubles(&planned(&text)), [""; 0]);
}

fn paths() -> impl Strategy<Value = (&'static str, &'static str)> {
    prop::sample::select(
        &[
            ("Exact", "/a/b"),
            ("Exact", "/a"),
            ("PathPrefix", "/"),
            ("PathPrefix", "/a"),
            ("PathPrefix", "/a/b"),
            ("RegularExpression", "/a/.*"),
        ][..],
    )
}

/// Whether a path is matched.
fn takes(path: &PathMatch, call: &str) -> bool {
    match path {
        PathMatch::Exact(own) => own == call,
        PathMatch::Prefix(prefix) => {
            call.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        PathMatch::Regex(_) => call.starts_with("/a/"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever routes there are and however they are spread over objects, a call meets the match that the API ranks
    /// first among all that take it: by kind of path, then length, then number of headers, then the older object.
    #[test]
    fn a_call_meets_the_first_of_those_that_take_it(
        given in prop::collection::vec(prop::collection::vec((paths(), 0..3_usize), 1..4), 1..4),
        call in prop::sample::select(&["/a/b", "/a/c", "/b/c"][..]),
    ) {
        let mut text = String::new();
        let mut all = Vec::new();
        for (object, rules) in given.iter().enumerate() {
            let mut written = Vec::new();
            for (at, ((kind, value), headers)) in rules.iter().enumerate() {
                let named: Vec<_> = (0..*headers).map(|n| format!("{{name: h{n}, value: v}}")).collect();
                written.push(format!(
                    "{{matches: [{{path: {{type: {kind}, value: '{value}'}}, headers: [{}]}}], backendRefs: [{{name: s{object}-{at}, port: 1}}]}}",
                    named.join(", ")
                ));
                let class = ["Exact", "RegularExpression", "PathPrefix"].iter().position(|it| it == kind).unwrap();
                let length = if *kind == "PathPrefix" { value.trim_end_matches('/').len() } else { value.len() };
                all.push((class, std::cmp::Reverse(length), std::cmp::Reverse(*headers), object, at));
            }
            text += &routes(&[("HTTPRoute", &format!("r{object}"), &format!("rules: [{}]", written.join(", ")))]);
        }
        let planned = service_routes(&text, "checkout.shop").unwrap();
        let listed = planned.of(8080, NameScope::Cluster).unwrap();
        // The call has every header, so that its path alone decides what takes it.
        let met = listed.iter().find(|route| takes(&route.plan.matching.path, call)).map(|route| show_route(&route.plan));
        let path = |class: usize, object: usize, at: usize| {
            let ((_, value), _) = given[object][at];
            match class {
                0 => PathMatch::Exact(value.to_owned()),
                1 => PathMatch::Regex(value.to_owned()),
                _ => PathMatch::Prefix(value.trim_end_matches('/').to_owned()),
            }
        };
        let best = all.into_iter().filter(|(class, _, _, object, at)| takes(&path(*class, *object, *at), call)).min();
        let expected = best.map(|(_, _, _, object, at)| format!("s{object}-{at}.shop:1*1"));
        prop_assert_eq!(met.map(|met| met.rsplit(' ').next().unwrap().to_owned()), expected);
    }
}
