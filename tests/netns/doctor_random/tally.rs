//! How often what occurred: a series in which something never happened proves nothing about it.

use std::collections::BTreeMap;
use std::fmt;

use super::side::LiveSide;

/// What a live side can have. Each has to occur.
type Feature = (&'static str, fn(&LiveSide, &str) -> bool);

const FEATURES: &[Feature] = &[
    ("more addresses", |side, _| !side.more_addresses.is_empty()),
    ("policy routing", |side, _| !side.rules.is_empty()),
    ("policy routing by mark", |side, _| {
        side.rules.iter().any(|rule| rule.v4.contains("fwmark"))
    }),
    ("rp_filter strict", |side, _| {
        side.switches.rp_filter.contains(&1)
    }),
    ("rp_filter loose", |side, _| {
        side.switches.rp_filter.contains(&2)
    }),
    ("src_valid_mark", |side, _| side.switches.src_valid_mark),
    ("forwarding", |side, _| side.switches.forwards),
    ("timed element that holds", |_, text| {
        names(text, "timeout 1h")
    }),
    ("timed element that ran out", |_, text| {
        names(text, "timeout 1ms")
    }),
    ("fib saddr type", |_, text| names(text, "fib saddr type")),
    ("fib saddr oif", |_, text| {
        names(text, "fib saddr . iif oif") || names(text, "fib saddr oif")
    }),
    ("fib with mark", |_, text| {
        names(text, "fib saddr . mark") || names(text, "fib daddr . mark")
    }),
    ("fib daddr type", |_, text| names(text, "fib daddr")),
    ("mark set", |_, text| {
        names(text, "meta mark set") || names(text, "-j MARK")
    }),
    ("mark asked by another table", asks_foreign_mark),
    ("ct mark set", |_, text| {
        names(text, "ct mark set") || names(text, "-j CONNMARK")
    }),
    ("ct mark asked", |_, text| {
        names(text, "ct mark 0x1") || names(text, "ct mark &")
    }),
    ("iptables-nft", |side, _| side.iptables.is_some()),
    (
        "ip6tables forgotten",
        |side, _| matches!(&side.iptables, Some([_, v6]) if v6.is_empty()),
    ),
    ("iptables limit", |_, text| names(text, "-m limit")),
    ("iptables hashlimit", |_, text| names(text, "-m hashlimit")),
    ("iptables conntrack", |_, text| names(text, "-m conntrack")),
    ("iptables multiport", |_, text| names(text, "-m multiport")),
    ("iptables addrtype", |_, text| names(text, "-m addrtype")),
    ("iptables mark", |_, text| names(text, "-m mark")),
    ("iptables connmark", |_, text| names(text, "-m connmark")),
    ("iptables comment", |_, text| names(text, "-m comment")),
    ("iptables recent", |_, text| names(text, "-m recent")),
    ("iptables connlimit", |_, text| names(text, "-m connlimit")),
    ("iptables rpfilter", |_, text| names(text, "-m rpfilter")),
    ("iptables set-mark", |_, text| names(text, "-j MARK")),
    ("iptables notrack", |_, text| names(text, "--notrack")),
    ("iptables DNAT", |_, text| names(text, "-j DNAT")),
    ("iptables REDIRECT", |_, text| names(text, "-j REDIRECT")),
    ("ingress", |_, text| names(text, "hook ingress")),
    ("netdev table", |_, text| names(text, "table netdev")),
    ("several chains at one hook", |_, text| {
        text.matches("hook input").count() > 1
    }),
    ("forward chain", |_, text| {
        names(text, "hook forward") || names(text, "-A FORWARD")
    }),
    ("table of one family", |_, text| {
        names(text, "table ip ") || names(text, "table ip6 ")
    }),
    ("jumps three deep", |side, _| side.is_three_deep),
    ("goto", |_, text| {
        names(text, "goto d") || names(text, "-g web")
    }),
    ("verdict map", |_, text| names(text, "vmap")),
    ("named verdict map", |_, text| names(text, "vmap @")),
    ("concatenation", |_, text| {
        names(text, " . tcp dport") || names(text, " . ct state")
    }),
    ("interval set", |_, text| names(text, "flags interval")),
    ("dynamic set", |_, text| names(text, "flags dynamic")),
    ("dynamic set with and without a limit", |side, _| {
        let mut tables = side.nft.split("table ");
        tables.any(|table| names(table, "update @mixed") && names(table, "add @mixed"))
    }),
    ("limit", |_, text| names(text, "limit rate")),
    ("map to a mark", |_, text| {
        names(text, "mark set tcp dport map")
    }),
    ("notrack", |_, text| names(text, "notrack")),
    ("DNAT to a host behind", |_, text| names(text, "dnat ")),
    ("redirect to another port", |_, text| {
        names(text, "redirect to")
    }),
    ("reject", |_, text| {
        names(text, "reject") || names(text, "REJECT")
    }),
    ("log", |_, text| names(text, "log") || names(text, "LOG")),
    ("policy drop", |_, text| {
        names(text, "policy drop") || names(text, " DROP [")
    }),
    ("allow-list", |_, text| {
        names(text, "@listed") || names(text, "198.51.100.0/24 -j ACCEPT")
    }),
    ("what cannot be known", |_, text| names(text, "jhash")),
];

fn names(text: &str, words: &str) -> bool {
    text.contains(words)
}

/// One table sets it, another one asks.
fn asks_foreign_mark(side: &LiveSide, _: &str) -> bool {
    let mut tables: Vec<&str> = side.nft.split("table ").collect();
    tables.extend(side.iptables.as_ref().map(|[v4, _]| v4.as_str()));
    let sets = |text: &str| names(text, "meta mark set") || names(text, "-j MARK");
    let asks = |text: &str| {
        ["meta mark 0x", "meta mark !=", "meta mark &", "-m mark"]
            .iter()
            .any(|words| names(text, words))
    };
    let places = |has: &dyn Fn(&str) -> bool| -> Vec<usize> {
        (0..tables.len()).filter(|n| has(tables[*n])).collect()
    };
    let (setters, askers) = (places(&sets), places(&asks));
    setters
        .iter()
        .any(|setter| askers.iter().any(|asker| asker != setter))
}

/// What was counted; sums of several can be added up.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub cases: u32,
    /// Live sides that nft or iptables would not load.
    pub refused: u32,
    features: BTreeMap<&'static str, u32>,
    counts: BTreeMap<String, u32>,
}

