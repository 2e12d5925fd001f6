//! Windows by challenge type: each opens its port and no other, whoever asks; and answers by
//! TLS-ALPN-01 under `exec` and for an early close, with real handshakes from several networks.

use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::host::{HOST_4, HOST_6, Host};
use crate::lab::{Daemon, Output, Process, TempDir, inside, ip, run, wait_for};

const SOON: Duration = Duration::from_secs(60);
const COMMAND: Duration = Duration::from_secs(40);
const BOTH: &str = "[tls]\nlisten = [\"[::]:443\"]\n[firewall]\nports = [80, 443]\n";
const NAME: &str = "a.example.com";
const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
const ANSWER: &str =
    "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";
/// Sources outside, each in a network of its own.
const SOURCES: [&str; 3] = ["198.51.100.7", "203.0.113.7", "3fff:1::7"];

/// Which of the two ports let anything in, of both families and of either.
#[track_caller]
fn expect(host: &Host, ports: &[u16]) {
    for port in [80, 443] {
        match ports.contains(&port) {
            true => assert!(host.lets_in(port), "{port} is shut"),
            false => assert!(!host.is_open(port), "{port} is open"),
        }
    }
}

#[test]
fn a_challenge_opens_its_port_and_no_other() {
    inside(|| {
        let host = Host::new();
        let daemon = Daemon::start(BOTH);
        expect(&host, &[]);
        let open = |words: &[&str]| {
            let words = [&["open", "--lease", "a"], words].concat();
            daemon.cli(&words).success()
        };
        let close = || daemon.cli(&["close", "--lease", "a"]).success();
        let said = open(&["--tls-alpn-01"]);
        assert!(said.stdout.starts_with("open: tcp 443 for"), "{said}");
        expect(&host, &[443]);
        let status = daemon.cli(&["status"]).success().stdout;
        for told in [
            "tcp 443 ipv4 by tls-alpn-01: open for",
            "tcp 80 ipv4 by http-01: shut",
        ] {
            assert!(status.contains(told), "{status}");
        }
        // Asked again it is another one.
        open(&["--http-01"]);
        expect(&host, &[80]);
        open(&["--http-01", "--tls-alpn-01"]);
        expect(&host, &[80, 443]);
        close();
        expect(&host, &[]);
        open(&["--tls-alpn-01", "--family", "ipv6"]);
        assert!(host.probe(HOST_6, 443).passed() && !host.probe(HOST_4, 443).passed());
        assert!(!host.is_open(80));
        close();
        open(&["--tls-alpn-01", "--address", HOST_4]);
        assert!(host.probe(HOST_4, 443).passed() && !host.probe(HOST_6, 443).passed());
        close();
        open(&["--tls-alpn-01", "--interface", "eth0"]);
        expect(&host, &[443]);
    });
}

/// `acmegate exec … -- sh -c SCRIPT`, whose `await` waits for a file.
fn exec(daemon: &Daemon, directory: &TempDir, options: &[&str], script: &str) -> Process {
    let mut command = daemon.command();
    let wait = "await() { until [ -e \"$DIR/$1\" ]; do sleep 0.02; done; }\n";
    command.arg("exec").args(options);
    command.args(["--", "sh", "-c", &format!("{wait}{script}")]);
    command.env("PATH", daemon.search_path());
    command.env("DIR", directory.path());
    Process::spawn(command)
}

fn wait(directory: &TempDir, file: &str) {
    wait_for(SOON, file, || {
        directory.path().join(file).exists().then_some(())
    });
}

#[test]
fn a_token_under_exec_opens_the_port_of_its_challenge_besides_what_is_open() {
    inside(|| {
        let host = Host::new();
        let (daemon, directory) = (Daemon::start(BOTH), TempDir::new());
        let script = format!(
            "acmegate answer add --tls-alpn-01 {NAME} {ANSWER} && touch $DIR/tls
             await http; acmegate answer add {NAME} {ANSWER} && touch $DIR/both
             await narrow; acmegate open --http-01 --family ipv4 && touch $DIR/narrowed
             await again; acmegate answer add --tls-alpn-01 {NAME} {ANSWER} && touch $DIR/more; await end"
        );
        let mut process = exec(&daemon, &directory, &[], &script);
        wait(&directory, "tls");
        expect(&host, &[443]);
        directory.write("http", "");
        wait(&directory, "both");
        expect(&host, &[80, 443]);
        // What the command itself made narrow stays so.
        directory.write("narrow", "");
        wait(&directory, "narrowed");
        directory.write("again", "");
        wait(&directory, "more");
        for port in [80, 443] {
            assert!(host.probe(HOST_4, port).passed(), "{port}");
            assert!(!host.probe(HOST_6, port).passed(), "{port}");
        }
        directory.write("end", "");
        assert_eq!(process.wait(SOON), 0);
        expect(&host, &[]);
    });
}

