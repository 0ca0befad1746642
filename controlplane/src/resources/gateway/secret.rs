//! The Secret of a certificate. It changes without its Listener, so that open connections stay.

use envoy_types::pb::envoy::config::core::v3::DataSource;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, TlsCertificate};

use crate::gateway::objects::Certificate;

/// The Secret `name`.
pub(super) fn secret(name: &str, certificate: &Certificate) -> Secret {
    let inline = |bytes: &[u8]| {
        Some(DataSource { specifier: Some(Specifier::InlineBytes(bytes.to_vec())), ..DataSource::default() })
    };
    let certificate = TlsCertificate {
        certificate_chain: inline(&certificate.chain),
        private_key: inline(&certificate.key),
        ..TlsCertificate::default()
    };
    Secret { name: name.to_owned(), r#type: Some(Type::TlsCertificate(certificate)) }
}
