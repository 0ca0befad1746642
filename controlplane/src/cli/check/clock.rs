//! Whether two clocks agree, as far as the `Date` of an HTTP answer tells: to the second. Wall clocks order nothing here,
//! but certificates have a beginning and an end.

use http::HeaderMap;
use http::header::DATE;
use jiff::{SignedDuration, Timestamp};

use super::finding::Finding;

/// What a header rounded to the second, and the way to us, may make of two equal clocks.
const EQUAL: SignedDuration = SignedDuration::from_secs(3);
/// From here on a certificate that was just made is not yet valid for the other.
const FAR: SignedDuration = SignedDuration::from_secs(60);

/// By how much the clock of who answered is ahead of ours.
pub(super) fn ahead(headers: &HeaderMap, now: Timestamp) -> Option<SignedDuration> {
    let date = jiff::fmt::rfc2822::parse(headers.get(DATE)?.to_str().ok()?).ok()?;
    Some(date.timestamp().duration_since(now))
}

/// Judges the clocks of those whom we asked, by name.
pub(super) fn judge(clocks: &[(String, Option<SignedDuration>)]) -> Option<Finding> {
    let known: Vec<_> = clocks.iter().filter_map(|(name, ahead)| Some((name, (*ahead)?))).collect();
    let (name, ahead) = known.iter().max_by_key(|(_, ahead)| ahead.abs())?;
    let seconds = ahead.abs().as_secs();
    let side = if ahead.is_negative() { "behind" } else { "ahead of" };
    let seen = format!("{name}'s is {seconds} s {side} this machine's");
    let mend = "run an NTP client on both; certificates are not valid before their time";
    Some(if ahead.abs() <= EQUAL {
        let names: Vec<_> = known.iter().map(|(name, _)| name.as_str()).collect();
        Finding::good("clocks", format!("{} and this machine agree", names.join(", ")))
    } else if ahead.abs() < FAR {
        Finding::warning("clocks", seen, mend)
    } else {
        Finding::bad("clocks", seen, mend)
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Mark;
    use super::*;

    fn judged(seconds: &[i64]) -> Finding {
        let named = |seconds: &i64| (format!("c{seconds}"), Some(SignedDuration::from_secs(*seconds)));
        judge(&seconds.iter().map(named).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_worst_clock_is_told() {
        assert_eq!(judged(&[0, -2]).mark, Mark::Good);
        assert_eq!(judged(&[0, -2]).seen, "c0, c-2 and this machine agree");
        assert_eq!(judged(&[1, -40]).mark, Mark::Warning);
        assert_eq!(judged(&[1, -40]).seen, "c-40's is 40 s behind this machine's");
        assert_eq!(judged(&[90, -40]).mark, Mark::Bad);
        assert_eq!(judge(&[("x".into(), None)]), None);
    }

    #[test]
    fn a_date_header_is_compared_to_the_second() {
        let now: Timestamp = "2026-11-23T17:00:00Z".parse().unwrap();
        let headers = |date: &str| [(DATE, date.parse().unwrap())].into_iter().collect::<HeaderMap>();
        assert_eq!(ahead(&headers("Mon, 23 Nov 2026 17:00:07 GMT"), now), Some(SignedDuration::from_secs(7)));
        assert_eq!(ahead(&headers("yesterday"), now), None);
        assert_eq!(ahead(&HeaderMap::new(), now), None);
    }
}
