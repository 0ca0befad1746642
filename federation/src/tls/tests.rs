//! Who gets in and who does not, over real sockets.

use std::path::Path;
use std::sync::Arc;

use portolan_topology::names::ClusterName;
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::certs::{self, Authority};
use crate::fixtures::now;
use crate::net::TokioNet;

const DAY: i64 = 24 * 3600;

fn name(cluster: &str) -> ClusterName {
    ClusterName::new(cluster).unwrap()
}

/// Writes a certificate for `id`, made `days` ago, by `ca`.
fn write(dir: &Path, ca: &Authority, id: &str, days: i64) -> CredentialFiles {
    let made = now() - jiff::SignedDuration::from_secs(days * DAY);
    let (certificate, key) = certs::issue(ca, &id.parse().unwrap(), &[], &[ServerAuth, ClientAuth], made).unwrap();
    let write = |file: &str, text: &str| {
        let path = dir.join(file);
        std::fs::write(&path, text).unwrap();
        path
    };
    CredentialFiles {
        cert: write("cert.pem", &certificate),
        key: write("key.pem", &key),
        ca: write("ca.pem", &ca.pem()),
    }
}

fn credentials(ca: &Authority, id: &str, days: i64) -> Credentials {
    let dir = tempfile::tempdir().unwrap();
    Credentials::from_files(&write(dir.path(), ca, id, days)).unwrap()
}

struct Port {
    incoming: Incoming,
    refusals: Arc<Refusals>,
    address: String,
}

/// A peer port with `credentials`.
async fn port(credentials: &Credentials) -> Port {
    let tls = credentials.server(ClientCertificates::Required).unwrap();
    port_with(Rule::Peers { tls, trust_domain: "test".into() }).await
}

async fn port_with(rule: Rule) -> Port {
    let listener = TokioNet.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let refusals = Arc::new(Refusals::new("peer"));
    Port { incoming: Incoming::new(listener, rule, refusals.clone()), refusals, address }
}

/// Waits until the port has refused somebody, and says why.
async fn refused(port: &Port) -> Refusal {
    loop {
        if let Some(refusal) = port.refusals.counts().into_keys().next() {
            return refusal;
        }
        tokio::task::yield_now().await;
    }
}

async fn dial_as(own: &Credentials, expected: &str, port: &Port) -> io::Result<BoxStream> {
    let config = own.client(expected.parse().unwrap()).unwrap();
    dial(&TokioNet, config, &port.address).await
}

const A: &str = "spiffe://test/cluster/a";
const B: &str = "spiffe://test/cluster/b";

fn ca() -> Authority {
    certs::authority("test", now()).unwrap()
}

#[tokio::test]
async fn two_clusters_of_one_ca_meet_and_know_each_other() {
    let ca = ca();
    let mut port = port(&credentials(&ca, A, 0)).await;
    let mut dialled = dial_as(&credentials(&ca, B, 0), A, &port).await.unwrap();
    let mut accepted = port.incoming.next().await.unwrap();
    assert_eq!(accepted.peer().cluster, Some(name("b")));
    dialled.write_all(b"hello").await.unwrap();
    dialled.flush().await.unwrap();
    let mut read = [0; 5];
    accepted.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"hello");
}

#[tokio::test]
async fn plain_text_is_refused() {
    let ca = ca();
    let port = port(&credentials(&ca, A, 0)).await;
    let mut plain = TokioNet.dial(&port.address).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    assert_eq!(refused(&port).await, Refusal::Handshake);
}

#[tokio::test]
async fn a_foreign_ca_is_refused_by_both_ends() {
    let (ours, foreign) = (ca(), ca());
    // The dialler checks first; to see the port's own check, this one trusts our CA and shows a foreign certificate.
    let port = port(&credentials(&ours, A, 0)).await;
    assert!(dial_as(&credentials(&foreign, B, 0), A, &port).await.is_err());
    let dir = tempfile::tempdir().unwrap();
    let files = write(dir.path(), &foreign, B, 0);
    std::fs::write(&files.ca, ours.pem()).unwrap();
    let trusting = Credentials::from_files(&files).unwrap();
    let _ = dial_as(&trusting, A, &port).await;
    assert_eq!(refused(&port).await, Refusal::Handshake);
}

#[tokio::test]
async fn an_expired_certificate_is_refused_by_both_ends() {
    let ca = ca();
    let good = port(&credentials(&ca, A, 0)).await;
    let _ = dial_as(&credentials(&ca, B, 1000), A, &good).await;
    assert_eq!(refused(&good).await, Refusal::Handshake);

    let expired = port(&credentials(&ca, A, 1000)).await;
    let error = dial_as(&credentials(&ca, B, 0), A, &expired).await.err().unwrap();
    assert!(error.to_string().contains("expired"), "{error}");
}

#[tokio::test]
async fn the_right_ca_with_another_clusters_name_is_refused() {
    let ca = ca();
    let port = port(&credentials(&ca, A, 0)).await;
    let error = dial_as(&credentials(&ca, B, 0), "spiffe://test/cluster/c", &port).await.err().unwrap();
    let text = format!("{error} {error:?}");
    assert!(text.contains("cluster/a") && text.contains("cluster/c"), "{text}");
}

