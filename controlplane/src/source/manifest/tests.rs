use portolan_topology::service::Endpoint;

use super::*;

/// One line a port and address: `checkout.shop:80 grpc z-1 10.0.0.1:9090 Ready`.
fn shown(manifest: &Manifest) -> Vec<String> {
    let (services, _) = join([("test.yaml", manifest)]);
    let mut lines = Vec::new();
    for (id, service) in services {
        for port in &service.ports {
            let name = port.name.as_deref().unwrap_or("-");
            let zones = &service.endpoints[&port.number];
            if zones.is_empty() {
                lines.push(format!("{id}:{} {name}", port.number));
            }
            for (zone, endpoints) in zones {
                let zone = zone.as_ref().map_or("-", ZoneName::as_str);
                for endpoint in endpoints {
                    let Endpoint { address, health, .. } = endpoint;
                    lines.push(format!("{id}:{} {name} {zone} {address} {health:?}", port.number));
                }
            }
        }
    }
    lines
}

fn check(text: &str, expected: &[&str]) {
    let (manifest, _) = parse("test.yaml", text).unwrap_or_else(|refused| panic!("{refused}"));
    assert_eq!(shown(&manifest), expected);
}

fn refused(text: &str, first_line: &str) {
    let refused = parse("test.yaml", text).map(|(manifest, _)| shown(&manifest)).unwrap_err().to_string();
    assert_eq!(refused.lines().next().unwrap(), first_line, "{refused}");
}

const SERVICE: &str =
    "{apiVersion: v1, kind: Service, metadata: {name: checkout, namespace: shop}, spec: {ports: [{port: 80}]}}";

fn with_slice(rest: &str) -> String {
    format!(
        "{SERVICE}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: checkout-x, namespace: shop, labels: {{kubernetes.io/service-name: checkout}}}}
{rest}"
    )
}

/// Shaped as `kubectl get service,endpointslice -o yaml` prints it, with fields that nobody here reads.
const KUBECTL: &str = r#"apiVersion: v1
items:
- apiVersion: v1
  kind: Service
  metadata:
    annotations:
      kubectl.kubernetes.io/last-applied-configuration: |
        {"apiVersion":"v1","kind":"Service"}
    creationTimestamp: "2026-11-20T09:12:44Z"
    name: checkout
    namespace: shop
    resourceVersion: "812"
    uid: 2a1b5f0e-0a37-4a3f-9a55-5b3c0f4d1c11
  spec:
    clusterIP: None
    clusterIPs:
    - None
    internalTrafficPolicy: Cluster
    ipFamilies:
    - IPv4
    ports:
    - name: grpc
      port: 8080
      protocol: TCP
      targetPort: 9090
    - name: metrics
      port: 9100
      protocol: TCP
      targetPort: metrics
    - name: dns
      port: 53
      protocol: UDP
      targetPort: 53
    selector:
      app: checkout
    sessionAffinity: None
    type: ClusterIP
  status:
    loadBalancer: {}
- addressType: IPv4
  apiVersion: discovery.k8s.io/v1
  endpoints:
  - addresses:
    - 10.1.2.3
    conditions:
      ready: true
      serving: true
      terminating: false
    nodeName: node-1
    targetRef:
      kind: Pod
      name: checkout-1
      namespace: shop
    zone: us-east-1a
  - addresses:
    - 10.1.2.4
    conditions:
      ready: false
      serving: true
      terminating: true
    zone: us-east-1b
  kind: EndpointSlice
  metadata:
    generateName: checkout-
    labels:
      endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io
      kubernetes.io/service-name: checkout
    name: checkout-7xk2p
    namespace: shop
    ownerReferences:
    - apiVersion: v1
      blockOwnerDeletion: true
      controller: true
      kind: Service
      name: checkout
      uid: 2a1b5f0e-0a37-4a3f-9a55-5b3c0f4d1c11
  ports:
  - name: metrics
    port: 9100
    protocol: TCP
  - name: grpc
    port: 9090
    protocol: TCP
- apiVersion: apps/v1
  kind: Deployment
  metadata:
    name: checkout
  spec:
    ports: not-what-a-service-has
kind: List
metadata:
  resourceVersion: ""
"#;

#[test]
fn what_kubectl_prints_is_read() {
    check(
        KUBECTL,
        &[
            "checkout.shop:8080 grpc us-east-1a 10.1.2.3:9090 Ready",
            "checkout.shop:8080 grpc us-east-1b 10.1.2.4:9090 Draining",
            "checkout.shop:9100 metrics us-east-1a 10.1.2.3:9100 Ready",
            "checkout.shop:9100 metrics us-east-1b 10.1.2.4:9100 Draining",
        ],
    );
}

