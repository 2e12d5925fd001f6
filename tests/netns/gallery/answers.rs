//! Rules on the answers' way out, as people really have them: what the twin says becomes of an answer is compared with
//! what becomes of a connection from outside, and its remedy is followed to the letter.

use std::path::Path;

use acmegate::doctor::finding::{Finding, Severity};
use acmegate::doctor::twin::{PROVED_ANSWERS_DROPPED, PROVED_PASSES, Source, examine_by};

use super::cases::{ALONE, Case, Fate, Rules, World};
use super::{Scene, shown};
use crate::host::{Host, Seen};
use crate::lab::{BINARY, inside};
use crate::managers::own::tool;

struct Silent {
    name: &'static str,
    rules: &'static [Rules],
    world: World,
    /// Of IPv4 and IPv6, whether answers get out.
    out: [bool; 2],
    /// What the finding must say.
    says: &'static [&'static str],
}

const ALL: [bool; 2] = [true, true];
const NONE: [bool; 2] = [false, false];

macro_rules! nft {
    ($($chain:literal)*) => {
        Rules::Nft(concat!($("table inet outward {\n", $chain, "\n}\n"),*))
    };
}

const HOSTS: &[Silent] = &[
    Silent {
        name: "output policy drop, and nothing for answers",
        rules: &[nft!(
            "chain out { type filter hook output priority filter; policy drop;
                udp dport 53 accept
                tcp dport { 80, 443 } accept
            }"
        )],
        world: World::Alone,
        out: NONE,
        says: &["inet outward out: its policy drop"],
    },
    Silent {
        name: "output policy drop behind `established`",
        rules: &[nft!(
            "chain out { type filter hook output priority filter; policy drop;
                ct state established,related accept
                udp dport 53 accept
            }"
        )],
        world: World::Alone,
        out: ALL,
        says: &[],
    },
    Silent {
        name: "established after the drop",
        rules: &[nft!(
            "chain out { type filter hook output priority filter; policy accept;
                tcp sport 80 counter drop
                ct state established,related accept
            }"
        )],
        world: World::Alone,
        out: NONE,
        says: &["inet outward out: tcp sport 80 counter", "drop"],
    },
    Silent {
        name: "reject three chains deep, of one family",
        rules: &[nft!(
            "chain last { meta nfproto ipv6 reject
            }
            chain next { jump last
            }
            chain out { type filter hook output priority filter; policy accept;
                tcp sport < 1024 jump next
            }"
        )],
        world: World::Alone,
        out: [true, false],
        says: &["rejected by inet outward last"],
    },
    Silent {
        name: "postrouting",
        rules: &[nft!(
            "chain late { type filter hook postrouting priority srcnat + 1; policy accept;
                oifname eth0 tcp sport 80 drop
            }"
        )],
        world: World::Alone,
        out: NONE,
        says: &["inet outward late"],
    },
    Silent {
        name: "egress",
        rules: &[Rules::Nft(
            "table netdev outward {
                chain edge { type filter hook egress device eth0 priority 0; policy accept;
                    tcp sport 80 drop
                }
            }",
        )],
        world: World::Alone,
        out: NONE,
        says: &["netdev outward edge"],
    },
    Silent {
        name: "untracked, and only tracked answers pass",
        rules: &[nft!(
            "chain raw { type filter hook prerouting priority raw; policy accept;
                tcp dport 80 notrack
            }
            chain out { type filter hook output priority filter; policy drop;
                ct state established,related accept
            }"
        )],
        world: World::Alone,
        out: NONE,
        says: &["inet outward out: its policy drop"],
    },
    Silent {
        name: "the port before it is translated back",
        rules: &[nft!(
            "chain to { type nat hook prerouting priority dstnat; policy accept;
                tcp dport 80 redirect to :8080
            }
            chain out { type filter hook output priority filter; policy drop;
                tcp sport 80 accept
            }"
        )],
        world: World::Alone,
        out: NONE,
        says: &["inet outward out: its policy drop", "tcp sport 8080 accept"],
    },
    Silent {
        name: "a connection's mark from its way in",
        rules: &[nft!(
            "chain pre { type filter hook prerouting priority mangle; policy accept;
                iifname eth0 ct mark set 0x5
            }
            chain out { type filter hook output priority filter; policy drop;
                ct mark 0x5 accept
            }"
        )],
        world: World::Alone,
        out: ALL,
        says: &[],
    },
    Silent {
        name: "iptables -P OUTPUT DROP",
        rules: &[Rules::Iptables(
            "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT DROP [0:0]\n\
             -A OUTPUT -p udp -m udp --dport 53 -j ACCEPT\nCOMMIT\n",
        )],
        world: World::Alone,
        out: [false, true],
        says: &[
            "ip filter OUTPUT: its policy drop",
            "`iptables -t filter -I OUTPUT -p tcp --sport 80 -j ACCEPT`",
        ],
    },
    Silent {
        name: "iptables, with conntrack",
        rules: &[
            Rules::Iptables(
                "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT DROP [0:0]\n\
                 -A OUTPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT\n",
            ),
            Rules::Ip6tables(
                "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT DROP [0:0]\n\
                 -A OUTPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT\n",
            ),
        ],
        world: World::Alone,
        out: ALL,
        says: &[],
    },
    Silent {
        name: "a container's answers",
        rules: &[
            Rules::Docker,
            nft!(
                "chain forth { type filter hook forward priority -5; policy accept;
                    iifname docker0 ct direction reply drop
                }"
            ),
        ],
        world: World::Inner,
        out: NONE,
        says: &["inet outward forth", "ct direction reply drop"],
    },
    Silent {
        name: "a container's answers as Docker lets them out",
        rules: &[Rules::Docker],
        world: World::Inner,
        out: ALL,
        says: &[],
    },
];

