//! Our whole table as a pure function of settings.
//!
//! It renders the same table twice: as netlink objects for the kernel, and as nft text for people
//! (`firewall plan`). A test in `tests/netns` loads the text and compares it with what the objects
//! made. Nothing here talks to a kernel. The rules are the ones measured to judge every packet of
//! both families, of local and of DNATed ports, without conntrack (mode `guard`), or to mark what
//! a window admitted and drop it after the grace (mode `set`).

use std::net::IpAddr;

use nlink::netlink::nftables::{
    BaseChain, Chain, ChainName, CtKey, CtState, Expr, Family as NftFamily, FibFlags, FibResult,
    Field, FilterHook, Match, MatchOp, Policy, Priority, Register, RuleSpec, Set, SetElement,
    SetKeyType, TcpFlags, Value, Verdict,
};
use nlink::netlink::types::route::RouteType;

use crate::gate::allow_list::AllowList;
use crate::gate::lease::{Families, Family};
use crate::gate::window::MAX_LEASES;

/// Our table, in family `inet`.
pub const TABLE: &str = "acmegate";
/// Who holds which lease. No rule reads it.
pub const LEASE_SET: &str = "lease";
/// The openings of the last hour. No rule reads it.
pub const BUDGET_SET: &str = "budget";
/// The most openings that the kernel remembers; above the largest budget that can be configured.
pub const BUDGET_SET_SIZE: u32 = 4096;
/// Before DNAT, so that published container ports are judged like local ones.
const GUARD_PRIORITY: i32 = -110;
/// After conntrack (-200), before any input chain that accepts what is established.
const MARK_PRIORITY: i32 = -150;

/// What the firewall is asked for: the kernel's part of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which way.
    pub mode: Mode,
    /// The guarded ports, ascending.
    pub ports: Vec<u16>,
    /// Whose packets are never judged.
    pub allow: AllowList,
    /// Ask the kernel for an owned, persistent table, where it has them (6.9).
    pub owned: bool,
}

/// How the firewall is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Our own table narrows ports that the host's firewall leaves open.
    Guard,
    /// The administrator's chain drops, but for one line that reads a set; its elements are ours.
    Set {
        /// Whose set.
        set: ForeignSet,
        /// The one bit of the connection mark that is ours.
        mark: u32,
    },
    /// Nothing in the kernel.
    GateOnly,
}

/// A set that the administrator declared: `type inet_service; flags timeout;`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignSet {
    /// The family of its table.
    pub family: NftFamily,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for ForeignSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.family.name(), self.table, self.name)
    }
}

/// One chain of ours and its rules.
#[derive(Clone, Debug)]
pub struct ChainPlan {
    /// Its name.
    pub name: &'static str,
    /// The base chain's hook and priority, or none for a regular chain.
    pub base: Option<i32>,
    /// Its rules, in order.
    pub rules: Vec<RuleSpec>,
}

/// The set of ports that new connections may come to now.
pub fn window_set(family: Family) -> Set {
    timed_set(match family {
        Family::V4 => "window4",
        Family::V6 => "window6",
    })
}

/// The set of ports whose admitted connections may live on now.
pub fn grace_set(family: Family) -> Set {
    timed_set(match family {
        Family::V4 => "grace4",
        Family::V6 => "grace6",
    })
}

/// The set of leases.
pub fn lease_set() -> Set {
    timed(LEASE_SET, SetKeyType::Mark, MAX_LEASES as u32)
}

/// The set of openings.
pub fn budget_set() -> Set {
    timed(BUDGET_SET, SetKeyType::Mark, BUDGET_SET_SIZE)
}

fn timed_set(name: &str) -> Set {
    timed(name, SetKeyType::InetService, MAX_LEASES as u32)
}

fn timed(name: &str, key: SetKeyType, size: u32) -> Set {
    Set::new(TABLE, name)
        .family(NftFamily::Inet)
        .key_type(key)
        .per_element_timeouts()
        .size(size)
}

/// Every timed set of ours, in the order they are made and listed.
pub fn timed_sets() -> Vec<Set> {
    let mut sets: Vec<Set> = Family::ALL.into_iter().map(window_set).collect();
    sets.extend(Family::ALL.into_iter().map(grace_set));
    sets.extend([lease_set(), budget_set()]);
    sets
}

impl Settings {
    /// Whether these families can be opened without opening others: a set of ports in an `inet`
    /// table opens both, and what came in unasked would not be marked, so nothing would end it.
    pub fn can_open(&self, families: Families) -> bool {
        match &self.mode {
            Mode::Set { set, .. } if set.family == NftFamily::Inet => families == Families::BOTH,
            _ => true,
        }
    }

