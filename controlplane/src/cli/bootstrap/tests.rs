//! Golden tests: exactly what is printed, and what is said when something is missing.

use clap::{Args as _, FromArgMatches as _};
use portolan_client::xds::bootstrap as client;
use serde_json::{Value, json};

use super::*;

const TOPOLOGY: &str = "
apiVersion: portolan.dev/v1alpha1
kind: Topology
metadata: {name: test}
spec:
  regions:
    - name: us-east
      zones: [us-east-1a, us-east-1b]
      clusters:
        - {name: use1-a, zones: [us-east-1a], controlPlane: {address: portolan.use1-a.example.com, voter: true}}
        - {name: use1-b, controlPlane: {address: '10.0.0.9'}}
";

fn known() -> Known {
    Known::from_topology(&Topology::parse("topology.yaml", TOPOLOGY).unwrap().0)
}

/// As the control plane of `use1-b` says it, asked at `host`.
fn running(host: Option<&str>, xds: &str, security: &str, plaintext: Option<&str>) -> Known {
    let cluster = |name: &str, own: bool, zones: &[&str]| {
        json!({"name": name, "region": "us-east", "zones": zones, "own": own, "state": "fresh", "heardMs": null,
               "complete": true, "services": 0, "ready": 0, "total": 0})
    };
    let status = json!({
        "cluster": "use1-b", "node": "portolan-0", "version": "0.1.0", "uptimeSeconds": 1, "notReady": [],
        "topology": {"name": "test", "hash": "9f3c", "file": "topology.yaml", "error": null, "warnings": []},
        "source": {"source": "kube", "synced": true, "errors": {}, "warnings": {}},
        "certificate": {"expires": "2027-03-01T00:00:00Z", "expiresInSeconds": 7, "error": null},
        "addresses": {"peers": "0.0.0.0:7443", "xds": xds, "xdsPlaintext": plaintext, "admin": "127.0.0.1:7480",
                      "metrics": "0.0.0.0:7481"},
        "xdsSecurity": security, "plaintextFrom": [],
        "policy": {"revision": 0, "voters": 1, "answering": 1},
        "clusters": [cluster("use1-b", true, &["us-east-1a", "us-east-1b"]), cluster("use1-a", false, &["us-east-1a"])],
        "duplicates": {}, "clients": 0, "clientsRefusing": 0,
    });
    Known::from_status(&serde_json::from_value(status).unwrap(), host)
}

fn flags(arguments: &str) -> Common {
    let command = Common::augment_args(clap::Command::new("bootstrap"));
    let arguments = std::iter::once("bootstrap").chain(arguments.split_whitespace());
    Common::from_arg_matches(&command.try_get_matches_from(arguments).unwrap()).unwrap()
}

fn complete(arguments: &str, known: &Known) -> Result<Client, String> {
    flags(arguments).complete("grpc", Some("web-1".into()), known)
}

const MTLS: &str = "--tls-ca /certs/ca.crt --tls-cert /certs/tls.crt --tls-key /certs/tls.key";

#[test]
fn a_grpc_bootstrap_is_what_grpc_reads() {
    let of = complete(&format!("--zone us-east-1a --cluster use1-a {MTLS}"), &known()).unwrap();
    let text = format::json(&grpc::bootstrap(&of));
    assert_eq!(
        text,
        r#"{
  "node": {
    "cluster": "use1-a",
    "id": "web-1",
    "locality": {
      "region": "us-east",
      "sub_zone": "use1-a",
      "zone": "us-east-1a"
    }
  },
  "server_listener_resource_name_template": "grpc/server?xds.resource.listening_address=%s",
  "xds_servers": [
    {
      "channel_creds": [
        {
          "config": {
            "ca_certificate_file": "/certs/ca.crt",
            "certificate_file": "/certs/tls.crt",
            "private_key_file": "/certs/tls.key"
          },
          "type": "tls"
        }
      ],
      "server_features": [
        "xds_v3"
      ],
      "server_uri": "portolan.use1-a.example.com:7444"
    }
  ]
}
"#
    );
    let read = client::Bootstrap::parse(&text, client::Origin::Variable).unwrap();
    assert_eq!(read.servers[0].address(), "portolan.use1-a.example.com:7444");
    let identity = Some(("/certs/tls.crt".into(), "/certs/tls.key".into()));
    assert_eq!(read.servers[0].creds, client::ChannelCreds::Tls { ca: "/certs/ca.crt".into(), identity });
    assert_eq!(read.node.locality, Some(("us-east".into(), "us-east-1a".into(), "use1-a".into())));
}

