//! The judgement on rulesets made by hand; what the kernel thinks of the same is in `tests/netns`.

use std::collections::HashMap;

use nlink::netlink::nftables::{ChainName, CmpOp, Family, MetaKey, PayloadBase, Verdict};

use super::ruleset::{Base, Chain, Data, Element, Hook, Key, Rule, Ruleset, Set, Table};
use super::step::{End, Field, Into, Leaves, Step};
use super::{Cause, Culprit, Doubt, IpFamily, Manager, NamedSet, Path, Probe, judge};

fn probe() -> Probe {
    Probe {
        family: IpFamily::V4,
        port: 80,
        interface: "eth0".to_owned(),
        ifindex: Some(2),
        destination: None,
        mark: 0,
        ct_mark: 0,
        is_untracked: false,
        accepted_sets: Vec::new(),
    }
}

fn base(name: &str, hook: Hook, priority: i32, drops_by_policy: bool, rules: Rules) -> Chain {
    let devices = vec!["eth0".to_owned()];
    let base = Base {
        hook,
        priority,
        nat: false,
        devices,
        drops_by_policy,
    };
    Chain {
        base: Some(base),
        ..chain(name, rules)
    }
}

type Rules = Vec<Vec<Step>>;

/// A chain whose rules have the handles 1, 2, 3 …
fn chain(name: &str, rules: Rules) -> Chain {
    let rules = (1..)
        .zip(rules)
        .map(|(handle, steps)| Rule { handle, steps })
        .collect();
    Chain {
        name: name.to_owned(),
        base: None,
        rules,
    }
}

fn table(name: &str, chains: Vec<Chain>) -> Table {
    Table::new(Family::Inet, name.to_owned(), chains, HashMap::new())
}

fn ruleset(tables: Vec<Table>) -> Ruleset {
    Ruleset {
        generation: Some(1),
        tables,
    }
}

/// One input chain that drops by policy.
fn input(rules: Rules) -> Ruleset {
    ruleset(vec![table(
        "filter",
        vec![base("input", Hook::Input, 0, true, rules)],
    )])
}

fn judged(ruleset: &Ruleset) -> Path {
    judge(ruleset, &probe(), &["acmegate"])
}

fn culprit(path: Path) -> Culprit {
    match path {
        Path::Drops(culprit) => culprit,
        Path::Passes { doubts } => panic!("it passes: {doubts:?}"),
    }
}

fn doubts(path: Path) -> Vec<Doubt> {
    match path {
        Path::Passes { doubts } => doubts,
        Path::Drops(culprit) => panic!("{culprit}"),
    }
}

fn verdict(verdict: Verdict) -> Step {
    Step::End(End::Verdict(verdict))
}

fn accept() -> Step {
    verdict(Verdict::Accept)
}

fn drop() -> Step {
    verdict(Verdict::Drop)
}

fn jump(chain: &str) -> Step {
    verdict(Verdict::JumpTo(ChainName::new(chain).expect("a name")))
}

fn goto(chain: &str) -> Step {
    verdict(Verdict::GotoTo(ChainName::new(chain).expect("a name")))
}

fn load(base: PayloadBase, offset: usize, len: usize) -> Step {
    Step::Load {
        to: 0,
        len,
        field: Field::Header { base, offset },
    }
}

fn compare(op: CmpOp, bytes: &[u8]) -> Step {
    Step::Compare {
        from: 0,
        op,
        bytes: bytes.to_vec(),
    }
}

fn dport() -> Step {
    load(PayloadBase::Transport, 2, 2)
}

/// `tcp dport PORT …`
fn for_port(port: u16, end: Step) -> Vec<Step> {
    vec![dport(), compare(CmpOp::Eq, &port.to_be_bytes()), end]
}

fn lookup(set: &str, into: Into, invert: bool) -> Step {
    Step::Lookup {
        set: set.to_owned(),
        from: 0,
        into,
        invert,
    }
}

