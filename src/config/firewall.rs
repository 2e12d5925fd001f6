//! `[firewall]`: which mode, which ports, whose set.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::Range;

use toml::Spanned;

use super::command::commands;
use super::error::{Problem, nearest};
use super::file::{self, Key, Section, Word};
use super::names;
use super::value::one_of;
use super::{ChainName, Closed, Egress, Firewall, Mode, SetName, Shut};
use crate::gate::challenge::ChallengeType;
use crate::gate::lease::MAX_PORTS;

/// The most chains of mode `attach`; input and forward of three families and a geo-blocker or two
/// are eight.
const MAX_CHAINS: usize = 16;

/// The words of `mode`, before `set` has its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ModeWord {
    Guard,
    Set,
    Attach,
    GateOnly,
}

/// What `listen` of `[http]` and of `[tls]` says.
pub(super) struct Listeners {
    /// The addresses that peers come to by themselves.
    pub(super) addresses: Vec<SocketAddr>,
    /// Whether peers are diverted to the gate's HTTP,
    pub(super) diverts_http: bool,
    /// and to its TLS.
    pub(super) diverts_tls: bool,
    /// Where they stand, if they do: the diverted one, if one is.
    pub(super) at: Option<Range<usize>>,
}

impl Listeners {
    fn is_diverted(&self) -> bool {
        self.diverts_http || self.diverts_tls
    }

    /// Whether nobody comes to this port of the gate by himself.
    fn diverts(&self, port: u16) -> bool {
        match port == ChallengeType::TlsAlpn01.port() && self.diverts_tls {
            true => true,
            false => self.diverts_http && !self.addresses.iter().any(|own| own.port() == port),
        }
    }
}

/// Checks `[firewall]`. `listen` is where the default ports come from; `None` where that is unknown.
pub(super) fn firewall(
    section: &Section<file::Firewall>,
    listen: Option<&Listeners>,
    problems: &mut Vec<Problem>,
) -> Firewall {
    let keys = &section.keys;
    let default = Firewall::default();
    let before = problems.len();
    let words = [
        ("guard", ModeWord::Guard),
        ("set", ModeWord::Set),
        ("attach", ModeWord::Attach),
        ("gate-only", ModeWord::GateOnly),
    ];
    let word = one_of(&keys.mode, "mode", &words, problems);
    let mode = word.unwrap_or(ModeWord::Guard);
    // What was taken out or misspelled may have made the rest right.
    let is_whole = section.is_whole && problems.len() == before;
    let set = set_name(keys, mode, is_whole, problems);
    let chains = chain_names(keys, mode, is_whole, problems);
    let is_diverted = listen.is_some_and(Listeners::is_diverted);
    if let (Some(Listeners { at: Some(at), .. }), true, ModeWord::GateOnly) =
        (listen, is_diverted, mode)
    {
        problems.push(
            Problem::new(
                at.clone(),
                "mode \"gate-only\" asks nothing of the kernel, so nothing can be diverted",
            )
            .fix("choose mode guard, set or attach, or listen on an address"),
        );
    }
    let owned = one_of(
        &keys.owner,
        "owner",
        &[("auto", true), ("never", false)],
        problems,
    );
    let words = [
        ("auto", Egress::Auto),
        ("upstreams", Egress::Upstreams),
        ("any", Egress::Any),
    ];
    let egress = one_of(&keys.egress, "egress", &words, problems);
    if let (Some(key), Some(Egress::Upstreams), ModeWord::GateOnly) = (&keys.egress, egress, mode) {
        let message = "mode \"gate-only\" has no table that could limit it";
        problems.push(Problem::new(key.span(), message).fix("leave it out"));
    }
    let ports = match (&keys.ports, listen) {
        (Some(ports), _) => ports_of(ports, mode, problems),
        (None, Some(listen)) if is_whole => default_ports(listen, section, mode, problems),
        _ => default.ports.clone(),
    };
    // Where that is unknown it may well be diverted.
    let all_diverted = listen.is_none_or(|listen| ports.iter().all(|port| listen.diverts(*port)));
    let may_pass = mode == ModeWord::Guard && all_diverted;
    let closed = closed(&keys.closed, may_pass, default.closed, problems);
    Firewall {
        mode: match (mode, set) {
            (ModeWord::Set, Some(set)) => Mode::Set(set),
            (ModeWord::Attach, _) => Mode::Attach(chains),
            (ModeWord::GateOnly, _) => Mode::GateOnly,
            _ => Mode::Guard,
        },
        ports,
        mark: mark(&keys.mark, default.mark, problems),
        closed,
        owned: owned.unwrap_or(default.owned),
        egress: egress.unwrap_or(default.egress),
        commands: commands(keys, problems),
    }
}

