//! Rules nobody wrote, in the words of iptables-save(8), for the real `iptables-nft` to load.

use proptest::prelude::*;
use proptest::sample::select;

/// What an administrator of the older school has.
#[derive(Clone, Debug)]
pub struct Iptables {
    /// IPv6 was forgotten.
    pub only_v4: bool,
    pub input_drops: bool,
    pub forward_drops: bool,
    pub raw: Vec<String>,
    pub mangle: Vec<String>,
    pub nat: Vec<String>,
    pub filter: Vec<String>,
    pub forward: Vec<String>,
    pub web: Vec<String>,
    pub deep: Vec<String>,
}

/// LISTED, HOST and INNER are put in by family; what names only one family stands only there.
const MATCHES: &[&str] = &[
    "-p tcp -m tcp --dport 80",
    "-p tcp -m tcp --dport 80",
    "-p tcp -m multiport --dports 80,443",
    "-p tcp -m multiport ! --dports 22,25,8000:8090",
    "-p tcp -m tcp --dport 79:81",
    "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN",
    "-p tcp -m tcp ! --syn",
    "-p udp -m udp --dport 53",
    "-m conntrack --ctstate NEW",
    "-m conntrack --ctstate NEW,UNTRACKED",
    "-m conntrack --ctstate RELATED,ESTABLISHED",
    "-m conntrack ! --ctstate INVALID",
    "-m conntrack --ctstate DNAT",
    "-m state --state NEW",
    "-m addrtype --dst-type LOCAL",
    "-m addrtype ! --src-type UNICAST",
    "-m mark --mark 0x1/0x1",
    "-m mark ! --mark 0x0",
    "-m connmark --mark 0x2/0x2",
    "-m comment --comment \"some words\"",
    "-m limit --limit 1000/sec --limit-burst 5000",
    "-m hashlimit --hashlimit-upto 1000/sec --hashlimit-burst 1000 --hashlimit-mode srcip --hashlimit-name some",
    "-m hashlimit --hashlimit-above 1000/sec --hashlimit-burst 1000 --hashlimit-mode srcip --hashlimit-name more",
    "-m recent --name some --set",
    "-m recent --name some --update --seconds 60 --hitcount 20",
    "-m connlimit --connlimit-above 10000",
    "-m iprange --src-range 198.51.100.1-198.51.100.254",
    "-m pkttype --pkt-type unicast",
    "-m length --length 20:100",
    "-m ttl --ttl-gt 1",
    "-i eth0",
    "! -i lo",
    "-i eth+",
    "-s LISTED",
    "! -s LISTED",
    "-d HOST",
];

const VERDICTS: &[&str] = &[
    "-j ACCEPT",
    "-j ACCEPT",
    "-j ACCEPT",
    "-j DROP",
    "-j RETURN",
    "-j REJECT",
    "-j LOG",
    "",
];

const MANGLES: &[&str] = &[
    "-j MARK --set-xmark 0x1/0x1",
    "-j MARK --set-xmark 0x2/0xffffffff",
    "-j CONNMARK --save-mark",
    "-j CONNMARK --set-xmark 0x2/0x2",
    "-j CONNMARK --restore-mark",
    "-m rpfilter --invert -j DROP",
    "-m rpfilter --loose --validmark -j ACCEPT",
    "-j DROP",
    "-j ACCEPT",
];

const RAWS: &[&str] = &[
    "-j CT --notrack",
    "-j DROP",
    "-j ACCEPT",
    "-j CT --zone 1",
    "",
];

const NATS: &[&str] = &[
    "-p tcp -m tcp --dport 80 -j REDIRECT --to-ports 8080",
    "-p tcp -m tcp --dport 8080 -j REDIRECT --to-ports 80",
    "-p tcp -m tcp --dport 80 -m addrtype --dst-type LOCAL -j DNAT --to-destination INNER:80",
    "-p tcp -m multiport --dports 443,8080 -j DNAT --to-destination INNER:443",
];