#[test]
fn what_was_armed_for_one_challenge_opens_for_no_other_and_the_command_goes_on() {
    inside(|| {
        let host = Host::new();
        let (daemon, directory) = (Daemon::start(BOTH), TempDir::new());
        let script = format!(
            "acmegate answer add --tls-alpn-01 {NAME} {ANSWER} 2> $DIR/said; echo $? > $DIR/code; touch $DIR/refused
             await next; acmegate answer add {NAME} {ANSWER} && touch $DIR/opened; await end"
        );
        let mut process = exec(&daemon, &directory, &["--http-01"], &script);
        wait(&directory, "refused");
        let read = |file| std::fs::read_to_string(directory.path().join(file)).expect("it spoke");
        assert_eq!(read("code"), "65\n");
        assert!(read("said").contains("give --tls-alpn-01 to `acmegate exec`"));
        assert_eq!(daemon.status()["pushed"], 0);
        expect(&host, &[]);
        directory.write("next", "");
        wait(&directory, "opened");
        expect(&host, &[80]);
        directory.write("end", "");
        assert_eq!(process.wait(SOON), 0);

        // Armed for both, it opens both at once.
        let script = format!("acmegate answer add {NAME} {ANSWER} && touch $DIR/all; await over");
        let options = ["--http-01", "--tls-alpn-01"];
        let mut process = exec(&daemon, &directory, &options, &script);
        wait(&directory, "all");
        expect(&host, &[80, 443]);
        directory.write("over", "");
        assert_eq!(process.wait(SOON), 0);
        expect(&host, &[]);
    });
}

/// A host that is asked from several networks.
fn host() -> Host {
    let host = Host::new();
    host.outside(|| {
        for address in SOURCES {
            let length = if address.contains(':') { 128 } else { 32 };
            ip(&format!("addr add {address}/{length} dev lo"));
        }
    });
    ip("route add default via 192.0.2.2");
    ip("-6 route add default via 2001:db8:1::2");
    host
}

/// One validation from this source.
fn validate(host: &Host, from: &str) -> Output {
    let from: IpAddr = from.parse().expect("an address");
    let (from, to) = match from {
        IpAddr::V4(from) => (from.to_string(), format!("{HOST_4}:443")),
        IpAddr::V6(from) => (format!("[{from}]"), format!("[{HOST_6}]:443")),
    };
    host.outside(move || {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-bind", &format!("{from}:0"), "-connect", &to]);
        openssl.args(["-servername", NAME, "-alpn", "acme-tls/1"]);
        run(openssl, COMMAND)
    })
}

/// It shuts, a while after `since` and no sooner.
#[track_caller]
fn shuts(host: &Host, daemon: &Daemon, since: Instant, why: &str) {
    wait_for(SOON, "it closes", || {
        (daemon.status()["leases"] == serde_json::json!([])).then_some(())
    });
    assert!(since.elapsed() >= Duration::from_secs(1));
    expect(host, &[]);
    assert!(daemon.log().contains(why), "{}", daemon.log());
}

#[test]
fn handshakes_from_a_quorum_of_networks_close_early() {
    inside(|| {
        let host = host();
        let early = "[window]\nclose_early = \"quorum\"\nsettle = \"1s\"\nquorum = 3\n";
        let daemon = Daemon::start(&format!("{early}{BOTH}"));
        daemon
            .cli(&["open", "--lease", "a", "--tls-alpn-01"])
            .success();
        daemon
            .cli(&["answer", "add", "--tls-alpn-01", NAME, ANSWER])
            .success();
        let mut since = Instant::now();
        for source in SOURCES {
            assert_eq!(daemon.status()["leases"][0]["name"], "a");
            since = Instant::now();
            let said = validate(&host, source);
            assert!(said.stdout.contains("ALPN protocol: acme-tls/1"), "{said}");
        }
        shuts(&host, &daemon, since, "quorum");
    });
}

#[test]
fn one_token_of_two_challenges_is_gone_with_the_last_of_them() {
    inside(|| {
        let host = host();
        let early = "[window]\nclose_early = \"tokens\"\nsettle = \"1s\"\n";
        let daemon = Daemon::start(&format!("{early}{BOTH}"));
        let open = ["open", "--lease", "a", "--http-01", "--tls-alpn-01"];
        daemon.cli(&open).success();
        let add = |more: &[&str]| {
            let words = [&["answer", "add", NAME, ANSWER], more].concat();
            daemon.cli(&words).success();
        };
        add(&[]);
        add(&["--tls-alpn-01"]);
        daemon.cli(&["answer", "remove", NAME, TOKEN]).success();
        let begun = Instant::now();
        wait_for(SOON, "a while is over", || {
            (begun.elapsed() > Duration::from_millis(2500)).then_some(())
        });
        expect(&host, &[80, 443]);
        let since = Instant::now();
        let words = ["answer", "remove", "--tls-alpn-01", NAME, TOKEN];
        daemon.cli(&words).success();
        shuts(&host, &daemon, since, "tokens-gone");
    });
}