/// `ip saddr [!=] @list …`, a list that is not read.
fn from_list(invert: bool, end: Step) -> Vec<Step> {
    vec![
        load(PayloadBase::Network, 12, 4),
        lookup("list", Into::Nothing, invert),
        end,
    ]
}

fn with_sets(mut ruleset: Ruleset) -> Ruleset {
    let set = |key_len, elements| Set {
        key_len,
        fields: vec![(0, key_len)],
        limits: Vec::new(),
        elements,
    };
    let element = |port: u16, data| {
        let key = port.to_be_bytes().to_vec();
        Element {
            key: Key::Range(key.clone(), key),
            data,
        }
    };
    let services = vec![
        element(80, Data::Verdict(Verdict::Accept)),
        element(81, Data::Unknown),
        Element {
            key: Key::CatchAll,
            data: Data::Verdict(Verdict::Drop),
        },
    ];
    for table in &mut ruleset.tables {
        table.sets.insert("list".to_owned(), set(4, None));
        table.sets.insert("unread".to_owned(), set(2, None));
        table
            .sets
            .insert("acmegate".to_owned(), set(2, Some(Vec::new())));
        table
            .sets
            .insert("services".to_owned(), set(2, Some(services.clone())));
    }
    ruleset
}

#[test]
fn an_accept_ends_its_own_base_chain_and_no_other() {
    let early = base("early", Hook::Input, -10, false, vec![vec![accept()]]);
    let late = base("late", Hook::Input, 0, true, Vec::new());
    let rules = ruleset(vec![table("a", vec![early]), table("b", vec![late])]);
    let culprit = culprit(judged(&rules));
    assert_eq!(culprit.place.to_string(), "inet b late policy");
    assert_eq!(culprit.cause, Cause::Policy);
}

#[test]
fn a_drop_is_final_and_the_first_one_is_named() {
    let first = base(
        "first",
        Hook::Prerouting,
        0,
        true,
        vec![for_port(80, drop())],
    );
    let second = base("second", Hook::Input, -100, true, Vec::new());
    let culprit = culprit(judged(&ruleset(vec![table("t", vec![second, first])])));
    assert_eq!(culprit.to_string(), "inet t first rule 1 drops tcp port 80");
}

#[test]
fn our_own_table_is_left_out() {
    let rules = ruleset(vec![table(
        "acmegate",
        vec![base("c", Hook::Input, 0, true, vec![])],
    )]);
    assert_eq!(doubts(judged(&rules)), []);
    let _ = culprit(judge(&rules, &probe(), &[]));
}

#[test]
fn a_table_of_the_other_protocol_is_left_out() {
    let mut rules = input(Vec::new());
    rules.tables[0].family = Family::Ip6;
    assert_eq!(doubts(judged(&rules)), []);
    let six = Probe {
        family: IpFamily::V6,
        ..probe()
    };
    let _ = culprit(judge(&rules, &six, &[]));
}

#[test]
fn an_ingress_chain_counts_on_its_own_devices_only() {
    let rules = ruleset(vec![table(
        "t",
        vec![base("c", Hook::Ingress, 0, true, vec![])],
    )]);
    let _ = culprit(judged(&rules));
    let elsewhere = Probe {
        interface: "eth1".to_owned(),
        ..probe()
    };
    assert_eq!(doubts(judge(&rules, &elsewhere, &[])), []);
}

#[test]
fn a_jump_comes_back_and_a_goto_does_not() {
    let sub = || chain("sub", vec![vec![verdict(Verdict::Return)], vec![drop()]]);
    let with = |end| {
        let rules = vec![vec![end], vec![accept()]];
        let chains = vec![base("input", Hook::Input, 0, true, rules), sub()];
        judged(&ruleset(vec![table("t", chains)]))
    };
    assert_eq!(doubts(with(jump("sub"))), []);
    assert_eq!(culprit(with(goto("sub"))).cause, Cause::Policy);
    // A chain that is not there is not guessed at.
    assert!(matches!(
        doubts(with(jump("gone")))[..],
        [Doubt::Unclear(_)]
    ));
}

