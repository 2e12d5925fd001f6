//! Metrics of a real daemon after real traffic: what promtool says of them, what they count, what
//! nobody finds in them; and the page, the dashboard and the rules that speak of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::lab::{Daemon, find, run, wait_for};

const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
const THUMBPRINT: &str = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";
const SECONDS: Duration = Duration::from_secs(10);

const CONFIG: &str = "[http]\nlisten = [\"127.0.0.1:0\"]\n[firewall]\nmode = \"gate-only\"\nports = [80]\n\
     [metrics]\nlisten = \"127.0.0.1:0\"\n[[site]]\nidentifiers = [\"www.example.com\"]\n";

fn address(daemon: &Daemon, of: &str) -> String {
    daemon.status()[of][0].as_str().expect("one").to_owned()
}

fn exchange(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(SECONDS)).expect("a deadline");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

fn ask(daemon: &Daemon, target: &str, host: &str) -> String {
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    exchange(&address(daemon, "listeners"), &request)
}

fn scrape(daemon: &Daemon, request: &str) -> String {
    exchange(&address(daemon, "metrics"), request)
}

fn metrics(daemon: &Daemon) -> String {
    daemon.cli(&["metrics"]).success().stdout
}

/// The value of a series, written as it stands in the text.
fn value(text: &str, series: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = line.unwrap_or_else(|| panic!("no {series}:\n{text}"));
    value.parse().expect("a number")
}

/// What promtool says of a text; it is silent of a good one.
fn check(text: &str) -> String {
    let mut promtool = Command::new(find("promtool"));
    promtool.args(["check", "metrics"]);
    let mut child = promtool
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(text.as_bytes()).expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert_eq!(output.status.success(), said.is_empty(), "{said}");
    said
}

fn answered(daemon: &Daemon) {
    let answer = format!("{TOKEN}.{THUMBPRINT}");
    daemon
        .cli(&["answer", "add", "www.example.com", &answer])
        .success();
    let target = format!("/.well-known/acme-challenge/{TOKEN}");
    assert!(ask(daemon, &target, "www.example.com").starts_with("HTTP/1.1 200 "));
}

