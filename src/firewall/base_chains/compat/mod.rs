//! The matches and targets of iptables that `iptables-nft` keeps as they were.
//!
//! Such an expression is a name, a revision and the C structure of `linux/netfilter/xt_*.h` in
//! the machine's byte order. The ones that firewalls are made of (ufw, Docker, fail2ban) are put
//! into the same steps as nftables' own; every other one may match or not.

mod matches;
mod targets;

use nlink::netlink::attr::AttrIter;

use super::step::{End, Step};

pub(super) use matches::STATE_TRANSLATED;

/// `NFTA_MATCH_NAME` and `NFTA_TARGET_NAME`, `…_REV`, `…_INFO`: the same numbers.
const NAME: u16 = 1;
const REVISION: u16 = 2;
const INFO: u16 = 3;

/// Where the steps made here keep what they compare; an iptables rule has nothing else there.
const SCRATCH: usize = 0;

/// The steps of an expression that nlink gives as `name` and its undecoded attributes.
pub(super) fn steps(name: &str, data: &[u8]) -> Vec<Step> {
    match name {
        "match" => xt(data).map_or(vec![Step::Unsure], |xt| matches::steps(&xt)),
        "target" => xt(data).map_or(vec![Step::End(End::Unknown)], |xt| targets::steps(&xt)),
        // A verdict that nlink does not model: a queue's.
        "immediate" => vec![Step::End(End::Unknown)],
        _ => vec![Step::Unsure],
    }
}

struct Xt<'a> {
    name: &'a str,
    revision: u32,
    info: &'a [u8],
}

fn xt(data: &[u8]) -> Option<Xt<'_>> {
    let (mut name, mut revision, mut info) = (None, 0, &[][..]);
    for (kind, payload) in AttrIter::new(data) {
        match kind {
            NAME => name = payload.split(|b| *b == 0).next(),
            REVISION => revision = u32::from_be_bytes(payload.try_into().ok()?),
            INFO => info = payload,
            _ => {}
        }
    }
    Some(Xt {
        name: std::str::from_utf8(name?).ok()?,
        revision,
        info,
    })
}

impl Xt<'_> {
    fn u8(&self, at: usize) -> Option<u8> {
        self.info.get(at).copied()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        Some(u16::from_ne_bytes(
            self.info.get(at..at + 2)?.try_into().ok()?,
        ))
    }

    fn u64(&self, at: usize) -> Option<u64> {
        Some(u64::from_ne_bytes(
            self.info.get(at..at + 8)?.try_into().ok()?,
        ))
    }

    fn u32(&self, at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(
            self.info.get(at..at + 4)?.try_into().ok()?,
        ))
    }
}