impl Tally {
    /// Counts what this live side has.
    pub fn has(&mut self, side: &LiveSide) {
        self.cases += 1;
        let text = side.to_string();
        for (name, occurs) in FEATURES {
            *self.features.entry(name).or_default() += u32::from(occurs(side, &text));
        }
    }

    pub fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }

    pub fn of(&self, what: &str) -> u32 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    pub fn add(&mut self, other: &Self) {
        self.cases += other.cases;
        self.refused += other.refused;
        for (name, count) in &other.features {
            *self.features.entry(name).or_default() += count;
        }
        for (name, count) in &other.counts {
            *self.counts.entry(name.clone()).or_default() += count;
        }
    }

    /// Each feature in one live side of a hundred at least.
    pub fn missing(&self) -> Vec<&'static str> {
        let rare = |count: &u32| count * 100 < self.cases.max(1);
        self.features
            .iter()
            .filter(|(_, count)| rare(count))
            .map(|(name, _)| *name)
            .collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} live sides, and {} that were refused by their own tools",
            self.cases, self.refused
        )?;
        for (name, count) in &self.features {
            writeln!(f, "{count:8}  {name}")?;
        }
        for (name, count) in &self.counts {
            writeln!(f, "{count:8}  {name}")?;
        }
        Ok(())
    }
}
