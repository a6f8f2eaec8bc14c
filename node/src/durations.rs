//! Durations as people write them in configuration: a whole number and a unit, such as `15m` or `90d`. Without a unit
//! nothing is accepted, since nobody remembers whether a bare number means seconds or milliseconds.
//!
//! For serde: `#[serde(with = "crate::durations")]`.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Visitor};
use serde::ser::Serializer;

/// Units in milliseconds, the largest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Says what is wrong and what would be right.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration: a whole number and one of ms, s, m, h, d is, such as 15m");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let (_, unit_ms) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let ms = number.checked_mul(*unit_ms).ok_or_else(|| format!("`{text}` is too long a duration"))?;
    Ok(Duration::from_millis(ms))
}

/// The shortest text that [`parse`] reads back, to the millisecond.
pub fn format(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match UNITS.iter().find(|(_, unit_ms)| ms != 0 && ms.is_multiple_of(*unit_ms)) {
        Some((unit, unit_ms)) => format!("{}{unit}", ms / unit_ms),
        None => "0s".to_owned(),
    }
}

pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_str(DurationText)
}

struct DurationText;

impl Visitor<'_> for DurationText {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration in quotes, such as \"15m\"")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Duration, E> {
        parse(text).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_unit_is_read() {
        for (text, ms) in [("250ms", 250), ("30s", 30_000), ("15m", 900_000), ("24h", 86_400_000), ("0s", 0)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(parse("90d"), Ok(Duration::from_secs(90 * 86_400)));
    }

    #[test]
    fn what_is_not_a_duration_is_refused_with_an_example() {
        for text in ["", "15", "m", "1.5h", "-1s", "15 m", "15M", "1h30m", "+1s", "१s"] {
            assert!(parse(text).is_err_and(|said| said.contains("15m")), "{text}");
        }
        assert!(parse("99999999999999999999d").is_err());
        assert!(parse("18446744073709551615d").is_err_and(|said| said.contains("too long")));
    }

    #[test]
    fn a_bare_number_in_the_file_is_refused_with_what_would_be_right() {
        #[derive(Debug, serde::Deserialize)]
        struct Options {
            #[serde(with = "super")]
            #[allow(dead_code)]
            wait: Duration,
        }
        let said = toml::from_str::<Options>("wait = 15").unwrap_err().to_string();
        assert!(said.contains("a duration in quotes"), "{said}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(ms in 0..u64::MAX / 2) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = parse(&text);
        }
    }
}
