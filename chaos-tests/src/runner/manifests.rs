//! A cluster as the `files` source sees it: `Service` and `EndpointSlice` manifests as `kubectl get -o yaml` prints them,
//! one slice for each zone and port.
//!
//! The runner plays the kubelet: it writes a zone's slice again when a backend's readiness changes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use portolan_topology::names::{ServiceId, ZoneName};

/// A pod's part of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its zone.
    pub zone: ZoneName,
    /// What its conditions say.
    pub readiness: Readiness,
}

/// A pod's conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// `ready`, `serving`.
    Ready,
    /// Neither.
    Unready,
    /// `serving` and `terminating`.
    Terminating,
}

/// The manifests of one service in one cluster, by file name.
#[must_use]
pub(crate) fn of_service(service: &ServiceId, port: u16, pods: &[Pod]) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    files.insert(format!("{service}.service.yaml"), service_yaml(service, port));
    let mut slices: BTreeMap<(&ZoneName, u16), Vec<&Pod>> = BTreeMap::new();
    for pod in pods {
        slices.entry((&pod.zone, pod.address.port())).or_default().push(pod);
    }
    for ((zone, target_port), pods) in slices {
        let name = format!("{}-{zone}-{target_port}", service.name());
        files.insert(format!("{service}.{zone}.{target_port}.yaml"), slice_yaml(service, &name, target_port, &pods));
    }
    files
}

fn service_yaml(service: &ServiceId, port: u16) -> String {
    let (name, namespace) = (service.name(), service.namespace());
    format!(
        "apiVersion: v1
kind: Service
metadata:
  creationTimestamp: \"2026-01-01T00:00:00Z\"
  labels:
    app: {name}
  name: {name}
  namespace: {namespace}
spec:
  clusterIP: None
  clusterIPs:
  - None
  internalTrafficPolicy: Cluster
  ipFamilies:
  - IPv4
  ipFamilyPolicy: SingleStack
  ports:
  - appProtocol: kubernetes.io/h2c
    name: grpc
    port: {port}
    protocol: TCP
    targetPort: grpc
  selector:
    app: {name}
  sessionAffinity: None
  type: ClusterIP
status:
  loadBalancer: {{}}
"
    )
}

fn slice_yaml(service: &ServiceId, slice: &str, target_port: u16, pods: &[&Pod]) -> String {
    let (name, namespace) = (service.name(), service.namespace());
    let mut text = String::from("addressType: IPv4\napiVersion: discovery.k8s.io/v1\nendpoints:\n");
    for pod in pods {
        let (ready, serving, terminating) = match pod.readiness {
            Readiness::Ready => (true, true, false),
            Readiness::Unready => (false, false, false),
            Readiness::Terminating => (false, true, true),
        };
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "- addresses:
  - {address}
  conditions:
    ready: {ready}
    serving: {serving}
    terminating: {terminating}
  targetRef:
    kind: Pod
    name: {pod}
    namespace: {namespace}
  zone: {zone}
",
            address = pod.address.ip(),
            pod = pod.name,
            zone = pod.zone,
        );
    }
    let _ = write!(
        text,
        "kind: EndpointSlice
metadata:
  creationTimestamp: \"2026-01-01T00:00:00Z\"
  labels:
    endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io
    kubernetes.io/service-name: {name}
  name: {slice}
  namespace: {namespace}
ports:
- appProtocol: kubernetes.io/h2c
  name: grpc
  port: {target_port}
  protocol: TCP
"
    );
    text
}

/// Writes what changed in `folder`, each file whole or not at all. `written` is what was written before.
pub(crate) fn write(
    folder: &Path,
    files: BTreeMap<String, String>,
    written: &mut BTreeMap<String, String>,
) -> io::Result<()> {
    for (name, text) in &files {
        if written.get(name) != Some(text) {
            let half = folder.join(format!(".{name}.new"));
            std::fs::write(&half, text)?;
            std::fs::rename(&half, folder.join(name))?;
        }
    }
    for gone in written.keys().filter(|name| !files.contains_key(*name)) {
        std::fs::remove_file(folder.join(gone))?;
    }
    *written = files;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, address: &str, zone: &str, readiness: Readiness) -> Pod {
        Pod { name: name.into(), address: address.parse().unwrap(), zone: zone.parse().unwrap(), readiness }
    }

    #[test]
    fn a_service_becomes_a_service_and_a_slice_for_each_zone_and_port() {
        let pods = [
            pod("a", "127.1.2.3:9000", "z-1", Readiness::Ready),
            pod("b", "127.1.2.4:9000", "z-1", Readiness::Unready),
            pod("c", "127.1.2.5:9001", "z-1", Readiness::Terminating),
            pod("d", "127.1.2.6:9000", "z-2", Readiness::Ready),
        ];
        let files = of_service(&"checkout.shop".parse().unwrap(), 8080, &pods);
        insta::assert_yaml_snapshot!(files.keys().collect::<Vec<_>>(), @r"
        - checkout.shop.service.yaml
        - checkout.shop.z-1.9000.yaml
        - checkout.shop.z-1.9001.yaml
        - checkout.shop.z-2.9000.yaml
        ");
        let slice: serde_json::Value = serde_saphyr::from_str(&files["checkout.shop.z-1.9000.yaml"]).unwrap();
        assert_eq!(slice["endpoints"][1]["conditions"]["ready"], false);
        assert_eq!(slice["endpoints"][0]["addresses"][0], "127.1.2.3");
        assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], "checkout");
        let service: serde_json::Value = serde_saphyr::from_str(&files["checkout.shop.service.yaml"]).unwrap();
        assert_eq!(service["spec"]["ports"][0]["port"], 8080);
    }

    #[test]
    fn only_what_changed_is_written_and_what_went_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mut written = BTreeMap::new();
        let files =
            |list: &[(&str, &str)]| list.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
        write(folder.path(), files(&[("a", "1"), ("b", "1")]), &mut written).unwrap();
        // Somebody else's hand: an unchanged file is left alone.
        std::fs::write(folder.path().join("a"), "touched").unwrap();
        write(folder.path(), files(&[("a", "1"), ("c", "2")]), &mut written).unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join("a")).unwrap(), "touched");
        assert!(!folder.path().join("b").exists());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "no half-written file stays");
    }
}
