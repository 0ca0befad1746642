//! The clients that the suite runs, and how each is started.

use std::path::{Path, PathBuf};

use portolan_topology::names::{NameError, ServiceId};

use super::recipe::{self, Recipe};
use super::security::Security;

/// The namespace of the suite's services: each client has one of its own, on the same pods.
pub(super) const NAMESPACE: &str = "interop";

/// Without one Java reads no certificate from a PKCS #12 file.
pub(super) const TRUST_STORE_PASSWORD: &str = "interop";

/// What a subject is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A program of ours over a gRPC library, which calls.
    Caller(Language),
    /// A program of ours over a gRPC library, which is called: an xDS server.
    Server(Language),
    /// Envoy, beside a client that knows nothing of xDS.
    Envoy {
        /// Over the incremental protocol, not the state of the world.
        delta: bool,
    },
}

/// What a program is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    Python,
    Node,
    Go,
    Java,
}

/// A client, or an xDS server.
#[derive(Debug)]
pub(super) struct Subject {
    /// Its name in the results.
    pub client: &'static str,
    /// The version that its recipe installs.
    pub version: &'static str,
    /// What it is.
    pub kind: Kind,
    /// How it is made.
    pub recipe: &'static Recipe,
    /// The ways in which it can talk to a control plane, the best first. `docs/clients.md` has the same table.
    pub security: &'static [Security],
}

use Security::{Mtls, Plain, Tls};

/// All of them.
pub(super) static ALL: &[Subject] = &[
    Subject {
        client: "grpcio",
        version: "1.85.1",
        kind: Kind::Caller(Language::Python),
        recipe: &recipe::GRPCIO,
        security: &[Mtls, Tls, Plain],
    },
    Subject {
        client: "grpcio",
        version: "1.54.3",
        kind: Kind::Caller(Language::Python),
        recipe: &recipe::GRPCIO_OLD,
        security: &[Plain],
    },
    Subject {
        client: "grpc-js",
        version: "1.14.7",
        kind: Kind::Caller(Language::Node),
        recipe: &recipe::GRPC_JS,
        security: &[Plain],
    },
    Subject {
        client: "grpc-go",
        version: "1.85.0",
        kind: Kind::Caller(Language::Go),
        recipe: &recipe::GRPC_GO,
        security: &[Mtls, Tls, Plain],
    },
    Subject {
        client: "grpc-java",
        version: "1.85.1",
        kind: Kind::Caller(Language::Java),
        recipe: &recipe::GRPC_JAVA,
        security: &[Tls, Plain],
    },
    Subject {
        client: "envoy",
        version: "1.40.0",
        kind: Kind::Envoy { delta: false },
        recipe: &recipe::ENVOY,
        security: &[Mtls, Tls, Plain],
    },
    Subject {
        client: "envoy",
        version: "1.40.0",
        kind: Kind::Envoy { delta: true },
        recipe: &recipe::ENVOY,
        security: &[Mtls, Tls, Plain],
    },
    Subject {
        client: "grpc-go-server",
        version: "1.85.0",
        kind: Kind::Server(Language::Go),
        recipe: &recipe::GRPC_GO,
        security: &[Mtls, Tls, Plain],
    },
    Subject {
        client: "grpc-java-server",
        version: "1.85.1",
        kind: Kind::Server(Language::Java),
        recipe: &recipe::GRPC_JAVA,
        security: &[Tls, Plain],
    },
];

impl Subject {
    /// What people call it.
    pub(super) fn title(&self) -> String {
        let protocol = match self.kind {
            Kind::Envoy { delta: true } => " (delta)",
            Kind::Envoy { delta: false } => " (state of the world)",
            Kind::Caller(_) | Kind::Server(_) => "",
        };
        format!("{} {}{protocol}", self.client, self.version)
    }

    /// A name for its service, its node and its files.
    pub(super) fn slug(&self) -> String {
        let delta = if self.kind == (Kind::Envoy { delta: true }) { "-delta" } else { "" };
        format!("{}-{}{delta}", self.client, self.version.replace('.', "-"))
    }

    /// The service that it calls, or is.
    pub(super) fn service(&self) -> Result<ServiceId, NameError> {
        ServiceId::new(self.slug(), NAMESPACE)
    }

    /// The best way in which it can talk to a control plane.
    pub(super) fn best_security(&self) -> Security {
        self.security.iter().copied().min().unwrap_or(Plain)
    }

    pub(super) fn is_server(&self) -> bool {
        matches!(self.kind, Kind::Server(_))
    }
}

/// A program of ours in some language.
#[derive(Debug)]
pub(super) enum Role<'a> {
    /// It calls this target.
    Caller { target: &'a str, rate: f64, timeout_seconds: f64 },
    /// It answers with this name at this address.
    Server { name: &'a str, listen: std::net::SocketAddr },
}

/// The command line of a program of ours: made in `folder`, with the CA in `trust_store` for those that read no other.
pub(super) fn command(
    language: Language,
    role: &Role<'_>,
    folder: &Path,
    trust_store: &Path,
) -> (PathBuf, Vec<String>) {
    let path = |path: &str| folder.join(path).display().to_string();
    let option = |name: &str, value: &dyn std::fmt::Display| [format!("--{name}"), value.to_string()];
    let (go, class, options) = match role {
        Role::Caller { target, rate, timeout_seconds } => {
            let options = [option("target", target), option("rate", rate), option("timeout", timeout_seconds)];
            ("bin/caller", "Caller", options.concat())
        }
        Role::Server { name, listen } => {
            let port = listen.port();
            // In Java it listens everywhere, whatever it is told.
            let listen = if language == Language::Java { option("port", &port) } else { option("listen", listen) };
            ("bin/server", "Server", [option("name", name), listen].concat())
        }
    };
    let (program, first) = match language {
        Language::Python => (folder.join("venv/bin/python"), vec![path("caller.py")]),
        Language::Node => (PathBuf::from("node"), vec![path("caller.js")]),
        Language::Go => (folder.join(go), Vec::new()),
        Language::Java => {
            let trust = format!("-Djavax.net.ssl.trustStore={}", trust_store.display());
            let password = format!("-Djavax.net.ssl.trustStorePassword={TRUST_STORE_PASSWORD}");
            let classes = format!("{}:{}", path("target/classes"), path("lib/*"));
            // Started often on a busy machine: the first compiler is enough.
            let quick = "-XX:TieredStopAtLevel=1".to_owned();
            let class = format!("dev.portolan.interop.{class}");
            (PathBuf::from("java"), vec![quick, trust, password, "-cp".to_owned(), classes, class])
        }
    };
    (program, first.into_iter().chain(options).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_subject_has_names_of_its_own() {
        let services: HashSet<_> = ALL.iter().map(|subject| subject.service().unwrap()).collect();
        assert_eq!(services.len(), ALL.len());
        let titles: HashSet<_> = ALL.iter().map(Subject::title).collect();
        assert_eq!(titles.len(), ALL.len());
        assert!(ALL.iter().all(|subject| subject.recipe.name.ends_with(subject.version)));
    }
}
