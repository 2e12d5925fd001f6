//! Our chains and rules as a pure function of settings.
//!
//! They are rendered twice: as netlink objects for the kernel, and as nft text for people
//! (`firewall plan`). A test in `tests/netns` loads the text and compares it with what the objects
//! made. Nothing here talks to a kernel.
//!
//! | mode | chain | what it does with a packet for a guarded port of this host, off the allow-list |
//! | --- | --- | --- |
//! | `guard` | `guard` → `decide` | judges every packet, without conntrack |
//! | `set` | `admit` → `judge` | marks the connections that a window admits, and shuts them after its grace |
//! | `attach` | `tag` → `stamp` | marks packets by window and grace, before any chain that might drop them |
//! | | `admit` → `judge` | as in `set` |
//! | all, for diverted ports | `untrack` → `bypass` | keeps what the gate gets away from conntrack, and so from DNAT |
//! | | `divert` → `deliver` | hands it to the gate; with the gate dead it goes nowhere |
//! | | `answers` | keeps what the gate sends away from conntrack, and so from masquerading |
//! | all, if observed | `watch` `settle` `cross` | see `rules/observe.rs`: they count, and judge nothing |
//! | all, if limited | `confine` → `reach` | see `rules/confine.rs`: what the account of our own processes sends |
//!
//! Each base chain takes its own ports: `guard` and `admit` those that are not diverted, `untrack`,
//! `divert` and `answers` those that are, `tag` all. A group of chains without a port does not stand.

mod confine;
mod divert;
mod observe;
mod words;

use nlink::netlink::nftables::{
    BaseChain, Chain, ChainName, CtState, Family as NftFamily, Field, FilterHook, Match, Policy,
    Priority, RuleSpec, Value, Verdict,
};

pub(super) use self::confine::CONFINERS;
use self::observe::OBSERVERS;
use self::words::{
    Mark, bit, doors, end, is_local, is_not_first, is_outer, nfproto, rule, set_bit,
};
use super::names::{OPENED_SET, TABLE, TAG};
use super::ruleset::{Closed, Doors, Mode, Settings, Shut};
use crate::gate::lease::Family;

/// Before DNAT (-100), so that published container ports are judged like local ones.
const GUARD_PRIORITY: i32 = -110;
/// After conntrack (-200), before mangle (-150), geo-blockers, and every input chain.
const ADMIT_PRIORITY: i32 = -190;
/// Before raw (-300), where the first of other people's chains stand.
pub(super) const TAG_PRIORITY: i32 = -310;
/// Raw: before conntrack.
const UNTRACK_PRIORITY: i32 = -300;
/// After mangle (-150), before DNAT.
const DIVERT_PRIORITY: i32 = -149;

/// The hooks of our base chains, by the kernel's numbers (`NF_INET_…` of linux/netfilter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// What comes in, before it is routed.
    Prerouting = 0,
    /// What is for this host.
    Input = 1,
    /// What this host sends.
    Output = 3,
}

/// The names of every chain that is made, or taken away, while all else stands: a base chain is named
/// before the one that it leads to, and so on. In this order they can be taken away.
pub(super) fn optional_chains() -> impl Iterator<Item = &'static str> {
    OBSERVERS.into_iter().chain(CONFINERS)
}

/// Where a base chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// Its hook.
    pub hook: Hook,
    /// Its place among the chains of that hook: lower comes first.
    pub priority: i32,
}

/// One chain of ours and its rules.
#[derive(Clone, Debug)]
pub struct ChainPlan {
    /// Its name.
    pub name: &'static str,
    /// Where a base chain stands, or none for a regular chain.
    pub base: Option<Base>,
    /// Its rules, in order.
    pub rules: Vec<RuleSpec>,
}