#[test]
fn a_drop_in_a_chain_jumped_to_is_named_with_both() {
    let chains = vec![
        base("input", Hook::Input, 0, false, vec![vec![jump("web")]]),
        chain("web", vec![vec![Step::End(End::Reject)]]),
    ];
    let culprit = culprit(judged(&ruleset(vec![table("t", chains)])));
    assert_eq!(
        culprit.to_string(),
        "inet t input → web rule 1 rejects tcp port 80"
    );
}

#[test]
fn jumps_in_a_circle_come_to_an_end() {
    let chains = vec![
        base("input", Hook::Input, 0, true, vec![vec![jump("a")]]),
        chain("a", vec![vec![jump("b")]]),
        chain("b", vec![vec![jump("a")]]),
    ];
    assert_eq!(
        doubts(judged(&ruleset(vec![table("t", chains)]))),
        [Doubt::TooLong]
    );
    let chains = vec![
        base("input", Hook::Input, 0, true, vec![vec![goto("a")]]),
        chain("a", vec![vec![goto("a")]]),
    ];
    assert_eq!(
        doubts(judged(&ruleset(vec![table("t", chains)]))),
        [Doubt::TooLong]
    );
}

#[test]
fn a_source_stands_in_no_list() {
    // Accepted are others; dropped are others, but perhaps a perspective.
    let _ = culprit(judged(&with_sets(input(vec![from_list(false, accept())]))));
    let _ = culprit(judged(&with_sets(input(vec![
        from_list(true, drop()),
        vec![accept()],
    ]))));
    assert_eq!(
        doubts(judged(&with_sets(input(vec![from_list(true, accept())])))),
        []
    );
    let rules = vec![
        from_list(false, drop()),
        from_list(false, drop()),
        vec![accept()],
    ];
    let doubts = doubts(judged(&with_sets(input(rules))));
    // One a chain is enough.
    assert!(matches!(&doubts[..], [Doubt::DropsListed(place)] if place.rule == Some(1)));
}

#[test]
fn a_global_ipv6_source_is_known_to_be_one() {
    let rule = |op, end| {
        let mask = Step::Mask {
            from: 0,
            to: 0,
            mask: vec![0xe0],
            xor: vec![0],
        };
        vec![
            load(PayloadBase::Network, 8, 1),
            mask,
            compare(op, &[0x20]),
            end,
        ]
    };
    let six = Probe {
        family: IpFamily::V6,
        ..probe()
    };
    let path = judge(&input(vec![rule(CmpOp::Eq, accept())]), &six, &[]);
    assert_eq!(doubts(path), []);
    let path = judge(&input(vec![rule(CmpOp::Neq, accept())]), &six, &[]);
    let _ = culprit(path);
}

#[test]
fn half_the_internet_is_no_list() {
    let rule = |low: u8, high: u8| {
        let (low, high) = (vec![low, 0, 0, 0], vec![high, 255, 255, 255]);
        let range = Step::Range {
            from: 0,
            outside: false,
            low,
            high,
        };
        input(vec![vec![
            load(PayloadBase::Network, 12, 4),
            range,
            accept(),
        ]])
    };
    let _ = culprit(judged(&rule(10, 10)));
    assert!(matches!(
        doubts(judged(&rule(1, 223)))[..],
        [Doubt::Unclear(_)]
    ));
}

#[test]
fn an_administrators_set_is_judged_as_if_our_element_were_in_it() {
    let rules = |invert, end| {
        let ours = vec![dport(), lookup("acmegate", Into::Nothing, invert), end];
        with_sets(input(vec![ours]))
    };
    let named = |family| {
        let (table, name) = ("filter".to_owned(), "acmegate".to_owned());
        Probe {
            accepted_sets: vec![NamedSet {
                family,
                table,
                name,
            }],
            ..probe()
        }
    };
    let _ = culprit(judged(&rules(false, accept())));
    assert_eq!(
        doubts(judge(&rules(false, accept()), &named(Family::Inet), &[])),
        []
    );
    let _ = culprit(judge(&rules(true, accept()), &named(Family::Inet), &[]));
    let _ = culprit(judge(&rules(false, accept()), &named(Family::Ip), &[]));
}

