//! Keeps the plans of gateways and the routes of services current: follows their objects and the catalog's word on each
//! backend, and hands what comes of it to those who serve it.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use portolan_federation::tls::check_pair;
use portolan_topology::names::{ClusterName, Locality};
use portolan_topology::policy::EffectivePolicy;
use portolan_topology::topology::Topology;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::conditions::Statuses;
use super::listeners::{CertificateState, Certificates};
use super::objects::{Certificate, GatewayObjects, ObjectName};
use super::plan::{Backend, Known};
use super::planner::{Planned, plan};
use crate::catalog::served::{Catalog, Query, Served};
use crate::resources::cache::ResourceCache;
use crate::resources::gateway::GatewayResources;
use crate::resources::gateway::book::GatewayBook;
use crate::slots::changed;

/// The longest wait for the first complete listing before services are served as if none had routes.
const SETTLE: Duration = Duration::from_secs(30);

/// What gateways are made from.
pub struct Inputs {
    /// Our cluster.
    pub cluster: ClusterName,
    /// The topology in force.
    pub topology: watch::Receiver<Arc<Topology>>,
    /// The objects.
    pub objects: watch::Receiver<Arc<GatewayObjects>>,
    /// Knows backends.
    pub catalog: Arc<dyn Catalog>,
    /// Where what comes of them goes.
    pub book: Arc<GatewayBook>,
    /// Where routes of services go.
    pub services: ResourceCache,
}

/// The running stage; dropping it ends it.
#[derive(Debug)]
pub struct Gateways {
    statuses: watch::Receiver<Arc<Statuses>>,
    _task: AbortOnDropHandle<()>,
}

impl Gateways {
    /// Starts it. From now on nothing is said of where a service's calls go, until it is known which have routes.
    #[must_use]
    pub fn start(inputs: Inputs) -> Self {
        inputs.services.withhold_routes();
        let (slot, statuses) = watch::channel(Arc::default());
        Self { statuses, _task: AbortOnDropHandle::new(tokio::spawn(run(inputs, slot))) }
    }

    /// What is said of gateways and routes.
    #[must_use]
    pub fn statuses(&self) -> watch::Receiver<Arc<Statuses>> {
        self.statuses.clone()
    }
}

async fn run(mut inputs: Inputs, statuses: watch::Sender<Arc<Statuses>>) {
    let mut stage = Stage::default();
    let mut settle = pin!(sleep(SETTLE));
    let mut withheld = true;
    loop {
        let topology = inputs.topology.borrow_and_update().clone();
        let objects = inputs.objects.borrow_and_update().clone();
        // What is there is not known before the first complete listing: nothing that an Envoy holds may go.
        if let Some(place) = topology.locality(&inputs.cluster, None).filter(|_| objects.synced) {
            let planned = stage.plan(&objects, inputs.catalog.as_ref(), &place);
            let said = Arc::new(planned.statuses.clone());
            inputs.services.replace_routes(&inputs.cluster, planned.services.clone());
            withheld = false;
            inputs.book.replace(stage.serve(planned));
            statuses.send_if_modified(|before| {
                let differs = **before != *said;
                *before = said;
                differs
            });
        }
        tokio::select! {
            () = changed(&mut inputs.topology) => {}
            () = changed(&mut inputs.objects) => {}
            () = stage.news.notified() => {}
            // Of what cannot be listed for so long nothing is known, and services must be served.
            () = settle.as_mut(), if withheld => {
                withheld = false;
                inputs.services.replace_routes(&inputs.cluster, BTreeMap::new());
            }
        }
    }
}

#[derive(Default)]
struct Stage {
    /// What was last looked at of each Secret, and what it came to.
    certificates: Certificates,
    seen: BTreeMap<ObjectName, Arc<Certificate>>,
    backends: BTreeMap<Backend, Followed>,
    place: Option<Locality>,
    served: BTreeMap<ObjectName, Arc<GatewayResources>>,
    /// What is known of some backend, or its policy, has changed.
    news: Arc<Notify>,
}

/// The policy in force for what is served.
fn policy(served: &Served) -> Arc<EffectivePolicy> {
    match served {
        Served::Present(service) => service.policy.clone(),
        Served::NotYet | Served::Absent => Arc::default(),
    }
}

/// A backend that is followed in the catalog.
struct Followed {
    slot: watch::Receiver<Served>,
    _follower: AbortOnDropHandle<()>,
}

