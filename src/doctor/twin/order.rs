//! What a twin is asked and what it answers: plain data that goes from one process to the other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nlink::netlink::nftables::Family as NftFamily;
use serde::{Deserialize, Serialize};

use crate::doctor::path::{Fate, Knock};
use crate::firewall::ruleset::{
    Closed, Divert, Egress, ForeignChain, ForeignSet, Mode, Settings, Shut,
};
use crate::gate::allow_list::{AllowList, Entries};

/// The most knocks of one order, in all of its runs together.
pub const MAX_KNOCKS: usize = 8192;
/// The most octets of a saved listing.
pub const MAX_LISTING_BYTES: usize = 64 << 20;
/// How long a twin may take, if nobody says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Whose ruleset is copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The one in this host's kernel; needs CAP_NET_ADMIN.
    Live,
    /// Saved listings, each as `nft list ruleset`, `nft -j list ruleset`, `iptables-save` or
    /// `ip6tables-save` printed it; loaded by these programs' own counterparts, one after the other.
    Listing(Vec<String>),
}

/// How our own table stands while knocks are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Window {
    /// As it was found.
    AsItStands,
    /// No window is open, whatever was.
    Shut,
    /// Every guarded port is open, by both families and every way in.
    Open,
}

/// What is to be tried in a twin.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// Whose ruleset.
    pub source: Source,
    /// What acmegate would install, if its table is not there; `None` leaves the ruleset alone, and only
    /// [`Window::AsItStands`] can be run.
    pub settings: Option<Settings>,
    /// The runs; each sends every knock once.
    pub windows: Vec<Window>,
    /// What is sent, at most [`MAX_KNOCKS`] in all runs together.
    pub knocks: Vec<Knock>,
    /// How long all of it may take; [`PATIENCE`] is ample for 100,000 prefixes.
    pub patience: Duration,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// For each run of the order, the fate of each knock, in the order's order.
    pub fates: Vec<Vec<Fate>>,
    /// Likewise, what became of the answer to each knock by TCP that passed, but for runs with the window shut: `None`
    /// where there was no answer. One that got out was `forwarded`.
    pub replies: Vec<Vec<Option<Fate>>>,
    /// Likewise, for each packet that was dropped by a rule or a policy: what to do about that, in the words of whoever
    /// looks after it.
    pub advice: Vec<Vec<Option<String>>>,
    /// Whether our own part stood in the twin: without it windows open nothing.
    pub has_guard: bool,
    /// What of the ruleset or the network is not in the twin and might have decided otherwise, a line each.
    pub not_carried: Vec<String>,
    /// What stands otherwise in the twin and cannot decide about a first packet, a line each.
    pub otherwise: Vec<String>,
    /// The generation of the live ruleset that was copied; `None` for a listing, or if it changed all the time.
    pub generation: Option<u32>,
    /// What was copied, in a line.
    pub copied: String,
}

/// What goes to the process that is the twin.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Letter {
    pub source: Source,
    guard: Option<Guard>,
    pub windows: Vec<Window>,
    pub knocks: Vec<Knock>,
    pub patience: Duration,
}

/// [`Settings`], as they can be written.
#[derive(Debug, Serialize, Deserialize)]
struct Guard {
    mode: GuardMode,
    ports: Vec<u16>,
    v4: Vec<(Ipv4Addr, Ipv4Addr)>,
    v6: Vec<(Ipv6Addr, Ipv6Addr)>,
    mark: u32,
    closed: [ShutWord; 2],
    divert: Vec<(u16, u16)>,
    observe: bool,
    egress: Option<(u32, Vec<SocketAddr>)>,
}

#[derive(Debug, Serialize, Deserialize)]
enum GuardMode {
    Guard,
    Set(Named),
    Attach(Vec<Named>),
    GateOnly,
}

/// Family by its number, table, name.
type Named = (u8, String, String);

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum ShutWord {
    Drop,
    Reject,
    Pass,
}

impl Letter {
    pub fn of(order: &Order) -> Self {
        Self {
            source: order.source.clone(),
            guard: order.settings.as_ref().map(Guard::of),
            windows: order.windows.clone(),
            knocks: order.knocks.clone(),
            patience: order.patience,
        }
    }

    pub fn settings(&self) -> Option<Settings> {
        self.guard.as_ref().map(Guard::settings)
    }
}

