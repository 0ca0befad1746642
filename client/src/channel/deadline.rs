//! `grpc-timeout`: what the caller allows, and what the server is told.

use std::time::Duration;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

pub(super) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The caller's timeout.
pub(super) fn callers(headers: &HeaderMap) -> Option<Duration> {
    headers.get(&GRPC_TIMEOUT).and_then(parse)
}

/// The shorter of the caller's timeout and the route's. If it is the route's, the header is set to it.
pub(super) fn timeout(headers: &mut HeaderMap, route: Option<Duration>) -> Option<Duration> {
    match (callers(headers), route) {
        (Some(callers), Some(route)) if callers <= route => Some(callers),
        (_, Some(route)) => {
            headers.insert(GRPC_TIMEOUT, format(route));
            Some(route)
        }
        (callers, None) => callers,
    }
}

/// At most 8 digits and a unit. What is malformed is the server's to refuse.
fn parse(value: &HeaderValue) -> Option<Duration> {
    let (digits, unit) = value.to_str().ok()?.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

/// In the finest of microseconds, milliseconds and seconds that fits 8 digits.
fn format(timeout: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let (n, unit) = match timeout {
        t if t.as_micros() <= MOST => (t.as_micros(), 'u'),
        t if t.as_millis() <= MOST => (t.as_millis(), 'm'),
        t => (u128::from(t.as_secs()).min(MOST), 'S'),
    };
    // Digits and a letter always make a header.
    HeaderValue::from_str(&format!("{n}{unit}")).unwrap_or_else(|_| HeaderValue::from_static("99999999S"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(callers: Option<&'static str>, route: Option<Duration>) -> (Option<Duration>, Option<String>) {
        let mut headers = HeaderMap::new();
        if let Some(callers) = callers {
            headers.insert(GRPC_TIMEOUT, HeaderValue::from_static(callers));
        }
        let timeout = timeout(&mut headers, route);
        (timeout, headers.get(&GRPC_TIMEOUT).map(|value| value.to_str().unwrap().to_owned()))
    }

    #[test]
    fn the_shorter_wins_and_the_server_is_told() {
        let (s, ms) = (Duration::from_secs, Duration::from_millis);
        assert_eq!(with(None, None), (None, None));
        assert_eq!(with(Some("1S"), None), (Some(s(1)), Some("1S".into())));
        assert_eq!(with(Some("1S"), Some(s(2))), (Some(s(1)), Some("1S".into())));
        assert_eq!(with(Some("3S"), Some(s(2))), (Some(s(2)), Some("2000000u".into())));
        assert_eq!(with(None, Some(ms(1500))), (Some(ms(1500)), Some("1500000u".into())));
        assert_eq!(with(None, Some(s(86_400))), (Some(s(86_400)), Some("86400000m".into())));
    }

    #[test]
    fn every_unit_is_read_and_nonsense_is_not() {
        for (text, nanos) in
            [("2H", 7_200_000_000_000u64), ("2M", 120_000_000_000), ("2m", 2_000_000), ("2u", 2000), ("2n", 2)]
        {
            assert_eq!(parse(&HeaderValue::from_static(text)), Some(Duration::from_nanos(nanos)));
        }
        for text in ["", "S", "1", "1s", "-1S", "123456789S", "1 S", "99999999999999999999S"] {
            assert_eq!(parse(&HeaderValue::from_static(text)), None, "{text}");
        }
    }
}
