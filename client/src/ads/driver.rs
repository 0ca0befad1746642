//! Drives the state machine: which server to use, when to give up waiting, and who is told what.
//!
//! The first server of the bootstrap is preferred. While it cannot be reached or does not answer, the next one is used,
//! and the better ones are tried again and again behind their backoff; when one answers, the stream moves there. What is
//! held stays through all of it. One task owns everything here: there is no lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::envoy::service::status::v3::ClientStatusResponse;
use futures::future::{BoxFuture, OptionFuture};
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{FutureExt, Stream, StreamExt, TryFutureExt};
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use super::backoff::Backoff;
use super::dial::{Connect, DialError, dial};
use super::lrs::Reporter;
use crate::load::LoadRecorder;
use crate::xds::bootstrap::{Bootstrap, NodeConfig, ServerConfig};
use crate::xds::model::Resolution;
use crate::xds::resources::Kind;
use crate::xds::sotw::{Outcome, ServerIndex, SotwClient};
use crate::xds::target::Target;

/// A resource that was asked for and does not come in this time does not exist; gRPC's clients wait as long. A server that
/// answers nothing at all in this time is taken for dead, if there is another.
const PATIENCE: Duration = Duration::from_secs(15);

/// The largest response: an assignment of a hundred thousand endpoints has some 4 MB.
const LARGEST_RESPONSE: usize = 64 << 20;

/// Somebody who wants a name.
pub(super) struct Watch {
    pub(super) target: Target,
    pub(super) slot: watch::Sender<Resolution>,
}

/// What a handle asks for.
pub(super) enum Ask {
    Watch(Watch),
    Status(oneshot::Sender<ClientStatusResponse>),
}

pub(super) struct Driver {
    servers: Vec<ServerConfig>,
    backoffs: Vec<Backoff>,
    node: NodeConfig,
    connect: Arc<dyn Connect>,
    random: StdRng,
    load: LoadRecorder,
    asks: mpsc::UnboundedReceiver<Ask>,
    handles_gone: bool,
    machine: SotwClient,
    slots: BTreeMap<Target, Vec<Arc<watch::Sender<Resolution>>>>,
    released: FuturesUnordered<BoxFuture<'static, Target>>,
    dialling: Option<(usize, BoxFuture<'static, Result<Channel, DialError>>)>,
    stream: Option<Ads>,
    deadlines: BTreeMap<(Kind, String), Instant>,
}

/// A stream to a server.
struct Ads {
    server: usize,
    channel: Channel,
    requests: mpsc::UnboundedSender<DiscoveryRequest>,
    responses: BoxStream<'static, Result<DiscoveryResponse, Status>>,
    opened: Instant,
    /// Whether anything came.
    answered: bool,
    reporter: Option<Reporter>,
}

enum Event {
    Asked(Option<Ask>),
    Released(Target),
    Dialled(Result<Channel, DialError>),
    Response(Option<Result<DiscoveryResponse, Status>>),
    Woken,
}

impl Driver {
    pub(super) fn new(
        bootstrap: Bootstrap,
        connect: Arc<dyn Connect>,
        random: StdRng,
        load: LoadRecorder,
        asks: mpsc::UnboundedReceiver<Ask>,
    ) -> Self {
        let now = Instant::now();
        Self {
            backoffs: bootstrap.servers.iter().map(|_| Backoff::new(now)).collect(),
            machine: SotwClient::new(bootstrap.node.to_node()),
            servers: bootstrap.servers,
            node: bootstrap.node,
            connect,
            random,
            load,
            asks,
            handles_gone: false,
            slots: BTreeMap::new(),
            released: FuturesUnordered::new(),
            dialling: None,
            stream: None,
            deadlines: BTreeMap::new(),
        }
    }