#[test]
fn what_happened_is_counted_and_promtool_finds_nothing_to_say() {
    let daemon = Daemon::start(CONFIG);
    assert_eq!(check(&metrics(&daemon)), "", "before anything happened");
    daemon.cli(&["open", "--lease", "a"]).success();
    answered(&daemon);
    ask(&daemon, "/", "other.test");
    let text = wait_for(SECONDS, "the window is told", || {
        let text = metrics(&daemon);
        (value(&text, "acmegate_window_open_seconds_total") > 0.0).then_some(text)
    });
    for (series, expected) in [
        ("acmegate_leases", 1.0),
        ("acmegate_pushed_answers", 1.0),
        ("acmegate_window_open{family=\"ipv4\",port=\"80\"}", 1.0),
        ("acmegate_budget_used_openings", 1.0),
        ("acmegate_firewall_installed", 0.0),
        (
            "acmegate_connections_total{reason=\"answered\",verdict=\"accept\"}",
            1.0,
        ),
        (
            "acmegate_connections_total{reason=\"unknown-host\",verdict=\"drop\"}",
            1.0,
        ),
        (
            "acmegate_answer_duration_seconds_count{challenge=\"http-01\"}",
            1.0,
        ),
    ] {
        assert_eq!(value(&text, series), expected, "{series}");
    }
    daemon.cli(&["close", "--lease", "a"]).success();
    let ended = "acmegate_windows_ended_total{ended_by=\"close\",outcome=\"quiet\"}";
    let text = wait_for(3 * SECONDS, "its record is complete", || {
        let text = metrics(&daemon);
        let sum: f64 = text
            .lines()
            .filter(|line| line.starts_with("acmegate_windows_ended_total{"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        (sum > 0.0).then_some(text)
    });
    assert_eq!(value(&text, ended), 1.0);
    assert_eq!(
        value(&text, "acmegate_windows_opened_total{why=\"asked\"}"),
        1.0
    );
    assert_eq!(check(&text), "");
    assert_eq!(value(&text, "acmegate_leases"), 0.0);
    let open_for = value(&text, "acmegate_window_open_seconds_total");
    let later = value(&metrics(&daemon), "acmegate_window_open_seconds_total");
    assert_eq!(open_for, later, "shut is shut");
}

#[test]
fn nothing_that_anybody_chose_is_in_them() {
    let daemon = Daemon::start(CONFIG);
    let ugly = "<script>\u{1b}]0;marked\u{7}\u{202e}marked";
    for (target, host) in [
        (format!("/{ugly}"), "www.example.com"),
        ("/".to_owned(), ugly),
        ("/marked".to_owned(), "marked.test"),
        (
            "/.well-known/acme-challenge/marked".to_owned(),
            "www.example.com",
        ),
    ] {
        ask(&daemon, &target, host);
    }
    answered(&daemon);
    daemon
        .cli(&[
            "open",
            "--lease",
            "marked",
            "--identifier",
            "www.example.com",
        ])
        .success();
    let text = metrics(&daemon);
    for secret in [
        "marked",
        "script",
        "example.com",
        "127.0.0.1",
        TOKEN,
        THUMBPRINT,
    ] {
        assert!(!text.contains(secret), "{secret}:\n{text}");
    }
    assert!(text.chars().all(|c| c == '\n' || (' '..='~').contains(&c)));
}

#[test]
fn the_observe_socket_gives_the_status_as_a_line_and_then_the_metrics() {
    let daemon = Daemon::start(CONFIG);
    let mut stream = UnixStream::connect(format!("{}/observe.sock", daemon.runtime_dir()))
        .expect("everybody may");
    stream.set_read_timeout(Some(SECONDS)).expect("a deadline");
    let mut told = String::new();
    stream.read_to_string(&mut told).expect("it ends");
    let (status, text) = told.split_once('\n').expect("a line");
    let status: serde_json::Value = serde_json::from_str(status).expect("JSON");
    assert_eq!(status["firewall"]["mode"], "gate-only");
    assert_eq!(check(text), "");
    assert!(text.ends_with("\n# EOF\n"), "{text}");
}

#[test]
fn without_a_daemon_it_says_so() {
    let mut daemon = Daemon::start(CONFIG);
    assert_eq!(daemon.terminate(), 0);
    let output = daemon.cli(&["metrics"]);
    assert!(
        output.code == 69 && output.stdout.is_empty() && output.stderr.lines().count() == 1,
        "{output}"
    );
}

#[test]
fn by_http_the_same_is_shown_to_this_host_alone() {
    let daemon = Daemon::start(CONFIG);
    let got = scrape(
        &daemon,
        "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9402\r\n\r\n",
    );
    let (head, text) = got.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let head = head.to_ascii_lowercase();
    for line in [
        "content-type: text/plain; version=0.0.4; charset=utf-8",
        "connection: close",
    ] {
        assert!(head.lines().any(|own| own == line), "{line}: {head}");
    }
    assert_eq!(check(text), "");
    for (request, status) in [
        ("GET /metrics HTTP/1.1\r\nHost: attacker.test\r\n\r\n", 421),
        ("GET /metrics HTTP/1.1\r\n\r\n", 421),
        ("GET /metrics HTTP/1.0\r\n\r\n", 421),
        ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        ("HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (
            "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
            405,
        ),
        ("\u{16}\u{3}\u{1}\r\n\r\n", 400),
    ] {
        let got = scrape(&daemon, request);
        let is_so = got.starts_with(&format!("HTTP/1.1 {status} "))
            || got.starts_with(&format!("HTTP/1.0 {status} "));
        assert!(is_so, "{request:?}: {got}");
        assert!(!got.contains("acmegate_"), "{got}");
    }
}

#[test]
fn who_holds_every_place_keeps_nobody_from_the_gate_and_nobody_for_long() {
    let daemon = Daemon::start(CONFIG);
    let scraped = address(&daemon, "metrics");
    let silent: Vec<TcpStream> = (0..40)
        .map(|_| TcpStream::connect(&scraped).expect("the kernel takes it"))
        .collect();
    let on_top = |silent: &Vec<TcpStream>| {
        silent
            .iter()
            .filter(|stream| {
                stream.set_nonblocking(true).expect("a socket");
                matches!((&mut &**stream).read(&mut [0]), Ok(0))
            })
            .count()
    };
    wait_for(SECONDS, "those on top are closed", || {
        (on_top(&silent) == 24).then_some(())
    });
    answered(&daemon);
    daemon.cli(&["metrics"]).success();
    wait_for(2 * SECONDS, "the deadline ends the rest", || {
        let got = scrape(&daemon, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        got.starts_with("HTTP/1.1 200 ").then_some(())
    });
}

#[test]
fn a_port_of_metrics_that_is_taken_is_explained() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let refused = Daemon::with(&CONFIG.replace(
        "[metrics]\nlisten = \"127.0.0.1:0\"",
        &format!("[metrics]\nlisten = [\"{address}\"]"),
    ))
    .refuse();
    assert!(
        refused.code == 71
            && refused.stderr.contains("[metrics] listen")
            && refused.stderr.contains(&address),
        "{refused}"
    );
}

// --- what is shipped -------------------------------------------------------------------------------

fn shipped(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Every family of a text: its name, type, and the names of its labels.
fn families(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut families: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    for line in text.lines() {
        if let Some(told) = line.strip_prefix("# TYPE ") {
            let (name, kind) = told.split_once(' ').expect("a type");
            families.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        }
        if line.starts_with('#') {
            continue;
        }
        let Some((series, rest)) = line.split_once('{') else {
            continue;
        };
        let name = ["_bucket", "_count", "_sum"]
            .iter()
            .find_map(|end| series.strip_suffix(end))
            .filter(|name| families.contains_key(*name))
            .unwrap_or(series);
        let labels = rest.split("\",").filter_map(|label| label.split_once('='));
        let labels = labels.map(|(label, _)| label.to_owned());
        let own = &mut families.get_mut(name).expect("a family").1;
        own.extend(labels.filter(|label| label != "le"));
    }
    families
}

/// A daemon that has everything that a metric may be about.
fn whole() -> String {
    let list = crate::lab::TempDir::new();
    let path = list.write("office.list", "198.51.100.0/24\n");
    let daemon = Daemon::start(&format!("{CONFIG}[allow]\nfiles = [\"{path}\"]\n"));
    metrics(&daemon)
}

/// Rows `| name | type | labels | meaning |` of the page.
#[test]
fn the_page_has_every_metric_with_its_type_and_labels_and_no_other() {
    let page = fs::read_to_string(shipped("docs/metrics.md")).expect("the page");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let documented: BTreeMap<String, (String, BTreeSet<String>)> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let name = cells[1].trim_matches('`').to_owned();
            let labels = cells[3].split('`').skip(1).step_by(2).map(str::to_owned);
            (name, (cells[2].to_owned(), labels.collect()))
        })
        .collect();
    assert_eq!(documented, families(&whole()));
}

/// Every name of ours in a text.
fn names_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with("acmegate_"));
    names.map(str::to_owned).collect()
}