impl Guard {
    fn of(settings: &Settings) -> Self {
        let mode = match &settings.mode {
            Mode::Guard => GuardMode::Guard,
            Mode::Set(set) => {
                GuardMode::Set((set.family as u8, set.table.clone(), set.name.clone()))
            }
            Mode::Attach(chains) => {
                let chains = chains.iter();
                GuardMode::Attach(
                    chains
                        .map(|chain| (chain.family as u8, chain.table.clone(), chain.name.clone()))
                        .collect(),
                )
            }
            Mode::GateOnly => GuardMode::GateOnly,
        };
        let ranges = |list: &AllowList| {
            let v4 = list.v4().as_slice().iter();
            let v6 = list.v6().as_slice().iter();
            (
                v4.map(|(first, last)| (Ipv4Addr::from(*first), Ipv4Addr::from(*last)))
                    .collect(),
                v6.map(|(first, last)| (Ipv6Addr::from(*first), Ipv6Addr::from(*last)))
                    .collect(),
            )
        };
        let (v4, v6) = settings.allow.list().map(ranges).unwrap_or_default();
        Self {
            mode,
            ports: settings.ports.clone(),
            v4,
            v6,
            mark: settings.mark,
            closed: [settings.closed.v4, settings.closed.v6].map(|shut| match shut {
                Shut::Drop => ShutWord::Drop,
                Shut::Reject => ShutWord::Reject,
                Shut::Pass => ShutWord::Pass,
            }),
            divert: settings
                .divert
                .iter()
                .map(|divert| (divert.port, divert.to))
                .collect(),
            observe: settings.observe,
            egress: (settings.egress.as_ref()).map(|egress| (egress.uid, egress.to.clone())),
        }
    }

    fn settings(&self) -> Settings {
        let family = |number: u8| match number {
            number if number == NftFamily::Ip as u8 => NftFamily::Ip,
            number if number == NftFamily::Ip6 as u8 => NftFamily::Ip6,
            _ => NftFamily::Inet,
        };
        let mode = match &self.mode {
            GuardMode::Guard => Mode::Guard,
            GuardMode::GateOnly => Mode::GateOnly,
            GuardMode::Set((number, table, name)) => Mode::Set(ForeignSet {
                family: family(*number),
                table: table.clone(),
                name: name.clone(),
            }),
            GuardMode::Attach(chains) => {
                let chains = chains.iter().map(|(number, table, name)| ForeignChain {
                    family: family(*number),
                    table: table.clone(),
                    name: name.clone(),
                });
                Mode::Attach(chains.collect())
            }
        };
        let [v4, v6] = self.closed.map(|word| match word {
            ShutWord::Drop => Shut::Drop,
            ShutWord::Reject => Shut::Reject,
            ShutWord::Pass => Shut::Pass,
        });
        let listed = Entries {
            v4: (self.v4.iter())
                .map(|(first, last)| (u32::from(*first), u32::from(*last)))
                .collect(),
            v6: (self.v6.iter())
                .map(|(first, last)| (u128::from(*first), u128::from(*last)))
                .collect(),
        };
        let allow = AllowList::from_entries(listed, Entries::default());
        Settings {
            mode,
            ports: self.ports.clone(),
            allow: Arc::new(allow).into(),
            // Nobody else writes into a twin.
            owned: false,
            mark: self.mark,
            closed: Closed { v4, v6 },
            divert: (self.divert.iter())
                .map(|(port, to)| Divert {
                    port: *port,
                    to: *to,
                })
                .collect(),
            observe: self.observe,
            egress: (self.egress.clone()).map(|(uid, to)| Egress { uid, to }),
        }
    }
}

/// Whether two addresses are of one family.
pub(super) fn same_family(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The twin is told of every one of them but who owns the table.
    #[test]
    fn settings_survive_the_way() {
        let prefixes = ["192.0.2.0/24", "2001:db8::/32"];
        let list = AllowList::new(prefixes.map(|prefix| prefix.parse().unwrap()));
        let named = |family| (family, "filter".to_owned(), "input".to_owned());
        let (family, table, name) = named(NftFamily::Ip6);
        let chain = ForeignChain {
            family,
            table,
            name,
        };
        let (family, table, name) = named(NftFamily::Ip);
        let set = ForeignSet {
            family,
            table,
            name,
        };
        let modes = [
            Mode::Guard,
            Mode::GateOnly,
            Mode::Set(set),
            Mode::Attach(vec![chain]),
        ];
        for mode in modes {
            let settings = Settings {
                mode,
                ports: vec![80, 443],
                allow: list.clone().into(),
                owned: false,
                mark: 0x0800_0000,
                closed: Closed {
                    v4: Shut::Pass,
                    v6: Shut::Reject,
                },
                divert: vec![Divert {
                    port: 443,
                    to: 8444,
                }],
                observe: true,
                egress: Some(Egress {
                    uid: 996,
                    to: vec!["[2001:db8::5]:443".parse().unwrap()],
                }),
            };
            let order = Order {
                source: Source::Live,
                settings: Some(settings.clone()),
                windows: vec![Window::Shut],
                knocks: Vec::new(),
                patience: PATIENCE,
            };
            let text = serde_json::to_string(&Letter::of(&order)).unwrap();
            let letter: Letter = serde_json::from_str(&text).unwrap();
            assert_eq!(letter.settings(), Some(settings));
        }
    }
}
