//! Which two sources are one perspective: CAs try IPv6 first, and IPv4 once that has failed.
//!
//! Nobody says so on the wire, so it is a likelihood: where it cannot be told, nothing is said.
//! (Boulder's dialler gives IPv6 ten seconds and turns to IPv4 after an error of the connection alone.)

use std::net::IpAddr;

use super::record::{Place, Role, Source};

/// How much later than its first packet over IPv6 a perspective comes over IPv4: ten seconds, and as
/// many again for the way.
const LATEST_MILLIS: u64 = 20_000;

/// Fills [`Source::then`] of sources that failed over IPv6; `sources` are in the order of their first
/// packets.
pub(super) fn pair(sources: &mut [Source]) {
    for source in sources.iter_mut() {
        source.then = None;
    }
    let mut taken: Vec<IpAddr> = Vec::new();
    for at in 0..sources.len() {
        let source = &sources[at];
        if !source.address.is_ipv6() || !source.is_stopped() {
            continue;
        }
        let mut candidates = sources.iter().filter(|other| {
            other.address.is_ipv4()
                && other.role == Role::Validator
                && (source.first..=source.first.saturating_add(LATEST_MILLIS))
                    .contains(&other.first)
                && !taken.contains(&other.address)
                && !has_own_ipv6(sources, other)
                && are_near(source.place.as_ref(), other.place.as_ref()) != Some(false)
        });
        let first = candidates.next().map(|other| {
            let near = are_near(source.place.as_ref(), other.place.as_ref());
            (other.address, near == Some(true))
        });
        // Without data only the one that is there can be meant.
        let is_alone = candidates.next().is_none();
        if let Some((address, _)) = first.filter(|(_, is_near)| *is_near || is_alone) {
            taken.push(address);
            sources[at].then = Some(address);
        }
    }
}

/// Whether another source of the same place came over IPv6 and got through: then that one is its own.
fn has_own_ipv6(sources: &[Source], of: &Source) -> bool {
    sources.iter().any(|other| {
        other.address.is_ipv6()
            && other.role == Role::Validator
            && are_near(other.place.as_ref(), of.place.as_ref()) == Some(true)
    })
}

/// Whether two places are one, as far as can be told.
fn are_near(one: Option<&Place>, other: Option<&Place>) -> Option<bool> {
    let (one, other) = (one?, other?);
    let same = |a: Option<String>, b: Option<String>| Some(a? == b?);
    let number = |place: &Place| place.autonomous_system.map(|number| number.to_string());
    let country = same(one.country.clone(), other.country.clone());
    match (country, same(number(one), number(other))) {
        (None, None) => None,
        (country, system) => Some(country.unwrap_or(true) && system.unwrap_or(true)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(address: &str, first: u64, country: Option<&str>) -> Source {
        let address: IpAddr = address.parse().unwrap();
        let came = address.is_ipv4();
        Source {
            address,
            network: String::new(),
            place: country.map(|country| Place {
                country: Some(country.to_owned()),
                ..Place::default()
            }),
            role: if came { Role::Validator } else { Role::Unheard },
            first,
            packets: 2,
            reached: came,
            dropped: None,
            visits: Vec::new(),
            more_visits: 0,
            then: None,
        }
    }

    fn paired(mut sources: Vec<Source>) -> Vec<Option<String>> {
        pair(&mut sources);
        let then = sources.into_iter().map(|source| source.then);
        then.map(|then| then.map(|address| address.to_string()))
            .collect()
    }

    #[test]
    fn the_one_that_came_over_ipv4_afterwards_is_the_same() {
        let told = paired(vec![
            source("2001:db8::7", 100, None),
            source("192.0.2.7", 10_150, None),
        ]);
        assert_eq!(told, [Some("192.0.2.7".to_owned()), None]);
    }

    #[test]
    fn one_of_two_is_the_same_only_where_it_can_be_told() {
        let both = |countries: [Option<&str>; 3]| {
            paired(vec![
                source("2001:db8::7", 100, countries[0]),
                source("192.0.2.7", 9000, countries[1]),
                source("198.51.100.7", 10_000, countries[2]),
            ])
        };
        assert_eq!(both([None; 3]), [None, None, None]);
        assert_eq!(
            both([Some("JP"), Some("DE"), Some("JP")])[0].as_deref(),
            Some("198.51.100.7")
        );
    }

    #[test]
    fn one_that_is_another_perspectives_own_is_nobody_elses() {
        let there = |address, first| source(address, first, Some("JP"));
        let told = paired(vec![
            there("2001:db8::7", 100),
            there("2001:db8:1::7", 200),
            there("192.0.2.7", 9000),
        ]);
        let one = Some("192.0.2.7".to_owned());
        assert_eq!(told, [one, None, None], "it is the first one's");
        let got_through = Source {
            role: Role::Validator,
            reached: true,
            ..there("2001:db8:1::7", 200)
        };
        let told = paired(vec![
            there("2001:db8::7", 100),
            got_through,
            there("192.0.2.7", 9000),
        ]);
        assert_eq!(told, [None, None, None], "who got through came twice");
    }

    #[test]
    fn who_came_before_or_much_later_is_somebody_else() {
        for first in [99, 100 + LATEST_MILLIS + 1] {
            let mut all = vec![
                source("2001:db8::7", 100, None),
                source("192.0.2.7", first, None),
            ];
            all.sort_by_key(|source| source.first);
            assert_eq!(paired(all), [None, None], "{first}");
        }
    }
}
