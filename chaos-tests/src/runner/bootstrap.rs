//! The xDS bootstrap of a client at one place: its own cluster's control plane first, then siblings, all over mTLS.

use portolan_topology::names::Locality;
use serde_json::{Value, json};

use super::portolan::RunPaths;
use super::site::{ControlPlaneSite, Site, place};

/// The bootstrap as gRPC defines it.
#[must_use]
pub(super) fn bootstrap(site: &Site, client: &Locality, paths: &RunPaths) -> Value {
    let certs = paths.certs();
    let credentials = json!([{
        "type": "tls",
        "config": {
            "ca_certificate_file": certs.join("ca.pem"),
            "certificate_file": certs.join("client.pem"),
            "private_key_file": certs.join("client-key.pem"),
        },
    }]);
    let servers: Vec<Value> = servers(site, client)
        .map(|plane| {
            json!({
                "server_uri": plane.xds.to_string(),
                "channel_creds": credentials,
                "server_features": ["xds_v3"],
            })
        })
        .collect();
    json!({
        "xds_servers": servers,
        "node": {
            "id": format!("chaos-{}", place(client)),
            "cluster": client.cluster,
            "locality": {
                "region": client.region,
                "zone": client.zone.as_ref().map_or("", |zone| zone.as_str()),
                "sub_zone": client.cluster,
            },
        },
    })
}

/// Its own, then one of its region, then one elsewhere, since a region may die whole.
fn servers<'a>(site: &'a Site, client: &'a Locality) -> impl Iterator<Item = &'a ControlPlaneSite> {
    let own = site.control_planes.iter().filter(|plane| plane.cluster == client.cluster);
    let elsewhere = site.control_planes.iter().filter(|plane| plane.locality.region != client.region);
    let near = site
        .control_planes
        .iter()
        .filter(|plane| plane.locality.region == client.region && plane.cluster != client.cluster);
    own.chain(near.take(1)).chain(elsewhere.take(1))
}
