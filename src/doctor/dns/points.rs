//! Whether a name's addresses are this host's: decided from addresses alone.

use std::net::{IpAddr, Ipv4Addr};

use super::codes::*;
use super::words::{list, said};
use crate::doctor::finding::{Finding, Severity};

/// What is known to lead to this host.
#[derive(Clone, Debug, Default)]
pub(super) struct Here {
    /// What its interfaces have, loopback and link-local addresses left out.
    pub(super) local: Vec<IpAddr>,
    /// What the administrator says leads here: in front of NAT, or of a balancer.
    pub(super) public: Vec<IpAddr>,
    /// Whether the configuration knows of balancers or proxies in front.
    pub(super) is_behind_others: bool,
}

/// What became of a connection to an address that is not this host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Elsewhere {
    /// Somebody accepted it.
    Answers,
    /// Nobody did; how that was seen.
    Dead(String),
}

impl Here {
    /// Of these addresses, those that lead here and those that do not.
    pub(super) fn split(&self, addresses: &[IpAddr]) -> (Vec<IpAddr>, Vec<IpAddr>) {
        let is_own =
            |address: &&IpAddr| self.local.contains(address) || self.public.contains(address);
        let own = addresses.iter().filter(is_own).copied().collect();
        let others = addresses.iter().filter(|one| !is_own(one)).copied();
        (own, others.collect())
    }

    /// The zone file's lines that name this host, to be typed.
    pub(super) fn record(&self, name: &str) -> String {
        let known = [&self.public, &self.local];
        let public = known.into_iter().flatten().filter(|one| !is_private(**one));
        let records: Vec<String> = public
            .map(|address| {
                let kind = if address.is_ipv4() { "A" } else { "AAAA" };
                format!("`{name}. IN {kind} {address}`")
            })
            .collect();
        match records.is_empty() {
            true => "this host's public one".to_owned(),
            false => list(&records),
        }
    }

    /// Whether an address of this family could be this host's without being known to be.
    fn may_be_behind_nat(&self, v6: bool) -> bool {
        let of_family = |address: &&IpAddr| address.is_ipv6() == v6;
        let own: Vec<&IpAddr> = self.local.iter().filter(of_family).collect();
        // Addresses are translated for IPv4 as a rule; a host without IPv6 has no IPv6 by NAT.
        !self.public.iter().any(|address| address.is_ipv6() == v6)
            && own.iter().all(|address| is_private(**address))
            && !(own.is_empty() && v6)
    }
}

/// Addresses that no CA's validator contacts (the IANA special-purpose registries).
pub(super) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address == Ipv4Addr::UNSPECIFIED
                // Shared address space (RFC 6598).
                || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(address) => {
            address.is_unique_local()
                || address.is_unicast_link_local()
                || address.is_loopback()
                || address.is_unspecified()
        }
    }
}

/// What is to be said of a name that has addresses. `elsewhere` is what answers at its IPv6 addresses, if they
/// are not this host's and that could be tried.
pub(super) fn judge(
    name: &str,
    addresses: &[IpAddr],
    here: &Here,
    elsewhere: Option<&Elsewhere>,
) -> Vec<Finding> {
    let private: Vec<IpAddr> = addresses
        .iter()
        .copied()
        .filter(|one| is_private(*one))
        .collect();
    if !private.is_empty() {
        return vec![
            Finding::new(
                PRIVATE_ADDRESS,
                Severity::Fault,
                format!("{name} has a private address in the DNS, which no public CA contacts"),
            )
            .of(name)
            .seen(format!("{name} has {}", list(&private)))
            .remedy(format!(
                "have the zone name {name}'s public address, or use dns-01 or dns-persist-01"
            )),
        ];
    }
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = addresses.iter().partition(|one| one.is_ipv4());
    let ((own_4, other_4), (own_6, other_6)) = (here.split(&v4), here.split(&v6));
    let is_unknown = |others: &[IpAddr], v6| !others.is_empty() && here.may_be_behind_nat(v6);
    let unknown: Vec<IpAddr> = [(&other_4, false), (&other_6, true)]
        .into_iter()
        .filter(|(others, v6)| is_unknown(others, *v6))
        .flat_map(|(others, _)| others.clone())
        .collect();
    let telling = Telling { name, here };
    if own_4.is_empty() && own_6.is_empty() {
        return vec![match unknown.as_slice() {
            [] => telling.all_elsewhere(addresses),
            unknown => telling.behind_nat(unknown),
        }];
    }
    let mut findings = Vec::new();
    if !unknown.is_empty() {
        findings.push(telling.behind_nat(&unknown));
    }
    if !other_6.is_empty() && !is_unknown(&other_6, true) {
        findings.push(match own_6.is_empty() {
            true => telling.six_elsewhere(&other_6, elsewhere),
            false => telling.some_elsewhere(&own_6, &other_6),
        });
    }
    if !other_4.is_empty() && !is_unknown(&other_4, false) {
        findings.push(match own_4.is_empty() {
            true => telling.four_elsewhere(&other_4),
            false => telling.some_elsewhere(&own_4, &other_4),
        });
    }
    if findings.is_empty() {
        let told = format!("{name} points here: {}", list(addresses));
        findings.push(Finding::new(POINTS_HERE, Severity::Fine, told).of(name));
    }
    findings
}