#[test]
fn an_envoy_bootstrap_has_one_delta_stream_for_everything() {
    let of = complete(&format!("--zone us-east-1b {MTLS}"), &known()).unwrap();
    let printed = envoy::bootstrap(&of, None, "127.0.0.1:9901".parse().unwrap());
    let stream = |kind: &str| {
        json!({"api_type": kind, "transport_api_version": "V3",
               "grpc_services": [{"envoy_grpc": {"cluster_name": "portolan"}}]})
    };
    let over_ads = json!({"ads": {}, "resource_api_version": "V3"});
    let expected = json!({
        "node": {"id": "web-1", "cluster": "use1-b",
                 "locality": {"region": "us-east", "zone": "us-east-1b", "sub_zone": "use1-b"}},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 9901}}},
        "dynamic_resources": {"ads_config": stream("DELTA_GRPC"), "cds_config": over_ads, "lds_config": over_ads},
        "cluster_manager": {"load_stats_config": stream("GRPC")},
        "static_resources": {"clusters": [{
            "name": "portolan",
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {"cluster_name": "portolan", "endpoints": [{"lb_endpoints": [{"endpoint": {
                "address": {"socket_address": {"address": "10.0.0.9", "port_value": 7444}}}}]}]},
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {
                    "connection_keepalive": {"interval": "60s", "timeout": "10s"}}}}},
            "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": {
                    "alpn_protocols": ["h2"],
                    "tls_certificates": [{"certificate_chain": {"filename": "/certs/tls.crt"},
                                          "private_key": {"filename": "/certs/tls.key"}}],
                    "validation_context": {
                        "trusted_ca": {"filename": "/certs/ca.crt"},
                        "match_typed_subject_alt_names": [
                            {"san_type": "IP_ADDRESS", "matcher": {"exact": "10.0.0.9"}}]}}}},
        }]},
    });
    assert_eq!(printed, expected);
}

#[test]
fn a_host_name_is_resolved_and_checked_by_envoy() {
    let of = complete("--zone us-east-1a --cluster use1-a --tls-ca ca.pem", &known()).unwrap();
    let printed = envoy::bootstrap(&of, None, "127.0.0.1:9901".parse().unwrap());
    let cluster = &printed["static_resources"]["clusters"][0];
    assert_eq!(cluster["type"], "STRICT_DNS");
    let tls = &cluster["transport_socket"]["typed_config"];
    assert_eq!(tls["sni"], "portolan.use1-a.example.com");
    let san = &tls["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"][0];
    assert_eq!(*san, json!({"san_type": "DNS", "matcher": {"exact": "portolan.use1-a.example.com"}}));
    assert_eq!(tls["common_tls_context"]["tls_certificates"], Value::Null);
}

#[test]
fn the_envoy_of_a_gateway_says_so() {
    let of = complete("--zone us-east-1b --plaintext --server a:1", &known()).unwrap();
    let gateway = "shop/edge".parse().unwrap();
    let printed = envoy::bootstrap(&of, Some(&gateway), "127.0.0.1:9901".parse().unwrap());
    assert_eq!(printed["node"]["metadata"], json!({"portolan.dev/gateway": "shop/edge"}));
}

#[test]
fn what_a_running_control_plane_knows_need_not_be_said() {
    let dev = running(Some("127.0.0.1"), "127.0.0.1:7444", "plaintext", None);
    let of = complete("--zone us-east-1a", &dev).unwrap();
    assert_eq!((of.cluster.as_str(), of.server.to_string().as_str()), ("use1-b", "127.0.0.1:7444"));
    assert_eq!(of.security, Security::Plaintext);
    let open = running(Some("plane.test"), "0.0.0.0:7444", "mtls", Some("0.0.0.0:7445"));
    let of = complete(&format!("--zone us-east-1a {MTLS}"), &open).unwrap();
    assert_eq!(of.server.to_string(), "plane.test:7444");
    assert_eq!(complete("--zone us-east-1a --plaintext", &open).unwrap().server.to_string(), "plane.test:7445");
}

#[test]
fn what_is_missing_is_named_with_the_mend() {
    let forwarded = running(None, "0.0.0.0:7444", "tls", None);
    for (arguments, known, why) in [
        (
            "--zone us-east-1",
            known(),
            "--zone us-east-1: the topology has no such zone; expected `us-east-1a` or `us-east-1b`; did you mean `us-east-1a`?",
        ),
        ("--zone us-east-1a", known(), "several clusters span us-east-1a: add --cluster, `use1-a` or `use1-b`"),
        (
            "--zone us-east-1b --cluster use1-a",
            known(),
            "--zone us-east-1b: the cluster `use1-a` does not span it; expected `us-east-1a`",
        ),
        (
            "--zone us-east-1b --cluster use1",
            known(),
            "--cluster use1: the topology has no such cluster; expected `use1-a` or `use1-b`; did you mean `use1-a`?",
        ),
        ("--zone us-east-1b", known(), "how is the control plane reached? Add --tls-ca FILE"),
        (
            "--zone us-east-1b --plaintext",
            known(),
            "where is the control plane of `use1-b`? Add --server HOST:PORT, such as portolan.portolan.svc:7444",
        ),
        (
            "--zone us-east-1a --tls-ca a",
            running(None, "0.0.0.0:7444", "tls", None),
            "where is the control plane of `use1-b`?",
        ),
        ("--zone us-east-1a --cluster use1-a --tls-ca a", forwarded, "where is the control plane of `use1-a`?"),
        (
            "--zone us-east-1a --plaintext",
            running(Some("a"), "0.0.0.0:7444", "mtls", None),
            "--plaintext: this control plane has no port in plain text",
        ),
    ] {
        let refused = complete(arguments, &known).unwrap_err();
        assert!(refused.starts_with(why), "{arguments}: {refused}");
    }
}

#[test]
fn a_server_that_is_named_is_taken() {
    let of = complete("--zone us-east-1b --plaintext --server [::1]:7445", &known()).unwrap();
    assert_eq!(of.server.to_string(), "[::1]:7445");
    let printed = envoy::bootstrap(&of, None, "127.0.0.1:9901".parse().unwrap());
    let cluster = &printed["static_resources"]["clusters"][0];
    assert_eq!((&cluster["type"], &cluster["transport_socket"]), (&json!("STATIC"), &Value::Null));
}