impl Scene<'_> {
    /// What packets prove of one family: nothing wrong, or the answers' way out.
    fn proofs(&self) -> [Option<Finding>; 2] {
        let patient = self.patient();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let exam = runtime.block_on(examine_by(Path::new(BINARY), &patient, Source::Live));
        assert_eq!(exam.not_covered, [""; 0], "{exam:#?}");
        ["IPv4", "IPv6"].map(|family| {
            let mut findings = exam.findings.iter();
            let found = findings.find(|finding| {
                let is_one = [PROVED_PASSES, PROVED_ANSWERS_DROPPED].contains(&finding.code);
                is_one && finding.port == Some(80) && finding.finding.contains(family)
            });
            let found = found.unwrap_or_else(|| panic!("{family}: {exam:#?}"));
            (found.code == PROVED_ANSWERS_DROPPED).then(|| found.clone())
        })
    }

    /// What a connection from outside comes to, in a window.
    fn connections(&self, expected: [bool; 2]) -> [bool; 2] {
        let expected = expected.map(|out| if out { Fate::Passes } else { Fate::Dropped });
        self.packets(expected).map(|seen| seen == Seen::Connected)
    }
}

fn examine(host: &Host, silent: &Silent) {
    let case = Case {
        rules: silent.rules,
        world: silent.world,
        ..ALONE
    };
    let scene = Scene::new(host, &case);
    scene.install();
    scene.open();
    let seen = scene.connections(silent.out);
    assert_eq!(seen, silent.out, "the case itself");
    let proofs = scene.proofs();
    let told: Vec<String> = proofs.iter().flatten().map(shown).collect();
    let told = told.join("\n");
    assert_eq!(proofs.each_ref().map(Option::is_none), seen, "{told}");
    for word in silent.says {
        assert!(told.contains(word), "`{word}` in:\n{told}");
    }
    for proof in proofs.iter().flatten() {
        // Who cannot be answered over one family turns to the other.
        let severity = match silent.out {
            NONE => Severity::Fault,
            _ => Severity::Doubt,
        };
        assert_eq!(proof.severity, severity, "{told}");
        let (_, line) = proof.remedy[0].split_once('`').expect("what to type");
        let (line, _) = line.split_once('`').expect("it ends");
        let words: Vec<&str> = line.split(' ').collect();
        tool(words[0], &words[1..]);
    }
    assert_eq!(scene.connections(ALL), ALL, "as advised:\n{told}");
    assert_eq!(scene.proofs(), [None, None], "as advised:\n{told}");
}

#[test]
fn what_is_said_of_answers_is_what_connections_find() {
    inside(|| {
        std::thread::scope(|scope| {
            let running: Vec<_> = HOSTS
                .iter()
                .map(|silent| (silent, scope.spawn(|| examine(&Host::new(), silent))))
                .collect();
            let wrong: Vec<&str> = running
                .into_iter()
                .filter_map(|(silent, running)| running.join().is_err().then_some(silent.name))
                .collect();
            assert!(wrong.is_empty(), "see above: {wrong:#?}");
        });
    });
}
