//! Vantage points by real ssh, and services of the web, try a real host: who gets through, who does not, and by which
//! rule; and nothing stays behind.

mod services;
mod world;

use std::time::{Duration, Instant};

use rustix::process::Signal;

use self::world::{
    CONFIG, GEO_BLOCK, HOST_4, HOST_6, NAME, World, codes, command, nothing_is_left, probe,
};
use crate::lab::{Daemon, Process, inside, nft, ruleset, run, wait_for};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_geo_block_is_named_and_whoever_is_listed_proves_nothing() {
    inside(|| {
        let mut world = World::new(false);
        world.name_server();
        world.point("near", "198.51.100.7", None, &[]);
        world.point("far", "198.51.100.200", None, &[]);
        world.point("listed", "203.0.113.7", None, &[]);
        world.knows("gone", "192.0.2.1");
        nft(GEO_BLOCK);
        nft(
            "table inet dns { chain input { type filter hook input priority 0; policy accept;
            ip saddr 198.51.100.7 tcp dport 53 drop
        }
        }",
        );
        let daemon = Daemon::start(CONFIG);
        let from = ["near", "far", "listed", "gone"].map(|name| format!("ssh:{name}"));
        let from: Vec<&str> = from.iter().flat_map(|from| ["--from", from]).collect();
        let (output, told) = probe(&daemon, &[&[NAME], &from[..]].concat());
        nothing_is_left(&daemon);

        let point = |at: usize| &told["probe"]["vantage_points"][at];
        let near = point(0);
        assert_eq!(near["from"], "ssh:near", "{output}");
        let view = &near["views"][0];
        assert_eq!(view["came_from"][0], "198.51.100.7", "{output}");
        assert_eq!(
            view["fetches"][0]["outcome"]["answered"],
            serde_json::json!({"status": 200, "matches": true}),
            "{output}"
        );
        let path = &near["paths"][0];
        assert_eq!(path["fate"]["end"]["end"], "delivered", "{output}");
        let steps = path["fate"]["steps"].as_array().expect("steps");
        let is_met = |table: &str| steps.iter().any(|step| step["table"] == table);
        assert!(is_met("inet geo") && is_met("inet acmegate"), "{output}");
        assert!(
            !steps
                .iter()
                .any(|step| step["table"].to_string().contains("probe"))
        );

        let far = point(1);
        assert!(
            far["views"][0]["fetches"][0]["outcome"]["silent"].is_string(),
            "{output}"
        );
        let path = &far["paths"][0];
        assert_eq!(path["fate"]["end"]["end"], "dropped", "{output}");
        let last = path["fate"]["steps"]
            .as_array()
            .and_then(|steps| steps.last());
        let last = last.expect("a step");
        assert_eq!(
            (&last["table"], &last["chain"]),
            (&"inet geo".into(), &"early".into())
        );
        assert!(
            last["rule"].to_string().contains("198.51.100.128/25"),
            "{output}"
        );

        let why = point(2)["proves_nothing"]
            .as_str()
            .expect("it proves nothing");
        assert!(why.contains("allow-list"), "{why}");
        assert!(
            point(3)["not_asked"]
                .as_str()
                .expect("it was not asked")
                .contains("ssh:")
        );

        let quorum = &told["probe"]["quorum"][0];
        assert_eq!(
            (&quorum["counted"], &quorum["answered"]),
            (&2.into(), &1.into())
        );
        assert_eq!(quorum["holds"], true);
        let codes = codes(&told);
        assert_eq!(codes[0], "tolerated", "{output}");
        assert!(
            codes.contains(&"fewer-than-a-ca") && codes.contains(&"name-server-silent"),
            "{codes:?}"
        );
        let evidence = told["letter"]["findings"].to_string();
        assert!(
            evidence.contains("ssh:near: ns.example.com (192.0.2.1) does not answer over TCP"),
            "{output}"
        );
        assert!(!evidence.contains("ssh:far: ns.example.com"), "{output}");
        // One vantage point could not be asked: not everything was seen.
        assert_eq!(output.code, 1, "{output}");
        assert!(
            output
                .stderr
                .contains("from here: www.example.com: 200, the right octets"),
            "{output}"
        );
    });
}

