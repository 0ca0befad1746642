//! Durations as people write them: `250ms`, `5s`, `10m`, `1h30m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;
use serde::de::{self, Deserialize, Deserializer, Visitor};

/// Units from the largest, in nanoseconds.
const UNITS: [(&str, u128); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];
/// The longest duration that is taken: 100 years of 365 days.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Why a text is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not numbers with units.
    #[error("not a duration; expected numbers with the units h, m, s or ms, such as `250ms`, `5s` or `1h30m`")]
    Malformed,
    /// Below zero.
    #[error("a duration cannot be negative")]
    Negative,
    /// More than a century.
    #[error("the duration is longer than 100 years")]
    TooLong,
}

/// A duration that reads from and writes as text: the largest unit that gives a whole number, such as `90s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(into = "String")]
pub struct DurationText(pub Duration);

impl FromStr for DurationText {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        if text.starts_with('-') {
            return Err(DurationError::Negative);
        }
        let (mut rest, mut nanoseconds, mut larger) = (text, 0_u128, u128::MAX);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(DurationError::Malformed)?;
            let (number, after) = rest.split_at(digits);
            let unit = after.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(after.len());
            let (name, after) = after.split_at(unit);
            // Units go from large to small, each once.
            let (_, scale) = UNITS
                .into_iter()
                .find(|(unit, scale)| *unit == name && *scale < larger)
                .ok_or(DurationError::Malformed)?;
            if number.is_empty() {
                return Err(DurationError::Malformed);
            }
            let number: u64 = number.parse().map_err(|_| DurationError::TooLong)?;
            nanoseconds += u128::from(number) * scale;
            (rest, larger) = (after, scale);
        }
        match u64::try_from(nanoseconds).map(Duration::from_nanos) {
            _ if larger == u128::MAX => Err(DurationError::Malformed),
            Ok(duration) if duration <= LONGEST => Ok(Self(duration)),
            _ => Err(DurationError::TooLong),
        }
    }
}

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = self.0.as_nanos();
        if nanoseconds == 0 {
            return f.write_str("0s");
        }
        let exact = UNITS.into_iter().find(|(_, scale)| nanoseconds.is_multiple_of(*scale));
        let (unit, scale) = exact.unwrap_or(("ns", 1));
        write!(f, "{}{unit}", nanoseconds / scale)
    }
}

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = DurationText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as `250ms`, `5s` or `1h30m`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<DurationText, E> {
                text.parse().map_err(E::custom)
            }
        }

        // A number without a unit reaches the visitor, whose answer names the units.
        deserializer.deserialize_any(Text)
    }
}

impl From<DurationText> for String {
    fn from(duration: DurationText) -> Self {
        duration.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_read_as_written() {
        for (text, milliseconds) in
            [("250ms", 250), ("5s", 5000), ("10m", 600_000), ("1h30m", 5_400_000), ("0s", 0), ("1m30s500ms", 90_500)]
        {
            assert_eq!(text.parse(), Ok(DurationText(Duration::from_millis(milliseconds))), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_says_why() {
        for text in ["", "5", "s", "5 s", "5d", "1m1h", "5s5s", "1.5s", "+5s", "٣s", "5S"] {
            assert_eq!(text.parse::<DurationText>(), Err(DurationError::Malformed), "{text}");
        }
        assert_eq!("-5s".parse::<DurationText>(), Err(DurationError::Negative));
        for text in ["876001h", "99999999999999999999h", "18446744073709551615h18446744073709551615m"] {
            assert_eq!(text.parse::<DurationText>(), Err(DurationError::TooLong), "{text}");
        }
    }

    #[test]
    fn the_shortest_exact_form_is_written() {
        for (milliseconds, text) in [(0, "0s"), (60_000, "1m"), (90_000, "90s"), (5_400_000, "90m"), (1_500, "1500ms")]
        {
            assert_eq!(DurationText(Duration::from_millis(milliseconds)).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(nanoseconds in 0_u64..1_000_000_000_000_000_000) {
            let duration = DurationText(Duration::from_nanos(nanoseconds));
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "([0-9]{1,20}|h|m|s|ms|us|-|é){0,8}") {
            let _ = text.parse::<DurationText>();
        }
    }
}