/// `(SCRATCH & mask) ^ xor`
fn masking(mask: u32, xor: u32) -> Step {
    Step::Mask {
        from: SCRATCH,
        to: SCRATCH,
        mask: mask.to_ne_bytes().to_vec(),
        xor: xor.to_ne_bytes().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use nlink::netlink::nftables::CmpOp;

    use super::super::step::{End, Step};
    use super::{INFO, NAME, REVISION, steps};

    /// An expression's data as the kernel dumps it.
    fn dumped(name: &str, revision: u32, info: &[u8]) -> Vec<u8> {
        let mut data = Vec::new();
        let name = [name.as_bytes(), &[0]].concat();
        let revision = revision.to_be_bytes();
        for (kind, payload) in [(NAME, &name[..]), (REVISION, &revision), (INFO, info)] {
            let len = u16::try_from(4 + payload.len()).expect("a short attribute");
            data.extend(len.to_ne_bytes());
            data.extend(kind.to_ne_bytes());
            data.extend(payload);
            data.resize(data.len().next_multiple_of(4), 0);
        }
        data
    }

    const MATCHES: [&str; 15] = [
        "conntrack",
        "state",
        "tcp",
        "multiport",
        "addrtype",
        "pkttype",
        "mark",
        "connmark",
        "connlimit",
        "hashlimit",
        "recent",
        "set",
        "iprange",
        "udp",
        "never-heard-of",
    ];
    const TARGETS: [&str; 6] = ["REJECT", "CT", "MARK", "CONNMARK", "DNAT", "NEVER-HEARD-OF"];

    #[test]
    fn a_structure_of_any_length_and_revision_is_read_or_left_unsure() {
        for revision in 0..6 {
            for len in 0..320 {
                for info in [vec![0; len], vec![0xff; len]] {
                    for name in MATCHES {
                        assert!(!steps("match", &dumped(name, revision, &info)).is_empty());
                    }
                    for name in TARGETS {
                        let _ = steps("target", &dumped(name, revision, &info));
                    }
                }
            }
        }
    }

    #[test]
    fn a_dump_cut_anywhere_is_no_panic() {
        let whole = dumped("multiport", 1, &[1; 48]);
        for end in 0..whole.len() {
            let _ = steps("match", &whole[..end]);
            let _ = steps("target", &whole[..end]);
        }
    }

    #[test]
    fn what_is_not_known_by_name_is_not_guessed_at() {
        assert_eq!(steps("match", &dumped("u32", 0, &[0; 64])), [Step::Unsure]);
        assert_eq!(
            steps("match", &dumped("conntrack", 9, &[0; 200])),
            [Step::Tracked, Step::Unsure]
        );
        assert_eq!(
            steps("target", &dumped("XYZ", 0, &[])),
            [Step::End(End::Unknown)]
        );
        assert_eq!(steps("tunnel", &[]), [Step::Unsure]);
        assert_eq!(steps("immediate", &[]), [Step::End(End::Unknown)]);
    }

    #[test]
    fn the_type_of_an_address_is_asked_for_where_it_can_be_either() {
        let dumped = |sources: u16, destinations: u16, flags: u32| {
            let info = [
                &sources.to_ne_bytes()[..],
                &destinations.to_ne_bytes(),
                &flags.to_ne_bytes(),
            ];
            steps("match", &dumped("addrtype", 1, &info.concat()))
        };
        const UNICAST: u16 = 1 << 1;
        const LOCAL: u16 = 1 << 2;
        const INVERT_DESTINATION: u32 = 2;
        let compared = |steps: &[Step]| match steps {
            [
                Step::Matches(true),
                Step::Load { .. },
                Step::Compare { op, bytes, .. },
            ] => Some((*op, bytes.clone())),
            _ => None,
        };
        let local = 2_u32.to_ne_bytes().to_vec();
        assert_eq!(
            compared(&dumped(0, LOCAL, 0)),
            Some((CmpOp::Eq, local.clone()))
        );
        assert_eq!(
            compared(&dumped(UNICAST, LOCAL, INVERT_DESTINATION)),
            Some((CmpOp::Neq, local))
        );
        assert_eq!(dumped(0, 0, 0), [Step::Matches(true)]);
        assert_eq!(dumped(LOCAL, 0, 0), [Step::Matches(false)]);
        assert_eq!(
            dumped(0, UNICAST | LOCAL, INVERT_DESTINATION),
            [Step::Matches(true), Step::Matches(false)]
        );
    }

    #[test]
    fn whatever_looks_at_connections_makes_the_kernel_track_them() {
        let is_tracked =
            |kind, name| steps(kind, &dumped(name, 1, &[0; 32])).contains(&Step::Tracked);
        for name in [
            "conntrack",
            "state",
            "connlimit",
            "connmark",
            "connbytes",
            "helper",
        ] {
            assert!(is_tracked("match", name), "{name}");
        }
        for name in ["CONNMARK", "CONNSECMARK", "MASQUERADE", "SNAT"] {
            assert!(is_tracked("target", name), "{name}");
        }
        for (kind, name) in [("match", "tcp"), ("match", "recent"), ("target", "MARK")] {
            assert!(!is_tracked(kind, name), "{name}");
        }
    }

    #[test]
    fn a_set_of_sources_holds_no_unlisted_one() {
        // index, dimensions, flags: `src`, `! src`, `dst`
        let set = |flags| steps("match", &dumped("set", 4, &[7, 0, 1, flags]));
        assert_eq!(set(0b010), [Step::MatchesUnlisted(false)]);
        assert_eq!(set(0b011), [Step::MatchesUnlisted(true)]);
        assert_eq!(set(0b000), [Step::Unsure]);
    }
}
