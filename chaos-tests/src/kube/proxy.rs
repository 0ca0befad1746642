//! A proxy in front of a real API server, for faults that one does not have on demand. It passes on what it is asked
//! (reading alone) as the admin, in plain HTTP towards the control plane, and breaks it as told.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, BoxStream, StreamExt};
use kube::Client;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::sockets;

/// What becomes of watches that are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Watches {
    /// They are passed on.
    #[default]
    Pass,
    /// Those that were open before this was said the n-th time stay open and are silent for ever.
    Hang(usize),
    /// The same, and each ends after half of the next chunk.
    Truncate(usize),
    /// They are told at once that their version is forgotten, and end.
    Gone(usize),
}

/// The proxy; it ends with this value.
#[derive(Debug)]
pub(super) struct Proxy {
    address: SocketAddr,
    faults: Arc<Faults>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Faults {
    client: ClientSlot,
    watches: watch::Sender<Watches>,
    told: AtomicUsize,
    refuse: AtomicUsize,
    expire: AtomicUsize,
    /// How many requests were for a list's next page.
    pages: AtomicUsize,
    /// How many watches were opened.
    opened: watch::Sender<usize>,
    /// What they asked for.
    asked: Mutex<Vec<String>>,
}

/// A client has no form for people.
struct ClientSlot(Client);

impl std::fmt::Debug for ClientSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Proxy {
    /// Stands in front of the server of `client`.
    pub(super) fn start(client: Client) -> anyhow::Result<Self> {
        let listener = sockets::listen(([127, 0, 0, 1], 0).into()).context("cannot listen")?;
        let address = listener.local_addr()?;
        let faults = Arc::new(Faults {
            client: ClientSlot(client),
            watches: watch::Sender::default(),
            told: AtomicUsize::default(),
            refuse: AtomicUsize::default(),
            expire: AtomicUsize::default(),
            pages: AtomicUsize::default(),
            opened: watch::Sender::default(),
            asked: Mutex::default(),
        });
        let router = Router::new().fallback(pass).with_state(Arc::clone(&faults));
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the proxy has ended");
            }
        });
        Ok(Self { address, faults, _task: AbortOnDropHandle::new(task) })
    }

    /// A kubeconfig that leads to it.
    pub(super) fn kubeconfig(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        let server = format!("http://{}", self.address);
        let config = serde_json::json!({"apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": server}}],
            "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "nobody"}}]});
        let file = folder.join("kubeconfig-proxy");
        std::fs::write(&file, serde_json::to_vec(&config)?).context("cannot write a kubeconfig")?;
        Ok(file)
    }

    /// Watches that are open now stay open and tell nothing more.
    pub(super) fn hang(&self) {
        self.faults.tell(Watches::Hang);
    }

    /// Each watch that is open now breaks in the middle of what it tells next.
    pub(super) fn truncate(&self) {
        self.faults.tell(Watches::Truncate);
    }

    /// Each watch that is open now is told 410 Gone.
    pub(super) fn forget(&self) {
        self.faults.tell(Watches::Gone);
    }

    /// How many watches have been opened.
    pub(super) fn opened(&self) -> watch::Receiver<usize> {
        self.faults.opened.subscribe()
    }

    /// The versions that the watches of a type, such as `secrets`, began at.
    pub(super) fn begun(&self, plural: &str) -> Vec<u64> {
        let of = format!("/{plural}?");
        let version = |uri: &str| {
            let (_, rest) = uri.split_once("resourceVersion=")?;
            rest.split('&').next()?.parse().ok()
        };
        let asked = self.faults.asked.lock();
        asked.iter().filter(|uri| uri.contains(&of)).filter_map(|uri| version(uri)).collect()
    }

    /// The next `count` requests are answered 429 with Retry-After.
    pub(super) fn refuse(&self, count: usize) {
        self.faults.refuse.store(count, Ordering::SeqCst);
    }

    /// The next `count` requests for a list's next page are answered that it has expired.
    pub(super) fn expire_pages(&self, count: usize) {
        self.faults.expire.store(count, Ordering::SeqCst);
    }

    /// What of [`Proxy::refuse`] and [`Proxy::expire_pages`] has not happened yet, and how many next pages were asked for.
    pub(super) fn left(&self) -> (usize, usize, usize) {
        let of = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        (of(&self.faults.refuse), of(&self.faults.expire), of(&self.faults.pages))
    }
}

