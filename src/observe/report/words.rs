//! What is said in the same words wherever a record is shown: lengths of time, instants, numbers of
//! things, and the sentences of a window's life.

use super::escape::short;
use crate::observe::record::{EndedBy, Record, Why};

/// How much of a name is shown.
pub const NAME: usize = 64;
/// How many names of a list are.
pub const NAMES: usize = 8;

/// A length in microseconds, as it is said of one answer.
pub fn took(micros: u64) -> String {
    match micros {
        0..1_000 => "under 1 ms".to_owned(),
        1_000..10_000_000 => format!("{} ms", micros / 1_000),
        _ => length(micros / 1_000),
    }
}

/// A length in milliseconds: tenths below a minute, else whole units, the two largest.
pub fn length(millis: u64) -> String {
    if millis < 60_000 {
        return format!("{}.{} s", millis / 1_000, millis % 1_000 / 100);
    }
    let seconds = millis / 1_000;
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (unit, name) in units {
        if rest >= unit && parts.len() < 2 {
            parts.push(format!("{}{name}", rest / unit));
        } else if !parts.is_empty() {
            // Two neighbours, not days and seconds.
            break;
        }
        rest %= unit;
    }
    parts.join(" ")
}

/// An offset from the window's opening, in milliseconds: `+1.204 s`, `+3m 2s`.
pub fn offset(millis: u64) -> String {
    match millis {
        0..60_000 => format!("+{}.{:03} s", millis / 1_000, millis % 1_000),
        _ => format!("+{}", length(millis)),
    }
}

/// An instant in milliseconds after 1970, in UTC: `2026-11-22 06:10:03 UTC`.
pub fn instant(millis: u64) -> String {
    let seconds = millis / 1_000;
    let of_day = seconds % 86_400;
    format!(
        "{} {:02}:{:02}:{:02} UTC",
        day(millis),
        of_day / 3_600,
        of_day / 60 % 60,
        of_day % 60
    )
}

/// The day of an instant in milliseconds after 1970, in UTC: `2026-11-22`.
pub fn day(millis: u64) -> String {
    // The proleptic Gregorian calendar in eras of 400 years, which begin on a first of March.
    let days = millis / 86_400_000 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `1 network`, `2 networks`.
pub fn many(count: impl TryInto<u64>, one: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    format!("{count} {}", plural(count, one))
}

/// `network`, `networks`, `addresses`.
pub fn plural(count: u64, one: &str) -> String {
    match count {
        1 => one.to_owned(),
        _ if one.ends_with('s') => format!("{one}es"),
        _ => format!("{one}s"),
    }
}

/// Names in one line, the first few of them.
pub fn names(names: &[String]) -> String {
    let mut shown: Vec<String> = names
        .iter()
        .take(NAMES)
        .map(|name| short(name, NAME))
        .collect();
    if names.len() > NAMES {
        shown.push(format!("and {} more", names.len() - NAMES));
    }
    shown.join(", ")
}

/// What a record is called: `window 17 (certbot-812)`.
pub fn name(record: &Record) -> String {
    let lease = short(&record.lease, NAME);
    match record.number {
        Some(number) => format!("window {number} ({lease})"),
        None => format!("window ({lease})"),
    }
}

/// Who opened it, when and why.
pub fn opened(record: &Record) -> String {
    let holder = record.holder.as_deref();
    let holder = holder.map_or_else(String::new, |holder| {
        format!(" for {}", short(holder, NAME))
    });
    let why = match record.why {
        Why::Asked => "on request",
        Why::Token => "when a token of its armed lease was pushed",
        Why::Adopted => "or before, and found open by a restart",
    };
    format!(
        "{} by uid {}{holder}, {why}",
        instant(record.opened_at),
        record.caller
    )
}

/// Which door: ports, families, entrance.
pub fn doors(record: &Record) -> String {
    let ports: Vec<String> = record
        .ports
        .iter()
        .take(NAMES)
        .map(u16::to_string)
        .collect();
    let families: Vec<String> = record
        .families
        .iter()
        .take(2)
        .map(|family| match family.as_str() {
            "ipv4" => "IPv4".to_owned(),
            "ipv6" => "IPv6".to_owned(),
            other => short(other, NAME),
        })
        .collect();
    let entrance = record.entrance.as_deref();
    let entrance = entrance.map_or_else(String::new, |entrance| {
        format!(", {} only", short(entrance, NAME))
    });
    format!(
        "tcp {} for {}{entrance}",
        ports.join(", "),
        families.join(" and ")
    )
}

/// For how long, and how it ended.
pub fn ended(record: &Record) -> String {
    let given = length(record.deadline);
    let renewed = match record.renewals {
        0 => String::new(),
        1 => ", renewed once".to_owned(),
        times => format!(", renewed {times} times"),
    };
    let Some(end) = record.end else {
        return format!("not yet; {given} at most{renewed}");
    };
    let by = match end.by {
        EndedBy::Close => "closed by its hook or an administrator",
        EndedBy::Early => "closed early: every token was answered, or withdrawn",
        EndedBy::HolderGone => "closed because the process that held it died",
        EndedBy::Deadline => "NOBODY CLOSED IT: cut by its deadline",
        EndedBy::Removed => "closed by `acmegate firewall remove`",
        EndedBy::Reload => "closed by a reload that no longer names its ports",
        EndedBy::Stop => "closed because acmegate was stopped for good",
        EndedBy::Unwatched => "closed by the kernel while acmegate was not there",
    };
    let late = match end.late {
        // One look of the daemon's clock.
        0..1_000 => String::new(),
        late => format!(", {} late", length(late)),
    };
    format!("after {} of {given}{renewed}, {by}{late}", length(end.at))
}

/// For whom it counts as a failed attempt, if it does.
pub fn attempts(record: &Record) -> Option<String> {
    let failed = &record.failed;
    (!failed.is_empty()).then(|| {
        format!(
            "counts as a failed attempt for {} (`[budget] failures_per_hour`)",
            names(failed)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_short() {
        for (millis, said) in [
            (0, "0.0 s"),
            (6_240, "6.2 s"),
            (59_999, "59.9 s"),
            (60_000, "1m"),
            (61_000, "1m 1s"),
            (3_600_000, "1h"),
            (3_601_000, "1h"),
            (90_061_000, "1d 1h"),
        ] {
            assert_eq!(length(millis), said);
        }
        assert_eq!(took(999), "under 1 ms");
        assert_eq!(took(31_900), "31 ms");
        assert_eq!(took(12_000_000), "12.0 s");
        assert_eq!(offset(1_204), "+1.204 s");
        assert_eq!(offset(u64::MAX), format!("+{}", length(u64::MAX)));
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        // By `date -u -d @SECONDS`.
        for (seconds, said) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_773_532_800, "2026-03-15 00:00:00 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(instant(seconds * 1_000), said);
        }
        assert!(instant(u64::MAX).ends_with(" UTC"));
    }
}
