//! A lease as one line of text: the comment of its element in the kernel, where it survives every
//! process, and what `nft list` shows an operator.
//!
//! `NAME UID TRIGGER PORTS FAMILIES COVERS HOLDER`, at most 127 octets (nftables' bound for
//! comments). Identifiers are not in it: an adopted lease that was bound to identifiers covers
//! none of them, so that a crash closes more than it opens.

use std::time::Instant;

use crate::gate::lease::{
    Families, Holder, Lease, LeaseName, MAX_COMMAND_BYTES, MAX_PORTS, Scope, Trigger,
};

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
        "{} {} {trigger} {} {families} {covers} {holder}",
        lease.name,
        lease.caller,
        ports.join(","),
    )
}

/// Reads such a line back; `None` when it is not one of ours.
pub fn from_comment(comment: &str, deadline: Instant) -> Option<Lease> {
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
    let families = match words.next()? {
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
    use std::time::Duration;

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
                identifiers: Some(vec![]),
            },
            deadline: Instant::now(),
        };
        let comment = to_comment(&lease);
        assert!(comment.len() <= 127, "{}", comment.len());
        assert_eq!(from_comment(&comment, lease.deadline), Some(lease));
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
        ] {
            assert_eq!(from_comment(text, now), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_record_reads_back(
            name in "[A-Za-z0-9._:@+-]{1,40}", caller in any::<u32>(), automatic in any::<bool>(),
            ports in prop::collection::vec(1u16.., 1..=4), family in 0usize..3, some in any::<bool>(),
            holder in prop::option::of((1..=MAX_PID, any::<u32>(), "[!-~]{0,15}")), seconds in 0u64..100,
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
                    identifiers: some.then(Vec::new),
                },
                deadline,
            };
            prop_assert_eq!(from_comment(&to_comment(&lease), deadline), Some(lease));
        }
    }
}
