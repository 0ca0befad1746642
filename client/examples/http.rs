//! An HTTP client: twenty GETs over a balanced hyper client, and who answered them.
//!
//! `GRPC_XDS_BOOTSTRAP=bootstrap.json cargo run --example http -- xds:///web.demo /`
#![expect(clippy::print_stdout, reason = "a program of its own")]

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use portolan_client::channel::Picked;
use portolan_client::http::BalanceLayer;
use tower::{Layer, ServiceExt};

const REQUESTS: u32 = 20;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(target), Some(path)) = (arguments.next(), arguments.next()) else {
        return Err("usage: http TARGET PATH, such as xds:///web.demo /".into());
    };
    let layer = BalanceLayer::connect(&target)?;
    let client = layer.layer(Client::builder(TokioExecutor::new()).build_http());
    let mut answered: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..REQUESTS {
        let request = http::Request::get(&path).body(Empty::<Bytes>::new())?;
        let response = tokio::time::timeout(Duration::from_secs(10), client.clone().oneshot(request)).await??;
        if let Some(picked) = response.extensions().get::<Picked>() {
            let line = format!("{} from {} in {}", response.status(), picked.address, picked.locality.zone);
            *answered.entry(line).or_default() += 1;
        }
        response.into_body().collect().await?;
    }
    for (answer, requests) in answered {
        println!("{requests:>3} of {REQUESTS}: {answer}");
    }
    Ok(())
}
