//! Tables nobody wrote, in the words of nft(8).

use std::fmt;

use proptest::prelude::*;
use proptest::sample::select;

/// One table of a live side.
#[derive(Clone, Debug)]
pub struct Table {
    pub number: usize,
    pub family: &'static str,
    pub elements: Elements,
    pub bases: Vec<Base>,
    /// Chains that are only jumped to; each only from those before it.
    pub plain: Vec<Vec<Rule>>,
}

/// What the sets hold while the packets come.
#[derive(Clone, Copy, Debug)]
pub struct Elements {
    /// Of `open`, ports with timeouts.
    pub open: &'static str,
    /// Of `banned`, sources with timeouts.
    pub banned: &'static str,
}

#[derive(Clone, Debug)]
pub struct Base {
    pub head: &'static str,
    pub drops: bool,
    pub rules: Vec<Rule>,
}

/// Matches, statements and a verdict, as far as they go together.
#[derive(Clone, Debug)]
pub struct Rule(pub Vec<String>);

const PORTS: &[&str] = &[
    "tcp dport 80",
    "tcp dport 80",
    "tcp dport 443",
    "tcp dport { 80, 443 }",
    "tcp dport != 22",
    "tcp dport 79-81",
    "tcp dport @open",
    "tcp dport != @open",
    "th dport @ports",
    "th dport { 53, 80 }",
    "udp dport 53",
    "meta l4proto tcp",
    "meta l4proto { tcp, udp } th dport 53-80",
];

const MATCHES: &[&str] = &[
    "tcp flags & (fin|syn|rst|ack) == syn",
    "tcp flags != syn",
    "tcp sport >= 1024",
    "meta nfproto ipv6",
    "meta nfproto ipv4",
    "meta protocol ip",
    "ip saddr 198.51.100.0/24",
    "ip saddr 10.0.0.0/8",
    "ip saddr @listed",
    "ip saddr != @listed",
    "ip saddr @banned",
    "ip saddr . tcp dport @pairs",
    "ip saddr . tcp dport { 198.51.100.7 . 80, 10.0.0.1 . 443 }",
    "ip6 saddr 2000::/3",
    "ip6 saddr @listed6",
    "ip6 saddr != @listed6",
    "ip6 saddr != 2001:db8:77::/48",
    "ip daddr 192.0.2.1",
    "ip daddr { 192.0.2.1, 192.0.2.2 }",
    "ip6 daddr 2001:db8:1::1",
    "ip daddr 224.0.0.0/4",
    "fib daddr type local",
    "fib daddr type { broadcast, multicast }",
    "fib daddr . iif type local",
    "fib daddr . mark type local",
    "fib saddr . iif oif missing",
    "fib saddr . iif oif exists",
    "fib saddr . mark . iif oif missing",
    "fib saddr type unicast",
    "fib saddr oifname \"eth0\"",
    "fib saddr . mark oif \"eth1\"",
    "meta mark 0x1",
    "meta mark & 0x3 == 0x2",
    "meta mark != 0",
    "meta mark . tcp dport { 0x1 . 80, 0x2 . 80-443 }",
    "ct mark 0x1",
    "ct mark & 0x2 != 0",
    "ct state new",
    "ct state established,related",
    "ct state invalid",
    "ct state untracked",
    "ct state { new, untracked }",
    "ct direction original",
    "ct status dnat",
    "meta l4proto tcp ct original proto-dst 80",
    "iifname \"eth0\"",
    "iifname { \"lo\", \"eth1\" }",
    "iifname != \"lo\"",
    "iifname \"eth*\"",
    "iif eth0",
    "iif != lo",
    "iifname . tcp dport { \"eth0\" . 80, \"eth1\" . 1-1024 }",
    "iifname . ct state { \"eth0\" . new }",
    "oifname \"lan0\"",
    "limit rate 1000/second burst 5000 packets",
    "limit rate over 1000/second burst 5000 packets",
    "ct count over 10000",
    "jhash ip saddr mod 2 seed 0x1 0",
    "jhash ip6 saddr mod 2 seed 0x1 0",
    "ip ttl > 1",
    "meta length 20-100",
    "meta pkttype host",
];

