//! Rights: what who installs portolan must be allowed, what the command line needs, and what control planes need. Asked of
//! the API server, which alone knows.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
    SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};

use super::finding::Finding;

/// A right, in a namespace or everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Right {
    pub(super) verb: &'static str,
    pub(super) group: &'static str,
    /// `resource` or `resource/subresource`.
    pub(super) resource: &'static str,
    pub(super) namespaced: bool,
}

const fn everywhere(verb: &'static str, group: &'static str, resource: &'static str) -> Right {
    Right { verb, group, resource, namespaced: false }
}

const fn inside(verb: &'static str, group: &'static str, resource: &'static str) -> Right {
    Right { verb, group, resource, namespaced: true }
}

/// What `helm install` makes.
pub(super) const INSTALL: &[Right] = &[
    everywhere("create", "apiextensions.k8s.io", "customresourcedefinitions"),
    everywhere("create", "rbac.authorization.k8s.io", "clusterroles"),
    everywhere("create", "rbac.authorization.k8s.io", "clusterrolebindings"),
    inside("create", "rbac.authorization.k8s.io", "roles"),
    inside("create", "rbac.authorization.k8s.io", "rolebindings"),
    inside("create", "", "serviceaccounts"),
    inside("create", "", "services"),
    inside("create", "", "configmaps"),
    inside("create", "", "secrets"),
    inside("create", "apps", "statefulsets"),
    inside("create", "policy", "poddisruptionbudgets"),
    inside("create", "networking.k8s.io", "networkpolicies"),
];

/// What the command line needs.
pub(super) const COMMAND_LINE: &[Right] = &[inside("list", "", "pods"), inside("create", "", "pods/portforward")];

/// What a control plane needs: what the chart's roles give by default, no more and no less.
pub(super) const CONTROL_PLANE: &[Right] = &[
    everywhere("list", "", "services"),
    everywhere("watch", "", "services"),
    everywhere("list", "", "nodes"),
    everywhere("watch", "", "nodes"),
    everywhere("list", "discovery.k8s.io", "endpointslices"),
    everywhere("watch", "discovery.k8s.io", "endpointslices"),
    everywhere("list", "portolan.dev", "trafficpolicies"),
    everywhere("watch", "portolan.dev", "trafficpolicies"),
    everywhere("patch", "portolan.dev", "trafficpolicies/status"),
    everywhere("list", "portolan.dev", "drains"),
    everywhere("watch", "portolan.dev", "drains"),
    everywhere("patch", "portolan.dev", "drains/status"),
    everywhere("create", "events.k8s.io", "events"),
    everywhere("patch", "events.k8s.io", "events"),
    everywhere("list", "", "namespaces"),
    everywhere("watch", "", "namespaces"),
    everywhere("list", "multicluster.x-k8s.io", "serviceexports"),
    everywhere("watch", "multicluster.x-k8s.io", "serviceexports"),
    everywhere("patch", "multicluster.x-k8s.io", "serviceexports/status"),
    everywhere("list", "multicluster.x-k8s.io", "serviceimports"),
    everywhere("watch", "multicluster.x-k8s.io", "serviceimports"),
    everywhere("create", "multicluster.x-k8s.io", "serviceimports"),
    everywhere("patch", "multicluster.x-k8s.io", "serviceimports"),
    everywhere("delete", "multicluster.x-k8s.io", "serviceimports"),
    everywhere("patch", "multicluster.x-k8s.io", "serviceimports/status"),
    everywhere("create", "discovery.k8s.io", "endpointslices"),
    everywhere("patch", "discovery.k8s.io", "endpointslices"),
    everywhere("delete", "discovery.k8s.io", "endpointslices"),
    everywhere("list", "gateway.networking.k8s.io", "httproutes"),
    everywhere("watch", "gateway.networking.k8s.io", "httproutes"),
    everywhere("patch", "gateway.networking.k8s.io", "httproutes/status"),
    everywhere("list", "gateway.networking.k8s.io", "grpcroutes"),
    everywhere("watch", "gateway.networking.k8s.io", "grpcroutes"),
    everywhere("patch", "gateway.networking.k8s.io", "grpcroutes/status"),
    inside("get", "coordination.k8s.io", "leases"),
    inside("create", "coordination.k8s.io", "leases"),
    inside("update", "coordination.k8s.io", "leases"),
];

/// What gateways take besides, where `source.watchGateways` is on.
pub(super) const GATEWAYS: &[Right] = &[
    everywhere("list", "gateway.networking.k8s.io", "gatewayclasses"),
    everywhere("watch", "gateway.networking.k8s.io", "gatewayclasses"),
    everywhere("patch", "gateway.networking.k8s.io", "gatewayclasses/status"),
    everywhere("list", "gateway.networking.k8s.io", "gateways"),
    everywhere("watch", "gateway.networking.k8s.io", "gateways"),
    everywhere("patch", "gateway.networking.k8s.io", "gateways/status"),
    everywhere("list", "gateway.networking.k8s.io", "referencegrants"),
    everywhere("watch", "gateway.networking.k8s.io", "referencegrants"),
    everywhere("list", "", "secrets"),
    everywhere("watch", "", "secrets"),
];