/// Every series that a text may be asked for.
fn series(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let names = lines.filter_map(|line| line.split(['{', ' ']).next());
    names.map(str::to_owned).collect()
}

#[test]
fn the_dashboard_asks_for_nothing_that_is_not_there() {
    let text = fs::read_to_string(shipped("config/grafana/acmegate.json")).expect("a dashboard");
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let known = series(&whole());
    let mut asked = BTreeSet::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "{panel}");
        for target in targets {
            let names = names_in(target["expr"].as_str().expect("an expression"));
            asked.extend(names);
        }
    }
    assert!(asked.len() > 10, "{asked:?}");
    assert_eq!(asked.difference(&known).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn the_rules_are_rules_and_do_what_their_tests_say() {
    let rules = shipped("config/prometheus/acmegate.rules.yml");
    let promtool = |arguments: &[&str]| {
        let mut command = Command::new(find("promtool"));
        command.args(arguments).arg(&rules);
        run(command, SECONDS).success();
    };
    promtool(&["check", "rules", "--lint=all", "--lint-fatal"]);
    let mut command = Command::new(find("promtool"));
    command
        .args(["test", "rules"])
        .arg(shipped("tests/data/metrics/acmegate.rules.test.yml"));
    run(command, 6 * SECONDS).success();
    let text = fs::read_to_string(&rules).expect("the rules");
    let alerts = text.matches("- alert: ").count();
    let tests = fs::read_to_string(shipped("tests/data/metrics/acmegate.rules.test.yml"));
    let tests = tests.expect("the tests");
    for alert in text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
    {
        assert!(tests.contains(&format!("alertname=\"{alert}\"")), "{alert}");
    }
    assert!(alerts >= 8, "{alerts}");
    let known = series(&whole());
    let unknown: Vec<String> = names_in(&text).difference(&known).cloned().collect();
    assert_eq!(unknown, [""; 0]);
}
