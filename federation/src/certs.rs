//! Throw-away certificates for a trial: a CA, one certificate for each cluster of a topology, one for clients. Never for
//! production: the CA's key is not kept, so nothing can be renewed.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use portolan_topology::names::ClusterName;
use portolan_topology::topology::Topology;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

use crate::identity::{IdentityError, SpiffeId};
use crate::tls::CredentialFiles;

/// For how long they are valid.
const DAYS: i32 = 365;

/// Why certificates could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A name cannot stand in a certificate.
    #[error("`{name}` cannot stand in a certificate; expected a DNS name or an IP address")]
    Name {
        /// The name.
        name: String,
    },
    /// The topology's name is no trust domain.
    #[error("the topology's name cannot be a trust domain")]
    TrustDomain(#[from] IdentityError),
    /// A cluster's files would be taken for others.
    #[error(
        "a cluster called `{cluster}` would replace {cluster}.pem, which is something else; make its certificate by hand"
    )]
    Taken {
        /// The cluster.
        cluster: ClusterName,
    },
    /// A file or the folder cannot be written.
    #[error("{}: cannot write the certificate", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Making or signing failed.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
}

/// The files of one cluster's certificate in a folder that [`dev`] made.
#[must_use]
pub fn files_of(folder: &Path, cluster: &ClusterName) -> CredentialFiles {
    files_named(folder, cluster.as_str())
}

/// The files of the clients' certificate in a folder that [`dev`] made.
#[must_use]
pub fn client_files(folder: &Path) -> CredentialFiles {
    files_named(folder, "client")
}

fn files_named(folder: &Path, name: &str) -> CredentialFiles {
    CredentialFiles {
        cert: folder.join(format!("{name}.pem")),
        key: folder.join(format!("{name}-key.pem")),
        ca: folder.join("ca.pem"),
    }
}

/// Makes a CA and certificates signed by it: `ca.pem`; `CLUSTER.pem` and `CLUSTER-key.pem` for each cluster, valid for its
/// SPIFFE id, `localhost`, 127.0.0.1, ::1, its control plane's host and `extra_names` (DNS names or IP addresses);
/// `client.pem` and `client-key.pem`. Valid from the day before `now`. Keys are readable by their owner alone. Returns
/// the files in the order in which they were written; those of an earlier run are replaced.
pub fn dev(
    folder: &Path,
    topology: &Topology,
    extra_names: &[String],
    now: jiff::Timestamp,
) -> Result<Vec<PathBuf>, CertsError> {
    if let Some(taken) = topology.clusters().find(|cluster| matches!(cluster.name.as_str(), "ca" | "client")) {
        return Err(CertsError::Taken { cluster: taken.name.clone() });
    }
    fs::create_dir_all(folder).map_err(|source| CertsError::Write { path: folder.to_owned(), source })?;
    let ca = authority(&topology.name, now)?;
    let mut written = Vec::new();
    let mut write = |path: PathBuf, text: &str, secret| {
        write_file(&path, text, secret).map_err(|source| CertsError::Write { path: path.clone(), source })?;
        written.push(path);
        Ok::<_, CertsError>(())
    };
    write(folder.join("ca.pem"), &ca.pem(), false)?;
    for cluster in topology.clusters() {
        let mut names = vec!["localhost", "127.0.0.1", "::1", cluster.control_plane.host.as_str()];
        names.extend(extra_names.iter().map(String::as_str));
        let id = SpiffeId::of_cluster(&topology.name, &cluster.name)?;
        let usages = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let (certificate, key) = issue(&ca, &id, &names, &usages, now)?;
        let files = files_of(folder, &cluster.name);
        write(files.cert, &certificate, false)?;
        write(files.key, &key, true)?;
    }
    let id: SpiffeId = format!("spiffe://{}/client/dev", topology.name).parse()?;
    let (certificate, key) = issue(&ca, &id, &[], &[ExtendedKeyUsagePurpose::ClientAuth], now)?;
    let files = client_files(folder);
    write(files.cert, &certificate, false)?;
    write(files.key, &key, true)?;
    Ok(written)
}

/// A CA with its key.
pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

pub(crate) fn authority(name: &str, now: jiff::Timestamp) -> Result<Authority, rcgen::Error> {
    let mut params = params(now);
    params.distinguished_name.push(DnType::CommonName, format!("{name} throw-away CA"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate()?)
}

/// A certificate and its key, both PEM.
pub(crate) fn issue(
    ca: &Authority,
    id: &SpiffeId,
    names: &[&str],
    usages: &[ExtendedKeyUsagePurpose],
    now: jiff::Timestamp,
) -> Result<(String, String), CertsError> {
    let mut params = params(now);
    params.distinguished_name.push(DnType::CommonName, id.path().trim_start_matches('/'));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages.to_vec();
    params.use_authority_key_identifier_extension = true;
    let unfit = |name: &str| CertsError::Name { name: name.to_owned() };
    let uri = id.to_string();
    params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().map_err(|_| unfit(&uri))?)];
    for name in names {
        let name = match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) if is_dns_name(name) => SanType::DnsName((*name).try_into().map_err(|_| unfit(name))?),
            Err(_) => return Err(unfit(name)),
        };
        if !params.subject_alt_names.contains(&name) {
            params.subject_alt_names.push(name);
        }
    }
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, ca)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn params(now: jiff::Timestamp) -> CertificateParams {
    let today = now.to_zoned(jiff::tz::TimeZone::UTC).date();
    let at = |date: jiff::civil::Date| {
        date_time_ymd(i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = at(today.yesterday().unwrap_or(today));
    params.not_after = at(today.saturating_add(jiff::Span::new().days(DAYS)));
    params
}

fn is_dns_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'*'))
        })
}

fn write_file(path: &Path, text: &str, secret: bool) -> io::Result<()> {
    // A file that exists keeps its mode when it is truncated: a key must not fall into one that others can read.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if secret {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{now, topology};
    use crate::tls::Credentials;

    #[test]
    fn every_cluster_gets_usable_credentials_and_a_second_run_replaces_them() {
        let dir = tempfile::tempdir().unwrap();
        let topology = topology(&["use1-a", "usw2-a"]);
        for _ in 0..2 {
            let written = dev(dir.path(), &topology, &["127.1.2.3".into(), "use1.example.com".into()], now()).unwrap();
            assert_eq!(written.len(), 1 + 2 * 3);
            for cluster in topology.clusters() {
                let credentials = Credentials::from_files(&files_of(dir.path(), &cluster.name)).unwrap();
                credentials.check("test", &cluster.name).unwrap();
            }
            assert_eq!(
                Credentials::from_files(&client_files(dir.path())).unwrap().id().to_string(),
                "spiffe://test/client/dev"
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn keys_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("a-key.pem");
        fs::write(&key, "readable by all").unwrap();
        dev(dir.path(), &topology(&["a"]), &[], now()).unwrap();
        assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = dev(dir.path(), &topology(&["a"]), &["not a name".into()], now()).unwrap_err();
        assert!(error.to_string().contains("`not a name`"), "{error}");
        let error = dev(dir.path(), &topology(&["ca"]), &[], now()).unwrap_err();
        assert!(matches!(error, CertsError::Taken { .. }), "{error}");
    }
}