#[test]
fn with_both_families_open_nothing_is_in_the_way_and_a_dead_one_is_told() {
    inside(|| {
        let mut world = World::new(true);
        world.point("a", "198.51.100.7", Some("2001:db8:a::7"), &[]);
        world.point("b", "100.64.9.7", Some("2001:db8:b::7"), &[]);
        world.point("c", "45.33.9.7", Some("2001:db8:c::7"), &[]);
        let daemon = Daemon::start("");
        let from = ["--from", "ssh:a", "--from", "ssh:b", "--from", "ssh:c"];
        let text = run(command(&daemon, &[&[NAME], &from[..]].concat()), SOON * 3);
        assert_eq!(text.code, 0, "{text}");
        assert!(
            text.stdout
                .contains("Nothing is in the way of www.example.com"),
            "{text}"
        );
        assert!(
            text.stdout
                .contains(&format!("2001:db8:a::7 → {HOST_6}: through")),
            "{text}"
        );
        assert!(
            text.stdout
                .contains(&format!("198.51.100.7 → {HOST_4}: through")),
            "{text}"
        );
        nothing_is_left(&daemon);

        nft(
            "table ip6 filter { chain input { type filter hook input priority 0; policy accept;
            ip6 saddr 2001:db8:a::/48 tcp dport 80 drop
        }
        }",
        );
        let (output, told) = probe(&daemon, &[&[NAME], &from[..2]].concat());
        assert!(codes(&told).contains(&"silent-family"), "{output}");
        let view = &told["probe"]["vantage_points"][0]["views"][0];
        assert_eq!(view["fetches"][0]["family"], "ipv6");
        assert_eq!(told["probe"]["quorum"][0]["answered"], 1, "{output}");
        assert_eq!(output.code, 1, "{output}");
    });
}

#[test]
fn without_a_window_the_port_is_probed_as_it_is() {
    inside(|| {
        let mut world = World::new(false);
        world.point("a", "198.51.100.7", None, &[]);
        let daemon = Daemon::start("");
        let (output, told) = probe(&daemon, &[NAME, "--from", "ssh:a", "--no-window"]);
        nothing_is_left(&daemon);
        assert_eq!(output.code, 2, "{output}");
        assert_eq!(codes(&told)[0], "no-quorum", "{output}");
        let path = &told["probe"]["vantage_points"][0]["paths"][0];
        assert_eq!(path["source"], "198.51.100.7", "{output}");
        let steps = path["fate"]["steps"].as_array().expect("steps");
        assert_eq!(
            steps.last().expect("a step")["table"],
            "inet acmegate",
            "{output}"
        );
        let remedy = told["letter"]["findings"][0]["remedy"].to_string();
        assert!(remedy.contains("the window is shut"), "{output}");
    });
}

#[test]
fn a_vantage_point_needs_no_more_than_a_shell_and_some_wget() {
    const SHELL: [&str; 10] = [
        "sh", "head", "od", "sed", "cut", "sort", "tr", "getent", "ip", "grep",
    ];
    inside(|| {
        let mut world = World::new(false);
        world.point(
            "gnu",
            "198.51.100.7",
            None,
            &[&SHELL[..], &["wget", "bash", "timeout"]].concat(),
        );
        world.point(
            "busy",
            "100.64.9.7",
            None,
            &[&SHELL[..], &["wget=busybox", "timeout"]].concat(),
        );
        world.point("bare", "45.33.9.7", None, &SHELL);
        world.name_server();
        let daemon = Daemon::start("");
        let from = [
            "--from", "ssh:gnu", "--from", "ssh:busy", "--from", "ssh:bare",
        ];
        let (output, told) = probe(
            &daemon,
            &[&[NAME, "--name-server", HOST_4], &from[..]].concat(),
        );
        let points = &told["probe"]["vantage_points"];
        assert_eq!(points[0]["tools"], "wget, none", "{output}");
        assert_eq!(points[1]["tools"], "plain-wget, none", "{output}");
        for at in [0, 1] {
            let outcome = &points[at]["views"][0]["fetches"][0]["outcome"]["answered"];
            assert_eq!(
                *outcome,
                serde_json::json!({"status": 200, "matches": true}),
                "{output}"
            );
        }
        // Without a program that asks, bash shows whether TCP comes through, and UDP cannot be tried.
        let servers = &points[0]["views"][0]["name_servers"];
        assert_eq!(servers[0]["answer"], "connected", "{output}");
        assert_eq!(servers.as_array().map(Vec::len), Some(1), "{output}");
        let why = points[2]["not_asked"].as_str().expect("it was not asked");
        assert!(why.contains("neither curl nor wget"), "{why}");
        assert_eq!(told["probe"]["quorum"][0]["answered"], 2, "{output}");
    });
}

