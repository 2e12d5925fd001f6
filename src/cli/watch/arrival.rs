//! From a window's record to what came of each who came, one after the other. Pure; what it makes is
//! fit for a terminal.

use crate::cli::terminal::plain;
use crate::observe::record::{Dropped, Record, Role, Source, Visit};

/// What is to be thought of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// As it should be.
    Good,
    /// A validation got nothing.
    Bad,
    /// Nobody's matter: scans and visitors.
    Plain,
}

/// One request, or somebody whose packets came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// In milliseconds after the window's opening.
    pub at: u64,
    /// From where: an address.
    pub from: String,
    /// Its country; empty where that is not known.
    pub country: String,
    /// What is to be thought of it.
    pub mark: Mark,
    /// What came of it, in a word or two.
    pub word: String,
    /// What else is known of it; may be empty.
    pub more: String,
}

/// Everything that came in a window, the first one first.
pub fn arrivals(record: &Record) -> Vec<Arrival> {
    let mut arrivals: Vec<Arrival> = record.sources.iter().flat_map(of_source).collect();
    arrivals.sort_by_key(|arrival| arrival.at);
    arrivals
}

fn of_source(source: &Source) -> Vec<Arrival> {
    let mut arrivals: Vec<Arrival> = source
        .visits
        .iter()
        .map(|visit| of_visit(source, visit))
        .collect();
    if source.is_stopped() {
        arrivals.push(stopped(source));
    }
    arrivals
}

fn of_visit(source: &Source, visit: &Visit) -> Arrival {
    let mark = match (visit.is_answer(), source.role) {
        (true, _) => Mark::Good,
        (false, Role::Validator) if visit.verdict == "drop" => Mark::Bad,
        _ => Mark::Plain,
    };
    let mut more = Vec::new();
    more.extend(visit.status.map(|status| status.to_string()));
    more.push(took(visit.took));
    more.extend(visit.identifier.as_deref().map(plain));
    more.extend(visit.detail.as_deref().map(plain));
    Arrival {
        at: visit.at,
        from: source.address.to_string(),
        country: country(source),
        mark,
        word: plain(&visit.reason),
        more: more.join("  "),
    }
}

fn stopped(source: &Source) -> Arrival {
    let is_failure = source.is_in_earnest() && source.then.is_none();
    let packets = match source.packets {
        0 | 1 => String::new(),
        packets => format!("{packets} packets  "),
    };
    let then = source.then.map_or_else(String::new, |address| {
        format!("  then by IPv4 as {address}")
    });
    let (word, by) = match &source.dropped {
        Some(dropped) => ("dropped", rule(dropped)),
        None => ("no connection", String::new()),
    };
    Arrival {
        at: source.first,
        from: source.address.to_string(),
        country: country(source),
        mark: match is_failure {
            true => Mark::Bad,
            false => Mark::Plain,
        },
        word: word.to_owned(),
        more: format!("{packets}{by}{then}").trim().to_owned(),
    }
}

/// Where somebody was dropped, and by what.
fn rule(dropped: &Dropped) -> String {
    let what = dropped.rule.as_deref().unwrap_or("its policy");
    plain(&format!("{} {}: {what}", dropped.table, dropped.chain))
}

fn country(source: &Source) -> String {
    let place = source.place.as_ref();
    let country = place.and_then(|place| place.country.as_deref());
    country.map_or_else(String::new, plain)
}

/// A short time for people.
fn took(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        10_000..10_000_000 => format!("{} ms", micros / 1_000),
        _ => format!("{} s", micros / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_over_ipv4_after_all_is_no_failure() {
        let mut source = Source {
            address: "2001:db8::7".parse().unwrap(),
            network: "2001:db8::/32".to_owned(),
            place: None,
            role: Role::Unheard,
            first: 100,
            packets: 3,
            reached: false,
            dropped: None,
            visits: Vec::new(),
            more_visits: 0,
            then: None,
        };
        assert_eq!(stopped(&source).mark, Mark::Bad);
        source.then = Some("192.0.2.7".parse().unwrap());
        let arrival = stopped(&source);
        assert_eq!(arrival.mark, Mark::Plain);
        assert_eq!(arrival.more, "3 packets    then by IPv4 as 192.0.2.7");
        source.then = None;
        source.packets = 1;
        assert_eq!(stopped(&source).mark, Mark::Plain, "a stray");
    }
}
