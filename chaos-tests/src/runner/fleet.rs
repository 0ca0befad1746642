//! The processes of a run: one control plane for each cluster, one process for each backend.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::future::{join_all, try_join_all};
use portolan_topology::names::ServiceId;
use portolan_topology::policy::Scope;
use tokio::time::Instant;

use super::kubelet::Kubelet;
use super::manifests::Readiness;
use super::portolan::{Portolan, RunPaths};
use super::process::{Killed, Launch, Process};
use super::site::{Site, place};
use crate::backend::LISTENING;
use crate::lifeline::FINISH;
use crate::scenario::{Scenario, Target};
use crate::sockets;

/// How long a process may take to come up, on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How often a control plane is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How long a backend that is scaled away may take to end what it has.
const GRACE: Duration = Duration::from_secs(10);

/// All processes.
#[derive(Debug)]
pub(crate) struct Fleet {
    site: Arc<Site>,
    portolan: Portolan,
    paths: RunPaths,
    kubelet: Kubelet,
    scenario: Arc<Scenario>,
    planes: Vec<Option<Process>>,
    backends: Vec<Option<Process>>,
    /// By backend: whether it was scaled away.
    removed: Vec<bool>,
}

/// What a kill did, by place in the site.
#[derive(Debug, Default)]
pub(crate) struct Kills {
    /// Control planes.
    pub planes: Vec<(usize, Killed)>,
    /// Backends.
    pub backends: Vec<(usize, Killed)>,
}

impl Fleet {
    /// Nothing runs yet.
    #[must_use]
    pub(crate) fn new(site: Arc<Site>, scenario: Arc<Scenario>, portolan: Portolan, paths: RunPaths) -> Self {
        let ports: BTreeMap<_, _> =
            scenario.services.iter().map(|service| (service.id.clone(), service.port)).collect();
        let kubelet = Kubelet::new(Arc::clone(&site), paths.clone(), ports);
        let planes = site.control_planes.iter().map(|_| None).collect();
        let backends = site.backends.iter().map(|_| None).collect();
        let removed = vec![false; site.backends.len()];
        Self { site, portolan, paths, kubelet, scenario, planes, backends, removed }
    }

