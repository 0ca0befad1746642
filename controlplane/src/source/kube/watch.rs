//! Watches of the API server: one for each type, all as one stream of updates. A watch that breaks is taken up where it
//! ended; one whose place is forgotten (410 Gone) lists again, page by page.

use std::error::Error;
use std::fmt::Debug;
use std::pin::Pin;
use std::time::Duration;

use futures::stream::{BoxStream, SelectAll};
use futures::{Stream, StreamExt};
use http::Request;
use k8s_openapi::api::core::v1::{Node, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::DynamicObject;
use kube::client::Body;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::KubeConfig;
use super::gateways::{self, Seen};
use super::kind::Kind;
use super::project::{self, Projected};
use super::state::{Failure, Name, Object, Update};
use crate::gateway::objects::TLS_SECRET;

/// How many objects a page of a listing holds: all that is held of whole objects at a time.
const PAGE: u32 = 500;

/// What happens in the API server.
pub(super) type Updates = SelectAll<Pin<Box<dyn Stream<Item = Update> + Send>>>;

/// Every watch that `config` wants.
pub(super) fn all(config: &KubeConfig, mut rng: StdRng) -> Updates {
    // A watch that is taken up again tells nothing until something happens: that it was answered is heard elsewhere.
    let (answers, answered) = mpsc::unbounded_channel();
    let client = |kind| observed(&config.client, kind, answers.clone());
    let settings = || watcher::Config::default().page_size(PAGE).timeout(seconds(config.renew));
    let mut retry = || Retry::new(StdRng::from_rng(&mut rng));
    let services = watcher(Api::<Service>::all(client(Kind::Service)), settings()).backoff(retry());
    let slices = watcher(Api::<EndpointSlice>::all(client(Kind::EndpointSlice)), settings()).backoff(retry());
    // Of these only the metadata counts, and only the metadata is asked for.
    let nodes = watcher(Api::<PartialObjectMeta<Node>>::all(client(Kind::Node)), settings()).backoff(retry());
    let mut updates: Updates = SelectAll::new();
    updates.push(UnboundedReceiverStream::new(answered).boxed());
    updates.push(projected(Kind::Service, services, project::service, Update::Service));
    updates.push(projected(Kind::EndpointSlice, slices, project::slice, Update::Slice));
    updates.push(projected(
        Kind::Node,
        nodes,
        |node: PartialObjectMeta<Node>| project::node(&node.metadata),
        Update::Node,
    ));
    if config.pods {
        let pods = watcher(Api::<PartialObjectMeta<Pod>>::all(client(Kind::Pod)), settings()).backoff(retry());
        updates.push(projected(
            Kind::Pod,
            pods,
            |pod: PartialObjectMeta<Pod>| project::pod(&pod.metadata),
            Update::Pod,
        ));
    }
    let mut of = |kind| {
        let api: Api<DynamicObject> = Api::all_with(client(kind), &kind.api_resource());
        (kind, watcher(api, settings()).backoff(retry()))
    };
    let imports = of(Kind::ServiceImport);
    let (http, grpc) = (of(Kind::HttpRoute), of(Kind::GrpcRoute));
    updates.push(gateway(imports, gateways::import, Seen::Import));
    if config.gateways {
        updates.extend([
            gateway(http, gateways::spec, Seen::HttpRoute),
            gateway(grpc, gateways::spec, Seen::GrpcRoute),
            gateway(of(Kind::GatewayClass), gateways::class, Seen::Class),
            gateway(of(Kind::Gateway), gateways::spec, Seen::Gateway),
            gateway(of(Kind::ReferenceGrant), gateways::spec, Seen::Grant),
        ]);
        // Of the Secrets no others are asked for.
        let of_tls = settings().fields(&format!("type={TLS_SECRET}"));
        let secrets = watcher(Api::<Secret>::all(client(Kind::Secret)), of_tls).backoff(retry());
        updates.push(gateway((Kind::Secret, secrets), gateways::secret, Seen::Secret));
    } else {
        updates.push(gateway(http, gateways::route_of_service, Seen::HttpRoute));
        updates.push(gateway(grpc, gateways::route_of_service, Seen::GrpcRoute));
    }
    updates
}

fn gateway<K, P>(
    (kind, events): (Kind, impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static),
    project: fn(K) -> Projected<P>,
    seen: fn(Event<Object<P>>) -> Seen,
) -> BoxStream<'static, Update>
where
    K: Resource + Send + Debug + 'static,
    P: 'static,
{
    projected(kind, events, project, move |event| Update::Gateways(seen(event)))
}

/// `client`, telling of each success.
fn observed(client: &Client, kind: Kind, answers: mpsc::UnboundedSender<Update>) -> Client {
    let (namespace, client) = (client.default_namespace().to_owned(), client.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (client, answers) = (client.clone(), answers.clone());
        async move {
            let response = client.send(request).await?;
            if response.status().is_success() {
                // Nobody listens at the end.
                let _ = answers.send(Update::Answered(kind));
            }
            Ok::<_, kube::Error>(response)
        }
    });
    Client::new(service, namespace)
}