impl Settings {
    /// Our chains, in the order they are made: a chain stands after those that it names.
    pub fn chains(&self) -> Vec<ChainPlan> {
        let mut chains = self.observation();
        if self.mode == Mode::GateOnly {
            return chains;
        }
        let mut pair = |inner, rules, outer, priority, ports: &[u16]| {
            chains.push(ChainPlan {
                name: inner,
                base: None,
                rules,
            });
            chains.push(ChainPlan {
                name: outer,
                base: Some(Base {
                    hook: Hook::Prerouting,
                    priority,
                }),
                rules: to(inner, ports),
            });
        };
        let diverted: Vec<u16> = self.divert.iter().map(|divert| divert.port).collect();
        let plain: Vec<u16> = self.plain_ports().collect();
        if matches!(self.mode, Mode::Attach(_)) {
            pair(
                "stamp",
                self.stamp_rules(),
                "tag",
                TAG_PRIORITY,
                &self.ports,
            );
        }
        if !diverted.is_empty() {
            let (bypass, deliver) = (self.bypass_rules(), self.deliver_rules());
            pair("bypass", bypass, "untrack", UNTRACK_PRIORITY, &diverted);
            pair("deliver", deliver, "divert", DIVERT_PRIORITY, &diverted);
        }
        if !plain.is_empty() {
            // Nothing stands behind a port of the gate's own that a packet could go on to.
            let firm = self.firmly();
            if self.mode == Mode::Guard {
                pair(
                    "decide",
                    firm.guard_rules(),
                    "guard",
                    GUARD_PRIORITY,
                    &plain,
                );
            } else {
                pair("judge", firm.judge_rules(), "admit", ADMIT_PRIORITY, &plain);
            }
        }
        if !diverted.is_empty() {
            chains.push(ChainPlan {
                name: "answers",
                base: Some(Base {
                    hook: Hook::Output,
                    priority: UNTRACK_PRIORITY,
                }),
                rules: self.answers_rules(),
            });
        }
        chains.extend(self.confinement());
        chains
    }

    fn guard_rules(&self) -> Vec<RuleSpec> {
        let mut rules = self.allowed();
        for door in doors(Doors::Window) {
            rules.push(rule([door], [], Verdict::Accept));
        }
        for door in doors(Doors::Grace) {
            rules.push(rule([door, vec![is_not_first()]], [], Verdict::Accept));
        }
        rules.extend(self.shut(&[]));
        rules
    }

    fn judge_rules(&self) -> Vec<RuleSpec> {
        let is_new = || Match::eq(Field::CtState, Value::CtState(CtState::NEW));
        let mut rules = self.allowed();
        for door in doors(Doors::Window) {
            let mark = set_bit(self.mark, Mark::Connection);
            rules.push(rule([vec![is_new()], door], mark, Verdict::Accept));
        }
        rules.extend(self.shut_what_the_set_opens(&[is_new()]));
        let is_ours = Match::eq(Field::CtMark, bit(self.mark));
        for door in doors(Doors::Grace) {
            rules.push(rule([vec![is_ours.clone()], door], [], Verdict::Accept));
        }
        rules.extend(self.shut(&[is_ours]));
        rules
    }

    /// The administrator's set knows neither family nor entrance: what it would let in and no
    /// window does is shut here.
    fn shut_what_the_set_opens(&self, matches: &[Match]) -> Vec<RuleSpec> {
        if !matches!(self.mode, Mode::Set(_)) {
            return Vec::new();
        }
        let opened = Match::eq(Field::TcpDport, Value::set(OPENED_SET));
        self.shut(&[matches, &[opened]].concat())
    }

    fn stamp_rules(&self) -> Vec<RuleSpec> {
        // The chain that drops knows no allow-list: a window opens it to everybody, or a CA of one's
        // own would be left out. Where peers are diverted, the allow-list's go to the site, and
        // whether they may is that chain's to say.
        let mut rules = Vec::new();
        for divert in &self.divert {
            let is_port = Match::eq(Field::TcpDport, divert.port);
            rules.extend(self.allowed_where(&[is_port]));
        }
        let mark = || set_bit(self.mark, Mark::Packet);
        for door in doors(Doors::Window) {
            rules.push(rule([door], mark(), Verdict::Accept));
        }
        for door in doors(Doors::Grace) {
            rules.push(rule([door, vec![is_not_first()]], mark(), Verdict::Accept));
        }
        rules
    }

