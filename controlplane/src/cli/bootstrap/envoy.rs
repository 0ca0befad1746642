//! Envoy's bootstrap: everything over one delta ADS stream, load reports beside it, its own admin interface as told.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::{Client, Security};
use crate::gateway::objects::ObjectName;
use crate::xds::GATEWAY;

/// The name of the cluster that is the control plane.
const PORTOLAN: &str = "portolan";
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Of `client`, which serves `gateway` if it is a gateway's, with its admin interface at `admin`.
pub(super) fn bootstrap(client: &Client, gateway: Option<&ObjectName>, admin: SocketAddr) -> Value {
    let over_ads = json!({"ads": {}, "resource_api_version": "V3"});
    let control_plane = json!([{"envoy_grpc": {"cluster_name": PORTOLAN}}]);
    let stream = |kind: &str| json!({"api_type": kind, "transport_api_version": "V3", "grpc_services": control_plane});
    let mut node = json!({
        "id": client.id,
        "cluster": client.cluster,
        "locality": {"region": client.region, "zone": client.zone, "sub_zone": client.cluster},
    });
    if let Some(gateway) = gateway {
        node["metadata"] = json!({GATEWAY: gateway.to_string()});
    }
    json!({
        "node": node,
        "admin": {"address": address(&admin.ip().to_string(), admin.port())},
        "dynamic_resources": {
            "ads_config": stream("DELTA_GRPC"),
            "cds_config": over_ads,
            "lds_config": over_ads,
        },
        "cluster_manager": {"load_stats_config": stream("GRPC")},
        "static_resources": {"clusters": [control_plane_cluster(client)]},
    })
}

fn control_plane_cluster(client: &Client) -> Value {
    let host = client.server.host.as_str();
    let is_address = host.parse::<IpAddr>().is_ok();
    let endpoint = json!({"endpoint": {"address": address(host, client.server.port)}});
    let mut cluster = json!({
        "name": PORTOLAN,
        "type": if is_address { "STATIC" } else { "STRICT_DNS" },
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {HTTP_OPTIONS: {
            "@type": type_url(HTTP_OPTIONS),
            // A control plane that is gone without a word is noticed.
            "explicit_http_config": {"http2_protocol_options": {
                "connection_keepalive": {"interval": "60s", "timeout": "10s"},
            }},
        }},
        "load_assignment": {"cluster_name": PORTOLAN, "endpoints": [{"lb_endpoints": [endpoint]}]},
    });
    if let Security::Tls { ca, identity } = &client.security {
        let san = json!([{"san_type": if is_address { "IP_ADDRESS" } else { "DNS" }, "matcher": {"exact": host}}]);
        let mut tls = json!({
            // gRPC servers insist on the protocol's name.
            "alpn_protocols": ["h2"],
            "validation_context": {"trusted_ca": {"filename": ca}, "match_typed_subject_alt_names": san},
        });
        if let Some((certificate, key)) = identity {
            tls["tls_certificates"] = json!([{
                "certificate_chain": {"filename": certificate}, "private_key": {"filename": key},
            }]);
        }
        let mut context = json!({
            "@type": type_url("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
            "common_tls_context": tls,
        });
        if !is_address {
            context["sni"] = json!(host);
        }
        cluster["transport_socket"] = json!({"name": "envoy.transport_sockets.tls", "typed_config": context});
    }
    cluster
}

fn address(host: &str, port: u16) -> Value {
    json!({"socket_address": {"address": host, "port_value": port}})
}

fn type_url(message: &str) -> String {
    format!("type.googleapis.com/{message}")
}