impl Faults {
    fn tell(&self, fault: fn(usize) -> Watches) {
        self.watches.send_replace(fault(self.told.fetch_add(1, Ordering::SeqCst) + 1));
    }
}

/// Takes one of `count`, if one is left.
fn takes(count: &AtomicUsize) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

async fn pass(State(faults): State<Arc<Faults>>, request: Request) -> Response {
    if takes(&faults.refuse) {
        return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")], "too many requests").into_response();
    }
    let uri = request.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    if uri.contains("continue=") {
        faults.pages.fetch_add(1, Ordering::SeqCst);
        if takes(&faults.expire) {
            return (StatusCode::GONE, axum::Json(EXPIRED.clone())).into_response();
        }
    }
    let mut asked = axum::http::Request::builder().method(request.method()).uri(&uri);
    if let Some(accept) = request.headers().get(header::ACCEPT) {
        asked = asked.header(header::ACCEPT, accept);
    }
    let answer = match asked.body(kube::client::Body::empty()) {
        Ok(asked) => faults.client.0.send(asked).await,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let (parts, body) = match answer {
        Ok(answer) => answer.into_parts(),
        Err(error) => return (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    };
    let body = Body::new(body).into_data_stream().map(|chunk| chunk.map_err(io::Error::other)).boxed();
    let body = if uri.contains("watch=") {
        faults.asked.lock().push(uri.clone());
        faults.opened.send_modify(|opened| *opened += 1);
        watched(body, faults.watches.subscribe())
    } else {
        body
    };
    let mut response = Response::new(Body::from_stream(body));
    *response.status_mut() = parts.status;
    if let Some(kind) = parts.headers.get(header::CONTENT_TYPE) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
    }
    response
}

/// As the API server says it.
static EXPIRED: std::sync::LazyLock<serde_json::Value> = std::sync::LazyLock::new(|| {
    serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired",
        "message": "The provided continue parameter is too old", "code": 410})
});

/// The event by which the API server tells a watch that its version is forgotten.
const GONE: &str = concat!(
    r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","#,
    r#""message":"too old resource version","reason":"Expired","code":410}}"#,
    "\n"
);

type Chunks = BoxStream<'static, io::Result<Bytes>>;

/// A watch's chunks, under the faults that are told after it began.
fn watched(chunks: Chunks, mut faults: watch::Receiver<Watches>) -> Chunks {
    let began = *faults.borrow_and_update();
    stream::unfold(Some((chunks, faults)), move |open| async move {
        let (mut chunks, mut faults) = open?;
        let chunk = tokio::select! {
            biased;
            Ok(()) = faults.changed() => None,
            chunk = chunks.next() => Some(chunk?),
        };
        let now = *faults.borrow();
        let chunk = match (now == began, now) {
            (true, _) | (_, Watches::Pass) => match chunk {
                Some(chunk) => chunk,
                None => chunks.next().await?,
            },
            (false, Watches::Hang(_)) => std::future::pending().await,
            (false, Watches::Gone(_)) => {
                let told = Bytes::from_static(GONE.as_bytes());
                return Some((stream::iter([Ok(told)]).boxed(), None));
            }
            (false, Watches::Truncate(_)) => {
                let chunk = match chunk {
                    Some(chunk) => chunk,
                    None => chunks.next().await?,
                };
                let half = chunk.map(|chunk| chunk.slice(..chunk.len() / 2));
                let broken = stream::iter([half, Err(io::Error::other("cut"))]).boxed();
                return Some((broken, None));
            }
        };
        Some((stream::iter([chunk]).boxed(), Some((chunks, faults))))
    })
    .flatten()
    .boxed()
}
