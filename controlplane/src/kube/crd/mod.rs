//! Policy as Kubernetes objects: the custom resource definitions, derived from the types here, and printed by
//! `portolan crds` for who installs them.
//!
//! These types are the *shape* of the objects, with the rules that an API server can check by itself. Whether an object
//! makes sense is said by [`portolan_topology::policy::document`] alone, which reads the object as it is; what is not
//! supported yet is in the schema all the same: an API server then keeps it and the object is refused by name, where a
//! field that the schema does not know would be dropped in silence.

mod drain;
mod format;
mod status;
#[cfg(test)]
mod tests;
mod traffic_policy;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

pub use drain::{Drain, DrainSpec, DrainStatus};
pub use status::{ClusterStatus, Condition};
pub use traffic_policy::{TrafficPolicy, TrafficPolicySpec, TrafficPolicyStatus};

/// A time as the policy's reader takes it, units from large to small: `500ms`, `5s`, `1m30s`.
const DURATION: &str = "^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?([0-9]+us)?([0-9]+ns)?$";
/// A label of DNS.
const LABEL: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// All definitions, by name.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    let mut all = vec![Drain::crd(), TrafficPolicy::crd()];
    for schema in all.iter_mut().flat_map(|crd| &mut crd.spec.versions).filter_map(|version| version.schema.as_mut()) {
        schema.open_api_v3_schema.iter_mut().for_each(format::known);
    }
    all
}

/// A definition's file in `deploy/crds/`, and its text.
pub fn files() -> Result<Vec<(String, String)>, serde_saphyr::ser::Error> {
    let file = |crd: &CustomResourceDefinition| {
        let name = format!("{}.yaml", crd.spec.names.plural);
        Ok((name, serde_saphyr::to_string(crd)?))
    };
    all().iter().map(file).collect()
}
