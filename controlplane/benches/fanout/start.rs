//! A control plane with 10,000 endpoints in 1,000 services: how soon it is ready, and what it keeps of them.

use std::fmt::Write;
use std::time::Duration;

use tokio::time::Instant;

use crate::progress;
use crate::server::Site;

const SERVICES: usize = 1_000;
const PER_SERVICE: usize = 10;
/// Memory is read once the server has been idle for so long.
const SETTLE: Duration = Duration::from_secs(5);

pub(crate) struct Started {
    pub(crate) start_ms: u64,
    /// Anonymous memory beyond that of the same control plane without a service. No client asks, so that no resource
    /// is encoded.
    pub(crate) endpoint_bytes: u64,
}

pub(crate) fn run() -> Started {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        progress("start: without a service, and with 1,000");
        let empty = Site::new();
        let (_, nothing) = start(&empty).await;
        let full = Site::new();
        for service in 0..SERVICES {
            std::fs::write(full.manifests().join(format!("s{service}.yaml")), manifest(service)).unwrap();
        }
        let (took, memory) = start(&full).await;
        let endpoints = (SERVICES * PER_SERVICE) as u64;
        Started {
            start_ms: u64::try_from(took.as_millis()).unwrap(),
            endpoint_bytes: memory.saturating_sub(nothing) / endpoints,
        }
    })
}

async fn start(site: &Site) -> (Duration, u64) {
    let begun = Instant::now();
    let server = site.start();
    let took = begun.elapsed();
    tokio::time::sleep(SETTLE).await;
    (took, server.memory())
}

fn manifest(service: usize) -> String {
    let mut text = format!(
        "\
apiVersion: v1
kind: Service
metadata: {{name: s{service}, namespace: shop}}
spec: {{ports: [{{port: 8080}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: s{service}-1, namespace: shop, labels: {{kubernetes.io/service-name: s{service}}}}}
addressType: IPv4
ports: [{{port: 9090}}]
endpoints:
"
    );
    for endpoint in 1..=PER_SERVICE {
        let (high, low) = (service / 250, service % 250);
        let _ = writeln!(text, "- {{addresses: [10.{high}.{low}.{endpoint}], zone: a, conditions: {{ready: true}}}}");
    }
    text
}