#[test]
fn json_is_read_as_well() {
    let json = r#"{"apiVersion": "v1", "kind": "ServiceList", "items": [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}}]}"#;
    check(json, &["a.default:80 -"]);
}

#[test]
fn conditions_become_health() {
    for (conditions, health) in [
        ("{}", "Ready"),
        ("{ready: null, serving: null, terminating: null}", "Ready"),
        ("{ready: false}", "NotReady"),
        ("{ready: true, terminating: false}", "Ready"),
        ("{ready: false, serving: true, terminating: true}", "Draining"),
        ("{ready: false, serving: false, terminating: true}", "NotReady"),
        ("{ready: false, terminating: true}", "NotReady"),
    ] {
        let text = format!(
            "addressType: IPv4\nports: [{{port: 9090}}]\nendpoints: [{{addresses: [10.0.0.1], conditions: {conditions}}}]"
        );
        check(&with_slice(&text), &[&format!("checkout.shop:80 - - 10.0.0.1:9090 {health}")]);
    }
}

#[test]
fn several_slices_are_one_list_and_an_address_stands_once() {
    let slice = |name: &str, family: &str, endpoints: &str| {
        format!(
            "\n---\n{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: {family}, ports: [{{name: '', port: 9090}}],
            metadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: checkout}}}}, endpoints: {endpoints}}}"
        )
    };
    let text = [
        SERVICE.to_owned(),
        slice(
            "one",
            "IPv4",
            "[{addresses: [10.0.0.2], zone: z-1}, {addresses: [10.0.0.1], zone: z-1, conditions: {ready: false}}]",
        ),
        slice("two", "IPv4", "[{addresses: [10.0.0.1, 10.9.9.9], zone: z-2}]"),
        slice("six", "IPv6", "[{addresses: ['fd00::1'], zone: z-1}]"),
        slice("of-none", "IPv4", "null"),
    ];
    check(
        &text.concat(),
        &[
            "checkout.shop:80 - z-1 10.0.0.2:9090 Ready",
            "checkout.shop:80 - z-1 [fd00::1]:9090 Ready",
            "checkout.shop:80 - z-2 10.0.0.1:9090 Ready",
        ],
    );
}

#[test]
fn what_is_nobodys_or_cannot_be_dialled_is_left_out() {
    check("# nothing\n", &[]);
    check("{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {type: ExternalName, externalName: b.c}}", &[]);
    check("{apiVersion: serving.knative.dev/v1, kind: Service, metadata: {name: a}}", &[]);
    check("{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: a}, addressType: IPv4}", &[]);
    check(&with_slice("addressType: IPv4\nports: [{}]\nendpoints: [{addresses: [10.0.0.1]}]"), &["checkout.shop:80 -"]);
    let (manifest, warnings) =
        parse("test.yaml", &with_slice("addressType: FQDN\nendpoints: [{addresses: [a.b]}]")).unwrap();
    assert_eq!(shown(&manifest), ["checkout.shop:80 -"]);
    assert_eq!(warnings.len(), 1);
}

#[test]
fn malformed_objects_are_refused_with_their_place() {
    refused("kind: [", "test.yaml:1:7: unclosed bracket '['");
    refused("kind: Service", "test.yaml:1:1: the Service has no `apiVersion`; expected a Kubernetes object");
    refused("metadata: {name: a}", "test.yaml:1:1: the object has no `kind`; expected a Kubernetes object");
    refused(
        "apiVersion: v1\nkind: Service\nmetadata: {name: Checkout}\n",
        "test.yaml:3:18: `Checkout` is not a service name: only lower-case letters, digits and `-` may stand in it",
    );
    refused(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: Shop}\n",
        "test.yaml:3:32: `Shop` is not a namespace name: only lower-case letters, digits and `-` may stand in it",
    );
    refused(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - port: 70000\n",
        "test.yaml:6:11: 70000 is not a port; expected a number from 1 to 65535",
    );
    refused(
        &with_slice("addressType: IPv4\nports: [{port: 80}]\nendpoints: [{addresses: [fd00::1]}]"),
        "test.yaml:8:26: `fd00::1` is not an address of this slice; expected an IPv4 address",
    );
    refused(&with_slice("addressType: IPV4"), "test.yaml:6:14: unknown address type `IPV4`; expected `IPv4` or `IPv6`");
    refused(&format!("{SERVICE}\n---\n{SERVICE}"), "test.yaml:3:50: Service shop/checkout stands twice in this file");
    refused(
        "{apiVersion: discovery.k8s.io/v1beta1, kind: EndpointSlice}",
        "test.yaml:1:1: an EndpointSlice of `discovery.k8s.io/v1beta1`; expected apiVersion `discovery.k8s.io/v1`",
    );
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once() {
    let text = with_slice(
        "addressType: IPv4\nports: [{port: 0}]\nendpoints: [{addresses: [x]}, {addresses: [y]}, {addresses: []}]",
    );
    let told = parse("test.yaml", &text).unwrap_err();
    assert_eq!(told.count(), 4, "{told}");
}

