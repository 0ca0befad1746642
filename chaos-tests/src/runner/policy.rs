//! Policy as a run needs it: written through `portolan policy apply` at whichever control plane answers, tried all the
//! time if the scenario wants to know when writes work, and read back at the end.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::portolan::{CommandError, Portolan, RunPaths};
use super::site::Site;
use crate::verdict::Write;

/// Between two writes of the probe.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// The namespace of the probe's policy, in which there is no service.
const PROBE_NAMESPACE: &str = "chaos-probe";

/// Writes and reads policy.
#[derive(Debug, Clone)]
pub(crate) struct PolicyWriter {
    /// The layout, for the admin addresses.
    pub site: Arc<Site>,
    /// The program.
    pub portolan: Portolan,
    /// The run's folder.
    pub paths: RunPaths,
}

impl PolicyWriter {
    /// Applies a document at the first of `planes` that takes it; its revision.
    pub(crate) async fn apply(&self, name: &str, document: &str, planes: &[usize]) -> anyhow::Result<u64> {
        let file = self.paths.policy(name);
        std::fs::write(&file, document)?;
        let file = file.display().to_string();
        let mut last = None;
        for plane in planes {
            let address = self.admin(*plane);
            match self.portolan.run(&["policy", "apply", "-f", &file, "-o", "json", "--address", &address]).await {
                Ok(said) => {
                    let revision =
                        serde_json::from_str(&said).ok().and_then(|said| revisions_in(&said).into_iter().max());
                    return revision
                        .ok_or_else(|| anyhow::anyhow!("`policy apply` named no revision: {}", said.trim()));
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or_else(|| anyhow::anyhow!("no control plane runs"), Into::into))
    }

    /// The same, tried again until `deadline`: the policy group may not be born yet.
    pub(crate) async fn apply_by(
        &self,
        deadline: Instant,
        name: &str,
        document: &str,
        planes: &[usize],
    ) -> anyhow::Result<u64> {
        let mut last = None;
        let tries = async {
            loop {
                match self.apply(name, document, planes).await {
                    Ok(revision) => return revision,
                    Err(error) => last = Some(error),
                }
                tokio::time::sleep(PROBE_EVERY).await;
            }
        };
        let applied = tokio::time::timeout_at(deadline, tries).await;
        applied.map_err(|_| last.unwrap_or_else(|| anyhow::anyhow!("no control plane took it in time")))
    }

    /// Runs a command at the first of `planes` at which it works.
    pub(crate) async fn command(&self, arguments: &[&str], planes: &[usize]) -> anyhow::Result<()> {
        let mut last = None;
        for plane in planes {
            let address = self.admin(*plane);
            match self.portolan.run(&[arguments, &["--address", &address]].concat()).await {
                Ok(_) => return Ok(()),
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or_else(|| anyhow::anyhow!("no control plane runs"), Into::into))
    }

    /// The control plane that leads the policy group, as the first of `planes` that knows says.
    pub(crate) async fn leader(&self, planes: &[usize]) -> anyhow::Result<usize> {
        for plane in planes {
            let status = self.status(*plane).await?;
            let leader = leader_in(&status);
            let found = self.site.control_planes.iter().position(|site| leader == Some(site.cluster.as_str()));
            if let Some(found) = found {
                return Ok(found);
            }
        }
        anyhow::bail!("no control plane knows who leads the policy group")
    }

    /// The revisions that are in the history.
    pub(crate) async fn history(&self, planes: &[usize]) -> anyhow::Result<Vec<u64>> {
        let plane = planes.first().ok_or_else(|| anyhow::anyhow!("no control plane runs"))?;
        let said = self.portolan.run(&["policy", "history", "-o", "json", "--address", &self.admin(*plane)]).await?;
        Ok(revisions_in(&serde_json::from_str(&said)?))
    }

    async fn status(&self, plane: usize) -> Result<Value, CommandError> {
        let said = self.portolan.run(&["status", "-o", "json", "--address", &self.admin(plane)]).await?;
        Ok(serde_json::from_str(&said).unwrap_or_default())
    }

    fn admin(&self, plane: usize) -> String {
        self.site.control_planes[plane].admin.to_string()
    }

    /// Writes all the time until told to stop; what became of each write. `zero` is the run's time 0.
    pub(crate) fn probe(&self, zero: Instant, stop: CancellationToken) -> Arc<Mutex<Vec<Write>>> {
        let writes = Arc::new(Mutex::new(Vec::new()));
        let (this, seen) = (self.clone(), Arc::clone(&writes));
        tokio::spawn(async move {
            let planes: Vec<usize> = (0..this.site.control_planes.len()).collect();
            for count in 1_u64.. {
                let asked = Instant::now();
                // Its content changes each time, so that each write is one.
                let document = probe_document(count);
                let result = tokio::select! {
                    () = stop.cancelled() => return,
                    result = this.apply("probe", &document, &planes) => result,
                };
                let acknowledged = result.ok().map(|revision| (zero.elapsed(), revision));
                seen.lock().push(Write { asked: asked.saturating_duration_since(zero), acknowledged });
                tokio::time::sleep(PROBE_EVERY).await;
            }
        });
        writes
    }
}

pub(crate) fn probe_document(count: u64) -> String {
    serde_json::json!({
        "apiVersion": crate::scenario::API_VERSION,
        "kind": "TrafficPolicy",
        "metadata": {"name": "probe", "namespace": PROBE_NAMESPACE},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Namespace", "name": PROBE_NAMESPACE}],
            "locality": {"failback": {"ramp": format!("{}s", 1 + count % 3_000)}},
        },
    })
    .to_string()
}

/// Every `revision` in an answer.
fn revisions_in(history: &Value) -> Vec<u64> {
    match history {
        Value::Array(items) => items.iter().flat_map(revisions_in).collect(),
        Value::Object(fields) => {
            let own = fields.get("revision").and_then(Value::as_u64);
            own.into_iter().chain(fields.values().flat_map(revisions_in)).collect()
        }
        _ => Vec::new(),
    }
}

/// The cluster whose policy role is `leader`.
fn leader_in(status: &Value) -> Option<&str> {
    let clusters = status.get("clusters")?.as_array()?;
    let leads = |cluster: &&Value| cluster.pointer("/policy/role").and_then(Value::as_str) == Some("leader");
    clusters.iter().find(leads)?.get("name")?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_found_wherever_they_stand() {
        let history =
            serde_json::json!({"changes": [{"revision": 3, "object": {"status": {"revision": 3}}}, {"revision": 7}]});
        assert_eq!(revisions_in(&history), [3, 3, 7]);
    }

    #[test]
    fn the_leader_is_the_cluster_with_that_role() {
        let status = serde_json::json!({"clusters": [
            {"name": "use1-a", "policy": {"revision": 4, "role": "voter"}},
            {"name": "usw2-a", "policy": {"revision": 4, "role": "leader"}},
            {"name": "euw1-a", "policy": null},
        ]});
        assert_eq!(leader_in(&status), Some("usw2-a"));
        assert_eq!(leader_in(&serde_json::json!({"clusters": []})), None);
    }
}
