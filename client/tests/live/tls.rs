//! TLS between the channel and a tonic server.

use std::net::SocketAddr;
use std::time::Duration;

use portolan_client::Channel;
use portolan_client::channel::Options;
use portolan_client::connection::Tls;
use portolan_client::xds::model::Resolution;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::sync::watch;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use crate::support::{any_port, assignment, call, listen, locality};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key in PEM for a host.
    fn issue(&self, host: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn roots(&self) -> Tls {
        Tls::with_roots(self.0.pem().as_bytes()).unwrap()
    }
}

/// A server with a certificate for `host`, which asks clients for theirs if `clients` is given.
async fn server(authority: &Authority, host: &str, clients: Option<&Authority>) -> SocketAddr {
    let (certificate, key) = authority.issue(host);
    let mut tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
    if let Some(clients) = clients {
        tls = tls.client_ca_root(Certificate::from_pem(clients.0.pem()));
    }
    let (_, health) = tonic_health::server::health_reporter();
    let listener = listen(any_port()).await;
    let address = listener.local_addr().unwrap();
    let server = Server::builder().tls_config(tls).unwrap().add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    address
}

fn channel(address: SocketAddr, tls: Option<Tls>) -> (Channel, watch::Sender<Resolution>) {
    let (source, resolutions) = watch::channel(assignment(vec![vec![locality("a", 1, &[address])]]).into());
    (Channel::over("checkout.shop:443", resolutions, Options { tls, ..Options::new(1) }), source)
}

/// What a call to the server comes to: a message in the end, however often connections are tried.
async fn refusal(address: SocketAddr, tls: Option<Tls>) -> String {
    let (channel, _source) = channel(address, tls);
    let refused = tokio::time::timeout(Duration::from_secs(10), channel.ready()).await.expect("a reason is known");
    refused.unwrap_err().message().to_owned()
}

#[tokio::test]
async fn the_services_name_or_another_is_what_the_certificate_must_name() {
    let authority = Authority::new("servers");
    let address = server(&authority, "checkout.shop", None).await;
    let (plain, _source) = channel(address, Some(authority.roots()));
    assert_eq!(call(&plain).await.unwrap().address, address);
    let other = server(&authority, "other.example.com", None).await;
    let why = refusal(other, Some(authority.roots())).await;
    assert!(why.contains("TLS: invalid peer certificate: certificate not valid for name"), "{why}");
    let (named, _source) = channel(other, Some(authority.roots().server_name("other.example.com").unwrap()));
    assert_eq!(call(&named).await.unwrap().address, other);
}

#[tokio::test]
async fn another_authority_and_plain_text_are_refused_and_say_why() {
    let (authority, stranger) = (Authority::new("servers"), Authority::new("others"));
    let address = server(&authority, "checkout.shop", None).await;
    let why = refusal(address, Some(stranger.roots())).await;
    assert!(why.contains("TLS: invalid peer certificate: UnknownIssuer"), "{why}");
    let why = refusal(address, None).await;
    assert!(why.contains("HTTP/2 handshake"), "{why}");
}

#[tokio::test]
async fn a_server_that_asks_who_calls_gets_the_clients_certificate() {
    let (authority, clients) = (Authority::new("servers"), Authority::new("others"));
    let address = server(&authority, "checkout.shop", Some(&clients)).await;
    let (certificate, key) = clients.issue("client");
    let known = authority.roots().identity(certificate.as_bytes(), key.as_bytes()).unwrap();
    let (channel, _source) = channel(address, Some(known));
    assert_eq!(call(&channel).await.unwrap().address, address);
    let why = refusal(address, Some(authority.roots())).await;
    assert!(why.contains("checkout.shop:443"), "{why}");
}
