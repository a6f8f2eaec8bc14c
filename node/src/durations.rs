//! Durations as people write them in a configuration: a whole number and its unit, as in `250ms`, `30s`, `5m`, `24h`
//! or `90d`. The unit is never left out: a bare `30` has been read as milliseconds and as minutes elsewhere.
//!
//! For serde: `#[serde(with = "crate::durations")]`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

/// Largest first, so that a duration is written in the largest unit that holds it exactly.
const UNITS_IN_MS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

pub fn parse(text: &str) -> Result<Duration, String> {
    let refusal = || format!("`{text}` is not a duration: write a whole number and ms, s, m, h or d, as in \"30s\"");
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, ms) = UNITS_IN_MS.iter().find(|(name, _)| *name == unit).ok_or_else(refusal)?;
    let number: u64 = number.parse().map_err(|_| refusal())?;
    number.checked_mul(*ms).map(Duration::from_millis).ok_or_else(refusal)
}

/// What [`parse`] reads; parts of a millisecond are dropped.
pub fn format(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let fits = |(_, unit): &&(&str, u64)| ms != 0 && ms.is_multiple_of(*unit);
    let (name, unit) = UNITS_IN_MS.iter().find(fits).unwrap_or(&("s", 1_000));
    format!("{}{name}", ms / unit)
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_duration_has_a_number_and_a_unit() {
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse(" 30s "), Ok(Duration::from_secs(30)));
        assert_eq!(parse("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert_eq!(format(Duration::ZERO), "0s");
        for wrong in ["", "30", "s", "-1s", "1.5s", "1 s", "1w", "18446744073709551615d", "١s"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(ms in 0u64..u64::MAX) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }
    }
}
