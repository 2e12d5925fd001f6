//! Limits: rules that let the first packets pass and not the next.
//!
//! A validation comes from several perspectives at the same moment, so a limit that one visitor never
//! meets may stop some of them. Rates are token buckets (`nft_limit.c`, `xt_hashlimit.c`): `burst` at
//! once, then one more for every token.

use std::fmt;
use std::time::Duration;

/// A limit that a rule asks about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Limit {
    /// How much is let through.
    pub measure: Measure,
    /// Whose packets count together.
    pub per: Per,
    /// The rule matches once it is exceeded, not while it is kept.
    pub(super) over: bool,
    /// It stands on a list of sources that came before (`recent`): who never came is not on it.
    pub(super) is_list: bool,
}

/// How much a limit lets through.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Measure {
    /// So many packets in so many seconds, and that many at once before.
    Rate {
        /// How many packets.
        packets: u64,
        /// In how long, in seconds.
        seconds: u64,
        /// How many at once.
        burst: u32,
    },
    /// So many connections at the same time.
    Connections(u32),
    /// Octets, of which a first packet has few.
    Bytes,
    /// What an extension of iptables counts in a way that is not known here.
    Unknown,
}

/// Whose packets a limit counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Per {
    /// Those of all the world.
    Everybody,
    /// Those of one source, or of what a rule takes for one.
    Source,
}

impl Limit {
    /// The same, where the rule asks the other way round.
    pub(super) fn inverted(&self) -> Self {
        Self {
            over: !self.over,
            ..self.clone()
        }
    }

    /// How many of the first packets that come at the same moment are let through within `time`, in which
    /// their senders try again; `None` if that is not known.
    pub fn lets_through(&self, time: Duration) -> Option<u64> {
        match self.measure {
            Measure::Rate {
                packets,
                seconds,
                burst,
            } => {
                let later = packets.saturating_mul(time.as_secs()) / seconds.max(1);
                Some(later.saturating_add(burst.into()))
            }
            Measure::Connections(count) => Some(count.into()),
            Measure::Bytes => Some(u64::MAX),
            Measure::Unknown => None,
        }
    }
}

impl fmt::Display for Limit {
    /// `3 packets a minute and 5 at once, of each source`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.measure {
            Measure::Rate {
                packets,
                seconds,
                burst,
            } => {
                let unit = match seconds {
                    1 => "a second".to_owned(),
                    60 => "a minute".to_owned(),
                    3600 => "an hour".to_owned(),
                    86_400 => "a day".to_owned(),
                    seconds => format!("in {seconds} s"),
                };
                write!(f, "{packets} packets {unit}")?;
                if *burst > 0 {
                    write!(f, " and {burst} at once")?;
                }
            }
            Measure::Connections(count) => write!(f, "{count} connections at the same time")?,
            Measure::Bytes => f.write_str("so many octets")?,
            Measure::Unknown => f.write_str("a rate of its own")?,
        }
        f.write_str(match self.per {
            Per::Everybody => ", of all the world together",
            Per::Source => ", of each source",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_its_burst_and_then_its_tokens_through() {
        let limit = |packets, seconds, burst| Limit {
            measure: Measure::Rate {
                packets,
                seconds,
                burst,
            },
            per: Per::Everybody,
            over: false,
            is_list: false,
        };
        let ten = Duration::from_secs(10);
        assert_eq!(limit(3, 60, 5).lets_through(ten), Some(5));
        assert_eq!(limit(1, 1, 5).lets_through(ten), Some(15));
        assert_eq!(limit(u64::MAX, 1, 5).lets_through(ten), Some(u64::MAX));
        let shown = limit(3, 60, 5).to_string();
        assert_eq!(
            shown,
            "3 packets a minute and 5 at once, of all the world together"
        );
    }
}
