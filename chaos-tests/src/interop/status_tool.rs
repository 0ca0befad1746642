//! What a public tool shows of the clients: grpcurl, which learns the service by reflection, asks the control plane for
//! their status (CSDS). Only reads.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use tokio::process::Command;

const PROGRAM: &str = "bin/grpcurl";
const METHOD: &str = "envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus";
/// How long it may take; the answer has every resource of every client.
const WITHIN: Duration = Duration::from_secs(20);

/// A client, as the tool shows it.
#[derive(Debug, Deserialize)]
pub(super) struct Shown {
    node: Node,
    #[serde(default, rename = "genericXdsConfigs")]
    configs: Vec<Config>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    name: String,
    #[serde(default)]
    config_status: String,
    /// The resource, as the tool reads it.
    #[serde(default)]
    xds_config: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Answer {
    config: Vec<Shown>,
}

/// Everything that the control plane at `server` says of its clients. `tool` is grpcurl's folder, `certs` that of the
/// certificates.
pub(super) async fn fetch(tool: &Path, server: SocketAddr, certs: &Path) -> anyhow::Result<Vec<Shown>> {
    let mut grpcurl = Command::new(tool.join(PROGRAM));
    grpcurl.arg("-cacert").arg(certs.join("ca.pem"));
    grpcurl.arg("-cert").arg(certs.join("client.pem")).arg("-key").arg(certs.join("client-key.pem"));
    grpcurl.args(["-d", "{}", &server.to_string(), METHOD]).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(WITHIN, grpcurl.output());
    let output = output.await.context("grpcurl takes too long")?.context("cannot run grpcurl")?;
    anyhow::ensure!(output.status.success(), "grpcurl failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    let answer: Answer = serde_json::from_slice(&output.stdout).context("cannot read what grpcurl printed")?;
    Ok(answer.config)
}

/// Whether `node` is among those shown, with resources that it all took and whose contents could be read; what was found.
pub(super) fn judge(shown: &[Shown], node: &str) -> (bool, String) {
    let Some(client) = shown.iter().find(|client| client.node.id == node) else {
        return (false, format!("it is not among the {} that are shown", shown.len()));
    };
    if let Some(other) = client.configs.iter().find(|config| config.config_status != "SYNCED") {
        return (false, format!("`{}` is {}", other.name, other.config_status));
    }
    let unread = |config: &&Config| config.xds_config.as_ref().is_none_or(|any| any.get("@error").is_some());
    if let Some(unread) = client.configs.iter().find(unread) {
        return (false, format!("`{}` has no contents that can be read: {:?}", unread.name, unread.xds_config));
    }
    (!client.configs.is_empty(), format!("grpcurl shows {} resources, all SYNCED", client.configs.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(configs: &str) -> Vec<Shown> {
        serde_json::from_str(&format!(r#"[{{"node": {{"id": "a"}}, "genericXdsConfigs": [{configs}]}}]"#)).unwrap()
    }

    #[test]
    fn a_client_without_resources_or_with_a_refused_or_unread_one_is_not_well() {
        let good = r#"{"name": "x", "configStatus": "SYNCED", "xdsConfig": {"@type": "t"}}"#;
        assert!(judge(&shown(good), "a").0);
        assert!(!judge(&shown(good), "b").0);
        assert!(!judge(&shown(""), "a").0);
        assert!(!judge(&shown(&good.replace("SYNCED", "ERROR")), "a").0);
        assert!(!judge(&shown(&good.replace(r#""@type": "t""#, r#""@error": "unknown""#)), "a").0);
    }
}