#[test]
fn a_verdict_map_answers_by_key_and_else_by_its_catch_all() {
    let rules = with_sets(input(vec![
        vec![dport(), lookup("services", Into::Verdict, false)],
        vec![accept()],
    ]));
    let on = |port| judge(&rules, &Probe { port, ..probe() }, &[]);
    assert_eq!(doubts(on(80)), []);
    assert!(matches!(doubts(on(81))[..], [Doubt::Unclear(_)]));
    assert!(matches!(
        culprit(on(82)).cause,
        Cause::Rule {
            handle: 1,
            rejects: false
        }
    ));
}

#[test]
fn a_set_that_was_not_read_may_hold_anything() {
    let rules = |end| {
        with_sets(input(vec![vec![
            dport(),
            lookup("unread", Into::Nothing, false),
            end,
        ]]))
    };
    assert!(matches!(
        doubts(judged(&rules(accept())))[..],
        [Doubt::Unclear(_)]
    ));
    let _ = culprit(judged(&rules(drop())));
    let gone = input(vec![vec![
        dport(),
        lookup("gone", Into::Nothing, true),
        accept(),
    ]]);
    assert!(matches!(doubts(judged(&gone))[..], [Doubt::Unclear(_)]));
}

#[test]
fn what_is_not_understood_decides_nothing_by_itself() {
    let may = |end| vec![Step::Unsure, end];
    // Both ways drop, by different rules: the one that certainly does is named.
    assert_eq!(
        culprit(judged(&input(vec![may(drop())]))).cause,
        Cause::Policy
    );
    // Both ways pass: nothing to tell.
    assert_eq!(
        doubts(judged(&input(vec![may(accept()), vec![accept()]]))),
        []
    );
    // They differ.
    for rules in [vec![may(accept())], vec![may(drop()), vec![accept()]]] {
        let doubts = doubts(judged(&input(rules)));
        assert!(matches!(&doubts[..], [Doubt::Unclear(place)] if place.rule == Some(1)));
    }
    // A verdict that nobody knows is either.
    let unknown = vec![vec![Step::End(End::Unknown)]];
    assert!(matches!(
        doubts(judged(&input(unknown)))[..],
        [Doubt::Unclear(_)]
    ));
}

#[test]
fn a_thousand_open_rules_are_walked_at_once() {
    let may = |end: Step| vec![Step::Unsure, end];
    let many = |end: Step| vec![may(end); 5_000];
    assert_eq!(culprit(judged(&input(many(drop())))).cause, Cause::Policy);
    assert!(!doubts(judged(&input(many(accept())))).is_empty());
    // Jumps to a chain that changes nothing; deeper than is followed, never endless.
    let chains = vec![
        base("input", Hook::Input, 0, true, many(jump("sub"))),
        chain("sub", vec![]),
    ];
    let _ = judged(&ruleset(vec![table("t", chains)]));
    let chains = vec![
        base("input", Hook::Input, 0, true, vec![may(jump("sub")); 150]),
        chain("sub", vec![]),
    ];
    assert_eq!(
        culprit(judged(&ruleset(vec![table("t", chains)]))).cause,
        Cause::Policy
    );
    // Each open rule doubles the marks a packet may carry: the bound holds, and quickly.
    let marks: Rules = (0..32u32)
        .map(|bit| {
            let load = Step::Load {
                to: 0,
                len: 4,
                field: Field::Meta(MetaKey::Mark),
            };
            let bit = (1 << bit).to_owned();
            let (mask, xor) = (!bit, bit);
            let (mask, xor) = (
                u32::to_ne_bytes(mask).to_vec(),
                u32::to_ne_bytes(xor).to_vec(),
            );
            let set = Step::Mask {
                from: 0,
                to: 0,
                mask,
                xor,
            };
            vec![Step::Unsure, load, set, Step::SetMark { from: 0 }]
        })
        .collect();
    let _ = judged(&input(marks));
}

