//! Figures as people read them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

/// `210 ms`, `1.5 s`, `90 s`.
#[must_use]
pub fn spoken(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1_000 {
        format!("{millis} ms")
    } else if millis.is_multiple_of(1_000) {
        format!("{} s", millis / 1_000)
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

/// `us-west 70%, eu-west 30%`: the largest first; `nobody` if there is none.
#[must_use]
pub fn percents<K: Display + Ord>(fractions: &BTreeMap<K, f64>) -> String {
    let mut parts: Vec<_> = fractions.iter().collect();
    parts.sort_by(|a, b| b.1.total_cmp(a.1).then(a.0.cmp(b.0)));
    let parts: Vec<String> = parts.iter().map(|(key, part)| format!("{key} {}%", round(*part * 100.0))).collect();
    if parts.is_empty() { "nobody".to_owned() } else { parts.join(", ") }
}

/// `a`, `a and b`, `a, b and c`.
#[must_use]
pub fn list(items: &[String]) -> String {
    match items {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// `at least 99%`.
pub(super) fn bounds(min: f64, max: f64) -> String {
    match (min > 0.0, max < 100.0) {
        (true, false) => format!("at least {}%", round(min)),
        (_, true) if min <= 0.0 => format!("at most {}%", round(max)),
        _ => format!("{}% to {}%", round(min), round(max)),
    }
}

/// At most one digit after the point, and none if it would be 0.
fn round(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}