    /// The allow-list's set of one family. Its name is a digest of its content: a list is recognised
    /// by its name and never read back (reading a million ranges takes 43 s), and a changed list is
    /// a new set, filled before any rule reads it.
    pub fn allow_set(&self, family: Family) -> Set {
        let (prefix, key) = match family {
            Family::V4 => ("allow4", SetKeyType::Ipv4Addr),
            Family::V6 => ("allow6", SetKeyType::Ipv6Addr),
        };
        Set::new(
            TABLE,
            &format!("{prefix}_{:08x}", digest(&self.allow_text(family))),
        )
        .family(NftFamily::Inet)
        .key_type(key)
        .interval()
    }

    /// The allow-list's ranges of one family, ascending.
    ///
    /// # Errors
    /// Never for a prefix that `ipnet` made; the kernel's bounds are nlink's to check.
    pub fn allow_elements(&self, family: Family) -> nlink::Result<Vec<SetElement>> {
        match family {
            Family::V4 => self
                .allow
                .v4()
                .iter()
                .map(|net| SetElement::ipv4_prefix(net.network(), net.prefix_len()))
                .collect(),
            Family::V6 => self
                .allow
                .v6()
                .iter()
                .map(|net| SetElement::ipv6_prefix(net.network(), net.prefix_len()))
                .collect(),
        }
    }

    pub(super) fn allow_text(&self, family: Family) -> Vec<String> {
        match family {
            Family::V4 => self
                .allow
                .v4()
                .iter()
                .map(|net| short(IpAddr::V4(net.network()), net.prefix_len(), 32))
                .collect(),
            Family::V6 => self
                .allow
                .v6()
                .iter()
                .map(|net| short(IpAddr::V6(net.network()), net.prefix_len(), 128))
                .collect(),
        }
    }

    /// Our chains, in the order they are made: a chain stands after those that it names.
    pub fn chains(&self) -> Vec<ChainPlan> {
        match &self.mode {
            Mode::Guard => self.guard_chains(),
            Mode::Set { mark, .. } => self.mark_chains(*mark),
            Mode::GateOnly => Vec::new(),
        }
    }

    fn guard_chains(&self) -> Vec<ChainPlan> {
        let mut decide = self.allowed();
        for family in Family::ALL {
            decide.push(rule(
                [
                    nfproto(family),
                    in_set(Field::TcpDport, window_set(family).name()),
                ],
                Some(Verdict::Accept),
            ));
        }
        for family in Family::ALL {
            // Not a first packet: it belongs to what the window admitted, or to nothing.
            let not_first = Match::new(
                Field::TcpFlags,
                MatchOp::Ne,
                Value::Masked {
                    value: u64::from(TcpFlags::SYN.bits()),
                    mask: u64::from((TcpFlags::SYN | TcpFlags::ACK).bits()),
                },
            );
            decide.push(rule(
                [
                    nfproto(family),
                    in_set(Field::TcpDport, grace_set(family).name()),
                    not_first,
                ],
                Some(Verdict::Accept),
            ));
        }
        decide.push(rule([], Some(Verdict::Drop)));
        vec![
            ChainPlan {
                name: "decide",
                base: None,
                rules: decide,
            },
            ChainPlan {
                name: "guard",
                base: Some(GUARD_PRIORITY),
                rules: self.to("decide"),
            },
        ]
    }

    fn mark_chains(&self, mark: u32) -> Vec<ChainPlan> {
        let mut judge = self.allowed();
        for family in Family::ALL {
            let set = window_set(family);
            let admitted = rule(
                [
                    nfproto(family),
                    Match::eq(Field::CtState, Value::CtState(CtState::NEW)),
                    in_set(Field::TcpDport, set.name()),
                ],
                None,
            );
            judge.push(
                set_mark_bit(mark)
                    .into_iter()
                    .fold(admitted, RuleSpec::then),
            );
        }
        for family in Family::ALL {
            let ours = Match::eq(
                Field::CtMark,
                Value::Masked {
                    value: u64::from(mark),
                    mask: u64::from(mark),
                },
            );
            let grace = grace_set(family);
            judge.push(rule(
                [
                    nfproto(family),
                    ours,
                    Match::new(Field::TcpDport, MatchOp::Ne, Value::set(grace.name())),
                ],
                Some(Verdict::Drop),
            ));
        }
        vec![
            ChainPlan {
                name: "judge",
                base: None,
                rules: judge,
            },
            ChainPlan {
                name: "admit",
                base: Some(MARK_PRIORITY),
                rules: self.to("judge"),
            },
        ]
    }

    fn allowed(&self) -> Vec<RuleSpec> {
        let of = |family, field| {
            let set = self.allow_set(family);
            rule(
                [Match::eq(field, Value::IntervalSet(set.name().to_owned()))],
                Some(Verdict::Accept),
            )
        };
        vec![
            of(Family::V4, Field::Ip4Saddr),
            of(Family::V6, Field::Ip6Saddr),
        ]
    }

