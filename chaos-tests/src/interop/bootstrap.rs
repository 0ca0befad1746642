//! What a client is told before it starts: where its control plane is and how to talk to it, as gRPC's bootstrap and as
//! Envoy's.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::routes;
use super::security::Security;

/// A client's control plane, and who the client is.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    /// `node.id`.
    pub node: String,
    /// The control plane.
    pub server: SocketAddr,
    /// How to talk to it.
    pub security: Security,
    /// The folder with certificates.
    pub certs: PathBuf,
}

/// Where every client of the suite lives.
fn node(id: &str) -> Value {
    json!({
        "id": id,
        "cluster": "use1",
        "locality": {"region": "us-east", "zone": "us-east-1a", "sub_zone": "use1"},
    })
}

/// gRPC's.
pub(super) fn grpc(connection: &Connection) -> Value {
    let Connection { node: id, server, security, certs } = connection;
    let ca = certs.join("ca.pem");
    let credentials = match security {
        Security::Plain => json!({"type": "insecure"}),
        Security::Tls => json!({"type": "tls", "config": {"ca_certificate_file": ca}}),
        Security::Mtls => json!({"type": "tls", "config": {
            "ca_certificate_file": ca,
            "certificate_file": certs.join("client.pem"),
            "private_key_file": certs.join("client-key.pem"),
        }}),
    };
    json!({
        "xds_servers": [{
            "server_uri": server.to_string(),
            "channel_creds": [credentials],
            "server_features": ["xds_v3"],
        }],
        "node": node(id),
        "server_listener_resource_name_template": "grpc/server?xds.resource.listening_address=%s",
    })
}

/// The two ends of an Envoy that stands beside its client.
#[derive(Debug, Clone, Copy)]
pub(super) struct EnvoyPorts {
    /// Where it takes calls.
    pub listen: SocketAddr,
    /// Its admin interface.
    pub admin: SocketAddr,
}

const PORTOLAN: &str = "portolan";
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Envoy's. Its listener takes every call to `service`, a name with its port. Routes and endpoints come over ADS; the
/// cluster too with `delta`, on demand and by name. In the state of the world Envoy cannot ask for a cluster by name, so
/// that it stands here, and with it those to which routes lead later.
pub(super) fn envoy(connection: &Connection, ports: EnvoyPorts, service: &str, delta: bool) -> Value {
    let over_ads = json!({"ads": {}, "resource_api_version": "V3"});
    let on_demand = json!({
        "name": "envoy.filters.http.on_demand",
        "typed_config": {
            "@type": type_url("envoy.extensions.filters.http.on_demand.v3.OnDemand"),
            "odcds": {"source": over_ads, "timeout": "5s"},
        },
    });
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": type_url("envoy.extensions.filters.http.router.v3.Router")},
    });
    let manager = json!({
        "@type": type_url("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "egress",
        "codec_type": "HTTP2",
        "rds": {"route_config_name": service, "config_source": over_ads},
        "http_filters": if delta { vec![on_demand, router] } else { vec![router] },
    });
    let listener = json!({
        "name": "egress",
        "address": address(ports.listen),
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": manager,
        }]}],
    });
    let mut clusters = vec![control_plane(connection)];
    if !delta {
        let routed = routes::BACKENDS.map(routes::cluster);
        let names = std::iter::once(service).chain(routed.iter().map(String::as_str));
        clusters.extend(names.map(|name| cluster(name, &over_ads)));
    }
    let control_plane = json!([{"envoy_grpc": {"cluster_name": PORTOLAN}}]);
    let stream = |kind: &str| json!({"api_type": kind, "transport_api_version": "V3", "grpc_services": control_plane});
    json!({
        "node": node(&connection.node),
        "admin": {"address": address(ports.admin)},
        "static_resources": {"listeners": [listener], "clusters": clusters},
        "dynamic_resources": {"ads_config": stream(if delta { "DELTA_GRPC" } else { "GRPC" })},
        "cluster_manager": {"load_stats_config": stream("GRPC")},
    })
}

/// As Portolan describes a cluster to an Envoy.
fn cluster(service: &str, over_ads: &Value) -> Value {
    json!({
        "name": service,
        "type": "EDS",
        "connect_timeout": "1s",
        "eds_cluster_config": {"eds_config": over_ads},
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [{"max_requests": 100_000, "max_retries": 100_000}]},
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}, "locality_weighted_lb_config": {}},
        "outlier_detection": {
            "consecutive_5xx": 5,
            "interval": "1s",
            "base_ejection_time": "10s",
            "max_ejection_percent": 50,
            "enforcing_success_rate": 0,
        },
        "typed_extension_protocol_options": http2(),
    })
}

fn control_plane(connection: &Connection) -> Value {
    let certs = &connection.certs;
    let endpoint = json!({"endpoint": {"address": address(connection.server)}});
    let mut cluster = json!({
        "name": PORTOLAN,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": http2(),
        "load_assignment": {"cluster_name": PORTOLAN, "endpoints": [{"lb_endpoints": [endpoint]}]},
    });
    let mut tls = json!({"validation_context": {
        "trusted_ca": {"filename": certs.join("ca.pem")},
        "match_typed_subject_alt_names": [
            {"san_type": "IP_ADDRESS", "matcher": {"exact": connection.server.ip().to_string()}},
        ],
    }});
    match connection.security {
        Security::Plain => return cluster,
        Security::Tls => {}
        Security::Mtls => {
            tls["tls_certificates"] = json!([{
                "certificate_chain": {"filename": certs.join("client.pem")},
                "private_key": {"filename": certs.join("client-key.pem")},
            }]);
        }
    }
    // gRPC servers insist on the protocol's name.
    tls["alpn_protocols"] = json!(["h2"]);
    cluster["transport_socket"] = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": type_url("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
            "common_tls_context": tls,
        },
    });
    cluster
}

fn http2() -> Value {
    json!({HTTP_OPTIONS: {
        "@type": type_url(HTTP_OPTIONS),
        "explicit_http_config": {"http2_protocol_options": {}},
    }})
}

fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn type_url(message: &str) -> String {
    format!("type.googleapis.com/{message}")
}