fn seconds(renew: Duration) -> u32 {
    u32::try_from(renew.as_secs()).unwrap_or(u32::MAX).max(1)
}

fn projected<K, P>(
    kind: Kind,
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    project: impl Fn(K) -> Projected<P> + Send + 'static,
    update: impl Fn(Event<Object<P>>) -> Update + Send + 'static,
) -> BoxStream<'static, Update>
where
    K: Resource + Send + Debug + 'static,
    P: 'static,
{
    let object = move |object: K| {
        let name = Name { namespace: object.namespace().unwrap_or_default().into(), name: object.name_any().into() };
        let uid = object.uid().map(String::into_boxed_str);
        Object { name, uid, projected: project(object) }
    };
    let event = move |event: Event<K>| match event {
        Event::Apply(changed) => Event::Apply(object(changed)),
        Event::Delete(gone) => Event::Delete(object(gone)),
        Event::InitApply(listed) => Event::InitApply(object(listed)),
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    };
    events
        .filter_map(move |result| {
            let update = match result {
                Ok(seen) => Some(update(event(seen))),
                Err(error) => failure(kind, &error).map(|failure| Update::Failed(kind, failure)),
            };
            std::future::ready(update)
        })
        .boxed()
}

/// What an error means; `None`: nothing, since a new listing follows at once.
fn failure(kind: Kind, error: &watcher::Error) -> Option<Failure> {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some(status),
        watcher::Error::WatchError(status) => Some(status),
        _ => None,
    };
    match status {
        Some(status) if status.code == 410 => None,
        Some(status) if status.code == 404 && kind.is_installed_apart() => Some(Failure::Missing),
        Some(status) if status.is_forbidden() => Some(Failure::Forbidden(status.message.clone())),
        Some(status) => Some(Failure::Refused(format!("{} {}", status.code, status.message))),
        None => Some(Failure::Unreachable(last_cause(error))),
    }
}

/// The last cause says what happened; those before it say where in the client.
fn last_cause(error: &dyn Error) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

/// Between one failure and the next try: doubled each time, up to a limit, from half of that to all of it at random.
/// The watches' own events do not start it over, since a new listing that will fail begins with one; time without a
/// failure does.
#[derive(Debug)]
pub(super) struct Retry {
    rng: StdRng,
    next: Duration,
    last: Option<Instant>,
}

impl Retry {
    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(10);
    /// After this long without a failure all is well.
    const WELL: Duration = Duration::from_secs(30);

    fn new(rng: StdRng) -> Self {
        Self { rng, next: Self::FIRST, last: None }
    }
}

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.last.is_some_and(|last| last.elapsed() > Self::WELL) {
            self.next = Self::FIRST;
        }
        self.last = Some(Instant::now());
        let wait = self.next.mul_f64(self.rng.random_range(0.5..=1.0));
        self.next = (2 * self.next).min(Self::LONGEST);
        Some(wait)
    }
}

impl Backoff for Retry {
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tries_grow_apart_and_come_together_after_a_while_without_failure() {
        let mut retry = Retry::new(StdRng::seed_from_u64(1));
        let mut waits = Vec::new();
        for _ in 0..12 {
            let wait = retry.next().unwrap();
            retry.reset();
            tokio::time::advance(wait).await;
            waits.push(wait);
        }
        assert!(waits[0] <= Retry::FIRST && waits[0] >= Retry::FIRST / 2, "{waits:?}");
        assert!(waits[11] <= Retry::LONGEST && waits[11] >= Retry::LONGEST / 2, "{waits:?}");
        tokio::time::advance(Retry::WELL + Duration::from_millis(1)).await;
        assert!(retry.next().unwrap() <= Retry::FIRST);
    }
}
