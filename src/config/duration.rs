//! Durations as people write them: `90s`, `10m`, `2h`, `1m30s`, `500ms`.

use std::fmt;
use std::time::Duration;

/// The units, largest first, with their milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Why text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DurationError {
    /// Nothing there, or something that is neither digits nor a unit.
    Form,
    /// Digits without a unit: seconds or minutes, nobody knows.
    NoUnit,
    /// A unit that is none of ours.
    Unit(String),
    /// Units not from the largest to the smallest, or one of them twice.
    Order,
    /// More than can be counted.
    TooLong,
}

/// Parses one or more numbers with their units, largest unit first.
///
/// # Errors
/// [`DurationError`].
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let mut rest = text.trim();
    let mut millis: u64 = 0;
    let mut next_unit = 0;
    if rest.is_empty() {
        return Err(DurationError::Form);
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        if number.is_empty() {
            return Err(DurationError::Form);
        }
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        if unit.is_empty() {
            return Err(if after.is_empty() {
                DurationError::NoUnit
            } else {
                DurationError::Form
            });
        }
        let Some(place) = UNITS.iter().position(|(name, _)| *name == unit) else {
            return Err(DurationError::Unit(unit.to_owned()));
        };
        if place < next_unit {
            return Err(DurationError::Order);
        }
        next_unit = place + 1;
        millis = number
            .parse()
            .ok()
            .and_then(|number: u64| number.checked_mul(UNITS[place].1))
            .and_then(|part| part.checked_add(millis))
            .ok_or(DurationError::TooLong)?;
        rest = after;
    }
    Ok(Duration::from_millis(millis))
}

/// Writes a duration so that [`parse_duration`] reads it back, to the millisecond.
pub fn format_duration(duration: Duration) -> impl fmt::Display {
    Formatted(duration)
}

struct Formatted(Duration);

impl fmt::Display for Formatted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if left == 0 {
            return f.write_str("0s");
        }
        for (unit, millis) in UNITS {
            let count = left / millis;
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
            left %= millis;
        }
        Ok(())
    }
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str("not a duration; write one such as 90s, 10m or 1h30m"),
            Self::NoUnit => f.write_str("a duration needs a unit: ms, s, m, h or d"),
            Self::Unit(unit) => write!(f, "`{unit}` is no unit; there are ms, s, m, h and d"),
            Self::Order => f.write_str("write the largest unit first and each only once"),
            Self::TooLong => f.write_str("longer than can be counted"),
        }
    }
}

impl std::error::Error for DurationError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [
            ("90s", 90_000),
            ("10m", 600_000),
            ("2h", 7_200_000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("1d", 86_400_000),
            ("1m500ms", 60_500),
            (" 5s ", 5000),
            ("0s", 0),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_the_reason() {
        for (text, error) in [
            ("", DurationError::Form),
            ("s", DurationError::Form),
            ("-5s", DurationError::Form),
            ("1.5h", DurationError::Form),
            ("1 m", DurationError::Form),
            ("10", DurationError::NoUnit),
            ("1m30", DurationError::NoUnit),
            ("10min", DurationError::Unit("min".to_owned())),
            ("10M", DurationError::Unit("M".to_owned())),
            ("30s1m", DurationError::Order),
            ("1s1s", DurationError::Order),
            ("99999999999999999999s", DurationError::TooLong),
            ("9999999999999999h", DurationError::TooLong),
        ] {
            assert_eq!(parse_duration(text), Err(error), "{text}");
        }
    }

    #[test]
    fn durations_are_written_with_the_largest_unit_first() {
        for (millis, text) in [
            (0, "0s"),
            (500, "500ms"),
            (90_000, "1m30s"),
            (600_000, "10m"),
            (86_400_000, "1d"),
            (90_061_001, "1d1h1m1s1ms"),
        ] {
            let written = format_duration(Duration::from_millis(millis)).to_string();
            assert_eq!(written, text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in any::<u64>()) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(duration).to_string()), Ok(duration));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = parse_duration(&text);
        }
    }
}
