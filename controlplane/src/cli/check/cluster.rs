//! What a Kubernetes cluster must have before portolan can run in it, and what must be there once it does.

use http::Request;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition as Crd;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use portolan_topology::topology::Cluster;
use serde::Deserialize;

use super::super::forward::{is_ready, state};
use super::clock;
use super::finding::Finding;

/// The oldest Kubernetes that the chart installs on: a Pod's `preStop` can sleep.
const OLDEST: (u32, u32) = (1, 30);
/// The labels that say where a node is.
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
/// How many names one line shows.
const SHOWN: usize = 3;

/// The version, and by how much the API server's clock is ahead of ours.
pub(super) async fn version(client: &Client) -> Result<(Finding, Option<SignedDuration>), kube::Error> {
    #[derive(Deserialize)]
    struct Version {
        #[serde(rename = "gitVersion")]
        git: String,
        major: String,
        minor: String,
    }
    let request = Request::get("/version").body(kube::client::Body::empty()).map_err(kube::Error::HttpError)?;
    let response = client.send(request).await?;
    let ahead = clock::ahead(response.headers(), Timestamp::now());
    let body = response.into_body().collect_bytes().await?;
    let version: Version = serde_json::from_slice(&body).map_err(kube::Error::SerdeError)?;
    // Some say `30+`.
    let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
    let (seen, oldest) = (format!("Kubernetes {}", version.git.trim_start_matches('v')), OLDEST);
    let finding = if (number(&version.major), number(&version.minor)) >= oldest {
        Finding::good("API server", seen)
    } else {
        Finding::bad("API server", seen, format!("the chart needs Kubernetes {}.{} or later", oldest.0, oldest.1))
    };
    Ok((finding, ahead))
}

/// Whether the control planes in `pods` watch what gateways are made from.
pub(super) fn watch_gateways(pods: &[Pod]) -> bool {
    let containers = pods.iter().filter_map(|pod| pod.spec.as_ref()).flat_map(|spec| &spec.containers);
    containers.flat_map(|container| container.args.iter().flatten()).any(|argument| argument == "--watch-gateways")
}

/// Whether every node says its region and zone; with `cluster`, whether they are that cluster's.
pub(super) async fn zones(client: &Client, cluster: Option<&Cluster>) -> Finding {
    match Api::<Node>::all(client.clone()).list(&ListParams::default()).await {
        Ok(nodes) => judge_zones(&nodes.items, cluster),
        Err(error) => Finding::warning("zones", format!("cannot list nodes: {error}"), "ask with a user who may"),
    }
}

fn judge_zones(nodes: &[Node], cluster: Option<&Cluster>) -> Finding {
    if nodes.is_empty() {
        return Finding::warning("zones", "the cluster has no node", "endpoints get their zone from their node");
    }
    let named = |wrong: &dyn Fn(&Node) -> bool| {
        let names: Vec<_> = nodes.iter().filter(|node| wrong(node)).map(Node::name_any).collect();
        (!names.is_empty()).then_some(names)
    };
    let label = |node: &Node, label: &str| node.labels().get(label).cloned();
    if let Some(names) = named(&|node| label(node, ZONE).is_none() || label(node, REGION).is_none()) {
        let mend = format!("kubectl label node {} {REGION}=REGION {ZONE}=ZONE, as the topology names them", names[0]);
        return Finding::bad("zones", format!("no region or zone on {}", some(&names)), mend);
    }
    if let Some(cluster) = cluster {
        let known = |node: &Node| {
            label(node, ZONE).is_some_and(|zone| cluster.zones.iter().any(|known| known.as_str() == zone))
                && label(node, REGION).is_some_and(|region| region == cluster.region.as_str())
        };
        if let Some(names) = named(&|node| !known(node)) {
            let zones: Vec<_> = cluster.zones.iter().map(|zone| zone.as_str()).collect();
            let mend = format!(
                "the topology gives {} the region {} and the zones {}: change it, or the nodes' labels",
                cluster.name,
                cluster.region,
                zones.join(", ")
            );
            return Finding::bad("zones", format!("not in the topology: {}", some(&names)), mend);
        }
    }
    let zones: std::collections::BTreeSet<_> = nodes.iter().filter_map(|node| label(node, ZONE)).collect();
    let zones: Vec<_> = zones.into_iter().collect();
    Finding::good("zones", format!("{} nodes in {}", nodes.len(), some(&zones)))
}