struct Telling<'a> {
    name: &'a str,
    here: &'a Here,
}

impl Telling<'_> {
    fn finding(
        &self,
        code: crate::doctor::finding::Code,
        severity: Severity,
        text: String,
    ) -> Finding {
        Finding::new(code, severity, text)
            .of(self.name)
            .seen(self.own())
    }

    /// What this host has, as evidence.
    fn own(&self) -> String {
        let Here { local, public, .. } = self.here;
        match (local.as_slice(), public.as_slice()) {
            ([], []) => "this host has no address but loopback".to_owned(),
            (local, []) => format!("this host has {}", list(local)),
            (local, public) => {
                format!(
                    "this host has {}; [dns] public has {}",
                    list(local),
                    list(public)
                )
            }
        }
    }

    fn all_elsewhere(&self, addresses: &[IpAddr]) -> Finding {
        let (severity, is) = match self.here.is_behind_others {
            true => (
                Severity::Doubt,
                "to addresses that are not known to lead here",
            ),
            false => (Severity::Fault, "elsewhere"),
        };
        let text = format!("{} points {is}: {}", self.name, list(addresses));
        let zone = format!(
            "if this host is the right one, have the zone name its address: {}",
            self.here.record(self.name)
        );
        self.finding(POINTS_ELSEWHERE, severity, text)
            .remedy(zone)
            .remedy(self.say_public(addresses))
    }

    fn behind_nat(&self, unknown: &[IpAddr]) -> Finding {
        let text = format!(
            "whether {} leads here could not be told: this host has private addresses only",
            self.name
        );
        self.finding(BEHIND_NAT, Severity::Doubt, text)
            .seen(format!("{} has {}", self.name, list(unknown)))
            .remedy(self.say_public(unknown))
    }

    fn some_elsewhere(&self, own: &[IpAddr], others: &[IpAddr]) -> Finding {
        let text = format!(
            "some addresses of {} lead elsewhere: {}",
            self.name,
            list(others)
        );
        self.finding(SOME_ELSEWHERE, Severity::Doubt, text)
            .seen(format!("{} leads here", list(own)))
            .remedy(
                "every address has to answer with the same token: take the others out, or share answers \
                 (`answer = { upstream = … }` on one of them)",
            )
            .remedy(self.say_public(others))
    }

    fn four_elsewhere(&self, others: &[IpAddr]) -> Finding {
        let text = format!(
            "{} points here by IPv6 alone: its IPv4 address {} is not this host's",
            self.name,
            list(others)
        );
        self.finding(IPV4_ELSEWHERE, Severity::Doubt, text)
            .remedy(
                "CAs try IPv6 first, and IPv4 where IPv6 fails: have the A record lead here too",
            )
            .remedy(self.say_public(others))
    }

    fn six_elsewhere(&self, others: &[IpAddr], tried: Option<&Elsewhere>) -> Finding {
        let name = self.name;
        let others_text = list(others);
        let finding = match tried {
            Some(Elsewhere::Dead(how)) => {
                let text = format!(
                    "the AAAA record of {name} leads nowhere: CAs try {others_text} before they try IPv4"
                );
                self.finding(IPV6_DEAD, Severity::Doubt, text).seen(format!(
                    "{}, port 80, from here: {}",
                    others_text,
                    said(how)
                ))
            }
            tried => {
                let severity = match self.here.is_behind_others {
                    true => Severity::Doubt,
                    false => Severity::Fault,
                };
                let text = format!(
                    "the AAAA record of {name} leads elsewhere, to {others_text}, and CAs prefer IPv6"
                );
                let finding = self.finding(IPV6_ELSEWHERE, severity, text);
                match tried {
                    Some(Elsewhere::Answers) => finding.seen(format!(
                        "{others_text}, port 80, from here: somebody answers"
                    )),
                    _ => finding,
                }
            }
        };
        finding
            .remedy(format!("have the zone name this host's own IPv6 address for {name}, or take the AAAA record out"))
            .remedy(self.say_public(others))
    }

    fn say_public(&self, addresses: &[IpAddr]) -> String {
        let quoted: Vec<String> = addresses.iter().map(|one| format!("\"{one}\"")).collect();
        format!(
            "if it does lead here, by NAT or a balancer, say so: `[dns] public = [{}]`",
            quoted.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Vec<IpAddr> {
        text.split_whitespace()
            .map(|one| one.parse().unwrap())
            .collect()
    }

    fn here(local: &str, public: &str) -> Here {
        Here {
            local: addresses(local),
            public: addresses(public),
            is_behind_others: false,
        }
    }

    fn told(name: &str, here: &Here, tried: Option<&Elsewhere>) -> Vec<(&'static str, Severity)> {
        judge("a.test", &addresses(name), here, tried)
            .into_iter()
            .map(|finding| (finding.code.word, finding.severity))
            .collect()
    }

    #[test]
    fn where_a_name_points_is_told_apart() {
        use Severity::{Doubt, Fault, Fine};
        let both = here("192.0.2.1 2001:db8::1", "");
        let nat = here("10.0.0.2", "");
        let known = here("10.0.0.2", "203.0.113.9");
        let mixed = here("10.0.0.2 2001:db8::1", "");
        for (name, here, word) in [
            ("192.0.2.1 2001:db8::1", &both, ("points-here", Fine)),
            ("192.0.2.9", &both, ("points-elsewhere", Fault)),
            ("192.0.2.9 2001:db8::9", &both, ("points-elsewhere", Fault)),
            ("192.0.2.1 192.0.2.9", &both, ("some-elsewhere", Doubt)),
            ("192.0.2.1 2001:db8::9", &both, ("ipv6-elsewhere", Fault)),
            ("192.0.2.9 2001:db8::1", &both, ("ipv4-elsewhere", Doubt)),
            ("10.1.1.1", &both, ("private-address", Fault)),
            ("192.0.2.1 fd00::1", &both, ("private-address", Fault)),
            ("100.64.0.1", &both, ("private-address", Fault)),
            ("203.0.113.9", &nat, ("behind-nat", Doubt)),
            ("203.0.113.9", &known, ("points-here", Fine)),
            ("203.0.113.8", &known, ("points-elsewhere", Fault)),
            ("203.0.113.9 2001:db8::9", &known, ("ipv6-elsewhere", Fault)),
            ("203.0.113.9 2001:db8::1", &mixed, ("behind-nat", Doubt)),
            ("2001:db8::9", &nat, ("points-elsewhere", Fault)),
        ] {
            assert_eq!(told(name, here, None), [word], "{name}");
        }
        let behind = Here {
            is_behind_others: true,
            ..both.clone()
        };
        assert_eq!(
            told("192.0.2.9", &behind, None),
            [("points-elsewhere", Doubt)]
        );
        let dead = Elsewhere::Dead("no answer".to_owned());
        let six = "192.0.2.1 2001:db8::9";
        assert_eq!(told(six, &both, Some(&dead)), [("ipv6-dead", Doubt)]);
        assert_eq!(
            told(six, &both, Some(&Elsewhere::Answers)),
            [("ipv6-elsewhere", Fault)]
        );
    }

    #[test]
    fn what_is_to_be_typed_is_said() {
        let finding = &judge(
            "a.test",
            &addresses("192.0.2.9"),
            &here("192.0.2.1", ""),
            None,
        )[0];
        assert!(
            finding.remedy[0].contains("`a.test. IN A 192.0.2.1`"),
            "{finding:?}"
        );
        assert!(
            finding.remedy[1].contains("public = [\"192.0.2.9\"]"),
            "{finding:?}"
        );
    }
}
