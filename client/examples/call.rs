//! A gRPC client: twenty health checks over a balanced channel, and who answered them.
//!
//! `GRPC_XDS_BOOTSTRAP=bootstrap.json cargo run --example call -- xds:///echo.demo`
#![expect(clippy::print_stdout, reason = "a program of its own")]

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use portolan_client::Channel;
use portolan_client::channel::Picked;
use tonic::Request;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const CALLS: u32 = 20;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let target = std::env::args().nth(1).ok_or("usage: call TARGET, such as xds:///echo.demo")?;
    let mut health = HealthClient::new(Channel::connect(&target).await?);
    let mut answered: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..CALLS {
        let mut request = Request::new(HealthCheckRequest::default());
        request.set_timeout(Duration::from_secs(10));
        let response = health.check(request).await?;
        if let Some(picked) = response.extensions().get::<Picked>() {
            *answered.entry(format!("{} in {}", picked.address, picked.locality.zone)).or_default() += 1;
        }
    }
    for (endpoint, calls) in answered {
        println!("{calls:>3} of {CALLS} calls to {endpoint}");
    }
    Ok(())
}
