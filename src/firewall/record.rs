//! A lease as one line of text: the comment of its element in the kernel, where it survives every
//! process, and what `nft list` shows an operator.
//!
//! `NAME UID TRIGGER PORTS FAMILIES COVERS HOLDER`, at most 127 octets (nftables' bound for
//! comments). A `+` behind the families says that not every way is open: which one is, stands in
//! the comment of a second element, for it does not fit into the first. Identifiers are not in it:
//! an adopted lease that was bound to identifiers covers none of them, so that a crash closes more
//! than it opens.

use std::time::{Duration, Instant};

use crate::gate::lease::{
    Entrance, Families, Holder, Interface, Lease, LeaseName, MAX_COMMAND_BYTES, MAX_PORTS, Scope,
    Trigger,
};
use crate::gate::usage::{Account, Slot, Span};

/// Writes what survives of a lease, without its deadline: the element's timeout is that.
pub fn to_comment(lease: &Lease) -> String {
    let ports: Vec<String> = lease.scope.ports.iter().map(u16::to_string).collect();
    let families = match lease.scope.families {
        Families {
            v4: true,
            v6: false,
        } => "4",
        Families {
            v4: false,
            v6: true,
        } => "6",
        _ => "46",
    };
    let entrance = match lease.scope.entrance {
        Entrance::Any => "",
        Entrance::Address(_) | Entrance::Interface(_) => "+",
    };
    let trigger = match lease.trigger {
        Trigger::Asked => "asked",
        Trigger::Automatic => "auto",
    };
    let covers = if lease.scope.identifiers.is_none() {
        "all"
    } else {
        "some"
    };
    let holder = lease.holder.as_ref().map_or_else(
        || "-".to_owned(),
        |holder| format!("{}@{}/{}", holder.pid, holder.start_ticks, holder.command),
    );
    format!(
        "{} {} {trigger} {} {families}{entrance} {covers} {holder}",
        lease.name,
        lease.caller,
        ports.join(","),
    )
}

/// Writes where a lease opens, if not everywhere: an address, or an interface and its number.
pub fn entrance_comment(entrance: &Entrance) -> Option<String> {
    match entrance {
        Entrance::Any => None,
        Entrance::Address(address) => Some(address.to_string()),
        Entrance::Interface(interface) => {
            Some(format!("{}/{}", interface.name(), interface.index()))
        }
    }
}

fn entrance(comment: &str) -> Option<Entrance> {
    if let Some((name, index)) = comment.split_once('/') {
        let interface = Interface::parse(name)?.numbered(index.parse().ok()?);
        return Some(Entrance::Interface(interface));
    }
    comment.parse().ok().map(Entrance::Address)
}

/// Writes what survives of a slot of time, without when it is forgotten: `SPAN MILLISECONDS` of all
/// windows, with `NAME UID` behind it of a lease name. Identifiers are not the kernel's.
pub fn time_comment(account: &Account, slot: &Slot) -> Option<String> {
    // A part of one counts whole.
    let millis = slot.spent.as_nanos().div_ceil(1_000_000);
    let span = slot.span.word();
    match account {
        Account::Total => Some(format!("{span} {millis}")),
        Account::Lease(name, caller) => Some(format!("{span} {millis} {name} {caller}")),
        Account::Identifier(_) => None,
    }
}

/// Reads such a line back.
pub fn time_from_comment(comment: &str) -> Option<(Account, Span, Duration)> {
    let mut words = comment.split(' ');
    let span = words.next()?;
    let span = Span::ALL.into_iter().find(|known| known.word() == span)?;
    let spent = Duration::from_millis(words.next()?.parse().ok()?);
    let account = match words.next() {
        None => Account::Total,
        Some(name) => Account::Lease(LeaseName::parse(name)?, words.next()?.parse().ok()?),
    };
    (words.next().is_none() && spent <= span.slot()).then_some((account, span, spent))
}

/// Reads a lease's line back, with that of the second element where the lease has one; `None` when
/// they are not ours, or one of them is missing: then the lease is not taken over, and shut.
pub fn from_comment(comment: &str, at: Option<&str>, deadline: Instant) -> Option<Lease> {
    let mut words = comment.split(' ');
    let name = LeaseName::parse(words.next()?)?;
    let caller = words.next()?.parse().ok()?;
    let trigger = match words.next()? {
        "asked" => Trigger::Asked,
        "auto" => Trigger::Automatic,
        _ => return None,
    };
    let ports: Vec<u16> = words
        .next()?
        .split(',')
        .map(|port| port.parse().ok())
        .collect::<Option<_>>()?;
    if ports.len() > MAX_PORTS {
        return None;
    }
    let families = words.next()?;
    let (families, entrance) = match families.strip_suffix('+') {
        Some(families) => (families, entrance(at?)?),
        None => (families, Entrance::Any),
    };
    let families = match families {
        "4" => Families {
            v4: true,
            v6: false,
        },
        "6" => Families {
            v4: false,
            v6: true,
        },
        "46" => Families::BOTH,
        _ => return None,
    };
    let identifiers = match words.next()? {
        "all" => None,
        "some" => Some(Vec::new()),
        _ => return None,
    };
    let holder = match words.next()? {
        "-" => None,
        text => Some(holder(text)?),
    };
    words.next().is_none().then_some(Lease {
        id: 0,
        name,
        holder,
        caller,
        trigger,
        scope: Scope {
            ports,
            families,
            entrance,
            identifiers,
        },
        deadline,
    })
}

