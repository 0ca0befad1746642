//! Asks a control plane over its admin port: what every command does that reads or writes.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use portolan_federation::net::{BoxStream, Net as _, TokioNet};
use portolan_topology::address::HostPort;
use serde_json::Value;
use tokio_util::task::AbortOnDropHandle;

use super::forward::{Forwarded, InCluster};

/// Longer than a write waits for a leader and its own node.
const LIMIT: Duration = Duration::from_secs(30);

/// Where the admin port is when nothing says otherwise.
const ADDRESS: &str = "127.0.0.1:7480";
/// How long a broken port-forward may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Args)]
pub(super) struct At {
    /// The control plane's admin port [default: 127.0.0.1:7480]
    #[arg(long, env = "PORTOLAN_ADDRESS", value_name = "ADDR")]
    pub(super) address: Option<String>,
    #[command(flatten)]
    pub(super) cluster: InCluster,
}

/// Where the control plane is that is asked, as errors name it.
impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cluster.is_named() { f.write_str(&self.cluster.place()) } else { f.write_str(self.direct()) }
    }
}

/// A request's query: what is absent is left out.
#[derive(Debug, Default)]
pub(super) struct Parameters(String);

impl Parameters {
    pub(super) fn with(mut self, name: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.0.push(if self.0.is_empty() { '?' } else { '&' });
            self.0.push_str(&format!("{name}={}", escaped(&value.to_string())));
        }
        self
    }

    pub(super) fn flag(self, name: &str, set: bool) -> Self {
        self.with(name, set.then_some(true))
    }
}

impl At {
    pub(super) fn get(&self, path: &str, parameters: Parameters) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, parameters, Bytes::new())
    }

    pub(super) fn post(&self, path: &str, parameters: Parameters, body: impl Into<Bytes>) -> anyhow::Result<Value> {
        self.ask(Method::POST, path, parameters, body.into())
    }

    pub(super) fn delete(&self, path: &str, parameters: Parameters) -> anyhow::Result<Value> {
        self.ask(Method::DELETE, path, parameters, Bytes::new())
    }

    /// The control plane's account of itself.
    pub(super) async fn ask_status(&self) -> anyhow::Result<Value> {
        let question = request(Method::GET, "/api/v1/status", Parameters::default(), Bytes::new())?;
        self.answered(question).await
    }

    /// The host that is asked; `None`: by a port-forward, so that no host of its own is known.
    pub(super) fn host(&self) -> Option<String> {
        let address: HostPort = self.direct().parse().ok()?;
        (!self.cluster.is_named()).then_some(address.host)
    }

    fn direct(&self) -> &str {
        self.address.as_deref().unwrap_or(ADDRESS)
    }

    fn ask(&self, method: Method, path: &str, parameters: Parameters, body: Bytes) -> anyhow::Result<Value> {
        let request = request(method, path, parameters, body)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.answered(request))
    }

    async fn answered(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Value> {
        let answer = tokio::time::timeout(LIMIT, self.send(request)).await;
        answer.map_err(|_| anyhow!("{self}: no answer within {} s", LIMIT.as_secs()))?
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Value> {
        if !self.cluster.is_named() {
            let at = self.direct();
            let stream = TokioNet.dial(at).await.with_context(|| {
                format!(
                    "no control plane answers at {at}; --address or PORTOLAN_ADDRESS names its admin port, and -n the \
                     namespace of one in Kubernetes"
                )
            })?;
            return over(stream, request, &self.to_string()).await;
        }
        if self.address.is_some() {
            bail!(
                "--address (or PORTOLAN_ADDRESS) and --context, -n, --kubeconfig or --pod name two control planes: give one"
            );
        }
        over_forward(self.cluster.open().await?, request, &self.to_string()).await
    }
}

/// A question for the admin port.
pub(super) fn request(
    method: Method,
    path: &str,
    parameters: Parameters,
    body: Bytes,
) -> anyhow::Result<Request<Full<Bytes>>> {
    let path: Vec<String> = path.split('/').map(escaped).collect();
    let request = Request::builder()
        .method(method)
        .uri(format!("{}{}", path.join("/"), parameters.0))
        // Who it goes to is known: there is one admin interface behind the port.
        .header("host", "portolan")
        .header("x-portolan-user", escaped(&user()))
        .body(Full::new(body))?;
    Ok(request)
}

/// Asks over a port-forward; what the kubelet says of one that broke is the reason.
pub(super) async fn over_forward(
    forwarded: Forwarded,
    request: Request<Full<Bytes>>,
    at: &str,
) -> anyhow::Result<Value> {
    let Forwarded { stream, trouble } = forwarded;
    match over(stream, request, at).await {
        Err(error) if error.is::<Broken>() => match tokio::time::timeout(LAST_WORDS, trouble).await {
            Ok(Some(why)) => bail!("{at}: the port-forward broke: {}", why.trim()),
            _ => Err(error),
        },
        answer => answer,
    }
}

/// The connection ended before the answer was there.
#[derive(Debug, thiserror::Error)]
#[error("{at}: the connection broke")]
struct Broken {
    at: String,
    source: hyper::Error,
}

/// Asks over a connection to an admin port.
async fn over(stream: BoxStream, request: Request<Full<Bytes>>, at: &str) -> anyhow::Result<Value> {
    let broken = |source| Broken { at: at.to_owned(), source };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let driver = AbortOnDropHandle::new(tokio::spawn(connection));
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
    drop(driver);
    let answer = serde_json::from_slice::<Value>(&body);
    match answer {
        Ok(answer) if status.is_success() => Ok(answer),
        Ok(Value::Object(refusal)) if refusal.get("error").is_some_and(Value::is_string) => {
            bail!("{}", refusal["error"].as_str().unwrap_or_default())
        }
        _ => bail!("{at}: it answered {status}, which no control plane's admin port does; is the address right?"),
    }
}

/// Who runs this.
fn user() -> String {
    ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default()
}

/// Percent-encoded, but for what stands for itself in a path, a query and a header.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'=' | b'@' | b'/' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_mean_something_in_a_request_is_escaped() {
        let parameters = Parameters::default()
            .flag("dryRun", true)
            .flag("consistent", false)
            .with("file", Some("a b&c=d?é.yaml"))
            .with("key", None::<&str>);
        assert_eq!(parameters.0, "?dryRun=true&file=a%20b%26c=d%3F%C3%A9.yaml");
        assert_eq!(escaped("region=us-east"), "region=us-east");
        assert_eq!(escaped("a\r\nb"), "a%0D%0Ab");
    }
}
