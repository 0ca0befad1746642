//! What is wrong is said by the API's reasons, and the rest goes on.

use super::*;

/// An HTTPRoute `r` of the namespace `shop` with this much of its `spec`.
fn route(spec: &str) -> String {
    format!(
        "{GATEWAY}---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r, namespace: shop}}
spec: {spec}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: sound, namespace: shop}}
spec: {{parentRefs: [{{name: edge}}], hostnames: [sound.test], rules: [{{backendRefs: [{{name: a, port: 80}}]}}]}}
"
    )
}

#[track_caller]
fn amiss(text: &str, expected: &[&str]) {
    let planned = planned(text);
    assert_eq!(troubles(&planned), expected);
    if text.contains("name: sound") {
        assert!(shown(&planned).contains("  sound.test\n   /* -> a.shop:80*1\n"), "{}", shown(&planned));
    }
}

#[test]
fn a_route_that_is_not_accepted_takes_nothing_with_it() {
    for (spec, reason, message) in [
        (
            "{parentRefs: [{name: edge, sectionName: x}]}",
            "NoMatchingParent",
            "the Gateway shop/edge has no such listener",
        ),
        ("{parentRefs: [{name: edge, port: 81}]}", "NoMatchingParent", "the Gateway shop/edge has no such listener"),
        (
            "{parentRefs: [{name: edge}], hostnames: ['a b']}",
            "UnsupportedValue",
            "`a b` is not a host name, such as shop.example.com or *.example.com",
        ),
        (
            "{parentRefs: [{name: edge}], rules: [{retry: {attempts: 2}}]}",
            "UnsupportedValue",
            "`retry` is not supported yet",
        ),
        (
            "{parentRefs: [{name: edge}], rules: [{filters: [{type: RequestMirror}]}]}",
            "UnsupportedValue",
            "the filter `RequestMirror` is not supported yet",
        ),
        (
            "{parentRefs: [{name: edge}], rules: [{matches: [{path: {type: RegularExpression, value: '('}}]}]}",
            "UnsupportedValue",
            "`(` is not a regular expression of RE2",
        ),
        (
            "{parentRefs: [{name: edge}], rules: [{matches: [{path: {value: a}}]}]}",
            "UnsupportedValue",
            "`a` is not a path",
        ),
        (
            "{parentRefs: [{name: edge}], rules: [{filters: [{type: URLRewrite, urlRewrite: {hostname: a.b}}, {type: RequestRedirect, requestRedirect: {hostname: a.b}}]}]}",
            "IncompatibleFilters",
            "RequestRedirect and URLRewrite cannot stand in one rule",
        ),
        (
            "{parentRefs: [{name: edge}], rules: [{matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]}]}",
            "IncompatibleFilters",
            "ReplacePrefixMatch needs every match of its rule to be a PathPrefix",
        ),
    ] {
        amiss(&route(spec), &[&format!("HTTPRoute shop/r: Accepted {reason}: {message}")]);
    }
}

#[test]
fn a_backend_that_is_wrong_refuses_its_part() {
    for (backend, reason, message) in [
        ("{name: gone, port: 80}", "BackendNotFound", "there is no Service shop/gone with the port 80"),
        ("{name: b}", "BackendNotFound", "the reference to the Service shop/b names no port"),
        (
            "{kind: Bucket, group: s3.io, name: b}",
            "InvalidKind",
            "a backend is a Service or a ServiceImport, not a Bucket.s3.io",
        ),
        (
            "{name: b, namespace: other, port: 80}",
            "RefNotPermitted",
            "no ReferenceGrant lets this route use the Service other/b",
        ),
    ] {
        let spec = format!(
            "{{parentRefs: [{{name: edge}}], rules: [{{backendRefs: [{backend}, {{name: b, port: 80, weight: 3}}]}}]}}"
        );
        amiss(&route(&spec), &[&format!("HTTPRoute shop/r: ResolvedRefs {reason}: {message}")]);
        assert!(shown(&planned(&route(&spec))).contains("/* -> refused*1 b.shop:80*3"));
    }
}