const STATEMENTS: &[&str] = &[
    "counter",
    "log",
    "meta mark set 0x1",
    "meta mark set meta mark or 0x2",
    "meta mark set ct mark",
    "meta mark set tcp dport map { 80 : 0x1, 443 : 0x2 }",
    "ct mark set meta mark",
    "ct mark set 0x1",
    "update @seen { ip saddr timeout 60s }",
    "add @fast { ip saddr limit rate over 10/second burst 20 packets }",
    "add @slow { ip saddr limit rate 10/second burst 20 packets }",
    "update @mixed { ip saddr . tcp sport timeout 60s }",
    "add @mixed { ip saddr . tcp sport limit rate over 10/second burst 20 packets }",
    "add @mixed { ip saddr . tcp sport limit rate 10/second burst 20 packets }",
    "update @mixed { ip saddr . tcp sport timeout 60s } add @mixed { ip saddr . tcp sport limit rate over 10/second burst 20 packets }",
    "ip dscp set cs1",
];

const VERDICTS: &[&str] = &[
    "accept",
    "accept",
    "accept",
    "drop",
    "drop",
    "",
    "return",
    "continue",
    "reject",
    "reject with icmpx admin-prohibited",
    "tcp dport vmap { 80 : accept, 443 : drop }",
    "tcp dport vmap { 1-1024 : accept, 8080 : drop }",
    "tcp dport vmap @doors",
    "ct state vmap { new : accept, invalid : drop }",
    "iifname . tcp dport vmap { \"eth0\" . 80 : accept, \"eth1\" . 80 : drop }",
    "ip saddr vmap @sources",
];

/// How a chain of type nat ends a rule; the address by family, where there is one.
const TRANSLATIONS: &[&str] = &[
    "accept",
    "drop",
    "tcp dport 80 redirect to :8080",
    "tcp dport 8080 redirect to :80",
    "udp dport 53 redirect to :5353",
    "tcp dport 80 INNER:80",
    "tcp dport { 443, 8080 } INNER",
];

const HEADS: &[&str] = &[
    "type filter hook prerouting priority -300;",
    "type filter hook prerouting priority -200;",
    "type filter hook prerouting priority -150;",
    "type nat hook prerouting priority dstnat;",
    "type nat hook prerouting priority dstnat;",
    "type nat hook prerouting priority -110;",
    "type filter hook prerouting priority 0;",
    "type filter hook input priority -10;",
    "type filter hook input priority 0;",
    "type filter hook input priority 0;",
    "type filter hook input priority 10;",
    "type nat hook input priority 100;",
    "type filter hook forward priority 0;",
    "type filter hook ingress device \"eth0\" priority 0;",
];

const NETDEV_HEADS: &[&str] = &[
    "type filter hook ingress device \"eth0\" priority -500;",
    "type filter hook ingress devices = { eth0, eth1 } priority 0;",
    "type filter hook ingress device \"eth1\" priority 10;",
];

/// What an ingress hook can ask for: no connection is there yet, and no route.
const NETDEV_PIECES: &[&str] = &[
    "meta protocol ip",
    "meta protocol ip6",
    "ip saddr 10.0.0.0/8",
    "ip saddr @listed",
    "ip6 saddr @listed6",
    "tcp flags & (fin|syn) == (fin|syn)",
    "meta mark set 0x1",
    "iifname \"eth1\"",
    "limit rate over 1000/second burst 5000 packets",
    "counter",
];

const OPEN: &[&str] = &[
    "",
    "80 timeout 1h",
    "80 timeout 1ms",
    "80 timeout 1ms, 443 timeout 1h",
    "443 timeout 1ms, 80 timeout 1h",
];
const BANNED: &[&str] = &["198.51.100.0/25 timeout 1h", "198.51.100.0/24 timeout 1ms"];

/// A set that rules put their sources into.
const DYNAMIC: &str = "type ipv4_addr\nflags dynamic,timeout\nsize 65535\ntimeout 60s";

/// The same for each connection: no packet finds what another one left.
const DYNAMIC_PAIRS: &str =
    "type ipv4_addr . inet_service\nflags dynamic,timeout\nsize 65535\ntimeout 60s";

/// A table of one of the three families of the Internet protocols.
pub fn table(number: usize) -> impl Strategy<Value = Table> {
    let plain = (plain(1), plain(2), plain(3)).prop_map(|(a, b, c)| vec![a, b, c]);
    (
        select(&["inet", "inet", "inet", "ip", "ip6"][..]),
        elements(),
        prop::collection::vec(base(), 1..4),
        plain,
    )
        .prop_map(move |(family, elements, bases, plain)| Table {
            number,
            family,
            elements,
            bases,
            plain,
        })
}

