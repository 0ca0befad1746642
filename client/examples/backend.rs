//! Backends to try a client with: a gRPC health service at each address given, until Ctrl-C.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program of its own: it prints, and opens sockets"
)]

use std::error::Error;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let addresses: Vec<SocketAddr> = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    if addresses.is_empty() {
        return Err("usage: backend ADDRESS…, such as 127.0.0.1:50051".into());
    }
    let mut servers = tokio::task::JoinSet::new();
    for address in addresses {
        let incoming = TcpIncoming::from(TcpListener::bind(address).await?);
        let (_, health) = tonic_health::server::health_reporter();
        servers.spawn(Server::builder().add_service(health).serve_with_incoming(incoming));
        println!("listening on {address}");
    }
    while let Some(ended) = servers.join_next().await {
        ended??;
    }
    Ok(())
}
