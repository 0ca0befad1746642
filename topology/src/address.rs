//! `HOST:PORT`, checked: a DNS name, an IPv4 address or a bracketed IPv6 address, and a port.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Why a text is not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No port, and none is implied.
    #[error("the port is missing; expected HOST:PORT")]
    NoPort,
    /// Not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    BadPort,
    /// Neither a name nor an IP address.
    #[error("the host is neither a DNS name nor an IP address; an IPv6 address stands in brackets, `[fd00::1]:7443`")]
    BadHost,
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// A DNS name or an IP address, without brackets.
    pub host: String,
    /// The port, never 0.
    pub port: u16,
}

impl HostPort {
    /// Reads `HOST:PORT`, or `HOST` alone if a port is implied.
    pub fn parse(text: &str, implied: Option<u16>) -> Result<Self, AddressError> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or(AddressError::BadHost)?;
                host.parse::<Ipv6Addr>().map_err(|_| AddressError::BadHost)?;
                match after.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None if after.is_empty() => (host, None),
                    None => return Err(AddressError::BadHost),
                }
            }
            None => {
                let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
                if !is_name(host) && host.parse::<Ipv4Addr>().is_err() {
                    return Err(AddressError::BadHost);
                }
                (host, port)
            }
        };
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(AddressError::BadPort)?,
            None => implied.ok_or(AddressError::NoPort)?,
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

/// A DNS name. One that ends in a number would be taken for an IPv4 address.
fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= 253
        && host.split('.').all(is_label)
        && host.rsplit('.').next().is_some_and(|last| !last.bytes().all(|b| b.is_ascii_digit()))
}

impl FromStr for HostPort {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text, None)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_read_and_write_back() {
        for text in ["gw.example.com:15443", "10.0.0.1:80", "[fd00::1]:7443", "localhost:1"] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
        assert_eq!(HostPort::parse("[::1]", Some(7443)).unwrap().to_string(), "[::1]:7443");
        assert_eq!(HostPort::parse("a.b", Some(7443)).unwrap().port, 7443);
    }

    #[test]
    fn what_is_not_an_address_says_why() {
        for (text, why) in [
            ("gw.example.com", AddressError::NoPort),
            ("gw:0", AddressError::BadPort),
            ("gw:65536", AddressError::BadPort),
            ("gw:http", AddressError::BadPort),
            ("", AddressError::BadHost),
            (":80", AddressError::BadHost),
            ("a..b:80", AddressError::BadHost),
            ("-a:80", AddressError::BadHost),
            ("300.1.1.1:80", AddressError::BadHost),
            ("10.1:80", AddressError::BadHost),
            ("[fd00::1", AddressError::BadHost),
            ("[10.0.0.1]:80", AddressError::BadHost),
            ("[::1]80", AddressError::BadHost),
            ("https://gw:80", AddressError::BadPort),
        ] {
            assert_eq!(text.parse::<HostPort>(), Err(why), "{text}");
        }
        assert_eq!("fd00::1:80".parse::<HostPort>(), Err(AddressError::BadPort));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_reads_writes_back(text in "[a-z0-9.:\\[\\]-]{0,20}") {
            if let Ok(address) = text.parse::<HostPort>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }
}