fn holder(text: &str) -> Option<Holder> {
    let (pid, rest) = text.split_once('@')?;
    let (start_ticks, command) = rest.split_once('/')?;
    let holder = Holder {
        pid: pid.parse().ok()?,
        start_ticks: start_ticks.parse().ok()?,
        command: command_name(command),
    };
    holder.is_possible().then_some(holder)
}

/// A command name as a record can hold it: printable ASCII without spaces, cut to what the kernel
/// keeps; everything else becomes `?`.
pub fn command_name(text: &str) -> String {
    text.chars()
        .take(MAX_COMMAND_BYTES)
        .map(|character| {
            if character.is_ascii_graphic() {
                character
            } else {
                '?'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gate::lease::{MAX_PID, MAX_START_TICKS};

    #[test]
    fn the_longest_record_fits_a_comment() {
        let lease = Lease {
            id: 0,
            name: LeaseName::parse(&"n".repeat(40)).unwrap(),
            holder: Some(Holder {
                pid: MAX_PID,
                start_ticks: MAX_START_TICKS,
                command: "c".repeat(15),
            }),
            caller: u32::MAX,
            trigger: Trigger::Automatic,
            scope: Scope {
                ports: vec![65535; 4],
                families: Families::BOTH,
                entrance: Entrance::Address(
                    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe".parse().unwrap(),
                ),
                identifiers: Some(vec![]),
            },
            deadline: Instant::now(),
        };
        let comment = to_comment(&lease);
        assert!(comment.len() <= 127, "{}", comment.len());
        let entrance = entrance_comment(&lease.scope.entrance);
        let back = from_comment(&comment, entrance.as_deref(), lease.deadline);
        assert_eq!(back, Some(lease));
    }

    #[test]
    fn what_is_not_a_record_is_not_read() {
        let now = Instant::now();
        for text in [
            "",
            "a",
            "a 0 asked 80 46 all - x",
            "a 0 asked 80 46 all",
            "a -1 asked 80 46 all -",
            "a/b 0 asked 80 46 all -",
            "a 0 asked 80 46 all 0@1/c",
            "a 0 asked 80 46 all 4194305@1/c",
            "a 0 asked 80 46 all 1@1000000000000/c",
            // What says that not every way is open, and not which one is.
            "a 0 asked 80 46+ all -",
        ] {
            assert_eq!(from_comment(text, None, now), None, "{text}");
        }
    }

    #[test]
    fn a_lease_of_one_way_is_not_taken_over_without_it() {
        let now = Instant::now();
        let record = "a 0 asked 80 46+ all -";
        for wrong in ["", "eth0", "/1", "eth0/", "eth0/-1", "192.0.2", "any"] {
            assert_eq!(from_comment(record, Some(wrong), now), None, "{wrong}");
        }
        assert!(from_comment(record, Some("192.0.2.1"), now).is_some());
    }

    #[test]
    fn the_time_of_all_and_of_a_name_reads_back() {
        let slot = |span, spent| Slot {
            id: 1,
            span,
            spent,
            forgotten_at: Instant::now(),
        };
        let name = LeaseName::parse(&"n".repeat(40)).unwrap();
        for account in [Account::Total, Account::Lease(name, u32::MAX)] {
            for span in Span::ALL {
                let comment = time_comment(&account, &slot(span, span.slot())).unwrap();
                assert!(comment.len() <= 127, "{comment}");
                let read = time_from_comment(&comment);
                assert_eq!(read, Some((account.clone(), span, span.slot())));
            }
        }
        let part = slot(Span::Day, Duration::from_nanos(1_000_001));
        let comment = time_comment(&Account::Total, &part).unwrap();
        assert_eq!(comment, "day 2", "a part of a millisecond is not lost");
        for text in [
            "",
            "day",
            "week 1",
            "day -1",
            "day 1 a",
            "day 1 a/b 0",
            "day 1 a -1",
            "day 1 a 0 x",
            "day  1",
            "day 14400001",
        ] {
            assert_eq!(time_from_comment(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_record_reads_back(
            name in "[A-Za-z0-9._:@+][A-Za-z0-9._:@+-]{0,39}", caller in any::<u32>(), automatic in any::<bool>(),
            ports in prop::collection::vec(1u16.., 1..=4), family in 0usize..3, some in any::<bool>(),
            holder in prop::option::of((1..=MAX_PID, any::<u32>(), "[!-~]{0,15}")), seconds in 0u64..100,
            entrance in 0usize..3, interface in "[a-z][a-z0-9.@-]{0,14}", number in any::<u32>(), address in any::<u128>(),
        ) {
            let deadline = Instant::now() + Duration::from_secs(seconds);
            let lease = Lease {
                id: 0,
                name: LeaseName::parse(&name).unwrap(),
                holder: holder.map(|(pid, start, command)| Holder { pid, start_ticks: start.into(), command }),
                caller,
                trigger: if automatic { Trigger::Automatic } else { Trigger::Asked },
                scope: Scope {
                    ports,
                    families: [Families::BOTH, Families { v4: true, v6: false }, Families { v4: false, v6: true }][family],
                    entrance: match entrance {
                        0 => Entrance::Any,
                        1 => Entrance::Address(std::net::Ipv6Addr::from(address).into()),
                        _ => Entrance::Interface(Interface::parse(&interface).unwrap().numbered(number)),
                    },
                    identifiers: some.then(Vec::new),
                },
                deadline,
            };
            let entrance = entrance_comment(&lease.scope.entrance);
            prop_assert_eq!(from_comment(&to_comment(&lease), entrance.as_deref(), deadline), Some(lease));
        }
    }
}