#[test]
fn whatever_ends_a_probe_nothing_of_it_stays() {
    inside(|| {
        let mut world = World::new(false);
        world.point("far", "198.51.100.200", None, &[]);
        nft(GEO_BLOCK);
        let daemon = Daemon::start("");
        let start = || {
            let mut probe = Process::spawn(command(&daemon, &[NAME, "--from", "ssh:far"]));
            wait_for(SOON, "the window is open and traced", || {
                assert!(probe.ended().is_none(), "{}", probe.stderr());
                let status = daemon.status();
                let is_open = status["leases"][0]["name"] == format!("probe-{}", probe.pid());
                (is_open && status["pushed"] == 2 && ruleset().contains("acmegate_probe"))
                    .then_some(())
            });
            probe
        };
        for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
            let mut probe = start();
            probe.signal(signal);
            assert_eq!(probe.wait(SOON), code, "{}", probe.stderr());
            nothing_is_left(&daemon);
        }
        let mut probe = start();
        let killed = Instant::now();
        probe.signal(Signal::KILL);
        probe.wait(SOON);
        wait_for(SOON, "the table goes with its socket", || {
            (!ruleset().contains("acmegate_probe")).then_some(())
        });
        wait_for(SOON, "the window closes with its holder", || {
            (daemon.status()["leases"] == serde_json::json!([])).then_some(())
        });
        assert!(
            killed.elapsed() < Duration::from_secs(10),
            "{:?}",
            killed.elapsed()
        );
    });
}

#[test]
fn what_is_refused_is_said_before_anything_is_touched() {
    inside(|| {
        let world = World::new(false);
        let daemon = Daemon::start("[[site]]\nidentifiers = [\"www.example.com\"]\n");
        let refused = |arguments: &[&str], code: i32, said: &str| {
            let output = run(command(&daemon, arguments), SOON);
            assert_eq!(output.code, code, "{output}");
            assert!(output.stderr.contains(said), "{output}");
            nothing_is_left(&daemon);
        };
        refused(&[NAME], 64, "--from");
        refused(
            &[NAME, "--from", "ssh:-oProxyCommand=id"],
            64,
            "no destination of ssh",
        );
        refused(
            &[NAME, "--from", "mpic:http://mpic.example.com"],
            64,
            "without TLS",
        );
        refused(&["a b", "--from", "ssh:x"], 64, "a b");
        refused(
            &["other.example.com", "--from", "ssh:x"],
            78,
            "no [[site]] has other.example.com",
        );
        let missing = world.directory().at("no-such-key");
        refused(
            &[
                NAME,
                "--from",
                "mpic:https://mpic.example.com",
                "--mpic-key-file",
                &missing,
            ],
            64,
            "no-such-key",
        );
        let elsewhere = world.directory().at("nowhere");
        let mut without = command(&daemon, &[NAME, "--from", "ssh:x"]);
        without.args(["--runtime-dir", &elsewhere]);
        let output = run(without, SOON);
        assert_eq!(output.code, 69, "{output}");
        assert!(!ruleset().contains("acmegate_probe"));
    });
}