    /// Sends packets for a guarded port of this host to `chain`. The loopback interface stays out
    /// of it, or the host's own probes would be cut.
    fn to(&self, chain: &'static str) -> Vec<RuleSpec> {
        let goto = ChainName::new(chain).map(Verdict::GotoTo).ok();
        self.ports
            .iter()
            .map(|port| {
                rule(
                    [
                        Match::new(Field::Iifname, MatchOp::Ne, "lo"),
                        Match::eq(Field::TcpDport, *port),
                        Match::eq(
                            Field::Fib {
                                flags: FibFlags::DADDR,
                                result: FibResult::AddrType,
                            },
                            RouteType::Local,
                        ),
                    ],
                    goto.clone(),
                )
            })
            .collect()
    }
}

impl ChainPlan {
    /// The chain as the kernel takes it.
    ///
    /// # Errors
    /// Never: the names are ours.
    pub fn to_chain(&self) -> nlink::Result<Chain> {
        let chain = Chain::new(TABLE, self.name)?.family(NftFamily::Inet);
        Ok(match self.base {
            Some(priority) => chain.base(
                BaseChain::filter(FilterHook::Prerouting, Priority::Custom(priority))
                    .policy(Policy::Accept),
            ),
            None => chain,
        })
    }
}

fn rule<const N: usize>(matches: [Match; N], verdict: Option<Verdict>) -> RuleSpec {
    let spec = matches.into_iter().fold(RuleSpec::new(), RuleSpec::then);
    verdict.into_iter().fold(spec, RuleSpec::then)
}

fn nfproto(family: Family) -> Match {
    const NFPROTO_IPV4: u8 = 2;
    const NFPROTO_IPV6: u8 = 10;
    Match::eq(
        Field::NfProto,
        match family {
            Family::V4 => NFPROTO_IPV4,
            Family::V6 => NFPROTO_IPV6,
        },
    )
}

fn in_set(field: Field, set: &str) -> Match {
    Match::eq(field, Value::set(set))
}

/// `ct mark set ct mark | bit`: every other bit stays as it is.
fn set_mark_bit(bit: u32) -> Vec<Expr> {
    vec![
        Expr::Ct {
            dreg: Register::R0,
            key: CtKey::Mark,
        },
        Expr::Bitwise {
            sreg: Register::R0,
            dreg: Register::R0,
            len: 4,
            mask: (!bit).to_ne_bytes().to_vec(),
            xor: bit.to_ne_bytes().to_vec(),
        },
        Expr::CtSet {
            key: CtKey::Mark,
            sreg: Register::R0,
        },
    ]
}

fn short(address: IpAddr, length: u8, whole: u8) -> String {
    if length == whole {
        address.to_string()
    } else {
        format!("{address}/{length}")
    }
}

/// The rule as `nft list ruleset` prints it. Everything that we write can be printed (a test goes
/// through all modes), so the empty text of an unprintable rule equals no rule of ours.
pub fn rule_text(rule: &RuleSpec) -> String {
    rule.nft_syntax_stateless(NftFamily::Inet)
        .unwrap_or_default()
}

/// FNV-1a, 32 bits: names a list, protects nothing.
fn digest(lines: &[String]) -> u32 {
    let bytes = lines.iter().flat_map(|line| line.bytes().chain([b'\n']));
    bytes.fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(mode: Mode) -> Settings {
        Settings {
            mode,
            ports: vec![80, 443],
            allow: AllowList::new(AllowList::local()),
            owned: true,
        }
    }

    fn set_mode() -> Mode {
        Mode::Set {
            set: ForeignSet {
                family: NftFamily::Inet,
                table: "filter".to_owned(),
                name: "acmegate".to_owned(),
            },
            mark: 0x0800_0000,
        }
    }

    #[test]
    fn every_rule_can_be_printed() {
        for mode in [Mode::Guard, set_mode()] {
            for chain in settings(mode).chains() {
                for rule in &chain.rules {
                    assert_ne!(rule_text(rule), "", "{rule:?}");
                }
            }
        }
    }

    #[test]
    fn the_guard_as_people_read_it() {
        insta::assert_snapshot!("guard", settings(Mode::Guard).to_nft());
    }

    #[test]
    fn the_set_mode_as_people_read_it() {
        insta::assert_snapshot!("set", settings(set_mode()).to_nft());
    }

    #[test]
    fn a_list_is_known_by_its_name() {
        let one = settings(Mode::Guard);
        let mut other = one.clone();
        other.allow = AllowList::new(["192.0.2.0/24".parse().unwrap()]);
        assert_ne!(
            one.allow_set(Family::V4).name(),
            other.allow_set(Family::V4).name()
        );
    }
}