    fn allowed(&self) -> Vec<RuleSpec> {
        self.allowed_where(&[])
    }

    fn allowed_where(&self, matches: &[Match]) -> Vec<RuleSpec> {
        self.allowed_end(matches, &Verdict::Accept)
    }

    fn allowed_end(&self, matches: &[Match], verdict: &Verdict) -> Vec<RuleSpec> {
        let of = |family, field| {
            let set = self.allow.set(family);
            let is_in = Match::eq(field, Value::IntervalSet(set.name().to_owned()));
            rule([matches.to_vec(), vec![is_in]], [], verdict.clone())
        };
        vec![
            of(Family::V4, Field::Ip4Saddr),
            of(Family::V6, Field::Ip6Saddr),
        ]
    }

    /// What becomes of both families' packets that match.
    fn shut(&self, matches: &[Match]) -> Vec<RuleSpec> {
        let Closed { v4, v6 } = self.closed;
        if v4 == v6 {
            return vec![end(v4, matches.to_vec())];
        }
        // A reject comes last and without its family, which nft would leave out of its listing.
        let mut families = Family::ALL;
        families.sort_by_key(|family| self.closed.of(*family) == Shut::Reject);
        let ends = families.map(|family| match self.closed.of(family) {
            Shut::Reject => end(Shut::Reject, matches.to_vec()),
            shut => end(shut, [vec![nfproto(family)], matches.to_vec()].concat()),
        });
        ends.into()
    }

    /// Shut whatever stands behind: what passes elsewhere is silence here.
    fn firmly(&self) -> Self {
        let firm = |shut| match shut {
            Shut::Pass => Shut::Drop,
            shut => shut,
        };
        Self {
            closed: Closed {
                v4: firm(self.closed.v4),
                v6: firm(self.closed.v6),
            },
            ..self.clone()
        }
    }

    /// The rule that stands at the head of each attached chain, by its text and tag alone: it
    /// opens nothing by itself, wherever it is saved and restored.
    pub fn attached_rule(&self) -> RuleSpec {
        rule(
            [vec![Match::eq(Field::Mark, bit(self.mark))]],
            [],
            Verdict::Accept,
        )
        .comment(TAG)
    }
}

/// Sends packets for these ports of this host to `chain`. The loopback interface stays out of it, or
/// the host's own probes would be cut.
fn to(chain: &'static str, ports: &[u16]) -> Vec<RuleSpec> {
    let goto = ChainName::new(chain).map(Verdict::GotoTo).ok();
    ports
        .iter()
        .map(|port| {
            let matches = [is_outer(), Match::eq(Field::TcpDport, *port), is_local()];
            let spec = matches.into_iter().fold(RuleSpec::new(), RuleSpec::then);
            goto.clone().into_iter().fold(spec, RuleSpec::then)
        })
        .collect()
}

impl Hook {
    /// Its word in nft(8).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Output => "output",
        }
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
            Some(Base { hook, priority }) => {
                let hook = match hook {
                    Hook::Prerouting => FilterHook::Prerouting,
                    Hook::Input => FilterHook::Input,
                    Hook::Output => FilterHook::Output,
                };
                let base = BaseChain::filter(hook, Priority::Custom(priority));
                chain.base(base.policy(Policy::Accept))
            }
            None => chain,
        })
    }
}

