//! How a client's connection to its control plane is protected, and which way works for which client.

use std::fmt;

/// How, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Security {
    /// Both ends show certificates.
    Mtls,
    /// The control plane alone shows one.
    Tls,
    /// None.
    Plain,
}

impl Security {
    /// All, the best first.
    pub(super) const ALL: [Self; 3] = [Self::Mtls, Self::Tls, Self::Plain];

    /// As part of a file's name.
    pub(super) fn slug(self) -> &'static str {
        match self {
            Self::Mtls => "mtls",
            Self::Tls => "tls",
            Self::Plain => "plain",
        }
    }
}

impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Mtls => "mTLS",
            Self::Tls => "TLS",
            Self::Plain => "plain text",
        })
    }
}
