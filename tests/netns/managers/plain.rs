//! An administrator's own nftables.conf that drops by default, loaded anew by `nft -f`.

use crate::host::Host;
use crate::lab::{self, Daemon, inside, ruleset};
use crate::managers::life::{Outside, attach, leaves_nothing, open_is_refused, window_and_reloads};
use crate::managers::validations::site;

/// A file as Debian's service loads it. `port_80` is the administrator's own line for it, if any.
fn nftables_conf(port_80: &str) -> String {
    format!(
        "flush ruleset
        table inet filter {{
            set acmegate {{ type inet_service; flags timeout; }}
            chain input {{
                type filter hook input priority filter; policy drop;
                iif lo accept
                ct state vmap {{ established : accept, related : accept, invalid : drop }}
                meta l4proto {{ icmp, ipv6-icmp }} accept
                tcp dport 22 accept
                ip saddr 10.0.0.0/8 accept
                {port_80}
            }}
            chain forward {{
                type filter hook forward priority filter; policy drop;
            }}
            chain output {{
                type filter hook output priority filter; policy accept;
            }}
        }}\n"
    )
}

#[test]
fn a_window_outlives_every_reload_beside_an_open_port() {
    inside(|| {
        let host = Host::new();
        let conf = nftables_conf("tcp dport 80 accept");
        lab::nft(&conf);
        let before = ruleset();
        // On old kernels `flush ruleset` takes our table away too, and with this word here as well.
        for owner in ["auto", "never"] {
            let config = format!("{}[firewall]\nowner = \"{owner}\"\n", site());
            let daemon = Daemon::start(&config);
            let outside = match owner {
                "auto" => Outside::Ours,
                _ => Outside::Theirs,
            };
            window_and_reloads(&host, &daemon, outside, 3, || lab::nft(&conf));
            leaves_nothing(daemon, &before);
        }
    });
}

#[test]
fn a_window_outlives_every_reload_in_the_administrators_set() {
    inside(|| {
        let host = Host::new();
        let conf = nftables_conf("tcp dport @acmegate accept");
        lab::nft(&conf);
        let before = ruleset();
        let mode = "[firewall]\nmode = \"set\"\nset = \"inet filter acmegate\"\n";
        let daemon = Daemon::start(&format!("{}{mode}", site()));
        // The file is one transaction, so there is no moment in which anything is open.
        window_and_reloads(&host, &daemon, Outside::Ours, 5, || lab::nft(&conf));
        leaves_nothing(daemon, &before);
    });
}

#[test]
fn a_window_outlives_every_reload_in_the_chains_that_it_is_attached_to() {
    inside(|| {
        let host = Host::new();
        let conf = nftables_conf("");
        lab::nft(&conf);
        let before = ruleset();
        let mode = attach(&["inet filter input", "inet filter forward"]);
        for owner in ["auto", "never"] {
            let daemon = Daemon::start(&format!("{}{mode}owner = \"{owner}\"\n", site()));
            window_and_reloads(&host, &daemon, Outside::Ours, 5, || lab::nft(&conf));
            leaves_nothing(daemon, &before);
        }
    });
}

#[test]
fn a_chain_that_drops_is_named_with_what_to_write() {
    inside(|| {
        let host = Host::new();
        lab::nft(&nftables_conf(""));
        let before = ruleset();
        let daemon = Daemon::start("");
        let words = [
            "inet filter input policy drops tcp port 80",
            "use mode `attach` with `chains = [\"inet filter input\"]`",
        ];
        open_is_refused(&host, &daemon, &words);
        leaves_nothing(daemon, &before);
    });
}
