//! A gRPC channel over the balancer: any tonic client takes it.
//!
//! It picks an endpoint for each attempt, sends the request over that endpoint's connection, and enforces deadlines. A
//! call of which no byte reached a living connection goes to another endpoint; further retries are the route's. It
//! never looks into messages.

mod body;
mod builder;
mod call;
mod deadline;
mod error;
mod exchange;
mod explain;
mod hedge;
mod hints;
mod metrics;
mod picked;
mod reason;
mod upload;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::{BoxFuture, select_ok};
use http::uri::{Authority, Scheme};
use tokio::sync::watch;
use tokio::time::Instant;

pub use self::body::ResponseBody;
pub use self::builder::{Builder, ConnectError};
pub use self::error::{CallError, Failure};
pub use self::explain::{Burden, ClusterExplanation, Explanation, LastPick};
pub use self::hedge::Hedge;
pub use self::hints::RequestHints;
pub(crate) use self::metrics::Tally;
pub use self::metrics::{ClusterMetrics, EndpointMetrics, Metrics};
pub use self::picked::{CallObserver, Picked};
pub use crate::routing::{Strategies, Subset};

use crate::balancer::{Balancer, PickError, RequestInfo};
use crate::connection::{self, Dial, Slot, Tcp, Tls};
use crate::load::LoadRecorder;
use crate::routing::{AbortOnDrop, Parts, Router, follow};
use crate::xds::model::Resolution;

/// A channel to a service. A clone shares its connections; they close when the last clone and the last call are gone.
///
/// A response carries [`Picked`] in its extensions; [`Picked::of`] finds it in the status of a call that failed here.
#[derive(Debug, Clone)]
pub struct Channel {
    core: Arc<Core>,
}

/// What the clones of a channel share.
#[derive(Debug)]
struct Core {
    /// The service, as messages name it.
    service: Arc<str>,
    scheme: Scheme,
    authority: Authority,
    router: Arc<Router<Slot>>,
    hedge: Hedge,
    last: Mutex<Option<LastPick>>,
    _driver: AbortOnDrop,
}

impl Core {
    /// Remembers a pick to explain it. When two calls do so at the same moment, one of them is as good as the other.
    fn remember(&self, pick: LastPick) {
        if let Ok(mut last) = self.last.try_lock() {
            *last = Some(pick);
        }
    }
}

/// How a channel is made, for whoever wants other than the defaults.
#[derive(Debug)]
pub struct Options {
    /// Where connections come from.
    pub dial: Arc<dyn Dial>,
    /// How connections are secured; `None`: not at all.
    pub tls: Option<Tls>,
    /// Which endpoint of a locality takes a request: one strategy for all, or those that the control plane may choose.
    pub strategies: Strategies,
    /// The start of all random choices.
    pub seed: u64,
    /// Where calls are counted for load reports.
    pub load: LoadRecorder,
    /// Which part of each large locality is connected to and used; `None`: all of it.
    pub subset: Option<Subset>,
    /// Whether calls that do not say otherwise get a second attempt when the first takes long.
    pub hedge: Hedge,
}

impl Options {
    /// TCP without TLS, the default strategy, and reports that nobody reads.
    pub fn new(seed: u64) -> Self {
        let (strategies, load) = (Strategies::default(), LoadRecorder::new());
        Self { dial: Arc::new(Tcp), tls: None, strategies, seed, load, subset: None, hedge: Hedge::Never }
    }
}

impl Channel {
    /// A channel to an xDS target, such as `xds:///checkout.shop`, with the bootstrap that `GRPC_XDS_BOOTSTRAP` names.
    ///
    /// It returns as soon as these are understood; calls wait, until their deadline, for the first answer of the control
    /// plane and the first connection. [`Channel::ready`] waits for them alone.
    ///
    /// # Errors
    /// The target is not one, or the bootstrap is missing or wrong.
    pub async fn connect(target: &str) -> Result<Self, ConnectError> {
        Self::builder(target).build()
    }

    /// A channel to an xDS target, with a bootstrap, an ADS client or a strategy of one's own.
    pub fn builder(target: &str) -> Builder {
        Builder::new(target)
    }