    pub(super) async fn run(mut self) {
        while !(self.handles_gone && self.slots.is_empty()) {
            self.publish();
            self.send();
            self.report_load();
            self.set_deadlines();
            self.dial_if_due();
            match self.next_event().await {
                Event::Asked(Some(Ask::Watch(watch))) => self.watch(watch),
                // Whoever asked may not wait for it any more.
                Event::Asked(Some(Ask::Status(answer))) => drop(answer.send(self.machine.status())),
                Event::Asked(None) => self.handles_gone = true,
                Event::Released(target) => self.release(&target),
                Event::Dialled(result) => self.dialled(result),
                Event::Response(Some(Ok(response))) => self.received(response),
                Event::Response(ended) => self.ended(ended.and_then(Result::err).as_ref()),
                Event::Woken => self.woken(),
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let wake = self.next_wake();
        let dialled: OptionFuture<_> = self.dialling.as_mut().map(|(_, dialling)| dialling).into();
        let response: OptionFuture<_> = self.stream.as_mut().map(|stream| stream.responses.next()).into();
        tokio::select! {
            ask = self.asks.recv(), if !self.handles_gone => Event::Asked(ask),
            Some(target) = self.released.next() => Event::Released(target),
            Some(result) = dialled => Event::Dialled(result),
            Some(response) = response => Event::Response(response),
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => Event::Woken,
            // Nobody wants anything and nobody can: the loop's condition ends it.
            else => Event::Woken,
        }
    }

    fn watch(&mut self, Watch { target, slot }: Watch) {
        self.machine.watch(target.clone());
        if let Some(resolution) = self.machine.resolution(&target) {
            slot.send_replace(resolution.clone());
        }
        let slot = Arc::new(slot);
        let (closed, name) = (slot.clone(), target.clone());
        self.released.push(
            async move {
                closed.closed().await;
                name
            }
            .boxed(),
        );
        self.slots.entry(target).or_default().push(slot);
    }

    fn release(&mut self, target: &Target) {
        let Some(slots) = self.slots.get_mut(target) else { return };
        slots.retain(|slot| !slot.is_closed());
        if slots.is_empty() {
            self.slots.remove(target);
            self.machine.unwatch(target);
        }
    }

    fn publish(&mut self) {
        for (target, resolution) in self.machine.take_changes() {
            if let Resolution::NotFound { resource, reason } = &resolution {
                tracing::warn!(%target, %resource, %reason, "there is nothing to send calls to");
            }
            for slot in self.slots.get(&target).into_iter().flatten() {
                slot.send_replace(resolution.clone());
            }
        }
    }

    fn send(&mut self) {
        let Some(stream) = &self.stream else { return };
        while let Some(request) = self.machine.next_request() {
            // A stream that is gone says so at its other end.
            let _ = stream.requests.send(request);
        }
    }

    /// Keeps a load report going while a cluster of a target wants one.
    fn report_load(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        let reported: BTreeSet<Arc<str>> = self
            .slots
            .keys()
            .filter_map(|target| match self.machine.resolution(target) {
                Some(Resolution::Routing(routing)) => Some(routing.assignments()),
                _ => None,
            })
            .flatten()
            .flat_map(|assignment| assignment.reported_clusters())
            .cloned()
            .collect();
        match &stream.reporter {
            _ if reported.is_empty() => stream.reporter = None,
            Some(reporter) => reporter.report(reported),
            None => {
                let random = rand::SeedableRng::from_rng(&mut self.random);
                let node = self.node.to_node();
                stream.reporter =
                    Some(Reporter::start(stream.channel.clone(), node, self.load.clone(), reported, random));
            }
        }
    }

    fn set_deadlines(&mut self) {
        let unanswered: BTreeSet<(Kind, String)> =
            self.machine.unanswered().map(|(kind, name)| (kind, name.to_owned())).collect();
        self.deadlines.retain(|key, _| unanswered.contains(key));
        let deadline = Instant::now() + PATIENCE;
        for key in unanswered {
            self.deadlines.entry(key).or_insert(deadline);
        }
    }

    /// The servers that may be dialled when their backoff is over: the first, those before the present one, and whoever
    /// stands behind nothing but failing ones.
    fn candidates(&self) -> impl Iterator<Item = usize> {
        let better = self.stream.as_ref().map_or(self.servers.len(), |stream| stream.server);
        let reachable = self.backoffs.iter().take_while(|backoff| backoff.is_failing()).count();
        0..better.min(reachable + 1)
    }

    fn dial_if_due(&mut self) {
        if self.dialling.is_some() || self.slots.is_empty() {
            return;
        }
        let now = Instant::now();
        let due = self.candidates().find(|server| self.backoffs[*server].not_before() <= now);
        let Some(server) = due else { return };
        // A stream that works is not given up for a server that is only reached.
        let probe = self.stream.is_some().then(|| self.machine.probe());
        let (config, connect) = (self.servers[server].clone(), self.connect.clone());
        let dialling = async move {
            let channel = dial(config.clone(), connect).await?;
            if let Some(probe) = probe {
                answers(&channel, probe).await.map_err(|problem| DialError::Mute { server: config.uri, problem })?;
            }
            Ok(channel)
        };
        self.dialling = Some((server, dialling.boxed()));
    }

    fn next_wake(&self) -> Option<Instant> {
        let dial = match &self.dialling {
            None if !self.slots.is_empty() => self.candidates().map(|server| self.backoffs[server].not_before()).min(),
            _ => None,
        };
        let absent = self.deadlines.values().min().copied();
        [dial, absent, self.silence_ends()].into_iter().flatten().min()
    }

    /// When a server that has said nothing is taken for dead.
    fn silence_ends(&self) -> Option<Instant> {
        let stream = self.stream.as_ref().filter(|stream| !stream.answered && self.servers.len() > 1)?;
        (!self.slots.is_empty()).then(|| stream.opened + PATIENCE)
    }

    fn woken(&mut self) {
        let now = Instant::now();
        if self.silence_ends().is_some_and(|end| end <= now) {
            self.ended(Some(&Status::deadline_exceeded("it answers nothing")));
            return; // Its silence says nothing of what exists.
        }
        let due: Vec<_> = self.deadlines.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()).collect();
        for (kind, name) in due {
            self.machine.timed_out(kind, &name);
        }
    }

    fn dialled(&mut self, result: Result<Channel, DialError>) {
        let Some((server, _)) = self.dialling.take() else { return };
        match result {
            Ok(channel) => self.open(server, channel),
            Err(error) => {
                tracing::warn!(%error, "a control plane is out of reach");
                self.backoffs[server].failed(Instant::now(), &mut self.random);
            }
        }
    }

    fn open(&mut self, server: usize, channel: Channel) {
        let config = &self.servers[server];
        tracing::debug!(server = config.uri, "connected to a control plane");
        self.machine.connected(ServerIndex(server), config.ignores_deletion());
        self.deadlines.clear();
        let (requests, sent) = mpsc::unbounded_channel();
        let responses = stream(channel.clone(), UnboundedReceiverStream::new(sent));
        let opened = Instant::now();
        self.stream = Some(Ads { server, channel, requests, responses, opened, answered: false, reporter: None });
    }

    fn received(&mut self, response: DiscoveryResponse) {
        let Some(stream) = &mut self.stream else { return };
        stream.answered = true;
        self.backoffs[stream.server].succeeded();
        match self.machine.received(response) {
            Outcome::Rejected(kind, error) => {
                let server = &self.servers[stream.server].uri;
                tracing::warn!(server, %kind, error, "refused resources; the last good ones stay");
            }
            Outcome::Accepted(_) | Outcome::Ignored => {}
        }
    }

    fn ended(&mut self, error: Option<&Status>) {
        let Some(stream) = self.stream.take() else { return };
        // A better server on probation is dialled anew: there is nothing left to keep it waiting for.
        self.dialling = None;
        let server = &self.servers[stream.server].uri;
        let reason = error.map_or("it was closed", Status::message);
        tracing::debug!(server, reason, "the stream to the control plane ended");
        let backoff = &mut self.backoffs[stream.server];
        if stream.answered {
            backoff.broke(Instant::now(), &mut self.random);
        } else {
            backoff.failed(Instant::now(), &mut self.random);
        }
        self.machine.disconnected();
        self.deadlines.clear();
    }
}

fn stream(
    channel: Channel,
    requests: impl Stream<Item = DiscoveryRequest> + Send + 'static,
) -> BoxStream<'static, Result<DiscoveryResponse, Status>> {
    let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(LARGEST_RESPONSE);
    // A server may hold back its headers until it has a response: the call is part of the stream that is waited for.
    let responses = async move { client.stream_aggregated_resources(requests).await.map(tonic::Response::into_inner) };
    responses.try_flatten_stream().boxed()
}

/// Whether a server answers, on a stream of its own that ends with the answer.
async fn answers(channel: &Channel, request: DiscoveryRequest) -> Result<(), String> {
    let requests = futures::stream::once(std::future::ready(request)).chain(futures::stream::pending());
    match tokio::time::timeout(PATIENCE, stream(channel.clone(), requests).next()).await {
        Ok(Some(Ok(_))) => Ok(()),
        Ok(Some(Err(status))) => Err(status.message().to_owned()),
        Ok(None) => Err("it closed the stream".to_owned()),
        Err(_) => Err(format!("nothing came for {} s", PATIENCE.as_secs())),
    }
}