/// A table at the interfaces themselves.
pub fn netdev() -> impl Strategy<Value = Table> {
    let rule = (
        prop::collection::vec(select(PORTS), 0..2),
        prop::collection::vec(select(NETDEV_PIECES), 0..2),
        select(&["accept", "drop", "", "continue"][..]),
    )
        .prop_map(|(ports, pieces, verdict)| {
            let pieces = ports.into_iter().chain(pieces).chain([verdict]);
            Rule(pieces.map(str::to_owned).collect())
        });
    let base = (select(NETDEV_HEADS), prop::collection::vec(rule, 0..4));
    (elements(), base).prop_map(|(elements, (head, rules))| Table {
        number: 9,
        family: "netdev",
        elements,
        bases: vec![Base {
            head,
            drops: false,
            rules,
        }],
        plain: Vec::new(),
    })
}

fn elements() -> impl Strategy<Value = Elements> {
    (select(OPEN), select(BANNED)).prop_map(|(open, banned)| Elements { open, banned })
}

fn base() -> impl Strategy<Value = Base> {
    let rules = prop::collection::vec(rule(0), 0..5);
    (select(HEADS), prop::bool::weighted(0.25), rules).prop_map(|(head, drops, rules)| Base {
        head,
        drops,
        rules,
    })
}

fn plain(number: usize) -> impl Strategy<Value = Vec<Rule>> {
    prop::collection::vec(rule(number), 0..4)
}

/// A rule of a chain from which only the plain chains after `number` can be reached.
fn rule(number: usize) -> impl Strategy<Value = Rule> {
    let ports = prop::collection::vec(select(PORTS), 0..2);
    let matches = prop::collection::vec(select(MATCHES), 0..3);
    let statements = prop::collection::vec(select(STATEMENTS), 0..2);
    (ports, matches, statements, verdict(number)).prop_map(
        |(ports, matches, statements, verdict)| {
            let pieces = ports.into_iter().chain(matches).chain(statements);
            Rule(pieces.map(str::to_owned).chain([verdict]).collect())
        },
    )
}

fn verdict(number: usize) -> BoxedStrategy<String> {
    let own = select(VERDICTS).prop_map(str::to_owned);
    let translation = select(TRANSLATIONS).prop_map(str::to_owned);
    let next = number + 1;
    if next > 3 {
        return own.boxed();
    }
    let jump =
        (next..=3, select(&["jump", "goto"][..])).prop_map(|(to, how)| format!("{how} d{to}"));
    prop_oneof![5 => own, 4 => jump, 3 => translation].boxed()
}

impl Table {
    /// Whether a packet can get three chains deep.
    pub fn is_three_deep(&self) -> bool {
        let leads = |rules: &[Rule], to: &str| {
            rules
                .iter()
                .any(|rule| rule.0.iter().any(|piece| piece.ends_with(to)))
        };
        self.bases.iter().any(|base| leads(&base.rules, " d1"))
            && self
                .plain
                .windows(2)
                .enumerate()
                .all(|(number, pair)| leads(&pair[0], &format!(" d{}", number + 2)))
    }

    /// The set's declaration, if a rule names it.
    fn sets(&self, rules: &str) -> String {
        let Elements { open, banned } = self.elements;
        let elements = |elements: &str| match elements {
            "" => String::new(),
            elements => format!("elements = {{ {elements} }}\n"),
        };
        let all = [
            ("open", "type inet_service\nflags timeout", elements(open)),
            (
                "ports",
                "type inet_service\nflags interval",
                elements("79-81, 440-450"),
            ),
            (
                "listed",
                "type ipv4_addr\nflags interval",
                elements("10.0.0.0/8, 198.51.100.0/24"),
            ),
            (
                "listed6",
                "type ipv6_addr\nflags interval",
                elements("2001:db8:77::/48"),
            ),
            (
                "banned",
                "type ipv4_addr\nflags interval,timeout",
                elements(banned),
            ),
            (
                "pairs",
                "type ipv4_addr . inet_service\nflags interval",
                elements("198.51.100.0/24 . 80, 10.0.0.0/8 . 1-1024"),
            ),
            ("seen", DYNAMIC, String::new()),
            ("fast", DYNAMIC, String::new()),
            ("slow", DYNAMIC, String::new()),
            ("mixed", DYNAMIC_PAIRS, String::new()),
            (
                "doors",
                "type inet_service : verdict",
                elements("80 : accept, 443 : drop"),
            ),
            (
                "sources",
                "type ipv4_addr : verdict\nflags interval",
                elements("198.51.100.0/24 : accept, 10.0.0.0/8 : drop"),
            ),
        ];
        let mut text = String::new();
        for (name, head, elements) in all {
            let words = rules.split([' ', '\n']);
            if words.into_iter().any(|word| word == format!("@{name}")) {
                let kind = if head.contains("verdict") {
                    "map"
                } else {
                    "set"
                };
                text += &format!("{kind} {name} {{\n{head}\n{elements}}}\n");
            }
        }
        text
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chains = String::new();
        // nft wants a chain to be there before it is jumped to.
        for (number, rules) in self.plain.iter().enumerate().rev() {
            chains += &format!(
                "chain d{} {{\n{}}}\n",
                number + 1,
                self.rules(rules, Kind::Plain)
            );
        }
        for (number, base) in self.bases.iter().enumerate() {
            if !head_fits(self.family, base.head) {
                continue;
            }
            let kind = match () {
                () if base.head.contains("nat") && base.head.contains("prerouting") => Kind::Nat,
                () if base.head.contains("-300") => Kind::Raw,
                () if base.head.contains("ingress") => Kind::Ingress,
                () => Kind::Filter,
            };
            let policy = if base.drops { "policy drop;" } else { "" };
            chains += &format!(
                "chain b{number} {{\n{} {policy}\n{}}}\n",
                base.head,
                self.rules(&base.rules, kind)
            );
        }
        let Self { family, number, .. } = self;
        write!(
            f,
            "table {family} t{number} {{\n{}{chains}}}\n",
            self.sets(&chains)
        )
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    Filter,
    Raw,
    Nat,
    Ingress,
}

fn head_fits(family: &str, head: &str) -> bool {
    match family {
        "ip" | "ip6" => !head.contains("ingress"),
        _ => true,
    }
}

impl Table {
    fn rules(&self, rules: &[Rule], kind: Kind) -> String {
        let lines = rules.iter().filter_map(|rule| self.rule(rule, kind));
        lines.map(|line| line + "\n").collect()
    }

