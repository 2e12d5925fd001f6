//! What to do about a chain that drops, in the words of whoever looks after it.
//!
//! First comes mode `attach` where it works, for it leaves the manager's own configuration as it
//! is; then what the manager itself can be told, with mode `guard`. An `accept` in a table of our own
//! is never advised: it opens nothing here.

use super::IpFamily;
use super::report::{Attach, Cause, Culprit, DOCKERS_OWN, Manager};

impl Culprit {
    /// One sentence: in which mode acmegate works here, and what to write for it. `attached` are the
    /// chains that our rule stands in already, as they are configured.
    pub fn advice(&self, attached: &[String]) -> String {
        let port = self.port;
        let place = &self.place;
        let base = [place.family.name(), &place.table, &place.base_chain].join(" ");
        if attached.contains(&base) {
            return "our rule stands in this chain and its mark does not arrive: somebody before it sets the whole \
                    mark (`nft list ruleset` shows `mark set`), and must set bits of its own alone."
                .to_owned();
        }
        let own_words = self.own_words();
        match &self.attach {
            // Not a firewall to go through: somebody listed the port on purpose.
            Attach::To(_) if self.manager == Manager::Blocklist => format!("{own_words}."),
            Attach::To(chains) => {
                let all = attached.iter().chain(chains);
                let names: Vec<String> = all.map(|name| format!("\"{name}\"")).collect();
                let chains = names.join(", ");
                format!("use mode `attach` with `chains = [{chains}]`, or {own_words}.")
            }
            Attach::Owned => {
                format!("nobody but its owner may write into this table, so {own_words}.",)
            }
            Attach::TooEarly if self.manager == Manager::Nftables => format!(
                "this chain comes before every other: let port {port} pass in it and use mode `guard`."
            ),
            Attach::TooEarly => format!("{own_words}."),
        }
    }

    /// The chains to attach to, as they are to be named in the configuration; `None` where that is no way.
    pub fn chains(&self) -> Option<&[String]> {
        match &self.attach {
            Attach::To(chains) if self.manager != Manager::Blocklist => Some(chains),
            _ => None,
        }
    }

    /// What the manager can be told, and the mode that goes with it.
    pub fn own_words(&self) -> String {
        let Self { place, port, .. } = self;
        match self.manager {
            Manager::Nftables if self.attach == Attach::Owned => {
                format!("have that program open port {port} and use mode `guard`")
            }
            Manager::Nftables => {
                let family = place.family.name();
                let (table, chain) = (&place.table, &place.chain);
                let before = match self.cause {
                    Cause::Policy => String::new(),
                    Cause::Rule { handle, .. } => format!(" before rule handle {handle}"),
                };
                // Beyond DNAT the port is another one.
                let which = match self.is_beyond {
                    true => "meta l4proto tcp ct original proto-dst",
                    false => "tcp dport",
                };
                format!(
                    "add `set acmegate {{ type inet_service; flags timeout; }}` to table {family} \
                     {table} and `{which} @acmegate accept` to its chain {chain}{before}, and \
                     use mode `set` with {family} {table} acmegate"
                )
            }
            Manager::GeoipShell => format!(
                "{} and use mode `guard` with the same countries in its allow-list",
                self.opening()
            ),
            Manager::Blocklist => format!(
                "this blocklist shuts port {port} to everybody: {} and use mode `guard`",
                self.opening()
            ),
            Manager::Ours => self.opening(),
            Manager::IptablesNft | Manager::Ufw | Manager::Firewalld | Manager::Docker => {
                format!("{} and use mode `guard`", self.opening())
            }
        }
    }

    /// How the port is opened for good in the manager's own words.
    pub fn opening(&self) -> String {
        let Self { place, port, .. } = self;
        let transport = self.transport.as_str();
        let program = match self.packet {
            IpFamily::V4 => "iptables",
            IpFamily::V6 => "ip6tables",
        };
        match self.manager {
            Manager::Nftables => format!(
                "let {transport} port {port} pass in chain {} {} {}",
                place.family.name(),
                place.table,
                place.chain
            ),
            Manager::IptablesNft => {
                let (table, chain) = (&place.table, &place.base_chain);
                let which = match self.is_beyond {
                    true => format!("-m conntrack --ctstate DNAT --ctorigdstport {port}"),
                    false => format!("--dport {port}"),
                };
                format!(
                    "open port {port} in iptables (`{program} -t {table} -I {chain} -p {transport} {which} \
                     -j ACCEPT`, and save it)"
                )
            }
            Manager::Ufw if self.is_beyond => format!(
                "let ufw send on what is translated (`ufw route allow proto {transport} from any to any`, with the \
                 inner address and port)"
            ),
            Manager::Ufw => format!("open port {port} in ufw (`ufw allow {port}/{transport}`)"),
            Manager::Firewalld => format!(
                "open port {port} in firewalld (`firewall-cmd --permanent --add-port={port}/{transport}`, \
                 then `firewall-cmd --reload`)"
            ),
            Manager::GeoipShell => format!(
                "take port {port} out of geoip-shell (`geoip-shell configure -p {transport}:allow:{port}`)"
            ),
            Manager::Blocklist => "take the port out of its configuration".to_owned(),
            Manager::Docker => format!(
                "let port {port} pass where Docker leaves room for it (`{program} -I {DOCKERS_OWN} -p {transport} -m \
                 conntrack --ctorigdstport {port} -j ACCEPT`, and save it)"
            ),
            Manager::Ours => "see `acmegate status`".to_owned(),
        }
    }
}
