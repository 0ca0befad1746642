//! The `kube` source: watches a cluster's API server. Of each object only what counts is kept, in [`project`]ed form;
//! [`state`] joins the projections, and [`watch`] gets them and gets over whatever breaks.
//!
//! What was seen last stands while the API server is away or refuses. A listing counts once it is complete: until then
//! nothing goes for being absent.

mod gateways;
mod kind;
mod project;
mod state;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use portolan_topology::service::LocalServices;
use portolan_topology::topology::Topology;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch as slot;
use tokio_util::task::AbortOnDropHandle;

pub(crate) use self::kind::Kind;
use self::state::{State, Watched};
use super::{Source, SourceStatus};
use crate::config::Exporting;
use crate::gateway::objects::GatewayObjects;

/// How many changes are taken together when more are waiting: a relist is one.
const AT_ONCE: usize = 1024;

/// What the source must be told.
#[derive(Clone)]
pub struct KubeConfig {
    /// Who asks. Tests hand in one over whatever they like.
    pub client: Client,
    /// What people call the API server: `kube`, or `kube:CONTEXT`.
    pub name: String,
    /// Whether Pods are watched for their annotations. Their number makes it costly.
    pub pods: bool,
    /// Whether gateways are watched, with all routes and certificates, as far as the API server has them; that takes the right
    /// to read Secrets. Routes of Services are watched in any case.
    pub gateways: bool,
    /// How long one watch lasts before it is renewed where it ended. One that is silent a little longer is taken for
    /// dead, so this is how soon a connection that hangs half open is noticed.
    pub renew: Duration,
    /// Which of the services that it shows the other clusters are told of.
    pub exporting: Exporting,
}

impl KubeConfig {
    /// With what suits nearly everybody.
    #[must_use]
    pub fn new(client: Client, name: String) -> Self {
        Self { client, name, pods: false, gateways: false, renew: Duration::from_secs(30), exporting: Exporting::All }
    }
}

impl fmt::Debug for KubeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client: _, name, pods, gateways, renew, exporting } = self;
        let mut written = f.debug_struct("KubeConfig");
        written.field("name", name).field("pods", pods).field("gateways", gateways);
        written.field("renew", renew).field("exporting", exporting).finish()
    }
}

/// What people should be told of what is watched.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Notes {
    /// Objects, and what is wrong with or odd about each.
    pub(crate) objects: Vec<(ObjectReference, String)>,
    /// What RBAC does not allow to be watched, by kind.
    pub(crate) forbidden: BTreeMap<String, String>,
}

/// A running source; dropping it ends it.
#[derive(Debug)]
pub struct KubeSource {
    source: Source,
    notes: slot::Receiver<Arc<Notes>>,
    _task: AbortOnDropHandle<()>,
}

impl KubeSource {
    /// Starts watching. The API server may be away, and come. `topology` says in which region a Node's zone is.
    #[must_use]
    pub fn start(config: &KubeConfig, topology: slot::Receiver<Arc<Topology>>, rng: &mut StdRng) -> Self {
        let state = State::new(config.name.clone(), Watched { pods: config.pods, gateways: config.gateways });
        let (services, services_out) = slot::channel(Arc::<LocalServices>::default());
        let (status, status_out) = slot::channel(Arc::new(state.status()));
        let (notes, notes_out) = slot::channel(Arc::default());
        let (gateways, gateways_out) = slot::channel(Arc::<GatewayObjects>::default());
        let source = Source { services: services_out, gateways: gateways_out, status: status_out };
        let slots = Slots { services, gateways, status, notes };
        let task = tokio::spawn(run(watch::all(config, StdRng::from_rng(rng)), topology, state, slots));
        Self { source, notes: notes_out, _task: AbortOnDropHandle::new(task) }
    }

    /// What it shows.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source.clone()
    }

    /// What the owners of objects should be told.
    pub(crate) fn notes(&self) -> slot::Receiver<Arc<Notes>> {
        self.notes.clone()
    }
}

/// Where what is known goes.
struct Slots {
    services: slot::Sender<Arc<LocalServices>>,
    gateways: slot::Sender<Arc<GatewayObjects>>,
    status: slot::Sender<Arc<SourceStatus>>,
    notes: slot::Sender<Arc<Notes>>,
}

async fn run(updates: watch::Updates, mut topology: slot::Receiver<Arc<Topology>>, mut state: State, slots: Slots) {
    let mut updates = updates.ready_chunks(AT_ONCE);
    state.place(topology.borrow_and_update().clone());
    loop {
        let updates = tokio::select! {
            updates = updates.next() => match updates {
                Some(updates) => updates,
                None => return,
            },
            Ok(()) = topology.changed() => {
                state.place(topology.borrow_and_update().clone());
                Vec::new()
            }
        };
        let now = Timestamp::now();
        for update in updates {
            for told in state.take(update, now) {
                tracing::warn!("{told}");
            }
        }
        if let Some(shown) = state.services() {
            slots.services.send_replace(Arc::new(shown));
        }
        if let Some(shown) = state.gateways() {
            slots.gateways.send_replace(Arc::new(shown));
        }
        show(&slots.status, state.status());
        show(&slots.notes, state.notes());
    }
}

/// Puts `now` into a slot, unless it is there already.
fn show<T: PartialEq>(slot: &slot::Sender<Arc<T>>, now: T) {
    slot.send_if_modified(|current| {
        let differs = **current != now;
        if differs {
            *current = Arc::new(now);
        }
        differs
    });
}