    /// The pieces that can stand in this chain and beside each other.
    fn rule(&self, rule: &Rule, kind: Kind) -> Option<String> {
        let mut text = String::new();
        for piece in &rule.0 {
            let piece = self.worded(piece, kind)?;
            let fits =
                fits(self.family, &piece) && (kind != Kind::Ingress || fits("netdev", &piece));
            if piece.is_empty() || !fits || contradict(&text, &piece) {
                continue;
            }
            if !text.is_empty() {
                text.push(' ');
            }
            text += &piece;
        }
        (!text.is_empty()).then_some(text)
    }

    /// The piece in this chain's words; no rule at all where it would say something else.
    fn worded(&self, piece: &str, kind: Kind) -> Option<String> {
        let translates = piece.contains("redirect") || piece.contains("INNER");
        if translates && kind != Kind::Nat {
            // Only a chain before connection tracking may refuse it.
            return Some(
                if kind == Kind::Raw {
                    "notrack"
                } else {
                    "accept"
                }
                .to_owned(),
            );
        }
        if kind == Kind::Nat && piece.contains("reject") {
            return None;
        }
        let to = match self.family {
            "ip" => "dnat to 10.0.0.2",
            "ip6" => "dnat to [fd00::2]",
            _ if self.number.is_multiple_of(2) => "dnat ip to 10.0.0.2",
            _ => "dnat ip6 to [fd00::2]",
        };
        if !piece.contains(":80") && piece.contains("INNER") {
            return Some(piece.replace("INNER", to).replace(['[', ']'], ""));
        }
        Some(piece.replace("INNER", to))
    }
}

/// Whether a table of this family knows the words.
fn fits(family: &str, piece: &str) -> bool {
    let (v4, v6) = families(piece);
    let has = |words: &[&str]| words.iter().any(|word| piece.contains(word));
    // `nfproto` and `icmpx` are for tables of both.
    match family {
        "ip" => !v6 && !has(&["nfproto", "icmpx"]),
        "ip6" => !v4 && !has(&["nfproto", "icmpx"]),
        // There is no connection yet, no route, and no chain that others use too.
        "netdev" => !has(&["ct ", "fib ", "jump", "goto", "reject"]),
        _ => true,
    }
}

/// Two pieces that no packet is both of, which nft refuses.
fn contradict(text: &str, piece: &str) -> bool {
    let (v4, v6) = families(text);
    let (also_4, also_6) = families(piece);
    let (tcp, udp) = transports(text);
    let (also_tcp, also_udp) = transports(piece);
    (v4 && also_6) || (v6 && also_4) || (tcp && also_udp) || (udp && also_tcp)
}

fn families(text: &str) -> (bool, bool) {
    let words: Vec<&str> = text.split([' ', ',', '{', '}']).collect();
    let has = |any: &[&str]| words.iter().any(|word| any.contains(word));
    (has(&["ip", "ipv4"]), has(&["ip6", "ipv6"]))
}

fn transports(text: &str) -> (bool, bool) {
    let has = |word: &str| text.split(' ').any(|other| other == word);
    (has("tcp"), has("udp"))
}
