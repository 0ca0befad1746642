//! Asks a control plane over its admin port: what every command does that reads or writes.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use portolan_federation::net::{Net as _, TokioNet};
use serde_json::Value;

/// Longer than a write waits for a leader and its own node.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct At {
    /// The control plane's admin port
    #[arg(long, env = "PORTOLAN_ADDRESS", value_name = "ADDR", default_value = "127.0.0.1:7480")]
    pub(super) address: String,
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

    fn ask(&self, method: Method, path: &str, parameters: Parameters, body: Bytes) -> anyhow::Result<Value> {
        let path: Vec<String> = path.split('/').map(escaped).collect();
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{}", path.join("/"), parameters.0))
            .header("host", &self.address)
            .header("x-portolan-user", escaped(&user()))
            .body(Full::new(body))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = runtime.block_on(async { tokio::time::timeout(LIMIT, self.send(request)).await });
        answer.map_err(|_| anyhow!("{}: no answer within {} s", self.address, LIMIT.as_secs()))?
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Value> {
        let at = &self.address;
        let stream = TokioNet.dial(at).await.with_context(|| {
            format!("no control plane answers at {at}; --address or PORTOLAN_ADDRESS names its admin port")
        })?;
        let broken = || format!("{at}: the connection broke");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.with_context(broken)?;
        let driver = tokio::spawn(connection);
        let response = sender.send_request(request).await.with_context(broken)?;
        let status = response.status();
        let body = response.into_body().collect().await.with_context(broken)?.to_bytes();
        driver.abort();
        let answer = serde_json::from_slice::<Value>(&body);
        match answer {
            Ok(answer) if status.is_success() => Ok(answer),
            Ok(Value::Object(refusal)) if refusal.get("error").is_some_and(Value::is_string) => {
                bail!("{}", refusal["error"].as_str().unwrap_or_default())
            }
            _ => bail!("{at}: it answered {status}, which no control plane's admin port does; is the address right?"),
        }
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