pub fn iptables() -> impl Strategy<Value = Iptables> {
    let rules = |chain: &'static str, most: usize, ends: &'static [&'static str]| {
        let rule = (prop::collection::vec(select(MATCHES), 0..3), select(ends))
            .prop_map(move |(matches, end)| rule(chain, &matches, end));
        prop::collection::vec(rule, 0..most)
    };
    let filter = |chain: &'static str, most: usize, next: &'static str| {
        let rule = (
            prop::collection::vec(select(MATCHES), 0..3),
            prop_oneof![3 => select(VERDICTS), 1 => Just(next)],
        )
            .prop_map(move |(matches, end)| rule(chain, &matches, end));
        prop::collection::vec(rule, 0..most)
    };
    let early = (
        rules("PREROUTING", 2, RAWS),
        rules("PREROUTING", 3, MANGLES),
        prop::collection::vec(
            select(NATS).prop_map(|rule| format!("-A PREROUTING {rule}")),
            0..2,
        ),
    );
    let late = (
        filter("INPUT", 5, "-j web"),
        filter("FORWARD", 3, "-g web"),
        filter("web", 4, "-j deep"),
        filter("deep", 3, "-j deeper"),
    );
    let policies = (
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.4),
        prop::bool::weighted(0.4),
    );
    (policies, early, late).prop_map(
        |(
            (only_v4, input_drops, forward_drops),
            (raw, mangle, nat),
            (filter, forward, web, deep),
        )| Iptables {
            only_v4,
            input_drops,
            forward_drops,
            raw,
            mangle,
            nat,
            filter,
            forward,
            web,
            deep,
        },
    )
}

/// One line. An option that can be said once is said once.
fn rule(chain: &str, matches: &[&str], end: &str) -> String {
    let mut line = format!("-A {chain}");
    for piece in matches.iter().chain([&end]) {
        let option = piece
            .trim_start_matches("! ")
            .split(' ')
            .next()
            .unwrap_or_default();
        let is_said = |option: &str| line.split(' ').any(|word| word == option);
        let once = ["-p", "-i", "-s", "-d"].contains(&option) && is_said(option);
        let twice =
            piece.starts_with("-m") && line.contains(piece.split(" -").next().unwrap_or(piece));
        if !piece.is_empty() && !once && !twice {
            line = format!("{line} {piece}");
        }
    }
    line
}

impl Iptables {
    /// What `iptables-save` or `ip6tables-save` would print.
    pub fn of(&self, is_v4: bool) -> String {
        if !is_v4 && self.only_v4 {
            return String::new();
        }
        let policy = |drops: bool| if drops { "DROP" } else { "ACCEPT" };
        let (input, forward) = (policy(self.input_drops), policy(self.forward_drops));
        let early = |name: &str, rules: &[String]| {
            format!(
                "*{name}\n:PREROUTING ACCEPT [0:0]\n{}COMMIT\n",
                lines(rules, is_v4)
            )
        };
        let heads = format!(
            "*filter\n:INPUT {input} [0:0]\n:FORWARD {forward} [0:0]\n:web - [0:0]\n:deep - [0:0]\n:deeper - [0:0]\n"
        );
        [
            early("raw", &self.raw),
            early("mangle", &self.mangle),
            early("nat", &self.nat),
            heads,
            lines(&self.filter, is_v4),
            lines(&self.forward, is_v4),
            lines(&self.web, is_v4),
            lines(&self.deep, is_v4),
            "-A deeper -p tcp -j ACCEPT\nCOMMIT\n".to_owned(),
        ]
        .concat()
    }
}

fn lines(rules: &[String], is_v4: bool) -> String {
    let [listed, host, inner, foreign] = match is_v4 {
        true => ["198.51.100.0/24", "192.0.2.1", "10.0.0.2", "no such word"],
        false => [
            "2001:db8:77::/48",
            "2001:db8:1::1",
            "[fd00::2]",
            "198.51.100.",
        ],
    };
    let rules = rules
        .iter()
        .filter(|rule| !rule.contains(foreign) && (is_v4 || !rule.contains("-m ttl")));
    rules
        .map(|rule| {
            let rule = rule.replace("LISTED", listed).replace("HOST", host);
            rule.replace("INNER", inner) + "\n"
        })
        .collect()
}