    /// A channel that sends to whatever `resolutions` holds, connecting at once. `service` is its name in messages and,
    /// unless requests bring their own, their authority. Needs a tokio runtime.
    pub fn over(service: &str, resolutions: watch::Receiver<Resolution>, options: Options) -> Self {
        let Options { dial, tls, strategies, seed, load, subset, hedge } = options;
        let authority = service.parse().unwrap_or_else(|_| Authority::from_static("service"));
        let scheme = if tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        let dial = match tls {
            // A port may be a name, which no authority has.
            Some(tls) => tls.over(dial, service.split(':').next().unwrap_or(service)),
            None => dial,
        };
        // Other draws than its clusters make.
        let router = Arc::new(Router::new(!seed));
        let keeper = Box::new(move |balancer: &_| connection::keeper(Arc::clone(&dial), balancer));
        let driver = follow(resolutions, &router, Parts { strategies, load, seed, subset, keeper });
        let core = Core {
            service: service.into(),
            scheme,
            authority,
            router,
            hedge,
            last: Mutex::new(None),
            _driver: AbortOnDrop::spawn(driver),
        };
        Self { core: Arc::new(core) }
    }

    /// The balancers behind this channel, by their clusters: endpoints, their requests in flight and outcomes. None before
    /// the control plane has answered; one of a cluster that left the routes is not changed any more.
    pub fn balancers(&self) -> BTreeMap<Arc<str>, Arc<Balancer<Slot>>> {
        self.core.router.balancers()
    }

    /// Where calls go now, and why the last one went where it went.
    ///
    /// ```no_run
    /// # async fn explain(channel: portolan_client::Channel) {
    /// println!("{}", channel.explain());
    /// # }
    /// ```
    pub fn explain(&self) -> Explanation {
        let Core { service, router, last, .. } = &*self.core;
        let now = Instant::now();
        let clusters = router.clusters().iter().map(|cluster| ClusterExplanation::of(cluster, now)).collect();
        let last = last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let nothing = router.nothing().map(|why| why.to_string());
        Explanation { service: Arc::clone(service), clusters, last, nothing }
    }

    /// What the channel has done, and how its endpoints stand.
    ///
    /// ```no_run
    /// # fn export(channel: &portolan_client::Channel) {
    /// for cluster in channel.metrics().clusters {
    ///     for endpoint in cluster.endpoints {
    ///         println!("{} {} picks={} in_flight={}", cluster.cluster, endpoint.address, endpoint.picks, endpoint.in_flight);
    ///     }
    /// }
    /// # }
    /// ```
    pub fn metrics(&self) -> Metrics {
        let Core { service, router, .. } = &*self.core;
        let now = Instant::now();
        let clusters = router.clusters().iter().map(|cluster| ClusterMetrics::of(cluster, now)).collect();
        Metrics { service: Arc::clone(service), clusters }
    }

    /// Waits until an endpoint of any cluster is connected, or fails if none can be: at start-up, say, to fail early. Give
    /// it a timeout.
    ///
    /// # Errors
    /// UNAVAILABLE, with the service and the reason.
    pub async fn ready(&self) -> Result<(), tonic::Status> {
        let Core { service, router, .. } = &*self.core;
        let mut changed = router.changes();
        loop {
            let clusters = router.clusters();
            let any = RequestInfo::default();
            let ready = clusters.iter().map(|cluster| cluster.balancer.ready(&any).boxed());
            let ready = async {
                match router.nothing() {
                    None => select_ok(ready).await.map(|(_pick, _others)| ()),
                    Some(PickError::NoAssignment) => std::future::pending().await,
                    Some(why) => Err(why),
                }
            };
            tokio::select! {
                ready = ready => return ready.map_err(|why| error::no_endpoint(service, &why)),
                // Other clusters may be those that get ready.
                _ = changed.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;

impl tower::Service<http::Request<tonic::body::Body>> for Channel {
    type Response = http::Response<ResponseBody>;
    type Error = tonic::Status;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // Whether an endpoint is ready is asked by each call, which has a deadline.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(call::run(Arc::clone(&self.core), request))
    }
}
