//! A plan, as Envoy reads it.

use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::route::Action as RouteKind;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::{Route, RouteConfiguration};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;

use portolan_topology::policy::Retry;
use std::time::Duration;

use super::*;
use crate::gateway::tests::{GATEWAY, planned};

fn resources(text: &str) -> GatewayResources {
    resources_under(text, &|_| Arc::default())
}

fn resources_under(text: &str, policy_of: PolicyOf<'_>) -> GatewayResources {
    let planned = planned(text);
    GatewayResources::new(planned.gateways.values().next().unwrap(), &planned.pending, policy_of)
}

fn read<M: Message + Default>(resources: &GatewayResources, kind: Kind, name: &str) -> M {
    let Lookup::Present(encoded) = resources.lookup(kind, &name.into()) else { panic!("no {kind} {name}") };
    M::decode(encoded.bytes().clone()).unwrap()
}

/// The routes of an HTTPRoute with these rules.
fn routes(rules: &str) -> Vec<Route> {
    let resources = resources(&format!(
        "{GATEWAY}---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r, namespace: shop}}
spec: {{parentRefs: [{{name: edge}}], rules: {rules}}}
"
    ));
    let configuration: RouteConfiguration = read(&resources, Kind::Rds, "shop/edge/8080");
    configuration.virtual_hosts.into_iter().flat_map(|host| host.routes).collect()
}