#[test]
fn whoever_takes_the_packet_away_is_told_and_not_judged_further() {
    let leaving = |leaves| {
        let early = vec![vec![Step::End(End::Leaves(leaves))]];
        let chains = vec![
            base("pre", Hook::Prerouting, -100, false, early),
            base("input", Hook::Input, 0, true, Vec::new()),
        ];
        doubts(judged(&ruleset(vec![table("t", chains)])))
    };
    assert!(matches!(
        leaving(Leaves::Translated)[..],
        [Doubt::Translated(_)]
    ));
    assert!(matches!(leaving(Leaves::Queued)[..], [Doubt::Queued(_)]));
    assert!(matches!(leaving(Leaves::Proxied)[..], [Doubt::Proxied(_)]));
    assert!(matches!(
        leaving(Leaves::Forwarded)[..],
        [Doubt::Forwarded(_)]
    ));
}

#[test]
fn marks_of_the_probe_are_seen() {
    let asks = |key: Field| {
        let load = Step::Load {
            to: 0,
            len: 4,
            field: key,
        };
        input(vec![vec![
            load,
            compare(CmpOp::Eq, &0x80u32.to_ne_bytes()),
            accept(),
        ]])
    };
    let marked = Probe {
        mark: 0x80,
        ..probe()
    };
    let rules = asks(Field::Meta(MetaKey::Mark));
    let _ = culprit(judged(&rules));
    assert_eq!(doubts(judge(&rules, &marked, &[])), []);
    let key = nlink::netlink::nftables::CtKey::Mark;
    let rules = asks(Field::Ct { key, reply: false });
    let _ = culprit(judge(&rules, &marked, &[]));
    let marked = Probe {
        ct_mark: 0x80,
        ..probe()
    };
    assert_eq!(doubts(judge(&rules, &marked, &[])), []);
}

#[test]
fn a_ruleset_that_never_stood_still_proves_nothing() {
    let mut rules = input(Vec::new());
    rules.generation = None;
    assert_eq!(doubts(judged(&rules)), [Doubt::Changing]);
}

/// What judging one base chain that drops by policy comes to.
fn dropped_by(family: Family, name: &str, base_chain: &str, others: &[&str]) -> Culprit {
    culprit(judged(&ruleset(vec![dropping(
        family, name, base_chain, others,
    )])))
}

fn dropping(family: Family, name: &str, base_chain: &str, others: &[&str]) -> Table {
    let hook = match family {
        Family::Netdev => Hook::Ingress,
        _ => Hook::Input,
    };
    let mut chains = vec![base(base_chain, hook, 0, true, Vec::new())];
    chains.extend(others.iter().map(|name| chain(name, Vec::new())));
    let mut table = table(name, chains);
    table.family = family;
    table
}