#[tokio::test]
async fn a_client_or_a_strange_trust_domain_is_no_peer() {
    for id in ["spiffe://test/client/dev", "spiffe://elsewhere/cluster/b", "spiffe://test/cluster/b/c"] {
        let ca = ca();
        let port = port(&credentials(&ca, A, 0)).await;
        let _ = dial_as(&credentials(&ca, id, 0), A, &port).await;
        assert_eq!(refused(&port).await, Refusal::Identity, "{id}");
    }
}

#[tokio::test]
async fn clients_may_come_without_a_certificate_only_where_it_is_optional() {
    let ca = ca();
    let server = credentials(&ca, A, 0);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut bare = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verify::OnlyThisPeer::new(
            server.roots(),
            provider,
            A.parse().unwrap(),
        )))
        .with_no_client_auth();
    bare.alpn_protocols = vec![HTTP2.to_vec()];
    let bare = Arc::new(bare);

    let optional = server.server(ClientCertificates::Optional).unwrap();
    let mut port = port_with(Rule::Clients { tls: optional, trust_domain: "test".into() }).await;
    let _dialled = dial(&TokioNet, bare.clone(), &port.address).await.unwrap();
    assert_eq!(port.incoming.next().await.unwrap().peer().spiffe, None);

    let required = server.server(ClientCertificates::Required).unwrap();
    let port = port_with(Rule::Clients { tls: required, trust_domain: "test".into() }).await;
    let _ = dial(&TokioNet, bare, &port.address).await;
    assert_eq!(refused(&port).await, Refusal::Handshake);
}

#[tokio::test]
async fn a_slow_handshake_holds_up_nobody() {
    let ca = ca();
    let mut port = port(&credentials(&ca, A, 0)).await;
    let _silent = TokioNet.dial(&port.address).await.unwrap();
    let _dialled = dial_as(&credentials(&ca, B, 0), A, &port).await.unwrap();
    assert_eq!(port.incoming.next().await.unwrap().peer().cluster, Some(name("b")));
}

#[test]
fn a_certificate_that_does_not_fit_says_which_file_and_what_was_expected() {
    let ca = ca();
    let error = credentials(&ca, A, 0).check("test", &name("b")).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("cert.pem") && text.contains("cluster/a") && text.contains("cluster/b"), "{text}");

    let missing = Path::new("/nonexistent/cert.pem");
    let files = CredentialFiles { cert: missing.into(), key: missing.into(), ca: missing.into() };
    let error = Credentials::from_files(&files).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/cert.pem"), "{error}");
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    certs::dev(dir.path(), &crate::fixtures::topology(&["a", "b"]), &[], now()).unwrap();
    let mut files = certs::files_of(dir.path(), &name("a"));
    files.key = certs::files_of(dir.path(), &name("b")).key;
    assert!(matches!(Credentials::from_files(&files), Err(CredentialsError::Unusable { .. })));
}

#[tokio::test]
async fn a_renewed_certificate_and_a_new_ca_are_in_force_on_an_open_port() {
    let (old, new) = (ca(), ca());
    let dir = tempfile::tempdir().unwrap();
    let own = Credentials::from_files(&write(dir.path(), &old, A, 0)).unwrap();
    let mut port = port(&own).await;
    let peer = credentials(&new, B, 0);
    assert!(!own.reload().unwrap(), "nothing is new yet");
    assert!(dial_as(&peer, A, &port).await.is_err(), "we are not of the peer's CA");

    write(dir.path(), &new, A, 0);
    assert!(own.reload().unwrap());
    let _dialled = dial_as(&peer, A, &port).await.unwrap();
    assert_eq!(port.incoming.next().await.unwrap().peer().cluster, Some(name("b")));
}

#[tokio::test]
async fn files_that_do_not_fit_change_nothing_and_are_told() {
    let ca = ca();
    let dir = tempfile::tempdir().unwrap();
    let files = write(dir.path(), &ca, A, 1);
    let own = Credentials::from_files(&files).unwrap();
    let (before, status) = (own.status().borrow().clone(), own.status());

    // Another cluster's certificate, a key that is not the certificate's, and half a file.
    write(dir.path(), &ca, B, 0);
    assert!(own.reload().unwrap_err().to_string().contains("cluster/b"));
    let key = std::fs::read(&files.key).unwrap();
    write(dir.path(), &ca, A, 0);
    std::fs::write(&files.key, key).unwrap();
    assert!(matches!(own.reload(), Err(CredentialsError::Unusable { .. })));
    std::fs::write(&files.cert, "-----BEGIN CERTIFICATE-----").unwrap();
    assert!(matches!(own.reload(), Err(CredentialsError::Unreadable { .. })));
    assert_eq!(status.borrow().expires, before.expires);
    assert!(status.borrow().error.is_some());

    let (mut port, peer) = (port(&own).await, credentials(&ca, B, 0));
    let _dialled = dial_as(&peer, A, &port).await.unwrap();
    assert!(port.incoming.next().await.is_some());

    write(dir.path(), &ca, A, 0);
    assert!(own.reload().unwrap());
    assert!(status.borrow().error.is_none() && status.borrow().expires > before.expires);
}
