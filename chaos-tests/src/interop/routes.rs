//! Routes of the clients' services, with no proxy between: each service gets a GRPCRoute that tells calls by a header and
//! splits the rest by weight. What they lead to is services of their own, on one part of the pods each.

use portolan_topology::names::ServiceId;

use super::federation::{Federation, PORT};
use super::subject::NAMESPACE;
use super::tally::Counts;
use crate::runner::manifests;

/// Where calls with the header go, four fifths of the others, and the rest of them.
pub(super) const BACKENDS: [&str; 3] = ["blue", "steady", "fresh"];
const FILE: &str = "routes.yaml";

/// The backends of each, by the begin of their names.
pub(super) const BLUE: &str = "echo-use1-us-east-1b-1";
pub(super) const STEADY: &str = "echo-use1-us-east-1a";
pub(super) const FRESH: &str = "echo-use1-us-east-1b-0";

/// The cluster of a Service.
pub(super) fn cluster(service: &str) -> String {
    format!("{service}.{NAMESPACE}.svc.cluster.local:{PORT}")
}

/// What calls of a client that begin in the very moment of a change may fail with, whatever its control plane does: it
/// takes up the routes before what they lead to. Seen; `docs/routes.md` tells of it.
fn own_race(client: &str) -> Option<&'static str> {
    match client {
        "grpc-go" => Some("unknown cluster selected for RPC"),
        "envoy" => Some("no healthy upstream"),
        _ => None,
    }
}

/// How many calls may fail so.
const IN_THE_MOMENT: u64 = 5;

/// Whether no call failed but those few.
pub(super) fn clean(client: &str, counts: &Counts) -> bool {
    let excused = |error: &str| own_race(client).is_some_and(|race| error.contains(race));
    counts.failed.keys().all(|error| excused(error)) && counts.failures() <= IN_THE_MOMENT
}

/// Gives each of `services` its route.
pub(super) fn publish(federation: &mut Federation, services: &[ServiceId]) -> anyhow::Result<()> {
    let pods = [federation.pods("us-east-1a")?, federation.pods("us-east-1b")?].concat();
    for (service, prefix) in BACKENDS.into_iter().zip([BLUE, STEADY, FRESH]) {
        let pods: Vec<_> = pods.iter().filter(|pod| pod.name.starts_with(prefix)).cloned().collect();
        anyhow::ensure!(!pods.is_empty(), "no backend is called {prefix}…");
        for (file, text) in manifests::of_service(&ServiceId::new(service, NAMESPACE)?, PORT, &pods) {
            federation.publish(&file, text)?;
        }
    }
    let routes = services.iter().map(|service| {
        let name = service.name();
        let [blue, steady, fresh] = BACKENDS;
        format!(
            "---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  parentRefs: [{{group: '', kind: Service, name: {name}}}]
  rules:
  - matches: [{{method: {{service: portolan.chaos.v1.Echo, method: Call}}, headers: [{{name: lane, value: blue}}]}}]
    backendRefs: [{{name: {blue}, port: {PORT}}}]
  - backendRefs: [{{name: {steady}, port: {PORT}, weight: 80}}, {{name: {fresh}, port: {PORT}, weight: 20}}]
"
        )
    });
    federation.publish(FILE, routes.collect())
}

/// Takes the routes away; what they led to stays, for calls that are under way.
pub(super) fn remove(federation: &mut Federation) -> anyhow::Result<()> {
    federation.unpublish(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_client_s_own_race_is_excused_and_only_a_few_times() {
        let race = || Counts::one_failed("Unavailable: unknown cluster selected for RPC: \"x\"".to_owned());
        assert!(clean("grpc-go", &race()) && clean("grpcio", &Counts::default()));
        assert!(!clean("grpcio", &race()) && !clean("envoy", &race()));
        assert!(!clean("grpc-go", &Counts::one_failed("Unavailable: gone".to_owned())));
        let many = Counts { failed: race().failed.into_keys().map(|error| (error, 6)).collect(), ..Counts::default() };
        assert!(!clean("grpc-go", &many));
    }
}
