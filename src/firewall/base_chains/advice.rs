//! What to do about a chain that drops, in the words of whoever looks after it.
//!
//! First comes mode `attach` where it works, for it leaves the manager's own configuration as it
//! is; then what the manager itself can be told, with mode `guard`. An `accept` in a table of our own
//! is never advised: it opens nothing here.

use super::IpFamily;
use super::report::{Attach, Cause, Culprit, Manager};

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

    /// What the manager can be told, and the mode that goes with it.
    fn own_words(&self) -> String {
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
                format!(
                    "add `set acmegate {{ type inet_service; flags timeout; }}` to table {family} \
                     {table} and `tcp dport @acmegate accept` to its chain {chain}{before}, and \
                     use mode `set` with {family} {table} acmegate"
                )
            }
            Manager::IptablesNft => {
                let program = match self.packet {
                    IpFamily::V4 => "iptables",
                    IpFamily::V6 => "ip6tables",
                };
                let (table, chain) = (&place.table, &place.base_chain);
                format!(
                    "open port {port} in iptables (`{program} -t {table} -I {chain} -p tcp --dport \
                     {port} -j ACCEPT`, and save it) and use mode `guard`"
                )
            }
            Manager::Ufw => {
                format!("open port {port} in ufw (`ufw allow {port}/tcp`) and use mode `guard`")
            }
            Manager::Firewalld => format!(
                "open port {port} in firewalld (`firewall-cmd --permanent --add-port={port}/tcp`, \
                 then `firewall-cmd --reload`) and use mode `guard`"
            ),
            Manager::GeoipShell => format!(
                "take port {port} out of geoip-shell (`geoip-shell configure -p tcp:allow:{port}`) \
                 and use mode `guard` with the same countries in its allow-list"
            ),
            Manager::Blocklist => format!(
                "this blocklist shuts port {port} to everybody: take the port out of its \
                 configuration and use mode `guard`"
            ),
        }
    }
}