/// The rule as `nft list ruleset` prints it. Everything that we write can be printed (a test goes
/// through all modes), so the empty text of an unprintable rule equals no rule of ours.
pub fn rule_text(rule: &RuleSpec) -> String {
    rule.nft_syntax_stateless(NftFamily::Inet)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::ruleset::{Divert, Egress, ForeignChain, ForeignSet};
    use crate::gate::allow_list::AllowList;

    const SILENCE: Closed = Closed {
        v4: Shut::Drop,
        v6: Shut::Drop,
    };

    const HTTP: Divert = Divert { port: 80, to: 8402 };
    const TLS: Divert = Divert {
        port: 443,
        to: 8403,
    };

    fn settings(mode: Mode) -> Settings {
        Settings {
            mode,
            ports: vec![80, 443],
            allow: AllowList::new(AllowList::local()).into(),
            owned: true,
            mark: 0x0800_0000,
            closed: SILENCE,
            divert: Vec::new(),
            observe: false,
            egress: None,
        }
    }

    fn set_mode() -> Mode {
        Mode::Set(ForeignSet {
            family: NftFamily::Inet,
            table: "filter".to_owned(),
            name: "acmegate".to_owned(),
        })
    }

    fn attach_mode() -> Mode {
        let chain = |family, name: &str| ForeignChain {
            family,
            table: "filter".to_owned(),
            name: name.to_owned(),
        };
        Mode::Attach(vec![
            chain(NftFamily::Inet, "input"),
            chain(NftFamily::Ip, "FORWARD"),
        ])
    }

    fn every_settings() -> Vec<Settings> {
        let mut all = Vec::new();
        for mode in [Mode::Guard, set_mode(), attach_mode()] {
            for divert in [vec![], vec![HTTP, TLS], vec![TLS]] {
                for v4 in [Shut::Drop, Shut::Reject, Shut::Pass] {
                    for v6 in [Shut::Drop, Shut::Reject] {
                        all.extend([false, true].map(|both| Settings {
                            closed: Closed { v4, v6 },
                            divert: divert.clone(),
                            observe: both,
                            egress: both.then(egress),
                            ..settings(mode.clone())
                        }));
                    }
                }
            }
        }
        all
    }

    fn egress() -> Egress {
        let to = ["10.0.0.5:80", "127.0.0.1:8443", "[2001:db8::5]:443"];
        Egress {
            uid: 996,
            to: to.map(|to| to.parse().unwrap()).into(),
        }
    }

    #[test]
    fn what_limits_the_account_of_the_daemon_as_people_read_it() {
        let settings = Settings {
            egress: Some(egress()),
            ..settings(set_mode())
        };
        let text = settings.to_nft();
        let (_, chains) = text.split_once("\tchain reach").unwrap();
        insta::assert_snapshot!("confined", chains);
    }

    #[test]
    fn the_account_of_the_daemon_is_limited_in_every_mode_that_has_a_table() {
        for mode in [Mode::Guard, set_mode(), attach_mode(), Mode::GateOnly] {
            let names = |egress| -> Vec<&str> {
                let settings = Settings {
                    egress,
                    ..settings(mode.clone())
                };
                let chains = settings.chains().into_iter();
                chains
                    .map(|chain| chain.name)
                    .filter(|name| CONFINERS.contains(name))
                    .collect()
            };
            assert_eq!(names(None), [""; 0]);
            let expected: &[&str] = match mode {
                Mode::GateOnly => &[],
                _ => &["reach", "confine"],
            };
            assert_eq!(names(Some(egress())), expected, "{mode:?}");
        }
    }

    #[test]
    fn every_rule_can_be_printed() {
        for settings in every_settings() {
            for chain in settings.chains() {
                for rule in &chain.rules {
                    assert_ne!(rule_text(rule), "", "{rule:?}");
                }
            }
            assert_ne!(rule_text(&settings.attached_rule()), "");
        }
    }

    #[test]
    fn what_observes_as_people_read_it() {
        let settings = Settings {
            observe: true,
            divert: vec![TLS],
            ..settings(Mode::Guard)
        };
        insta::assert_snapshot!("observed", settings.to_nft());
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
    fn the_attach_mode_as_people_read_it() {
        let closed = Closed {
            v6: Shut::Reject,
            ..SILENCE
        };
        let settings = Settings {
            closed,
            ..settings(attach_mode())
        };
        insta::assert_snapshot!("attach", settings.to_nft());
    }

    #[test]
    fn divert_as_people_read_it() {
        let closed = Closed {
            v4: Shut::Pass,
            ..SILENCE
        };
        let settings = Settings {
            closed,
            divert: vec![HTTP, TLS],
            ..settings(Mode::Guard)
        };
        insta::assert_snapshot!("divert", settings.to_nft());
    }

    #[test]
    fn one_port_diverted_and_one_not_as_people_read_it() {
        let settings = Settings {
            divert: vec![TLS],
            ..settings(attach_mode())
        };
        insta::assert_snapshot!("mixed", settings.to_nft());
    }

    #[test]
    fn each_base_chain_takes_its_own_ports() {
        for settings in every_settings() {
            let chains = settings.chains();
            let ports_of = |name: &str| -> Vec<u16> {
                let rules = chains.iter().find(|chain| chain.name == name);
                let texts = rules
                    .into_iter()
                    .flat_map(|chain| &chain.rules)
                    .map(rule_text);
                texts
                    .filter_map(|text| {
                        let (_, rest) = text.split_once("port ")?;
                        rest.split(' ').next()?.parse().ok()
                    })
                    .collect()
            };
            let diverted: Vec<u16> = settings.divert.iter().map(|divert| divert.port).collect();
            for name in ["untrack", "divert", "answers"] {
                assert_eq!(ports_of(name), diverted, "{name}");
            }
            let plain: Vec<u16> = settings.plain_ports().collect();
            assert_eq!([ports_of("guard"), ports_of("admit")].concat(), plain);
            let is_attached = matches!(settings.mode, Mode::Attach(_));
            assert_eq!(ports_of("tag") == settings.ports, is_attached);
        }
    }

    /// Where nothing stands behind a port, nothing goes on to it.
    #[test]
    fn a_port_that_is_not_diverted_is_never_passed_when_shut() {
        let texts = |settings: &Settings| -> Vec<String> {
            let chains = settings.chains().into_iter();
            let plain = chains.filter(|chain| ["decide", "judge"].contains(&chain.name));
            plain
                .flat_map(|chain| chain.rules)
                .map(|rule| rule_text(&rule))
                .collect()
        };
        for settings in every_settings() {
            let silent = Settings {
                closed: Closed {
                    v4: match settings.closed.v4 {
                        Shut::Pass => Shut::Drop,
                        shut => shut,
                    },
                    ..settings.closed
                },
                ..settings.clone()
            };
            assert_eq!(texts(&settings), texts(&silent));
        }
    }

    #[test]
    fn a_reload_follows_only_where_the_same_chains_and_listeners_stand() {
        let of = |ports: &[u16], divert: &[Divert]| Settings {
            ports: ports.to_vec(),
            divert: divert.to_vec(),
            ..settings(Mode::Guard)
        };
        let both = of(&[80, 443], &[HTTP, TLS]);
        let follows = |after: &Settings, before: &Settings| after.can_follow(before);
        assert!(follows(&of(&[80], &[HTTP]), &both), "a port less");
        assert!(!follows(&both, &of(&[80], &[HTTP])), "no such listener");
        let to_one = Divert { to: HTTP.to, ..TLS };
        assert!(follows(
            &of(&[80, 443], &[HTTP, to_one]),
            &of(&[80], &[HTTP])
        ));
        assert!(
            !follows(&of(&[80, 443], &[HTTP, to_one]), &both),
            "another target"
        );
        let mixed = of(&[80, 443], &[TLS]);
        assert!(!follows(&mixed, &both) && !follows(&both, &mixed));
        assert!(
            follows(&of(&[53, 80, 443], &[TLS]), &mixed),
            "a plain port more"
        );
        assert!(!follows(&of(&[443], &[TLS]), &mixed), "other chains");
    }
}