#[test]
fn a_grant_lets_a_route_into_another_namespace() {
    let grant = "---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: g, namespace: other}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}]
  to: [{group: '', kind: Service, name: b}]
";
    let spec = "{parentRefs: [{name: edge}], rules: [{backendRefs: [{name: b, namespace: other, port: 80}]}]}";
    amiss(&format!("{}{grant}", route(spec)), &[]);
    let other = spec.replace("name: b,", "name: c,");
    let refused =
        "HTTPRoute shop/r: ResolvedRefs RefNotPermitted: no ReferenceGrant lets this route use the Service other/c";
    amiss(&format!("{}{grant}", route(&other)), &[refused]);
}

#[test]
fn listeners_are_judged_one_by_one() {
    let text = format!(
        "{GATEWAY}  - {{name: udp, port: 53, protocol: UDP}}
  - {{name: twice, port: 8080, protocol: HTTP}}
  - {{name: tls, port: 8080, protocol: HTTPS, hostname: a.b, tls: {{certificateRefs: [{{name: c}}]}}}}
  - {{name: bare, port: 8443, protocol: HTTPS, tls: {{certificateRefs: [{{name: c}}]}}}}
  - {{name: mutual, port: 9443, protocol: HTTPS, tls: {{certificateRefs: [{{name: c}}], frontendValidation: {{}}}}}}
"
    );
    amiss(
        &text,
        &[
            "Gateway shop/edge listener udp: Accepted UnsupportedProtocol: the protocol `UDP` is not supported yet: expected HTTP or HTTPS",
            "Gateway shop/edge listener udp: Programmed Invalid: see the other conditions",
            "Gateway shop/edge listener twice: Conflicted HostnameConflict: the host name is that of listener web, on the same port",
            "Gateway shop/edge listener twice: Programmed Invalid: see the other conditions",
            "Gateway shop/edge listener tls: Conflicted ProtocolConflict: port 8080 speaks the protocol of listener web",
            "Gateway shop/edge listener tls: ResolvedRefs InvalidCertificateRef: there is no Secret shop/c of the type kubernetes.io/tls",
            "Gateway shop/edge listener tls: Programmed Invalid: see the other conditions",
            "Gateway shop/edge listener bare: ResolvedRefs InvalidCertificateRef: there is no Secret shop/c of the type kubernetes.io/tls",
            "Gateway shop/edge listener bare: Programmed Invalid: see the other conditions",
            "Gateway shop/edge listener mutual: Accepted UnsupportedValue: `frontendValidation` is not supported yet",
            "Gateway shop/edge listener mutual: ResolvedRefs InvalidCertificateRef: there is no Secret shop/c of the type kubernetes.io/tls",
            "Gateway shop/edge listener mutual: Programmed Invalid: see the other conditions",
        ],
    );
    assert_eq!(shown(&planned(&text)), "shop/edge\n 8080 http\n  *\n");
}

#[test]
fn a_certificate_that_broke_leaves_the_last_good_one() {
    let text = GATEWAY.replace("protocol: HTTP}", "protocol: HTTPS, tls: {certificateRefs: [{name: c}]}}");
    let objects = objects(&text);
    let last = Arc::new(Certificate { chain: b"chain".to_vec(), key: b"key".to_vec() });
    let broken = CertificateState::Broken("it holds no certificate".into(), Some(last));
    let planned = plan(&objects, &[("shop/c".parse().unwrap(), broken)].into(), known);
    assert_eq!(shown(&planned), "shop/edge\n 8080 https web * by shop/c\n  *\n");
    let told = "Gateway shop/edge listener web: ResolvedRefs InvalidCertificateRef: the Secret shop/c: it holds no certificate";
    assert_eq!(troubles(&planned), [told]);
}

#[test]
fn other_classes_are_none_of_ours() {
    let planned =
        planned(&route("{parentRefs: [{name: edge}]}").replace("gatewayClassName: portolan", "gatewayClassName: x"));
    assert_eq!((planned.statuses.gateways.len(), planned.statuses.routes.len(), planned.gateways.len()), (0, 0, 0));
}

#[test]
fn a_gateway_with_an_unknown_field_of_weight_is_refused() {
    for (field, given) in
        [("backendTLS", "{clientCertificateRef: {name: c}}"), ("infrastructure", "{labels: {team: edge}}")]
    {
        let planned = planned(&format!("{GATEWAY}  {field}: {given}\n"));
        assert!(planned.gateways.is_empty() && planned.refused.len() == 1);
        let expected = format!("Accepted UnsupportedValue: `{field}` of a Gateway is not supported yet");
        assert!(troubles(&planned)[0].contains(&expected), "{:?}", troubles(&planned));
    }
}
