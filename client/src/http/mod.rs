//! HTTP over the balancer: a `tower` layer around any HTTP client, hyper's for example.
//!
//! The layer picks an endpoint for each request and writes its address into the request's URI; the client below opens and
//! keeps connections as it likes. An endpoint takes requests once a TCP connection to it could be made, and is looked at
//! again when a request to it fails below HTTP. Nothing here repeats a request.

mod body;
mod probe;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::header::HOST;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Response, Uri};
use rand::RngExt as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt as _};

pub use self::body::CountedBody;
use self::body::Guard;
pub use self::probe::Probe;
use crate::ads::XdsClient;
use crate::balancer::{Balancer, Endpoint, Outcome, PickError, RequestInfo};
use crate::channel::{ConnectError, Picked, RequestHints};
use crate::connection::{Dial, Tcp};
use crate::load::LoadRecorder;
use crate::routing::{AbortOnDrop, Head, Parts, Router, RoutingError, Strategies, follow};
use crate::xds::bootstrap::Bootstrap;
use crate::xds::model::Resolution;
use crate::xds::routing::NoRoute;
use crate::xds::target::Target;

/// Balances an HTTP client over the endpoints of a service.
///
/// ```no_run
/// use http_body_util::Empty;
/// use hyper_util::client::legacy::Client;
/// use hyper_util::rt::TokioExecutor;
/// use portolan_client::http::BalanceLayer;
/// use tower::{Layer, ServiceExt};
///
/// # async fn get() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let layer = BalanceLayer::connect("xds:///checkout.shop")?;
/// let client = layer.layer(Client::builder(TokioExecutor::new()).build_http());
/// let request = http::Request::get("/cart").body(Empty::<bytes::Bytes>::new())?;
/// let response = client.oneshot(request).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct BalanceLayer {
    core: Arc<Core>,
}

#[derive(Debug)]
struct Core {
    service: Arc<str>,
    router: Arc<Router<Probe>>,
    _driver: AbortOnDrop,
}

impl BalanceLayer {
    /// A layer for an xDS target, with the bootstrap that `GRPC_XDS_BOOTSTRAP` names. It resolves in the background; must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// The target is not one, or the bootstrap is missing or wrong.
    pub fn connect(target: &str) -> Result<Self, ConnectError> {
        let target: Target = target.parse()?;
        let variable = |name: &str| std::env::var(name).ok();
        let bootstrap = Bootstrap::from_environment(variable, |path| std::fs::read_to_string(path))?;
        Ok(Self::watching(&target, &XdsClient::shared(bootstrap)))
    }

    /// A layer for an xDS target that `client` watches.
    pub fn watching(target: &Target, client: &XdsClient) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the seed of whoever hands in none")]
        let seed = rand::rng().random();
        let resolutions = client.watch(target.clone());
        Self::over(target.name(), resolutions, Strategies::default(), client.load().clone(), seed)
    }

    /// A layer over whatever `resolutions` holds. `service` is its name in messages and, unless requests bring their own,
    /// their host.
    pub fn over(
        service: &str,
        resolutions: watch::Receiver<Resolution>,
        strategies: impl Into<Strategies>,
        load: LoadRecorder,
        seed: u64,
    ) -> Self {
        // Other draws than its clusters make.
        let router = Arc::new(Router::new(!seed));
        let dial: Arc<dyn Dial> = Arc::new(Tcp);
        let keeper = Box::new(move |balancer: &_| probe::keeper(Arc::clone(&dial), balancer));
        let driver =
            follow(resolutions, &router, Parts { strategies: strategies.into(), load, seed, subset: None, keeper });
        Self { core: Arc::new(Core { service: service.into(), router, _driver: AbortOnDrop::spawn(driver) }) }
    }

    /// The balancers behind this layer, by their clusters: see [`Channel::balancers`](crate::Channel::balancers).
    pub fn balancers(&self) -> BTreeMap<Arc<str>, Arc<Balancer<Probe>>> {
        self.core.router.balancers()
    }
}

impl<S> Layer<S> for BalanceLayer {
    type Service = Balanced<S>;

    fn layer(&self, inner: S) -> Balanced<S> {
        Balanced { core: Arc::clone(&self.core), inner }
    }
}

/// An HTTP client whose requests are balanced: see [`BalanceLayer`]. A response carries [`Picked`] in its extensions.
#[derive(Debug, Clone)]
pub struct Balanced<S> {
    core: Arc<Core>,
    inner: S,
}