fn ports_of(
    ports: &Spanned<Vec<Spanned<i64>>>,
    mode: ModeWord,
    problems: &mut Vec<Problem>,
) -> Vec<u16> {
    let entries = ports.get_ref();
    let count = entries.len();
    if count > MAX_PORTS {
        let message = format!("{count} ports, where a window opens at most {MAX_PORTS}");
        problems
            .push(Problem::new(ports.span(), message).fix("name those that challenges come to"));
    }
    if count == 0 && mode != ModeWord::GateOnly {
        let fix = "write [80], or mode = \"gate-only\"";
        problems.push(Problem::new(ports.span(), "no port to open or shut").fix(fix));
    }
    let mut known: Vec<u16> = Vec::new();
    for entry in entries {
        match u16::try_from(*entry.get_ref()) {
            Ok(port) if port > 0 && !known.contains(&port) => known.push(port),
            Ok(port) if port > 0 => {
                let message = format!("port {port} stands here twice");
                problems.push(Problem::new(entry.span(), message).fix("leave one out"));
            }
            _ => {
                let message = format!("there is no port {}", entry.get_ref());
                problems.push(Problem::new(entry.span(), message).fix("write 1 to 65535"));
            }
        }
    }
    known
}

/// The ports that are listened on. A listener on port 0 gets another port each time, which no
/// window can be opened for.
fn default_ports(
    listen: &Listeners,
    section: &Section<file::Firewall>,
    mode: ModeWord,
    problems: &mut Vec<Problem>,
) -> Vec<u16> {
    // Not where peers are diverted to, but what they come to.
    let diverted = [
        (listen.diverts_http, ChallengeType::Http01),
        (listen.diverts_tls, ChallengeType::TlsAlpn01),
    ];
    let diverted = diverted
        .into_iter()
        .filter_map(|(is, challenge)| is.then_some(challenge.port()));
    let ports: BTreeSet<u16> = listen
        .addresses
        .iter()
        .map(SocketAddr::port)
        .filter(|port| *port != 0)
        .chain(diverted)
        .collect();
    let mode_at = section.keys.mode.as_ref().map(Spanned::span);
    let at = mode_at
        .or(listen.at.clone())
        .unwrap_or_else(|| section.at.clone());
    if ports.is_empty() && mode != ModeWord::GateOnly {
        problems.push(
            Problem::new(at, "no port to open or shut")
                .fix("add ports = [80] below [firewall], or write mode = \"gate-only\"")
                .note(
                    "without `ports`, they are those of [http] and [tls] listen, which have none",
                ),
        );
    } else if ports.len() > MAX_PORTS {
        let message = format!(
            "listening on {} ports, of which a window opens {MAX_PORTS}",
            ports.len()
        );
        problems.push(
            Problem::new(at, message).fix("name those that challenges come to: ports = [80]"),
        );
    }
    ports.into_iter().collect()
}

fn set_name(
    keys: &file::Firewall,
    mode: ModeWord,
    is_whole: bool,
    problems: &mut Vec<Problem>,
) -> Option<SetName> {
    match &keys.set {
        Some(key) => match names::set(key.get_ref()) {
            Ok(set) => {
                if mode != ModeWord::Set && is_whole {
                    problems.push(
                        Problem::new(key.span(), "`set` is for mode \"set\" alone")
                            .fix("leave it out, or write mode = \"set\""),
                    );
                }
                Some(set)
            }
            Err((message, fix)) => {
                problems.push(Problem::new(key.span(), message).fix(fix));
                None
            }
        },
        None => {
            if let (Some(at), true) = (&keys.mode, mode == ModeWord::Set && is_whole) {
                problems.push(
                    Problem::new(at.span(), "mode \"set\" needs to know the set")
                        .fix("add set = \"inet filter acmegate\"")
                        .note("the set that your rule reads: family, table and name, as in `nft list set inet filter acmegate`"),
                );
            }
            None
        }
    }
}