proptest::proptest! {
    /// Whatever stands in a file, reading it ends in objects or in mistakes.
    #[test]
    fn nothing_in_a_file_can_break_the_reader(cut in 0..KUBECTL.len(), garbage in "[ -~\\n]{0,20}") {
        if KUBECTL.is_char_boundary(cut) {
            let _ = parse("test.yaml", &format!("{}{garbage}{}", &KUBECTL[..cut], &KUBECTL[cut..]));
            let _ = parse("test.yaml", &KUBECTL[..cut]);
        }
    }
}

#[test]
fn a_malformed_object_of_the_gateway_api_is_a_mistake_of_its_file() {
    for (text, mistake) in [
        (
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g}\nspec: {listeners: []}\n",
            "m.yaml:4:7: `spec`: the field `gatewayClassName` is missing",
        ),
        (
            "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: GRPCRoute\nmetadata: {name: g}\nspec: {}\n",
            "m.yaml:1:1: a GRPCRoute of `gateway.networking.k8s.io/v1alpha2`; expected apiVersion `gateway.networking.k8s.io/v1`",
        ),
        (
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec: {rules: [{backendRefs: [{name: a, port: x}]}]}\n",
            "m.yaml:4:",
        ),
    ] {
        let refused = parse("m.yaml", text).unwrap_err().to_string();
        assert!(refused.starts_with(mistake), "{refused}");
    }
}

#[test]
fn of_a_route_in_two_files_the_first_counts() {
    let route = |host: &str| {
        let text = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: shop}}\nspec: {{hostnames: [{host}]}}\n"
        );
        parse("m.yaml", &text).unwrap().0
    };
    let (a, b) = (route("a.test"), route("b.test"));
    let (joined, repeated) =
        gateway::join([("a.yaml", a.gateways().unwrap()), ("b.yaml", b.gateways().unwrap())], true);
    assert!(joined.synced);
    let hosts: Vec<_> = joined.http_routes.values().flat_map(|route| route.spec.hostnames.clone()).collect();
    assert_eq!(hosts, ["a.test"]);
    assert_eq!(
        repeated,
        [("b.yaml".to_owned(), "HTTPRoute shop/r stands in another file too, which counts".to_owned())]
    );
}

#[test]
fn only_secrets_of_certificates_are_kept() {
    let secret = |kind: &str| {
        format!(
            "{{apiVersion: v1, kind: Secret, metadata: {{name: s, namespace: shop}}, type: {kind}, data: {{tls.crt: YQ==, tls.key: Yg==}}}}\n"
        )
    };
    let kept = |kind: &str| {
        parse("m.yaml", &secret(kind))
            .unwrap()
            .0
            .gateways()
            .map_or(vec![], |all| all.certificates.values().cloned().collect::<Vec<_>>())
    };
    assert!(kept("Opaque").is_empty());
    let [certificate] = &kept("kubernetes.io/tls")[..] else { panic!("one") };
    assert_eq!((certificate.chain.as_slice(), certificate.key.as_slice()), (&b"a"[..], &b"b"[..]));
    assert!(!format!("{certificate:?}").contains("98"), "keys are shown nowhere");
}

#[test]
fn a_pod_has_a_weight_of_its_own_and_no_capacity_or_warm_up() {
    let pod = |annotation: &str| {
        format!("{{apiVersion: v1, kind: Pod, metadata: {{name: a, namespace: shop, annotations: {{{annotation}}}}}}}")
    };
    assert!(parse("test.yaml", &pod("portolan.dev/weight: '3'")).is_ok());
    refused(
        &pod("portolan.dev/capacity: '3'"),
        "test.yaml:1:103: portolan.dev/capacity: it is a Service's; a Pod's share of it is its weight",
    );
    refused(
        &pod("portolan.dev/warmup: 30s"),
        "test.yaml:1:101: portolan.dev/warmup: it is a Service's; all of its endpoints warm up alike",
    );
}

#[test]
fn a_shard_is_a_label_of_the_object_s_own() {
    let pod = |labels: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: a, namespace: shop, labels: {{{labels}}}, \
             annotations: {{portolan.dev/shard-label: data}}}}}}"
        )
    };
    assert!(parse("test.yaml", &pod("data: eu")).is_ok());
    refused(&pod("date: eu"), "test.yaml:1:126: portolan.dev/shard-label: it has no label `data`");
}
