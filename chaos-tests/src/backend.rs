//! A backend process: answers [`Echo`](crate::echo) calls at one address, with its name, after its latency.
//!
//! It holds on to its runner's [`lifeline`], and ends in good order when told to, as a terminating pod does.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::caller::Caller;
use crate::echo::echo_server::{Echo, EchoServer};
use crate::echo::{CallReply, CallRequest};
use crate::{lifeline, sockets};

/// What it prints once it listens.
pub const LISTENING: &str = "listening";

/// The deadline of a backend's own calls.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two tries at start-up.
const TRY_EVERY: Duration = Duration::from_millis(100);

/// What a backend is started with.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Its name, as it answers.
    #[arg(long)]
    pub name: String,
    /// Where it listens.
    #[arg(long)]
    pub listen: SocketAddr,
    /// How long an answer takes, in milliseconds.
    #[arg(long, default_value_t = 0)]
    pub latency_ms: u64,
    /// The xDS name of the service that it calls once for each request.
    #[arg(long, requires = "bootstrap")]
    pub calls: Option<String>,
    /// The xDS bootstrap for that.
    #[arg(long)]
    pub bootstrap: Option<PathBuf>,
}

struct Backend {
    name: String,
    latency: Duration,
    callee: Option<Caller>,
}

#[tonic::async_trait]
impl Echo for Backend {
    async fn call(&self, _: Request<CallRequest>) -> Result<Response<CallReply>, Status> {
        // Instead of work: the deadline is the caller's to keep.
        tokio::time::sleep(self.latency).await;
        let callee = match &self.callee {
            None => String::new(),
            Some(caller) => caller.call(CALL_TIMEOUT).await?.backend,
        };
        Ok(Response::new(CallReply { backend: self.name.clone(), callee }))
    }
}

/// Serves until standard input ends (at once) or says to finish (in good order).
pub async fn run(options: Options) -> anyhow::Result<()> {
    let told_to_finish = lifeline::hold();
    let callee = match (&options.calls, &options.bootstrap) {
        (Some(target), Some(bootstrap)) => Some(Caller::connect(target, bootstrap)?),
        _ => None,
    };
    if let Some(callee) = &callee {
        // Ready only when its own calls work, as a pod's readiness probe would say.
        while callee.call(CALL_TIMEOUT).await.is_err() {
            tokio::time::sleep(TRY_EVERY).await;
        }
    }
    let backend = Backend { name: options.name, latency: Duration::from_millis(options.latency_ms), callee };
    let listener = sockets::listen(options.listen).with_context(|| format!("cannot listen at {}", options.listen))?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{LISTENING}").and_then(|()| stdout.flush()).context("cannot tell that it listens")?;
    tonic::transport::Server::builder()
        .add_service(EchoServer::new(backend))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async {
            drop(told_to_finish.await)
        })
        .await
        .context("serving failed")
}