fn forwarded(route: &Route) -> &envoy_types::pb::envoy::config::route::v3::RouteAction {
    match &route.action {
        Some(RouteKind::Route(action)) => action,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_https_port_has_its_chains_by_name_and_its_certificates_apart() {
    let text = GATEWAY.replace("{name: web, port: 8080, protocol: HTTP}", "{name: web, port: 8443, protocol: HTTPS, hostname: '*.a.test', tls: {certificateRefs: [{name: c}]}}")
        + "  - {name: any, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}}
  addresses: [{value: 127.0.0.1}]
---
{apiVersion: v1, kind: Secret, type: kubernetes.io/tls, metadata: {name: c, namespace: shop}, stringData: {tls.crt: chain, tls.key: key}}
";
    let resources = resources(&text);
    let listener: Listener = read(&resources, Kind::Lds, "shop/edge/8443");
    let chains: Vec<_> = listener
        .filter_chains
        .iter()
        .map(|chain| (chain.name.as_str(), chain.filter_chain_match.clone().unwrap().server_names))
        .collect();
    assert_eq!(chains, [("shop/edge/8443/web", vec!["*.a.test".to_owned()]), ("shop/edge/8443/any", vec![])]);
    assert!(format!("{:?}", listener.address).contains("127.0.0.1"));
    assert_eq!(listener.listener_filters.len(), 1, "names are read before TLS");
    let secret: Secret = read(&resources, Kind::Sds, "shop/c");
    let Some(Type::TlsCertificate(certificate)) = secret.r#type else { panic!("no certificate") };
    assert_eq!(certificate.private_key.unwrap().specifier, Some(Specifier::InlineBytes(b"key".to_vec())));
    // Another certificate is another Secret, and the Listener stays as it is.
    let rotated = super::tests::resources(&text.replace("tls.crt: chain", "tls.crt: other"));
    let of = |resources: &GatewayResources, kind, name: &str| format!("{:?}", resources.lookup(kind, &name.into()));
    assert_eq!(of(&resources, Kind::Lds, "shop/edge/8443"), of(&rotated, Kind::Lds, "shop/edge/8443"));
    assert_ne!(of(&resources, Kind::Sds, "shop/c"), of(&rotated, Kind::Sds, "shop/c"));
}

#[test]
fn weights_are_a_split_and_what_is_refused_is_500() {
    let split = routes(
        "[{backendRefs: [{name: a, port: 1, weight: 90}, {name: gone, port: 1, weight: 10}, {name: b, port: 1, weight: 0}]}]",
    );
    let action = forwarded(&split[0]);
    let Some(ClusterSpecifier::WeightedClusters(weighted)) = &action.cluster_specifier else { panic!("{action:?}") };
    let shares: Vec<_> = weighted.clusters.iter().map(|it| (it.name.as_str(), it.weight.unwrap().value)).collect();
    assert_eq!(shares, [("http1/a.shop.svc.cluster.local:1", 90), ("no-backend", 10)]);
    assert_eq!(action.cluster_not_found_response_code, 2, "INTERNAL_SERVER_ERROR");
    assert_eq!(action.timeout.unwrap().seconds, 0, "none");
    for rules in
        ["[{backendRefs: [{name: gone, port: 1}]}]", "[{backendRefs: [{name: a, port: 1, weight: 0}]}]", "[{}]"]
    {
        let Some(RouteKind::DirectResponse(refusal)) = routes(rules).remove(0).action else { panic!("{rules}") };
        assert_eq!(refusal.status, 500, "{rules}");
    }
}

#[test]
fn a_policy_s_timeout_and_retries_hold_where_a_rule_says_nothing() {
    let text = format!(
        "{GATEWAY}---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r, namespace: shop}}
spec:
  parentRefs: [{{name: edge}}]
  rules:
  - {{matches: [{{path: {{value: /said}}}}], timeouts: {{request: 2s}}, backendRefs: [{{name: a, port: 1}}]}}
  - {{matches: [{{path: {{value: /never}}}}], timeouts: {{request: 0s}}, backendRefs: [{{name: a, port: 1}}]}}
  - {{backendRefs: [{{name: gone, port: 1}}, {{name: a, port: 1}}, {{name: b, port: 1}}]}}
"
    );
    let of_a = |backend: &Backend| {
        let retry = Some(Retry { attempts: 7, ..Retry::default() });
        let under = EffectivePolicy { timeout: Some(Duration::from_secs(9)), retry, ..EffectivePolicy::default() };
        if backend.service.name() == "a" { Arc::new(under) } else { Arc::default() }
    };
    let configuration: RouteConfiguration = read(&resources_under(&text, &of_a), Kind::Rds, "shop/edge/8080");
    let routes = configuration.virtual_hosts.into_iter().flat_map(|host| host.routes);
    let limits: Vec<_> = routes
        .map(|route| {
            let action = forwarded(&route);
            let retries = action.retry_policy.as_ref().unwrap().num_retries.unwrap().value;
            (action.timeout.unwrap().seconds, retries)
        })
        .collect();
    assert_eq!(limits, [(0, 7), (2, 7), (9, 7)], "that of the first backend that is there");
}

#[test]
fn paths_are_rewritten_as_the_api_says() {
    let rewritten = |matched: &str, with: &str| {
        let rules = format!(
            "[{{matches: [{{path: {{value: {matched}}}}}], filters: [{{type: URLRewrite, urlRewrite: {{hostname: h.test, path: {with}}}}}], backendRefs: [{{name: a, port: 1}}]}}]"
        );
        let routes = routes(&rules);
        let action = forwarded(&routes[0]).clone();
        let regex = action.regex_rewrite.map(|it| (it.pattern.unwrap().regex, it.substitution));
        (action.prefix_rewrite, regex)
    };
    let prefix = |with: &str| format!("{{type: ReplacePrefixMatch, replacePrefixMatch: '{with}'}}");
    assert_eq!(rewritten("/foo", &prefix("/bar")), ("/bar".to_owned(), None));
    assert_eq!(rewritten("/foo/", &prefix("/bar/")), ("/bar".to_owned(), None));
    assert_eq!(rewritten("/", &prefix("/bar")), ("/bar/".to_owned(), None));
    let away = ("^/fo\\.o/*".to_owned(), "/".to_owned());
    assert_eq!(rewritten("/fo.o", &prefix("/")), (String::new(), Some(away)));
    let full = "{type: ReplaceFullPath, replaceFullPath: /all}";
    assert_eq!(rewritten("/foo", full), (String::new(), Some(("^/.*$".to_owned(), "/all".to_owned()))));
}

#[test]
fn a_redirect_names_the_port_only_where_it_must() {
    for (redirect, port) in [
        ("{scheme: https}", 0),
        ("{hostname: a.test}", 8080),
        ("{scheme: https, port: 8443}", 8443),
        ("{scheme: http, port: 80}", 0),
        ("{port: 80}", 0),
    ] {
        let rules = format!("[{{filters: [{{type: RequestRedirect, requestRedirect: {redirect}}}]}}]");
        let Some(RouteKind::Redirect(action)) = routes(&rules).remove(0).action else { panic!("{redirect}") };
        assert_eq!((action.port_redirect, action.response_code), (port, 1), "{redirect}: 302 is FOUND");
    }
}

#[test]
fn a_headers_value_is_never_read_as_a_variable() {
    let filter = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: '%REQ(secret)%'}], remove: [x-b]}}";
    let route = routes(&format!("[{{filters: [{filter}], backendRefs: [{{name: a, port: 1}}]}}]")).remove(0);
    let header = route.request_headers_to_add[0].header.clone().unwrap();
    assert_eq!((header.key.as_str(), header.value.as_str()), ("x-a", "%%REQ(secret)%%"));
    assert_eq!(route.request_headers_to_remove, ["x-b"]);
}

#[test]
fn a_backend_by_h2c_or_of_a_grpc_route_is_spoken_to_in_http2() {
    let text = format!(
        "{GATEWAY}---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r, namespace: shop}}
spec: {{parentRefs: [{{name: edge}}], rules: [{{backendRefs: [{{name: a, port: 1}}, {{name: b, port: 1}}]}}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: g, namespace: shop}}
spec: {{parentRefs: [{{name: edge}}], rules: [{{backendRefs: [{{name: c, port: 1}}, {{name: late, port: 1}}]}}]}}
---
{{apiVersion: v1, kind: Service, metadata: {{name: b, namespace: shop}}, spec: {{ports: [{{port: 1, appProtocol: kubernetes.io/h2c}}]}}}}
"
    );
    let resources = resources(&text);
    let clusters: Vec<_> = resources.members(Kind::Cds).into_iter().map(|name| name.to_string()).collect();
    let local = |name: &str| format!("{name}.shop.svc.cluster.local:1");
    assert_eq!(clusters, [local("b"), local("c"), format!("http1/{}", local("a")), local("late")]);
    // One backend is not known yet, and its cluster must not go from an Envoy that has it.
    assert_eq!(resources.lookup(Kind::Rds, &"shop/edge/8080".into()), Lookup::Unknown);
}