/// `chains`, for mode `attach` alone.
fn chain_names(
    keys: &file::Firewall,
    mode: ModeWord,
    is_whole: bool,
    problems: &mut Vec<Problem>,
) -> Vec<ChainName> {
    let mut chains: Vec<ChainName> = Vec::new();
    let Some(key) = &keys.chains else {
        if let (Some(at), true) = (&keys.mode, mode == ModeWord::Attach && is_whole) {
            problems.push(
                Problem::new(at.span(), "mode \"attach\" needs to know the chains")
                    .fix("add chains = [\"inet filter input\"]")
                    .note("those that drop what acmegate opens: family, table and name, as in `nft list chain inet filter input`"),
            );
        }
        return chains;
    };
    if mode != ModeWord::Attach && is_whole {
        problems.push(
            Problem::new(key.span(), "`chains` is for mode \"attach\" alone")
                .fix("leave it out, or write mode = \"attach\""),
        );
    }
    let count = key.get_ref().len();
    if count == 0 || count > MAX_CHAINS {
        let message = format!("{count} chains, where 1 to {MAX_CHAINS} can be named");
        problems.push(Problem::new(key.span(), message).fix("name those that drop"));
    }
    for entry in key.get_ref() {
        match names::chain(entry.get_ref()) {
            Ok(name) if chains.contains(&name) => {
                let message = format!("`{name}` stands here twice");
                problems.push(Problem::new(entry.span(), message).fix("leave one out"));
            }
            Ok(name) => chains.push(name),
            Err((message, fix)) => problems.push(Problem::new(entry.span(), message).fix(fix)),
        }
    }
    chains
}

/// `closed`: what becomes of what may not pass.
fn closed(
    key: &Key<file::Closed>,
    may_pass: bool,
    default: Closed,
    problems: &mut Vec<Problem>,
) -> Closed {
    let Some(key) = key else { return default };
    let mut shut = |word: &str, at: Range<usize>| match word {
        "drop" => Shut::Drop,
        "reject" => Shut::Reject,
        "pass" => {
            if !may_pass {
                problems.push(
                    Problem::new(at, "\"pass\" shuts nothing here")
                        .fix("write \"drop\" or \"reject\"")
                        .note("it is for mode \"guard\" where every port is diverted (listen = \"divert\"): outside of windows everybody reaches what stood there before"),
                );
            }
            Shut::Pass
        }
        other => {
            let fix = match nearest(other, ["drop", "reject", "pass"]) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => "write \"drop\", \"reject\", or one for each family: { ipv4 = \"drop\", ipv6 = \"reject\" }".to_owned(),
            };
            problems
                .push(Problem::new(at, format!("`{other}` is no way of being closed")).fix(fix));
            Shut::Drop
        }
    };
    match key.get_ref() {
        file::WordOr::Word(word) => {
            let both = shut(word, key.span());
            Closed { v4: both, v6: both }
        }
        file::WordOr::Table(table) => {
            let mut of = |key: &Key<String>, default| match key {
                Some(word) => shut(word.get_ref(), word.span()),
                None => default,
            };
            Closed {
                v4: of(&table.ipv4, default.v4),
                v6: of(&table.ipv6, default.v6),
            }
        }
    }
}

fn mark(key: &Key<Word>, default: u32, problems: &mut Vec<Problem>) -> u32 {
    let Some(key) = key else {
        return default;
    };
    let mark = match key.get_ref() {
        Word::Number(number) => u32::try_from(*number).ok(),
        Word::Text(text) => match text.strip_prefix("0x") {
            Some(digits) if !digits.starts_with('+') => u32::from_str_radix(digits, 16).ok(),
            _ => text.parse().ok(),
        },
    };
    let (message, fix) = match mark {
        Some(mark) if mark.is_power_of_two() => return mark,
        Some(0) => (
            "a mark without a bit",
            "write one bit: \"0x08000000\"".to_owned(),
        ),
        Some(mark) => (
            "a mark with more than one bit",
            format!("write one bit: \"0x{:08x}\"", 1u32 << mark.ilog2()),
        ),
        None => (
            "not a mark of 32 bits",
            "write one bit: \"0x08000000\"".to_owned(),
        ),
    };
    problems.push(Problem::new(key.span(), message).fix(fix));
    default
}