/// Why a request has no response.
#[derive(Debug, thiserror::Error)]
pub enum HttpError<E> {
    /// There is no endpoint to send it to.
    #[error("{service}: {source}")]
    NoEndpoint {
        /// The service.
        service: Arc<str>,
        /// Why not.
        source: PickError,
    },
    /// No route of the service takes it.
    #[error("{service}: {source}")]
    NoRoute {
        /// The service.
        service: Arc<str>,
        /// Why not.
        source: NoRoute,
    },
    /// Its URI cannot be sent to an endpoint.
    #[error("the request's URI: {0}")]
    Uri(#[from] http::Error),
    /// The client below failed.
    #[error("{address}: {source}")]
    Client {
        /// The endpoint.
        address: SocketAddr,
        /// What the client said.
        source: E,
    },
}

impl<S, B, R> Service<Request<B>> for Balanced<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: http_body::Body + 'static,
{
    type Response = Response<CountedBody<R>>;
    type Error = HttpError<S::Error>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // The client below is asked by each request, once it is known where it goes.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        Box::pin(send(Arc::clone(&self.core), self.inner.clone(), request))
    }
}

async fn send<S, B, R>(
    core: Arc<Core>,
    client: S,
    mut request: Request<B>,
) -> Result<Response<CountedBody<R>>, HttpError<S::Error>>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: http_body::Body,
{
    let hints: RequestHints = request.extensions_mut().remove().unwrap_or_default();
    let no_endpoint = |source| HttpError::NoEndpoint { service: Arc::clone(&core.service), source };
    let seen = Head { uri: request.uri(), headers: request.headers() };
    let routed = core.router.routed(&seen).await.map_err(|why| match why {
        RoutingError::Pick(source) => no_endpoint(source),
        RoutingError::Route(source) => HttpError::NoRoute { service: Arc::clone(&core.service), source },
    })?;
    let prefix = hints.prefix.as_deref().unwrap_or_default();
    let hash = hints.hash.or(routed.hash);
    let info = RequestInfo { hash, cost: hints.cost, prefix, avoid: &[] };
    let balancer = &routed.cluster.balancer;
    let pick = balancer.ready(&info).await.map_err(no_endpoint)?.hold();
    let (address, place) = (pick.endpoint().address(), pick.endpoint().place());
    let picked = Picked { address, locality: place.locality.clone(), priority: pick.priority(), attempts: 1 };
    let guard = Guard::new(pick, place.load.clone());
    direct(&mut request, &core.service, address)?;
    tracing::debug!(service = &*core.service, %address, locality = %picked.locality, priority = picked.priority, "picked");
    let mut waiting = Waiting { endpoint: Some(Arc::clone(guard.endpoint())), begun: Instant::now() };
    let answer = client.oneshot(request).await;
    waiting.endpoint = None;
    match answer {
        Ok(response) => {
            let (mut head, body) = response.into_parts();
            head.extensions.insert(picked);
            let body = CountedBody::new(body, guard.answered(head.status));
            Ok(Response::from_parts(head, body))
        }
        Err(source) => {
            let endpoint = Arc::clone(guard.endpoint());
            guard.finish(Outcome::Failure);
            // It may be dead: nobody else shall be sent there before somebody has looked.
            balancer.withdraw(&endpoint, Instant::now(), |_| false);
            endpoint.transport().look_again();
            Err(HttpError::Client { address, source })
        }
    }
}

/// A request that has no answer yet. Dropped, its caller gave up; that is no failure, but a bound for the endpoint's latency:
/// or one that hangs would look as good as ever.
struct Waiting {
    /// Until there is an answer.
    endpoint: Option<Arc<Endpoint<Probe>>>,
    begun: Instant,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.unanswered(self.begun.elapsed());
        }
    }
}

/// Sends the request to `address`, with the name that it was for as its host.
fn direct<B>(request: &mut Request<B>, service: &str, address: SocketAddr) -> Result<(), http::Error> {
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    let host = uri.authority.as_ref().map_or(service, Authority::as_str);
    if !request.headers().contains_key(HOST) {
        let host = HeaderValue::from_str(host)?;
        request.headers_mut().insert(HOST, host);
    }
    uri.scheme.get_or_insert(Scheme::HTTP);
    uri.authority = Some(address.to_string().parse()?);
    *request.uri_mut() = Uri::from_parts(uri)?;
    Ok(())
}
