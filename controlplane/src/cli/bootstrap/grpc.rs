//! The bootstrap that every gRPC library reads.

use serde_json::{Value, json};

use super::{Client, Security};

/// Of `client`.
pub(super) fn bootstrap(client: &Client) -> Value {
    let credentials = match &client.security {
        Security::Plaintext => json!({"type": "insecure"}),
        Security::Tls { ca, identity: None } => json!({"type": "tls", "config": {"ca_certificate_file": ca}}),
        Security::Tls { ca, identity: Some((certificate, key)) } => json!({"type": "tls", "config": {
            "ca_certificate_file": ca, "certificate_file": certificate, "private_key_file": key,
        }}),
    };
    json!({
        "xds_servers": [{
            "server_uri": client.server.to_string(),
            "channel_creds": [credentials],
            "server_features": ["xds_v3"],
        }],
        "node": {
            "id": client.id,
            "cluster": client.cluster,
            "locality": {"region": client.region, "zone": client.zone, "sub_zone": client.cluster},
        },
        // gRPC servers in xDS mode ask by it for their own configuration; clients do not read it.
        "server_listener_resource_name_template": "grpc/server?xds.resource.listening_address=%s",
    })
}
