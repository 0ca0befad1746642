//! Host names of listeners and routes: `a.example.com`, `*.example.com` for everything below it, or any host.

use std::cmp::Reverse;
use std::fmt;

/// The hosts that a listener or a route is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hostname {
    /// All.
    Any,
    /// Everything below this name: of `*.example.com` it is `example.com`.
    Below(String),
    /// This one.
    Exactly(String),
}

impl Hostname {
    /// Reads one; without a text it is any. Names are compared in lower case.
    pub fn read(text: Option<&str>) -> Result<Self, String> {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Self::Any) };
        let lower = text.to_ascii_lowercase();
        let (name, wildcard) = match lower.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (lower.as_str(), false),
        };
        let sound = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if name.len() > 253 || !name.split('.').all(sound) || name.parse::<std::net::IpAddr>().is_ok() {
            return Err(format!("`{text}` is not a host name, such as shop.example.com or *.example.com"));
        }
        Ok(if wildcard { Self::Below(name.to_owned()) } else { Self::Exactly(name.to_owned()) })
    }

    /// Whether every host of `other` is one of its hosts.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Below(name), Self::Below(below)) => name == below || is_below(below, name),
            (Self::Below(name), Self::Exactly(host)) => is_below(host, name),
            (Self::Exactly(name), Self::Exactly(host)) => name == host,
            (Self::Below(_) | Self::Exactly(_), _) => false,
        }
    }

    /// The hosts that are both's.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        if self.covers(other) { Some(other.clone()) } else { other.covers(self).then(|| self.clone()) }
    }

    /// Orders by how narrow they are, the narrowest first: a request belongs to the first that has its host.
    #[must_use]
    pub fn narrowness(&self) -> impl Ord + use<> {
        match self {
            Self::Exactly(name) => (0, Reverse(name.len())),
            Self::Below(name) => (1, Reverse(name.len())),
            Self::Any => (2, Reverse(0)),
        }
    }
}

fn is_below(host: &str, name: &str) -> bool {
    host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.') && rest.len() > 1)
}

/// As Envoy writes a domain.
impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Below(name) => write!(f, "*.{name}"),
            Self::Exactly(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(text: &str) -> Hostname {
        Hostname::read(Some(text)).unwrap()
    }

    #[test]
    fn what_hosts_have_in_common() {
        for (a, b, both) in [
            ("*.example.com", "a.example.com", Some("a.example.com")),
            ("*.example.com", "a.b.example.com", Some("a.b.example.com")),
            ("*.example.com", "example.com", None),
            ("*.example.com", "*.b.example.com", Some("*.b.example.com")),
            ("*.example.com", "*.xexample.com", None),
            ("A.example.com", "a.example.com", Some("a.example.com")),
            ("a.example.com", "b.example.com", None),
            ("", "*.example.com", Some("*.example.com")),
        ] {
            let (a, b) = (host(a), host(b));
            assert_eq!(a.intersection(&b), both.map(host), "{a} {b}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in ["*", "*.", "a..b", "-a.b", "a_b", "10.0.0.1", "a.*.b", "https://a", "a:80"] {
            assert!(Hostname::read(Some(text)).is_err(), "{text}");
        }
    }

    fn hosts() -> impl Strategy<Value = Hostname> {
        let name = || "[ab](\\.[ab]){0,3}";
        prop_oneof![Just(Hostname::Any), name().prop_map(Hostname::Below), name().prop_map(Hostname::Exactly)]
    }

    proptest! {
        #[test]
        fn an_intersection_is_what_both_cover(a in hosts(), b in hosts(), host in "[ab](\\.[ab]){0,4}") {
            let host = Hostname::Exactly(host);
            let both = a.intersection(&b);
            prop_assert_eq!(&both, &b.intersection(&a));
            prop_assert_eq!(a.covers(&host) && b.covers(&host), both.is_some_and(|both| both.covers(&host)));
        }

        #[test]
        fn of_two_that_cover_a_host_the_covered_is_narrower(a in hosts(), b in hosts()) {
            if a.covers(&b) && a != b {
                prop_assert!(b.narrowness() < a.narrowness());
            }
        }
    }
}