/// Whether the definitions are there, as the chart would install them.
pub(super) async fn definitions(
    client: &Client,
    wanted: &[&str],
    what: &'static str,
) -> (Vec<String>, Option<Finding>) {
    let api: Api<Crd> = Api::all(client.clone());
    let mut missing = Vec::new();
    for name in wanted {
        match api.get_opt(name).await {
            Ok(Some(crd)) if is_established(&crd) => {}
            Ok(_) => missing.push((*name).to_owned()),
            Err(error) => {
                let seen = format!("cannot read {name}: {error}");
                return (missing, Some(Finding::warning(what, seen, "ask with a user who may read definitions")));
            }
        }
    }
    (missing, None)
}

fn is_established(crd: &Crd) -> bool {
    let conditions = crd.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
}

/// Whether every control plane's pod is ready.
pub(super) fn pods(pods: &[Pod], place: &str) -> Finding {
    if pods.is_empty() {
        let mend = "install it (docs/kubernetes.md), or name its namespace with -n; before an install use --pre";
        return Finding::bad("pods", format!("no control plane in {place}"), mend);
    }
    let not: Vec<_> = pods.iter().filter(|pod| !is_ready(pod)).collect();
    let Some(first) = not.first() else {
        return Finding::good("pods", format!("{} of {} ready", pods.len(), pods.len()));
    };
    let states: Vec<_> = not.iter().map(|pod| format!("{} is {}", pod.name_any(), state(pod))).collect();
    let seen = format!("{} of {} ready: {}", pods.len() - not.len(), pods.len(), some(&states));
    let mend = format!("kubectl -n {} describe pod {}", first.namespace().unwrap_or_default(), first.name_any());
    // Clients are served as long as one is.
    if not.len() < pods.len() { Finding::warning("pods", seen, mend) } else { Finding::bad("pods", seen, mend) }
}

/// The service account that control planes run as.
pub(super) fn account(pods: &[Pod]) -> Option<String> {
    pods.first()?.spec.as_ref()?.service_account_name.clone()
}

/// The first few of many.
fn some(names: &[String]) -> String {
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Mark;
    use super::*;
    use portolan_topology::topology::Topology;
    use serde_json::json;

    fn node(name: &str, region: &str, zone: &str) -> Node {
        let labels = match zone {
            "" => json!({}),
            zone => json!({REGION: region, ZONE: zone}),
        };
        serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap()
    }

    #[test]
    fn nodes_say_where_they_are_as_the_topology_names_it() {
        let text = "\
apiVersion: portolan.dev/v1alpha1
kind: Topology
metadata: {name: test}
spec:
  regions:
  - {name: east, zones: [e1, e2], clusters: [{name: east-a, controlPlane: {address: e.test, voter: true}}]}
";
        let (topology, _) = Topology::parse("topology.yaml", text).unwrap();
        let cluster = topology.clusters().next();
        let good = judge_zones(&[node("n1", "east", "e1"), node("n2", "east", "e2")], cluster);
        assert_eq!((good.mark, good.seen.as_str()), (Mark::Good, "2 nodes in e1, e2"));
        let nodes: Vec<_> = (1..=5).map(|i| node(&format!("n{i}"), "", "")).collect();
        let bare = judge_zones(&nodes, None);
        assert_eq!((bare.mark, bare.seen.as_str()), (Mark::Bad, "no region or zone on n1, n2, n3 and 2 more"));
        let other = judge_zones(&[node("n1", "east", "e9")], cluster);
        assert_eq!((other.mark, other.seen.as_str()), (Mark::Bad, "not in the topology: n1"));
        assert_eq!(judge_zones(&[node("n1", "east", "e9")], None).mark, Mark::Good);
        assert_eq!(judge_zones(&[], None).mark, Mark::Warning);
    }

    #[test]
    fn pods_are_judged_by_whether_anybody_is_served() {
        let pod = |name: &str, ready: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": "portolan"},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}}))
            .unwrap()
        };
        assert_eq!(pods(&[pod("p-0", "True")], "").seen, "1 of 1 ready");
        let one = pods(&[pod("p-0", "True"), pod("p-1", "False")], "");
        assert_eq!(
            (one.mark, one.seen.as_str(), one.mend.as_deref()),
            (
                Mark::Warning,
                "1 of 2 ready: p-1 is Running, but not ready",
                Some("kubectl -n portolan describe pod p-1")
            )
        );
        assert_eq!(pods(&[pod("p-0", "False")], "").mark, Mark::Bad);
        assert_eq!(pods(&[], "the namespace `x`").seen, "no control plane in the namespace `x`");
    }
}
