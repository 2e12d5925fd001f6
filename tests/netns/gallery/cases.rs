//! The cases: what is loaded, what the doctor must say first, and what packets do.

use acmegate::doctor::finding::{Code, Severity};
use acmegate::doctor::reading::{
    DROPPED, DROPS_SOME, HANDED_OVER, LIMITED, ONE_FAMILY, PASSES, SENT_ELSEWHERE, SENT_NOWHERE,
    TIMED,
};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Passes,
    Dropped,
    /// The doctor does not say; packets always do.
    Open,
}
use Fate::{Dropped, Passes};

/// Something that is loaded.
#[derive(Clone, Copy, Debug)]
pub enum Rules {
    Nft(&'static str),
    /// As `iptables-save` prints it.
    Iptables(&'static str),
    Ip6tables(&'static str),
    /// What Docker writes for a published port 80.
    Docker,
    Command(&'static str),
}

/// What there is besides the host itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    Alone,
    /// An inner host behind a bridge.
    Inner,
    /// The same, and the host sends nothing on.
    NotForwarding,
}

/// A host as somebody has it.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    pub rules: &'static [Rules],
    pub world: World,
    pub config: &'static str,
    pub names: usize,
    /// What the first finding must be, in words.
    pub because: &'static str,
    /// The same: its code, how bad, and what it must say.
    pub first: (Code, Severity, &'static [&'static str]),
    /// What packets do in a window: IPv4, IPv6.
    pub open: [Fate; 2],
    /// Outside of windows.
    pub shut: [Fate; 2],
    /// The doctor may leave it open what they do.
    pub may_be_open: bool,
    /// The doctor must say which chains to attach to, and that must do.
    pub attachable: bool,
}

/// A case that drops everything, for acmegate as it comes.
const DROPPING: Case = Case {
    name: "",
    rules: &[],
    world: World::Alone,
    config: "",
    names: 1,
    because: "",
    first: (DROPPED, Severity::Fault, &[]),
    open: [Dropped; 2],
    shut: [Dropped; 2],
    may_be_open: false,
    attachable: true,
};

/// A case in which a window does what it is for.
const PASSING: Case = Case {
    first: (PASSES, Severity::Fine, &["tcp port 80 passes"]),
    open: [Passes; 2],
    attachable: false,
    ..DROPPING
};

/// A host without a firewall.
pub const ALONE: Case = PASSING;

/// The gate only opens; somebody else answers.
const WINDOWS_ONLY: &str = "[http]\nlisten = []\n[firewall]\nports = [80]\n";

macro_rules! file {
    ($name:literal) => {
        include_str!(concat!("../../data/rulesets/", $name))
    };
}

pub const CASES: &[Case] = &[
    Case {
        name: "no firewall at all",
        because: "nothing but acmegate's own table is there, and it does what a window is for",
        ..PASSING
    },
    Case {
        name: "plain policy drop",
        rules: &[Rules::Nft(file!("plain-drop.nft"))],
        because: "the policy of the only chain, and nothing else",
        first: (
            DROPPED,
            Severity::Fault,
            &[
                "inet filter input policy drops tcp port 80, window or not",
                "`mode = \"attach\"`",
                "`chains = [\"inet filter input\"]`",
                "use mode `set` with inet filter acmegate",
            ],
        ),
        ..DROPPING
    },
    Case {
        name: "open to all in plain nft",
        rules: &[Rules::Nft(file!("gallery/open-to-all.nft"))],
        because: "the port is open, and acmegate guards it",
        ..PASSING
    },
    Case {
        name: "Debian's workstation.nft",
        rules: &[Rules::Nft(file!("gallery/debian-workstation.nft"))],
        because: "its last rule, not its policy, which accepts",
        first: (
            DROPPED,
            Severity::Fault,
            &["inet filter input rule drops", "`counter drop`"],
        ),
        ..DROPPING
    },
    Case {
        name: "Arch's nftables.conf",
        rules: &[Rules::Nft(file!("gallery/arch.nft"))],
        because: "the first packets meet its reject, not its policy",
        first: (
            DROPPED,
            Severity::Fault,
            &["inet filter input rule rejects", "admin-prohibited"],
        ),
        ..DROPPING
    },
    Case {
        name: "Red Hat's main.nft",
        rules: &[Rules::Nft(file!("gallery/red-hat.nft"))],
        because: "the reject behind the jump to `allow`",
        first: (
            DROPPED,
            Severity::Fault,
            &["inet nftables_svc INPUT rule rejects"],
        ),
        ..DROPPING
    },
    Case {
        name: "two tables fighting",
        rules: &[Rules::Nft(file!("gallery/two-tables.nft"))],
        because: "the forgotten table's rule, though the other one accepts",
        first: (
            DROPPED,
            Severity::Fault,
            &["inet hardening in rule drops", "from the old server"],
        ),
        ..DROPPING
    },
    Case {
        name: "three chains that drop",
        rules: &[Rules::Nft(file!("gallery/three-tables.nft"))],
        because: "the one that comes first, and the others beside it: all three must let it pass",
        first: (
            DROPPED,
            Severity::Fault,
            &[
                "inet early pre rule drops tcp port 80",
                "seen: inet filter input policy",
                "seen: inet late input rule",
                "`chains = [\"inet early pre\", \"inet filter input\", \"inet late input\"]`",
            ],
        ),
        ..DROPPING
    },
    Case {
        name: "iptables-nft twin beside nft",
        rules: &[
            Rules::Nft(file!("gallery/open-to-all.nft")),
            Rules::Iptables(file!("gallery/nft-twin.iptables")),
            Rules::Ip6tables(file!("gallery/nft-twin.ip6tables")),
        ],
        because: "the tables that iptables made, which nft's own file does not show",
        first: (
            DROPPED,
            Severity::Fault,
            &[
                "ip filter INPUT policy drops",
                "(iptables)",
                "`iptables -t filter -I INPUT -p tcp --dport 80 -j ACCEPT`",
                "`chains = [\"ip filter INPUT\", \"ip6 filter INPUT\"]`",
            ],
        ),
        ..DROPPING
    },
    Case {
        name: "a cloud's image",
        rules: &[
            Rules::Iptables(file!("gallery/cloud-image.iptables")),
            Rules::Ip6tables(file!("gallery/cloud-image.ip6tables")),
        ],
        because: "the REJECT at the end of INPUT, which has policy accept",
        first: (
            DROPPED,
            Severity::Fault,
            &["ip filter INPUT rule rejects tcp port 80"],
        ),
        ..DROPPING
    },
    Case {
        name: "Docker publishes 80, and acmegate listens there",
        rules: &[Rules::Docker],
        world: World::Inner,
        because: "the packets pass, but Docker's DNAT takes them away from acmegate",
        first: (
            SENT_ELSEWHERE,
            Severity::Fault,
            &[
                "Docker (ip nat PREROUTING → DOCKER rule) sends tcp port 80 to 172.17.0.2 port 80 beyond docker0, and never to acmegate",
                "-p 127.0.0.1:8080:80",
            ],
        ),
        ..PASSING
    },
    Case {
        name: "Docker publishes 80, and the container answers",
        rules: &[Rules::Docker],
        world: World::Inner,
        config: WINDOWS_ONLY,
        because: "all is well, and who answers is said",
        first: (
            SENT_ELSEWHERE,
            Severity::Advice,
            &["172.17.0.2 port 80 beyond docker0"],
        ),
        ..PASSING
    },
    Case {
        name: "Docker, and a rule of one's own in DOCKER-USER",
        rules: &[
            Rules::Docker,
            Rules::Iptables(file!("gallery/docker-user.iptables")),
            Rules::Ip6tables(file!("gallery/docker-user.ip6tables")),
        ],
        world: World::Inner,
        config: WINDOWS_ONLY,
        because: "the rule in DOCKER-USER, in the forward chain, not INPUT's policy",
        first: (
            DROPPED,
            Severity::Fault,
            &[
                "ip filter FORWARD → DOCKER-USER rule drops tcp port 80",
                "(Docker)",
                "`chains = [\"ip filter DOCKER-USER\", \"ip6 filter DOCKER-USER\"]`",
            ],
        ),
        ..DROPPING
    },
    Case {
        name: "ufw",
        rules: &[
            Rules::Iptables(file!("ufw-0.36.iptables")),
            Rules::Ip6tables(file!("ufw-0.36.ip6tables")),
        ],
        because: "ufw's policy, in ufw's words",
        first: (
            DROPPED,
            Severity::Fault,
            &[
                "ip filter INPUT policy drops",
                "(ufw)",
                "`ufw allow 80/tcp`",
            ],
        ),
        ..DROPPING
    },
    Case {
        name: "firewalld",
        rules: &[Rules::Nft(file!("firewalld-1.3.nft"))],
        because: "the reject of zone public, in firewalld's words",
        first: (
            DROPPED,
            Severity::Fault,
            &[
                "inet firewalld filter_INPUT → filter_IN_public rule rejects",
                "(firewalld)",
                "`firewall-cmd --permanent --add-port=80/tcp`",
                "`chains = [\"inet firewalld filter_INPUT\"]`",
            ],
        ),
        ..DROPPING
    },
    Case {
        name: "firewalld with port 80",
        rules: &[Rules::Nft(file!("firewalld-1.3-port-80.nft"))],
        because: "firewalld opened the port, and acmegate guards it",
        ..PASSING
    },
    Case {
        name: "geoip-shell with an allow-list",
        rules: &[Rules::Nft(file!("gallery/geoip-shell.nft"))],
        because: "its last drop in prerouting, before any input chain",
        first: (
            DROPPED,
            Severity::Fault,
            &[
                "inet geoip-shell GEOIP-BASE_IN → GEOIP-SHELL_IN rule drops",
                "(geoip-shell)",
                "`geoip-shell configure -p tcp:allow:80`",
            ],
        ),
        ..DROPPING
    },
    Case {
        name: "geoip-shell with a block-list",
        rules: &[Rules::Nft(file!("gallery/geo-block.nft"))],
        because: "most of the world passes, and a perspective may be in a country that does not",
        first: (
            DROPS_SOME,
            Severity::Doubt,
            &[
                "GEOIP-SHELL_IN rule drops tcp port 80 from some sources",
                "block_4",
            ],
        ),
        ..PASSING
    },
    Case {
        name: "crowdsec",
        rules: &[Rules::Nft(file!("gallery/crowdsec.nft"))],
        because: "single sources are banned; that is no fault",
        first: (
            DROPS_SOME,
            Severity::Advice,
            &["crowdsec-blacklists", "(a blocklist)"],
        ),
        ..PASSING
    },
    Case {
        name: "fail2ban",
        rules: &[Rules::Nft(file!("gallery/fail2ban.nft"))],
        because: "single sources are banned; that is no fault",
        first: (
            DROPS_SOME,
            Severity::Advice,
            &["inet f2b-table f2b-chain rule", "(a blocklist)"],
        ),
        ..PASSING
    },
    Case {
        name: "a limit on what is accepted",
        rules: &[Rules::Nft(file!("gallery/few-a-minute.nft"))],
        because: "one packet passes, and six at once do not",
        first: (
            LIMITED,
            Severity::Doubt,
            &[
                "inet filter input rule limits tcp port 80 to 3 packets a minute and 2 at once, of all the world together",
                "2 get through in 10 s",
            ],
        ),
        ..PASSING
    },
    Case {
        name: "a SYN-flood protection in prerouting",
        rules: &[Rules::Nft(file!("gallery/syn-flood.nft"))],
        because: "the perspectives come at once; the rest of them has to try again",
        first: (
            LIMITED,
            Severity::Advice,
            &["inet ddos pre → syn rule limits tcp port 80 to 1 packets a second and 4 at once"],
        ),
        ..PASSING
    },
    Case {
        name: "so many connections of each source",
        rules: &[Rules::Nft(file!("gallery/connections-per-source.nft"))],
        names: 5,
        because: "a certificate with five names is asked for by five connections of each perspective",
        first: (
            LIMITED,
            Severity::Doubt,
            &[
                "to 2 connections at the same time, of each source",
                "5 first packets",
            ],
        ),
        ..PASSING
    },
    Case {
        name: "hashlimit",
        rules: &[
            Rules::Iptables(file!("gallery/hashlimit.iptables")),
            Rules::Ip6tables(file!("gallery/hashlimit.ip6tables")),
        ],
        because: "iptables counts all the world together by the port",
        first: (
            LIMITED,
            Severity::Doubt,
            &[
                "ip filter INPUT rule limits tcp port 80 to 1 packets a minute and 2 at once, of all the world together",
            ],
        ),
        ..PASSING
    },
    Case {
        name: "recent",
        rules: &[Rules::Iptables(file!("gallery/recent.iptables"))],
        names: 3,
        because: "the third packet of a source within a minute is dropped",
        first: (
            LIMITED,
            Severity::Doubt,
            &[
                "ip filter INPUT rule limits tcp port 80 to 3 packets a minute",
                "of each source",
            ],
        ),
        ..PASSING
    },
    Case {
        name: "IPv6 forgotten",
        rules: &[
            Rules::Iptables(file!("gallery/open.iptables")),
            Rules::Ip6tables(file!("gallery/v6-forgotten.ip6tables")),
        ],
        because: "IPv4 is open, and ip6tables was never told",
        first: (
            ONE_FAMILY,
            Severity::Fault,
            &[
                "ip6 filter INPUT policy drops tcp port 80 over IPv6 alone",
                "`ip6tables -t filter",
                "AAAA",
            ],
        ),
        open: [Passes, Dropped],
        attachable: false,
        ..DROPPING
    },
    Case {
        name: "open for IPv4 alone",
        rules: &[Rules::Nft(file!("gallery/v4-only.nft"))],
        because: "a rule for IPv4 addresses, in a chain for both families",
        first: (
            ONE_FAMILY,
            Severity::Fault,
            &["inet filter input policy drops tcp port 80 over IPv6 alone"],
        ),
        open: [Passes, Dropped],
        attachable: false,
        ..DROPPING
    },
    Case {
        name: "DNAT to an inner host, and no way through",
        rules: &[Rules::Nft(file!("gallery/inner-host-shut.nft"))],
        world: World::Inner,
        config: WINDOWS_ONLY,
        because: "the forward chain, which sees port 8080 and not 80; not the input chain, which accepts",
        first: (
            DROPPED,
            Severity::Fault,
            &[
                "inet filter forward policy drops tcp port 80",
                "ct original proto-dst @acmegate accept",
                "`chains = [\"inet filter forward\"]`",
            ],
        ),
        ..DROPPING
    },
    Case {
        name: "DNAT to an inner host",
        rules: &[Rules::Nft(file!("gallery/inner-host.nft"))],
        world: World::Inner,
        config: WINDOWS_ONLY,
        because: "all is well, and who answers is said",
        first: (
            SENT_ELSEWHERE,
            Severity::Advice,
            &["172.17.0.2 port 8080 beyond docker0"],
        ),
        ..PASSING
    },
    Case {
        name: "DNAT on a host that sends nothing on",
        rules: &[Rules::Nft(file!("gallery/inner-host.nft"))],
        world: World::NotForwarding,
        config: WINDOWS_ONLY,
        because: "no rule drops it; forwarding is switched off",
        first: (
            SENT_NOWHERE,
            Severity::Fault,
            &[
                "172.17.0.2 port 8080",
                "this host sends nothing on",
                "net.ipv4.ip_forward=1",
            ],
        ),
        attachable: false,
        ..DROPPING
    },
    Case {
        name: "redirected to a port that is shut",
        rules: &[Rules::Nft(file!("gallery/redirected.nft"))],
        config: "[http]\nlisten = [\"[::]:8080\"]\n[firewall]\nports = [80]\n",
        because: "the input chain sees port 8080, and accepts 80",
        first: (
            DROPPED,
            Severity::Fault,
            &["inet filter input policy drops tcp port 80"],
        ),
        ..DROPPING
    },
    Case {
        name: "redirected by iptables to a port that is shut",
        rules: &[
            Rules::Iptables(file!("gallery/redirect.iptables")),
            Rules::Ip6tables(file!("gallery/redirect.ip6tables")),
        ],
        config: "[http]\nlisten = [\"[::]:8080\"]\n[firewall]\nports = [80]\n",
        because: "INPUT sees port 8080, and accepts 80",
        first: (
            DROPPED,
            Severity::Fault,
            &["ip filter INPUT policy drops tcp port 80"],
        ),
        ..DROPPING
    },
    Case {
        name: "DNAT by a map, for IPv4",
        rules: &[Rules::Nft(file!("gallery/dnat-by-map.nft"))],
        world: World::Inner,
        config: WINDOWS_ONLY,
        because: "the map's inner address, and the rule of the forward chain that knows it",
        first: (
            ONE_FAMILY,
            Severity::Fault,
            &[
                "ip router forward rule drops tcp port 80 over IPv4 alone",
                "172.17.0.2",
            ],
        ),
        open: [Dropped, Passes],
        attachable: false,
        ..DROPPING
    },
    Case {
        name: "fail2ban by iptables",
        rules: &[
            Rules::Iptables(file!("gallery/fail2ban.iptables")),
            Rules::Ip6tables(file!("gallery/fail2ban.ip6tables")),
        ],
        because: "single sources are banned; that is no fault",
        first: (
            DROPS_SOME,
            Severity::Advice,
            &["ip filter INPUT → f2b-nginx rule", "(a blocklist)"],
        ),
        ..PASSING
    },
    Case {
        name: "a reset for everybody",
        rules: &[Rules::Nft(file!("gallery/reject.nft"))],
        because: "a reject is a drop that says so",
        first: (
            DROPPED,
            Severity::Fault,
            &[
                "inet filter input rule rejects tcp port 80",
                "reject with tcp reset",
            ],
        ),
        ..DROPPING
    },
    Case {
        name: "a verdict map",
        rules: &[Rules::Nft(file!("gallery/verdict-map.nft"))],
        because: "the map leads to chain web, whose last rule drops",
        first: (
            DROPPED,
            Severity::Fault,
            &["inet filter input → web rule drops", "`counter drop`"],
        ),
        ..DROPPING
    },
    Case {
        name: "concatenations",
        rules: &[Rules::Nft(file!("gallery/concatenations.nft"))],
        because: "port 80 of tcp stands in the set for another interface only",
        first: (
            DROPPED,
            Severity::Fault,
            &["inet filter input rule drops tcp port 80"],
        ),
        ..DROPPING
    },
    Case {
        name: "jumps three deep",
        rules: &[Rules::Nft(file!("gallery/three-deep.nft"))],
        because: "the rule at the end of the third jump",
        first: (
            DROPPED,
            Severity::Fault,
            &["inet filter input → public-web rule drops", "only TLS here"],
        ),
        ..DROPPING
    },
    Case {
        name: "logging and counters",
        rules: &[Rules::Nft(file!("gallery/logging.nft"))],
        because: "the last rule drops; the one before only logs, up to a limit",
        first: (
            DROPPED,
            Severity::Fault,
            &[
                "inet filter input rule drops",
                "counter name \"dropped\" drop",
            ],
        ),
        ..DROPPING
    },
    Case {
        name: "notrack",
        rules: &[Rules::Nft(file!("gallery/notrack.nft"))],
        because: "what is not tracked is never new: the policy",
        first: (
            DROPPED,
            Severity::Fault,
            &["inet filter input policy drops"],
        ),
        // Our mark on a packet is nothing to connection tracking; the answers are another matter.
        ..DROPPING
    },
    Case {
        name: "dropped at the card",
        rules: &[Rules::Nft(file!("gallery/ingress.nft"))],
        because: "the ingress chain, which comes before everything that could be marked",
        first: (
            DROPPED,
            Severity::Fault,
            &["netdev edge ingress rule drops", "@ports"],
        ),
        attachable: false,
        ..DROPPING
    },
    Case {
        name: "connection states alone",
        rules: &[Rules::Nft(file!("gallery/state-only.nft"))],
        because: "new connections to anything but SSH",
        first: (
            DROPPED,
            Severity::Fault,
            &[
                "inet filter input rule drops",
                "`ct state new tcp dport != 22 drop`",
            ],
        ),
        ..DROPPING
    },
    Case {
        name: "a policy by marks",
        rules: &[Rules::Nft(file!("gallery/marks.nft"))],
        because: "nobody marks port 80; the rule that asks for the mark drops it",
        first: (
            DROPPED,
            Severity::Fault,
            &["inet filter input rule drops", "0x00000010 drop"],
        ),
        ..DROPPING
    },
    Case {
        name: "synproxy",
        rules: &[
            Rules::Nft(file!("gallery/synproxy.nft")),
            Rules::Command("sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0"),
        ],
        because: "the kernel answers for the socket; what then becomes of it the rules do not tell",
        first: (
            HANDED_OVER,
            Severity::Doubt,
            &["inet filter input rule hands to a proxy", "synproxy"],
        ),
        may_be_open: true,
        ..PASSING
    },
    Case {
        name: "ranges of ports",
        rules: &[Rules::Nft(file!("gallery/port-ranges.nft"))],
        because: "80 is the one port that no range holds: the policy",
        first: (
            DROPPED,
            Severity::Fault,
            &["inet filter input policy drops"],
        ),
        ..DROPPING
    },
    Case {
        name: "OpenWrt's zones",
        rules: &[Rules::Nft(file!("gallery/fw4.nft"))],
        because: "the zone's own drop chain",
        first: (
            DROPPED,
            Severity::Fault,
            &["inet fw4 input → drop_from_wan rule drops"],
        ),
        ..DROPPING
    },
    Case {
        name: "the administrator's set",
        rules: &[Rules::Nft(file!("administrators-set.nft"))],
        config: "[firewall]\nmode = \"set\"\nset = \"inet filter acmegate\"\n",
        because: "mode `set` does what it is for",
        ..PASSING
    },
    Case {
        name: "attached, and another table drops",
        rules: &[
            Rules::Nft(file!("plain-drop.nft")),
            Rules::Nft(file!("gallery/geoip-shell.nft")),
        ],
        config: "[firewall]\nmode = \"attach\"\nchains = [\"inet filter input\"]\n",
        because: "the other table alone is the culprit, and both chains are to be named",
        first: (
            DROPPED,
            Severity::Fault,
            &[
                "inet geoip-shell GEOIP-BASE_IN → GEOIP-SHELL_IN rule drops",
                "`chains = [\"inet filter input\", \"inet geoip-shell GEOIP-BASE_IN\"]`",
            ],
        ),
        ..DROPPING
    },
    Case {
        name: "office hours",
        rules: &[Rules::Nft(file!("gallery/every-day.nft"))],
        because: "a rule that asks for the day decides, and days differ",
        first: (
            TIMED,
            Severity::Doubt,
            &["inet filter input rule lets tcp port 80 pass at some times"],
        ),
        may_be_open: true,
        ..PASSING
    },
];
