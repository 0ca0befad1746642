//! Plays the kubelet and the endpoint controller: keeps each cluster's manifests in step with its backends.
//!
//! A dead backend turns unready after a while where its cluster's control plane lives; a dead region's files stay as they
//! are.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portolan_topology::names::{ClusterName, ServiceId};

use super::manifests::{self, Pod, Readiness};
use super::portolan::RunPaths;
use super::site::Site;

/// A shared handle.
#[derive(Debug, Clone)]
pub(super) struct Kubelet {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    site: Arc<Site>,
    paths: RunPaths,
    ports: BTreeMap<ServiceId, u16>,
    /// By backend; `None`: its pod is gone.
    readiness: Vec<Option<Readiness>>,
    /// By backend: whether its process runs.
    running: Vec<bool>,
    /// What stands in each cluster's folder.
    written: BTreeMap<ClusterName, BTreeMap<String, String>>,
    /// Clusters whose files stay as they are.
    frozen: Vec<ClusterName>,
}

impl Kubelet {
    /// All backends ready, nothing written yet. `ports` are the services' own.
    #[must_use]
    pub(super) fn new(site: Arc<Site>, paths: RunPaths, ports: BTreeMap<ServiceId, u16>) -> Self {
        let backends = site.backends.len();
        let state = State {
            site,
            paths,
            ports,
            readiness: vec![Some(Readiness::Ready); backends],
            running: vec![true; backends],
            written: BTreeMap::new(),
            frozen: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Writes what is not in the folders yet.
    pub(super) fn write(&self) -> io::Result<()> {
        self.state.lock().write()
    }

    /// Says what backends are from now on; `None`: their pods are gone.
    pub(super) fn set(&self, backends: &[usize], readiness: Option<Readiness>) -> io::Result<()> {
        let mut state = self.state.lock();
        for backend in backends {
            state.readiness[*backend] = readiness;
        }
        state.write()
    }

    /// Backends died: they turn unready after `detect`, unless they are back by then.
    pub(super) fn died(&self, backends: Vec<usize>, detect: Duration) {
        let mut state = self.state.lock();
        for backend in &backends {
            state.running[*backend] = false;
        }
        drop(state);
        let this = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(detect).await;
            let dead: Vec<usize> = {
                let state = this.state.lock();
                backends.into_iter().filter(|backend| !state.running[*backend] && state.tended(*backend)).collect()
            };
            if let Err(error) = this.set(&dead, Some(Readiness::Unready)) {
                tracing::error!(%error, "cannot write manifests");
            }
        });
    }

    /// Backends run again and are ready.
    pub(super) fn returned(&self, backends: &[usize]) -> io::Result<()> {
        let mut state = self.state.lock();
        for backend in backends {
            state.running[*backend] = true;
            state.readiness[*backend] = Some(Readiness::Ready);
        }
        state.write()
    }

    /// Leaves a cluster's files as they are, or tends them again.
    pub(super) fn freeze(&self, cluster: &ClusterName, frozen: bool) -> io::Result<()> {
        let mut state = self.state.lock();
        state.frozen.retain(|name| name != cluster);
        if frozen {
            state.frozen.push(cluster.clone());
        }
        state.write()
    }
}

impl State {
    fn tended(&self, backend: usize) -> bool {
        !self.frozen.contains(&self.site.backends[backend].locality.cluster)
    }

    fn write(&mut self) -> io::Result<()> {
        let mut clusters: BTreeMap<&ClusterName, BTreeMap<&ServiceId, Vec<Pod>>> = BTreeMap::new();
        for plane in &self.site.control_planes {
            clusters.entry(&plane.cluster).or_default();
        }
        for (backend, readiness) in self.site.backends.iter().zip(&self.readiness) {
            let pods = clusters.entry(&backend.locality.cluster).or_default().entry(&backend.service).or_default();
            if let (Some(readiness), Some(zone)) = (readiness, &backend.locality.zone) {
                pods.push(Pod {
                    name: backend.name.clone(),
                    address: backend.address,
                    zone: zone.clone(),
                    readiness: *readiness,
                });
            }
        }
        for (cluster, services) in clusters.into_iter().filter(|(cluster, _)| !self.frozen.contains(cluster)) {
            let files = services
                .into_iter()
                .flat_map(|(service, pods)| manifests::of_service(service, self.ports[service], &pods))
                .collect();
            let written = self.written.entry(cluster.clone()).or_default();
            manifests::write(&self.paths.manifests(cluster), files, written)?;
        }
        Ok(())
    }
}