    /// Starts everything and waits until it is ready.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        self.kubelet.write().context("cannot write the clusters' manifests")?;
        let planes: Vec<usize> = (0..self.planes.len()).collect();
        let backends: Vec<usize> = (0..self.backends.len()).collect();
        self.start_in_order(&planes, &backends).await
    }

    /// Control planes and backends that call nobody first: those that call others are up when their calls work.
    async fn start_in_order(&mut self, planes: &[usize], backends: &[usize]) -> anyhow::Result<()> {
        let (callers, others): (Vec<usize>, Vec<usize>) =
            backends.iter().copied().partition(|backend| self.callee_of(*backend).is_some());
        self.start_planes(planes)?;
        self.start_backends(&others).await?;
        self.kubelet.returned(&others).context("cannot write manifests")?;
        self.planes_ready(planes).await?;
        self.start_backends(&callers).await?;
        self.kubelet.returned(&callers).context("cannot write manifests")
    }

    fn start_planes(&mut self, planes: &[usize]) -> anyhow::Result<()> {
        for plane in planes {
            let launch = self.portolan.serve(&self.site.control_planes[*plane], &self.paths);
            self.planes[*plane] = Some(launch.start()?);
        }
        Ok(())
    }

    async fn planes_ready(&mut self, planes: &[usize]) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        for plane in planes {
            let metrics = self.site.control_planes[*plane].metrics;
            let Some(process) = &mut self.planes[*plane] else { continue };
            while !matches!(sockets::http_status(metrics, "GET", "/readyz").await, Ok(200)) {
                process.check()?;
                if Instant::now() > deadline {
                    return Err(process.not_ready(READY_WITHIN).into());
                }
                tokio::time::sleep(ASK_EVERY).await;
            }
        }
        Ok(())
    }

    async fn start_backends(&mut self, backends: &[usize]) -> anyhow::Result<()> {
        let launches = backends
            .iter()
            .map(|backend| self.backend_launch(*backend).start_until(|line| line == LISTENING, READY_WITHIN));
        let started = try_join_all(launches).await?;
        for (backend, (process, _)) in backends.iter().zip(started) {
            self.backends[*backend] = Some(process);
        }
        Ok(())
    }

    fn callee_of(&self, backend: usize) -> Option<&ServiceId> {
        let id = &self.site.backends[backend].service;
        self.scenario.services.iter().find(|service| service.id == *id)?.calls.as_ref()
    }

    fn backend_launch(&self, backend: usize) -> Launch {
        let site = &self.site.backends[backend];
        let service = self.scenario.services.iter().find(|service| service.id == site.service);
        let latency = service.map_or(Duration::ZERO, |service| service.latency);
        let mut arguments = vec![
            "backend".to_owned(),
            format!("--name={}", site.name),
            format!("--listen={}", site.address),
            format!("--latency-ms={}", latency.as_millis()),
        ];
        if let Some(callee) = self.callee_of(backend) {
            arguments.push(format!("--calls=xds:///{callee}"));
            arguments.push(format!("--bootstrap={}", self.paths.bootstrap(&place(&site.locality)).display()));
        }
        Launch {
            name: format!("backend {}", site.name),
            program: self.portolan.ours().to_owned(),
            arguments,
            environment: Vec::new(),
            log: self.paths.log("backends"),
            killed_by_pipe: false,
        }
    }

    /// SIGKILL to everything in `target` that runs, and waits for the ends. `leader` is the plane that leads, if known.
    pub(crate) async fn kill(
        &mut self,
        target: &Target,
        backends: bool,
        planes: bool,
        leader: Option<usize>,
    ) -> anyhow::Result<Kills> {
        let dying_backends = if backends { self.backends_in(target) } else { Vec::new() };
        let dying_planes = if planes { self.planes_in(target, leader) } else { Vec::new() };
        // Everything at once: a region does not die piece by piece.
        let mut ends = Vec::new();
        for plane in &dying_planes {
            if let Some(mut process) = self.planes[*plane].take() {
                let killed = process.kill();
                ends.push((true, *plane, process, killed));
            }
        }
        for backend in &dying_backends {
            if let Some(mut process) = self.backends[*backend].take() {
                let killed = process.kill();
                ends.push((false, *backend, process, killed));
            }
        }
        for plane in &dying_planes {
            self.kubelet.freeze(&self.site.control_planes[*plane].cluster, true)?;
        }
        self.kubelet.died(dying_backends, self.scenario.detect);
        let ends = ends.into_iter().map(|(is_plane, index, process, killed)| async move {
            process.gone(killed).await.map(|killed| (is_plane, index, killed))
        });
        let mut kills = Kills::default();
        for (is_plane, index, killed) in try_join_all(ends).await.context("cannot wait for a killed process")? {
            if is_plane { &mut kills.planes } else { &mut kills.backends }.push((index, killed));
        }
        Ok(kills)
    }

    /// Starts again what does not run in `target`, and waits until it is ready. What was scaled away stays away.
    pub(crate) async fn restart(&mut self, target: &Target) -> anyhow::Result<()> {
        let backends: Vec<usize> = self.in_target(target).filter(|backend| self.backends[*backend].is_none()).collect();
        let planes: Vec<usize> =
            self.planes_in(target, None).into_iter().filter(|plane| self.planes[*plane].is_none()).collect();
        for plane in &planes {
            self.kubelet.freeze(&self.site.control_planes[*plane].cluster, false)?;
        }
        self.start_in_order(&planes, &backends).await
    }

    /// Turns `percent` of each zone's backends in `scope` unready: they go on answering.
    pub(crate) fn degrade(&mut self, scope: &Scope, percent: u32) -> anyhow::Result<()> {
        let mut zones: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for backend in self.in_target(&Target::Scope(scope.clone())) {
            let site = &self.site.backends[backend];
            zones.entry((site.service.clone(), site.locality.clone())).or_default().push(backend);
        }
        let unready: Vec<usize> = zones
            .into_values()
            .flat_map(|backends| {
                let count = (backends.len() * percent as usize).div_ceil(100);
                backends.into_iter().take(count)
            })
            .collect();
        self.kubelet.set(&unready, Some(Readiness::Unready)).context("cannot write manifests")
    }

    /// Takes backends of a service away until each zone has `per_zone`, as a Deployment's controller does: marked as
    /// terminating first, told to finish when that has had time to be seen, gone at last. Returns those that go.
    pub(crate) fn scale(&mut self, service: &ServiceId, per_zone: u16) -> anyhow::Result<Vec<usize>> {
        let mut zones: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (index, site) in self.site.backends.iter().enumerate().filter(|(_, site)| site.service == *service) {
            zones.entry(site.locality.clone()).or_default().push(index);
        }
        let going: Vec<usize> =
            zones.into_values().flat_map(|backends| backends.into_iter().skip(usize::from(per_zone))).collect();
        for backend in &going {
            self.removed[*backend] = true;
        }
        self.kubelet.set(&going, Some(Readiness::Terminating)).context("cannot write manifests")?;
        let processes: Vec<Process> = going.iter().filter_map(|backend| self.backends[*backend].take()).collect();
        let (kubelet, detect, gone) = (self.kubelet.clone(), self.scenario.detect, going.clone());
        tokio::spawn(async move {
            tokio::time::sleep(detect).await;
            join_all(processes.into_iter().map(|process| process.finish(FINISH, GRACE))).await;
            if let Err(error) = kubelet.set(&gone, None) {
                tracing::error!(%error, "cannot write manifests");
            }
        });
        Ok(going)
    }

    /// An error if a process ended that nobody killed.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.planes.iter_mut().chain(&mut self.backends).flatten().try_for_each(Process::check)?;
        Ok(())
    }

    /// The control planes that run, by place in the site.
    #[must_use]
    pub(crate) fn living_planes(&self) -> Vec<usize> {
        (0..self.planes.len()).filter(|plane| self.planes[*plane].is_some()).collect()
    }

    /// Kills everything that still runs and waits for it.
    pub(crate) async fn end(&mut self) {
        let mut processes: Vec<Process> =
            self.planes.iter_mut().chain(&mut self.backends).filter_map(Option::take).collect();
        let killed: Vec<Instant> = processes.iter_mut().map(Process::kill).collect();
        let ends: Vec<io::Result<Killed>> =
            join_all(processes.into_iter().zip(killed).map(|(process, killed)| process.gone(killed))).await;
        for error in ends.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "cannot wait for a process");
        }
    }

    fn backends_in(&self, target: &Target) -> Vec<usize> {
        self.in_target(target).filter(|backend| self.backends[*backend].is_some()).collect()
    }

    fn in_target<'a>(&'a self, target: &'a Target) -> impl Iterator<Item = usize> + 'a {
        let within = |index: &usize| match target {
            Target::All => true,
            Target::Scope(scope) => scope.contains(&self.site.backends[*index].locality),
            Target::Leader => false,
        };
        (0..self.backends.len()).filter(move |index| !self.removed[*index] && within(index))
    }

    /// The control planes in a target: a zone has none of its own.
    fn planes_in(&self, target: &Target, leader: Option<usize>) -> Vec<usize> {
        (0..self.planes.len())
            .filter(|index| match target {
                Target::All => true,
                Target::Scope(Scope::Zone(_)) => false,
                Target::Scope(scope) => scope.contains(&self.site.control_planes[*index].locality),
                Target::Leader => leader == Some(*index),
            })
            .collect()
    }
}
