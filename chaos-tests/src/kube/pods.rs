//! Plays the Deployment controller and the kubelet: Pods whose processes are real backends, at addresses of the run's own
//! network. The slices are the endpointslice controller's work.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::objects::Writer;
use crate::backend::LISTENING;
use crate::lifeline::FINISH;
use crate::runner::process::{Launch, Process};

/// Where backends listen.
const PORT: u16 = 8080;
/// How long a Pod that is told to go serves on, as a `preStop` hook's sleep has it: clients hear of it meanwhile.
const SERVES_ON: Duration = Duration::from_secs(3);
/// How long a process may take to come up or to end, on a loaded machine.
const WITHIN: Duration = Duration::from_secs(30);

/// The Pods of one service in one cluster.
pub(super) struct Pods {
    api: Api<Pod>,
    service: String,
    /// Its Pods are 10.1.`network`.x.
    network: u8,
    zones: Vec<String>,
    logs: PathBuf,
    made: u8,
    running: Vec<Running>,
}

struct Running {
    name: String,
    process: Process,
}

impl Pods {
    /// Makes the Service `service` (port 80) in `namespace` and a Node in each zone.
    pub(super) async fn new(
        client: Client,
        (service, namespace): (&str, &str),
        network: u8,
        zones: &[&str],
        logs: PathBuf,
    ) -> anyhow::Result<Self> {
        let writer = Writer::new(client.clone(), namespace).await?;
        let spec = json!({"selector": {"app": service}, "ports": [{"port": 80, "targetPort": PORT}]});
        writer.service(service, spec, json!({})).await?;
        for zone in zones {
            writer.node(zone, zone).await?;
        }
        let zones = zones.iter().map(|zone| (*zone).to_owned()).collect();
        let api = Api::namespaced(client, namespace);
        Ok(Self { api, service: service.to_owned(), network, zones, logs, made: 0, running: Vec::new() })
    }

    /// Starts `count` Pods; returns when each is ready.
    pub(super) async fn add(&mut self, count: usize) -> anyhow::Result<()> {
        let wanted: Vec<(u8, String)> = (0..count)
            .map(|_| {
                self.made = self.made.wrapping_add(1);
                (self.made, self.zones[usize::from(self.made) % self.zones.len()].clone())
            })
            .collect();
        let started = try_join_all(wanted.iter().map(|(number, zone)| self.start(*number, zone))).await?;
        self.running.extend(started);
        Ok(())
    }

    async fn start(&self, number: u8, zone: &str) -> anyhow::Result<Running> {
        let name = format!("{}-{number}", self.service);
        let address = IpAddr::from(Ipv4Addr::new(10, 1, self.network, number));
        let launch = Launch {
            name: format!("backend {name}"),
            program: std::env::current_exe()?,
            arguments: vec![
                "backend".to_owned(),
                format!("--name={zone}/{name}"),
                format!("--listen={}", SocketAddr::new(address, PORT)),
            ],
            log: self.logs.join(format!("{name}.log")),
            environment: Vec::new(),
            killed_by_pipe: false,
        };
        let (process, _) = launch.start_until(|line| line == LISTENING, WITHIN).await?;
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": self.service}},
            "spec": {"nodeName": zone, "containers": [{"name": "backend", "image": "backend"}]}});
        self.api.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}]}});
        self.api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(Running { name, process })
    }

    /// Ends the `count` oldest Pods as a kubelet does.
    pub(super) async fn remove(&mut self, count: usize) -> anyhow::Result<()> {
        let going: Vec<Running> = self.running.drain(..count.min(self.running.len())).collect();
        let api = &self.api;
        let end = |pod: Running| async move {
            api.delete(&pod.name, &DeleteParams::default()).await?;
            tokio::time::sleep(SERVES_ON).await;
            pod.process.finish(FINISH, WITHIN).await;
            api.delete(&pod.name, &DeleteParams::default().grace_period(0)).await?;
            anyhow::Ok(())
        };
        try_join_all(going.into_iter().map(end)).await?;
        Ok(())
    }

    /// Replaces every Pod, `at_once` at a time: new ones are ready before old ones go.
    pub(super) async fn roll(&mut self, at_once: usize) -> anyhow::Result<()> {
        let mut left = self.running.len();
        while left > 0 {
            let now = at_once.min(left);
            self.add(now).await?;
            self.remove(now).await?;
            left -= now;
        }
        Ok(())
    }

    /// SIGKILL for every backend. The Pods stay as they are: nobody is left to say otherwise.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        for pod in &mut self.running {
            pod.process.kill();
        }
        for pod in self.running.drain(..) {
            pod.process.gone(tokio::time::Instant::now()).await?;
        }
        Ok(())
    }
}