/// Who is asked about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Who<'a> {
    /// Whose kubeconfig it is.
    Us,
    /// A service account, by namespace and name.
    Account(&'a str, &'a str),
}

/// Asks for each of `rights` in turn; `what` names the check.
pub(super) async fn check(
    client: &Client,
    what: &'static str,
    who: Who<'_>,
    rights: &[Right],
    namespace: &str,
    mend: &str,
) -> Finding {
    let whose = match who {
        Who::Us => "you".to_owned(),
        Who::Account(namespace, name) => format!("the service account {namespace}/{name}"),
    };
    let mut missing = Vec::new();
    for right in rights {
        match allowed(client, who, right, namespace).await {
            Ok(true) => {}
            Ok(false) => missing.push(words(right)),
            Err(error) => {
                let seen = format!("cannot ask what {whose} may do: {error}");
                let mend = "ask with a user who may create subjectaccessreviews";
                return Finding::warning(what, seen, mend);
            }
        }
    }
    if missing.is_empty() {
        return Finding::good(what, format!("{whose} may do all {} things that it takes", rights.len()));
    }
    Finding::bad(what, format!("{whose} may not {}", missing.join(", ")), mend)
}

fn words(right: &Right) -> String {
    let Right { verb, group, resource, .. } = right;
    if group.is_empty() { format!("{verb} {resource}") } else { format!("{verb} {resource}.{group}") }
}

async fn allowed(client: &Client, who: Who<'_>, right: &Right, namespace: &str) -> Result<bool, kube::Error> {
    let (resource, subresource) = match right.resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (right.resource, None),
    };
    let attributes = Some(ResourceAttributes {
        verb: Some(right.verb.to_owned()),
        group: Some(right.group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource,
        namespace: right.namespaced.then(|| namespace.to_owned()),
        ..ResourceAttributes::default()
    });
    let create = PostParams::default();
    let status = match who {
        Who::Us => {
            let spec = SelfSubjectAccessReviewSpec { resource_attributes: attributes, ..Default::default() };
            let review = SelfSubjectAccessReview { spec, ..Default::default() };
            Api::<SelfSubjectAccessReview>::all(client.clone()).create(&create, &review).await?.status
        }
        Who::Account(namespace, name) => {
            let spec = SubjectAccessReviewSpec {
                resource_attributes: attributes,
                user: Some(format!("system:serviceaccount:{namespace}:{name}")),
                groups: Some(vec![
                    "system:serviceaccounts".to_owned(),
                    format!("system:serviceaccounts:{namespace}"),
                    "system:authenticated".to_owned(),
                ]),
                ..Default::default()
            };
            let review = SubjectAccessReview { spec, ..Default::default() };
            Api::<SubjectAccessReview>::all(client.clone()).create(&create, &review).await?.status
        }
    };
    Ok(status.is_some_and(|status| status.allowed))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use serde_json::Value;

    const LEAST: &str = include_str!("../../../../deploy/helm/golden/least.yaml");
    /// Watches Pods.
    const FULL: &str = include_str!("../../../../deploy/helm/golden/full.yaml");

    /// What the roles of a rendering give: whether in the namespace alone, group, resource, verb.
    fn granted(chart: &str) -> BTreeSet<(bool, String, String, String)> {
        let documents: Vec<Value> = chart
            .split("\n---\n")
            .map(|document| serde_saphyr::from_str(document).unwrap())
            .filter(|document: &Value| document["kind"] == "ClusterRole" || document["kind"] == "Role")
            .collect();
        let texts = |value: &Value| -> Vec<String> {
            value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        let mut granted = BTreeSet::new();
        for role in &documents {
            for rule in role["rules"].as_array().unwrap() {
                for group in texts(&rule["apiGroups"]) {
                    for resource in texts(&rule["resources"]) {
                        for verb in texts(&rule["verbs"]) {
                            granted.insert((role["kind"] == "Role", group.clone(), resource.clone(), verb));
                        }
                    }
                }
            }
        }
        granted
    }

    #[test]
    fn the_chart_grants_what_is_checked_and_nothing_else() {
        let checked = |right: &Right| {
            (right.namespaced, right.group.to_owned(), right.resource.to_owned(), right.verb.to_owned())
        };
        assert_eq!(granted(LEAST), CONTROL_PLANE.iter().map(checked).collect());
        let pods = [everywhere("list", "", "pods"), everywhere("watch", "", "pods")];
        let all = CONTROL_PLANE.iter().chain(&pods).chain(GATEWAYS);
        assert_eq!(granted(FULL), all.map(checked).collect());
    }
}
