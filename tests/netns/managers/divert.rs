//! The gate beside a site that keeps its port, behind other people's firewalls: validations reach the
//! gate and nobody else, visitors of the allow-list reach the site, whatever is reloaded.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::host::{HOST_PRIVATE, Host};
use crate::lab::{self, Daemon, inside, ruleset};
use crate::managers::docker::Docker;
use crate::managers::life::{Outside, attach, window_and_reloads};
use crate::managers::own::tool;
use crate::managers::ufw::Ufw;
use crate::managers::validations::{serve, site};

const DIVERT: &str = "[http]\nlisten = \"divert\"\n";
const SITE: &str = "the site";

/// The whole life of a window, then the end of the daemon. A validation that reads the site's words
/// is a failed one.
fn life(host: &Host, config: &str, outside: Outside, mut reload: impl FnMut()) {
    let mut daemon = Daemon::start(&format!("{}{DIVERT}{config}", site()));
    window_and_reloads(host, &daemon, outside, 1, || {
        reload();
        visitors_reach_the_site(host);
    });
    assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
    assert!(!ruleset().contains("acmegate"));
    visitors_reach_the_site(host);
}

#[track_caller]
fn visitors_reach_the_site(host: &Host) {
    let mut peer = host.connect(HOST_PRIVATE, 80);
    peer.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("open");
    let mut answer = String::new();
    peer.read_to_string(&mut answer).expect("an answer");
    assert!(answer.ends_with(SITE), "{answer}");
}

fn serve_here() {
    let listener = TcpListener::bind("[::]:80").expect("a free port in a new namespace");
    serve(listener, SITE.to_owned());
}

#[test]
fn beside_ufw() {
    inside(|| {
        let host = Host::new();
        let ufw = Ufw::new();
        serve_here();
        let chains = attach(&["ip filter INPUT", "ip6 filter INPUT"]);
        life(&host, &chains, Outside::Theirs, || ufw.run("reload"));
        ufw.run("allow 80/tcp");
        life(&host, "", Outside::Ours, || ufw.run("reload"));
    });
}

#[test]
fn before_a_container_of_docker() {
    inside(|| {
        let host = Host::new();
        let docker = Docker::new(SITE.to_owned());
        // What the gate gets is not translated, so it comes by INPUT; nobody else listens there.
        for program in ["iptables-nft", "ip6tables-nft"] {
            let rule = "-I INPUT -p tcp --dport 80 -j ACCEPT";
            tool(program, &rule.split(' ').collect::<Vec<_>>());
        }
        life(&host, "", Outside::Ours, || docker.restart());
    });
}

/// A host whose own packets need a reason, too. What the gate gets is not tracked, so its answers
/// are no part of an established connection: the administrator lets them out by their port.
#[test]
fn behind_a_firewall_that_drops_in_both_directions() {
    inside(|| {
        let host = Host::new();
        let conf = "flush ruleset
            table inet filter {
                chain input {
                    type filter hook input priority filter; policy drop;
                    iif lo accept
                    ct state vmap { established : accept, related : accept, invalid : drop }
                    meta l4proto { icmp, ipv6-icmp } accept
                    ip saddr 10.0.0.0/8 accept
                }
                chain output {
                    type filter hook output priority filter; policy drop;
                    oif lo accept
                    ct state established,related accept
                    meta l4proto { icmp, ipv6-icmp } accept
                    tcp sport 80 accept
                }
            }\n";
        lab::nft(conf);
        serve_here();
        let chains = attach(&["inet filter input"]);
        life(&host, &chains, Outside::Ours, || lab::nft(conf));
    });
}
