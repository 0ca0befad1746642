//! A source whose flapping endpoints are held back, on tokio's clock.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::flap::Damper;
use super::{Source, SourceStatus};

/// `source`, with flapping endpoints held back. Ends with it, or when nobody listens.
#[must_use]
pub fn damped(source: Source) -> Source {
    let Source { mut services, gateways, mut status } = source;
    let origin = Instant::now();
    let mut damper = Damper::default();
    let first = damper.take(&services.borrow_and_update(), Duration::ZERO);
    let (services_slot, services_out) = watch::channel(Arc::new(first));
    let (status_slot, status_out) = watch::channel(status.borrow_and_update().clone());
    tokio::spawn(async move {
        loop {
            let next = damper.next(origin.elapsed()).map(|at| origin + at);
            let released = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                changed = services.changed() => if changed.is_err() { return },
                changed = status.changed() => if changed.is_err() { return },
                () = released => {}
                () = services_slot.closed() => return,
            }
            let now = origin.elapsed();
            let shown = damper.take(&services.borrow_and_update(), now);
            services_slot.send_if_modified(|current| {
                let differs = **current != shown;
                if differs {
                    *current = Arc::new(shown);
                }
                differs
            });
            let shown = with_held(&status.borrow_and_update(), &damper, now);
            status_slot.send_if_modified(|current| {
                let differs = **current != shown;
                if differs {
                    *current = Arc::new(shown);
                }
                differs
            });
        }
    });
    Source { services: services_out, gateways, status: status_out }
}

/// The source's status, with what is held back.
fn with_held(status: &SourceStatus, damper: &Damper, now: Duration) -> SourceStatus {
    let mut status = status.clone();
    for (service, address) in damper.held(now).into_keys() {
        let held = format!("{address} turned unready again and again: it is held back for a while");
        let told = status.warnings.entry(service.to_string()).or_default();
        if !told.is_empty() {
            told.push('\n');
        }
        told.push_str(&held);
    }
    status
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use portolan_topology::service::{Endpoint, Health, LocalService, LocalServices, Port};

    use super::*;

    fn services(health: Health) -> Arc<LocalServices> {
        let endpoint =
            Endpoint { address: "10.0.0.1:80".parse().unwrap(), weight: NonZeroU32::MIN, health, shard: None };
        let id: portolan_topology::names::ServiceId = "a.shop".parse().unwrap();
        let ports = vec![Port { number: 80, name: None }];
        let service = LocalService {
            id: id.clone(),
            ports,
            endpoints: [(80, [(None, vec![endpoint])].into())].into(),
            capacity: None,
            warmup: None,
        };
        Arc::new(LocalServices { synced: true, services: [(id, Arc::new(service))].into() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_flapping_endpoint_comes_back_by_itself_in_the_end() {
        let (slot, given) = watch::channel(services(Health::Ready));
        let (_status, status) = watch::channel(Arc::<SourceStatus>::default());
        let mut damped = damped(Source { services: given, gateways: watch::channel(Arc::default()).1, status });
        for _ in 0..3 {
            for health in [Health::NotReady, Health::Ready] {
                slot.send_replace(services(health));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        assert_eq!(*damped.services.borrow_and_update(), services(Health::NotReady));
        assert!(damped.status.borrow().warnings["a.shop"].contains("10.0.0.1:80 turned unready"));
        let down = Instant::now();
        damped.services.changed().await.unwrap();
        assert_eq!(*damped.services.borrow(), services(Health::Ready));
        let held = down.elapsed();
        assert!((9..=10).contains(&held.as_secs()), "{held:?}");
        damped.status.wait_for(|status| status.warnings.is_empty()).await.unwrap();
    }
}