#[test]
fn each_manager_is_recognised_and_has_its_own_advice() {
    let cases = [
        (
            dropped_by(Family::Inet, "filter", "input", &[]),
            Manager::Nftables,
            "use mode `attach` with `chains = [\"inet filter input\"]`, or add `set acmegate { type \
             inet_service; flags timeout; }` to table inet filter and `tcp dport @acmegate accept` \
             to its chain input, and use mode `set` with inet filter acmegate.",
        ),
        (
            dropped_by(Family::Ip, "filter", "INPUT", &["DOCKER"]),
            Manager::IptablesNft,
            "use mode `attach` with `chains = [\"ip filter INPUT\"]`, or open port 80 in iptables \
             (`iptables -t filter -I INPUT -p tcp --dport 80 -j ACCEPT`, and save it) and use mode \
             `guard`.",
        ),
        (
            dropped_by(Family::Ip, "filter", "INPUT", &["ufw-before-input"]),
            Manager::Ufw,
            "use mode `attach` with `chains = [\"ip filter INPUT\"]`, or open port 80 in ufw (`ufw \
             allow 80/tcp`) and use mode `guard`.",
        ),
        (
            dropped_by(Family::Inet, "firewalld", "filter_INPUT", &[]),
            Manager::Firewalld,
            "use mode `attach` with `chains = [\"inet firewalld filter_INPUT\"]`, or open port 80 in \
             firewalld (`firewall-cmd --permanent --add-port=80/tcp`, then `firewall-cmd --reload`) \
             and use mode `guard`.",
        ),
        (
            dropped_by(Family::Inet, "geoip-shell", "GEOIP-BASE_IN", &[]),
            Manager::GeoipShell,
            "use mode `attach` with `chains = [\"inet geoip-shell GEOIP-BASE_IN\"]`, or take port 80 \
             out of geoip-shell (`geoip-shell configure -p tcp:allow:80`) and use mode `guard` with \
             the same countries in its allow-list.",
        ),
        (
            dropped_by(Family::Inet, "f2b-table", "f2b-chain", &[]),
            Manager::Blocklist,
            "this blocklist shuts port 80 to everybody: take the port out of its configuration \
             and use mode `guard`.",
        ),
        // Nothing of ours comes before an ingress hook.
        (
            dropped_by(Family::Netdev, "geo", "ingress", &[]),
            Manager::Nftables,
            "this chain comes before every other: let port 80 pass in it and use mode `guard`.",
        ),
    ];
    for (culprit, manager, advice) in cases {
        assert_eq!(culprit.manager, manager);
        assert_eq!(culprit.advice(&[]), advice);
    }
}

#[test]
fn a_manager_of_both_families_is_attached_to_in_both() {
    let tables = [Family::Ip6, Family::Ip].map(|family| dropping(family, "filter", "INPUT", &[]));
    let advice = culprit(judged(&ruleset(tables.into()))).advice(&[]);
    let line = "use mode `attach` with `chains = [\"ip filter INPUT\", \"ip6 filter INPUT\"]`, or";
    assert!(advice.starts_with(line), "{advice}");
}

#[test]
fn who_is_attached_already_is_told_what_is_missing() {
    let culprit = dropped_by(Family::Inet, "filter", "input", &[]);
    let advice = culprit.advice(&["inet geoip-shell GEOIP-BASE_IN".to_owned()]);
    let line = "use mode `attach` with `chains = [\"inet geoip-shell GEOIP-BASE_IN\", \"inet filter input\"]`, or";
    assert!(advice.starts_with(line), "{advice}");
    let advice = culprit.advice(&["inet filter input".to_owned()]);
    assert!(advice.contains("its mark does not arrive"), "{advice}");
}

#[test]
fn attach_is_not_advised_where_the_table_has_an_owner() {
    let advice = |name: &str, chain: &str| {
        let mut table = dropping(Family::Inet, name, chain, &[]);
        table.is_owned = true;
        culprit(judged(&ruleset(vec![table]))).advice(&[])
    };
    assert_eq!(
        advice("firewalld", "filter_INPUT"),
        "nobody but its owner may write into this table, so open port 80 in firewalld \
         (`firewall-cmd --permanent --add-port=80/tcp`, then `firewall-cmd --reload`) and use mode \
         `guard`."
    );
    assert_eq!(
        advice("filter", "input"),
        "nobody but its owner may write into this table, so have that program open port 80 and use \
         mode `guard`."
    );
}

#[test]
fn the_advice_names_the_rule_to_stand_before() {
    let advice = culprit(judged(&input(vec![for_port(80, drop())]))).advice(&[]);
    assert!(
        advice.contains("to its chain input before rule handle 1, and"),
        "{advice}"
    );
}