impl Followed {
    fn new(catalog: &dyn Catalog, backend: &Backend, place: &Locality, news: &Arc<Notify>) -> Self {
        let Backend { service, port, scope } = backend.clone();
        let slot = catalog.watch(Query { service, port, scope, client: place.clone() });
        let (mut follower, news) = (slot.clone(), news.clone());
        // Looked at here and not in the task: what comes before that begins is news to whoever plans by this.
        let look = |served: &Served| (known(served), policy(served));
        let mut before = look(&follower.borrow_and_update());
        let follower = tokio::spawn(async move {
            while follower.changed().await.is_ok() {
                let now = look(&follower.borrow_and_update());
                if now != before {
                    news.notify_one();
                }
                before = now;
            }
        });
        Self { slot, _follower: AbortOnDropHandle::new(follower) }
    }
}

fn known(served: &Served) -> Known {
    match served {
        Served::NotYet => Known::NotYet,
        Served::Absent => Known::Absent,
        Served::Present(_) => Known::Present,
    }
}

impl Stage {
    fn plan(&mut self, objects: &GatewayObjects, catalog: &dyn Catalog, place: &Locality) -> Planned {
        self.look_at_certificates(objects);
        if self.place.as_ref() != Some(place) {
            self.backends.clear();
            self.place = Some(place.clone());
        }
        loop {
            let of =
                |backend: &Backend| self.backends.get(backend).map_or(Known::NotYet, |it| known(&it.slot.borrow()));
            let planned = plan(objects, &self.certificates, of);
            self.backends.retain(|backend, _| planned.backends.contains(backend));
            let new: Vec<_> = planned.backends.iter().filter(|it| !self.backends.contains_key(it)).cloned().collect();
            if new.is_empty() {
                return planned;
            }
            for backend in new {
                let followed = Followed::new(catalog, &backend, place, &self.news);
                self.backends.insert(backend, followed);
            }
        }
    }

    /// Looks at the certificates that changed. One that cannot be used leaves the last that could.
    fn look_at_certificates(&mut self, objects: &GatewayObjects) {
        self.certificates.retain(|name, _| objects.certificates.contains_key(name));
        self.seen.retain(|name, _| objects.certificates.contains_key(name));
        for (name, certificate) in &objects.certificates {
            if self.seen.get(name) == Some(certificate) {
                continue;
            }
            self.seen.insert(name.clone(), certificate.clone());
            let last = match self.certificates.remove(name) {
                Some(CertificateState::Usable(last)) => Some(last),
                Some(CertificateState::Broken(_, last)) => last,
                None => None,
            };
            let state = match check_pair(&certificate.chain, &certificate.key) {
                Ok(()) => CertificateState::Usable(certificate.clone()),
                Err(why) => CertificateState::Broken(why, last),
            };
            self.certificates.insert(name.clone(), state);
        }
    }

    /// What is served from now on. A gateway that cannot be served as it is now written is served as it was.
    fn serve(&mut self, planned: Planned) -> BTreeMap<ObjectName, Arc<GatewayResources>> {
        let Planned { gateways, refused, pending, .. } = planned;
        let kept = |name: &ObjectName| Some((name.clone(), self.served.get(name)?.clone()));
        let mut served: BTreeMap<_, _> = refused.iter().filter_map(kept).collect();
        let policy_of = |backend: &Backend| {
            self.backends.get(backend).map_or_else(Arc::default, |followed| policy(&followed.slot.borrow()))
        };
        for (name, plan) in gateways {
            served.insert(name, Arc::new(GatewayResources::new(&plan, &pending, &policy_of)));
        }
        self.served.clone_from(&served);
        served
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::served::{NameScope, PortRef};
    use crate::resources::fixtures::{Told, place, served};

    #[tokio::test]
    async fn a_backend_that_comes_before_its_follower_has_begun_is_news() {
        let (told, news) = (Told::default(), Arc::new(Notify::new()));
        told.say("checkout.shop", &Served::Absent);
        let backend =
            Backend { service: "checkout.shop".parse().unwrap(), port: PortRef::First, scope: NameScope::Federation };
        let followed = Followed::new(&told, &backend, &place("a"), &news);
        assert_eq!(known(&followed.slot.borrow()), Known::Absent);
        // Nothing has run since: the follower has not looked yet.
        told.say("checkout.shop", &served(&["10.0.0.1:80"]));
        tokio::time::timeout(std::time::Duration::from_secs(5), news.notified()).await.expect("the plan is made anew");
    }
}
