//! The doctor's exam of sites: every finding is produced by a real front, real files, upstreams and rules. What was put
//! up is gone afterwards, whatever came of it.

use std::fs::{self, Permissions};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use acmegate::doctor::finding::{Code, Exam, Finding, Severity};
use acmegate::doctor::sites::{
    ANSWER_REFUSED, HANDSHAKE_FAILS, NO_HAIRPIN, NO_SITE, OTHER_CONFIGURATION, REDIRECT_TO_NOBODY,
    SITE_ANSWERS, SOMEBODY_ELSE, UPSTREAM_GONE, UPSTREAM_REACHED, UPSTREAM_SLOW, UPSTREAM_STRANGE,
    WEBROOT_HIDDEN, WEBROOT_LINK, WEBROOT_REPLACED, WEBROOT_UNREADABLE, WEBROOT_UNWRITABLE,
    examine,
};

use crate::doctor_case::{case, wait};
use crate::lab::site::{Server, TlsSite};
use crate::lab::{Daemon, Process, TempDir, find, inside, ip, nft, run, wait_for};

/// An address of this host: the one name that a test's host resolves without a resolver.
const NAME: &str = "192.0.2.1";
const ACCOUNT: &str = "nP1qzpXGymHBrUEepNY9HCsQk7K8KhOypzEt62jcerQ";
const SOON: Duration = Duration::from_secs(60);

fn site(rest: &str) -> String {
    format!("[[site]]\nidentifiers = [\"{NAME}\"]\nredirect = \"off\"\n{rest}\n")
}

fn webroot(path: &str) -> String {
    site(&format!("answer = {{ webroot = \"{path}\" }}"))
}

fn address() {
    ip("link add out0 type veth peer name out1");
    ip("link set out1 up");
    ip("link set out0 up");
    ip(&format!("addr add {NAME}/24 dev out0"));
}

/// A directory that is there before its gate.
fn html(directory: &TempDir) -> String {
    let path = directory.at("html");
    fs::create_dir(&path).expect("a new directory");
    path
}

fn exam(daemon: &Daemon, names: &[&str]) -> Exam {
    let exam = wait(examine(&case(daemon, names)));
    let status = daemon.status();
    assert_eq!(status["pushed"], 0, "what was pushed is withdrawn");
    for site in status["sites"].as_array().expect("sites") {
        assert_eq!(site["seen"], serde_json::json!([]), "nobody's accounts");
    }
    exam
}

/// Exactly one finding, of this code.
#[track_caller]
fn only(daemon: &Daemon, code: Code) -> Finding {
    let mut exam = exam(daemon, &[]);
    assert_eq!(exam.findings.len(), 1, "{exam:#?}");
    assert_eq!(exam.not_covered, Vec::<String>::new());
    let finding = exam.findings.remove(0);
    assert_eq!(finding.code, code, "{finding:#?}");
    assert_eq!(finding.names, [NAME]);
    finding
}

/// Everything below a directory.
fn below(directory: &str) -> Vec<String> {
    let mut command = Command::new(find("find"));
    command.args([directory, "-mindepth", "1"]);
    let found = run(command, SOON).success().stdout;
    let mut lines: Vec<String> = found.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn mode(path: &str, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("our own directory");
}

#[test]
fn each_kind_of_source_is_tried_through_the_front_in_both_families_and_leaves_nothing() {
    inside(|| {
        address();
        let directory = TempDir::new();
        let html = html(&directory);
        let accounts = format!("accounts = [\"{ACCOUNT}\"]");
        for rest in [
            format!("answer = {{ webroot = \"{html}\" }}"),
            format!("answer = {{ webroot = \"{html}\" }}\n{accounts}"),
            "answer = \"pushed\"".to_owned(),
            format!("answer = \"pushed\"\n{accounts}"),
            format!("answer = {{ thumbprint = \"{ACCOUNT}\" }}"),
        ] {
            let daemon = Daemon::start(&site(&rest));
            let finding = only(&daemon, SITE_ANSWERS);
            assert_eq!(finding.severity, Severity::Fine);
            for door in ["127.0.0.1:80", "[::1]:80"] {
                assert!(finding.finding.contains(door), "{finding:?}");
            }
            assert_eq!(below(&html), Vec::<String>::new());
        }
        // What was there before stays.
        let kept = directory.write("html/.well-known/acme-challenge/kept", "");
        let before = below(&html);
        let daemon = Daemon::start(&webroot(&html));
        only(&daemon, SITE_ANSWERS);
        assert_eq!(below(&html), before);
        assert!(before.contains(&kept));
    });
}

#[test]
fn a_diverting_gate_and_one_behind_proxy_protocol_are_tried_as_well() {
    inside(|| {
        address();
        // Whose visitors a diverting gate leaves alone.
        let web_server = TcpListener::bind("[::]:80").expect("a free port");
        let config = format!(
            "[http]\nlisten = \"divert\"\n{}",
            site("answer = \"pushed\"")
        );
        only(&Daemon::start(&config), SITE_ANSWERS);
        drop(web_server);
        for before in [
            "[proxy]\nprotocol_from = [\"127.0.0.0/8\", \"::1/128\"]\n",
            "[http]\nlisten = [\"192.0.2.1:80\"]\n",
        ] {
            let config = format!("{before}{}", site("answer = \"pushed\""));
            let daemon = Daemon::start(&config);
            only(&daemon, SITE_ANSWERS);
        }
        // A gate that keeps loopback out says nothing, and nothing is assumed.
        let config = format!("[allow]\nlocal = false\n{}", site("answer = \"pushed\""));
        let daemon = Daemon::start(&config);
        let exam = exam(&daemon, &[]);
        assert_eq!(exam.findings, Vec::new());
        assert!(
            exam.not_covered[0].contains("`local` in [allow]"),
            "{exam:?}"
        );
    });
}

#[test]
fn sites_of_many_names_are_tried_by_a_name_that_is_made_up() {
    inside(|| {
        let daemon = Daemon::start(
            "[[site]]\nidentifiers = [\"*.example.com\"]\nredirect = \"off\"\nanswer = \"pushed\"\n\
             [[site]]\ndefault = true\nredirect = \"off\"\nanswer = \"pushed\"\n",
        );
        let exam = exam(&daemon, &[]);
        let [finding] = exam.findings.as_slice() else {
            panic!("{exam:#?}")
        };
        assert_eq!(finding.code, SITE_ANSWERS);
        assert_eq!(
            finding.names,
            ["acmegate-doctor.example.com", "acmegate-doctor.example.net"]
        );
    });
}

#[test]
fn a_name_without_a_site_and_one_that_the_running_gate_does_not_know_are_told_apart() {
    inside(|| {
        address();
        let daemon =
            Daemon::start("[[site]]\nidentifiers = [\"b.example.com\"]\nanswer = \"pushed\"\n");
        let found = exam(&daemon, &["a.example.com"]).findings;
        assert_eq!(found[0].code, NO_SITE);
        assert_eq!(found[0].severity, Severity::Fault);
        let directory = TempDir::new();
        daemon.write_config(&webroot(&html(&directory)));
        let finding = only(&daemon, OTHER_CONFIGURATION);
        assert!(finding.remedy[0].contains("systemctl reload acmegate"));
    });
}

#[test]
fn an_answer_that_the_running_gate_refuses_is_a_fault() {
    inside(|| {
        address();
        let directory = TempDir::new();
        let html = html(&directory);
        let daemon = Daemon::start(&format!("{}accounts = [\"{ACCOUNT}\"]\n", webroot(&html)));
        daemon.write_config(&webroot(&html));
        let finding = only(&daemon, ANSWER_REFUSED);
        assert_eq!(finding.severity, Severity::Fault);
        assert!(finding.evidence[0].contains("status 404"), "{finding:?}");
    });
}

#[test]
fn somebody_in_the_gates_place_is_told_by_what_he_answers() {
    inside(|| {
        address();
        let daemon = Daemon::start(&site("answer = \"pushed\""));
        let _other = python(5080, "301");
        nft(
            "table inet nat { chain output { type nat hook output priority -100; tcp dport 80 redirect to :5080\n}\n}\n",
        );
        let finding = only(&daemon, SOMEBODY_ELSE);
        assert_eq!(finding.severity, Severity::Fault);
        assert!(
            finding.finding.contains("status 301 to https://"),
            "{finding:?}"
        );
        assert!(finding.evidence[1].contains("BaseHTTP"), "{finding:?}");
    });
}

#[test]
fn the_directory_that_keeps_the_front_out_is_named_with_what_to_type() {
    inside(|| {
        address();
        let directory = TempDir::new();
        let html = html(&directory);
        let daemon = Daemon::start(&webroot(&html));
        directory.write("html/.well-known/acme-challenge/kept", "");
        let shut = directory.at("html/.well-known");
        mode(&shut, 0o600);
        let finding = only(&daemon, WEBROOT_UNREADABLE);
        assert_eq!(finding.severity, Severity::Fault);
        assert!(finding.finding.contains(&shut), "{finding:?}");
        assert!(finding.evidence[0].starts_with("drw-------"), "{finding:?}");
        assert!(
            finding
                .remedy
                .iter()
                .any(|way| way == &format!("`chmod u+x {shut}`")),
            "{finding:?}"
        );
        mode(&shut, 0o755);
        only(&daemon, SITE_ANSWERS);
        // It has a handle of the webroot; what is above counts again at its next start.
        mode(&directory.at(""), 0o600);
        let found = exam(&daemon, &[]).findings;
        mode(&directory.at(""), 0o700);
        let [first, second] = found.as_slice() else {
            panic!("{found:#?}")
        };
        assert_eq!(first.code, SITE_ANSWERS);
        assert_eq!(
            (second.code, second.severity),
            (WEBROOT_UNREADABLE, Severity::Doubt)
        );
    });
}

#[test]
fn a_webroot_that_the_gates_own_mounts_hide_is_told_with_the_lines_of_a_drop_in() {
    inside(|| {
        address();
        for (home, lines) in [
            (
                "/home",
                "`ProtectHome=tmpfs`, `BindReadOnlyPaths=\"/home/www\"`",
            ),
            ("/srv", "`[Service]`, `BindReadOnlyPaths=\"/srv/www\"`"),
        ] {
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "tmpfs", home]);
            run(mount, SOON).success();
            let html = format!("{home}/www");
            fs::create_dir(&html).expect("a new directory");
            // What ProtectHome=, PrivateTmp= and containers do: something else stands there.
            let script = format!("mount -t tmpfs tmpfs '{html}' && exec \"$@\"");
            let daemon = Daemon::with(&webroot(&html))
                .under(&["unshare", "-m", "sh", "-c", &script, "sh"])
                .start();
            let finding = only(&daemon, WEBROOT_HIDDEN);
            assert_eq!(finding.severity, Severity::Fault);
            assert!(finding.remedy[0].contains(lines), "{finding:?}");
            assert_eq!(below(&html), Vec::<String>::new());
        }
    });
}

#[test]
fn a_webroot_that_was_removed_or_made_anew_is_told() {
    inside(|| {
        address();
        let directory = TempDir::new();
        let html = html(&directory);
        let daemon = Daemon::start(&webroot(&html));
        fs::remove_dir(&html).expect("an empty directory");
        let finding = only(&daemon, WEBROOT_REPLACED);
        assert!(finding.remedy[0].contains("mkdir -p"), "{finding:?}");
        fs::create_dir(&html).expect("a new directory");
        let finding = only(&daemon, WEBROOT_REPLACED);
        assert!(finding.evidence[0].contains("(deleted)"), "{finding:?}");
        assert!(finding.remedy[0].contains("systemctl restart acmegate"));
    });
}

#[test]
fn a_link_within_a_webroot_and_a_webroot_that_nobody_can_write_are_told() {
    inside(|| {
        address();
        let directory = TempDir::new();
        let html = html(&directory);
        let daemon = Daemon::start(&webroot(&html));
        let elsewhere = directory.at("elsewhere");
        fs::create_dir(&elsewhere).expect("a new directory");
        let link = directory.at("html/.well-known");
        symlink(&elsewhere, &link).expect("a new link");
        let finding = only(&daemon, WEBROOT_LINK);
        assert_eq!(finding.severity, Severity::Fault);
        assert!(finding.finding.contains(&link), "{finding:?}");
        assert_eq!(below(&elsewhere), Vec::<String>::new());
        fs::remove_file(&link).expect("our own link");
        drop(daemon);

        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "ro", "tmpfs", &html]);
        run(mount, SOON).success();
        let daemon = Daemon::start(&webroot(&html));
        let finding = only(&daemon, WEBROOT_UNWRITABLE);
        assert_eq!(finding.severity, Severity::Doubt);
        assert!(finding.finding.contains("Read-only"), "{finding:?}");
    });
}

/// An HTTP server of Python's that gives this status, to HTTPS where it is a redirect.
fn python(port: u16, status: &str) -> Process {
    let mut command = Command::new(find("python3"));
    command.args(["-c", PYTHON, &port.to_string(), status]);
    let process = Process::spawn(command);
    wait_for(SOON, "the server listens", || {
        TcpStream::connect(("127.0.0.1", port))
            .is_ok()
            .then_some(())
    });
    process
}

const PYTHON: &str = r"
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[2]))
        if sys.argv[2] == '301':
            self.send_header('Location', 'https://' + self.headers['Host'] + self.path)
        self.end_headers()
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
";

#[test]
fn an_upstream_is_reached_or_it_is_said_how_not() {
    inside(|| {
        address();
        let upstream = site("answer = { upstream = \"http://127.0.0.1:5081\" }");
        let daemon = Daemon::start(&upstream);
        let finding = only(&daemon, UPSTREAM_GONE);
        assert_eq!(finding.severity, Severity::Doubt);
        assert!(finding.evidence[0].contains("refused"), "{finding:?}");

        let server = python(5081, "404");
        assert_eq!(only(&daemon, UPSTREAM_REACHED).severity, Severity::Fine);
        drop(server);

        let server = python(5081, "301");
        let finding = only(&daemon, UPSTREAM_STRANGE);
        assert_eq!(finding.severity, Severity::Doubt);
        assert!(finding.evidence[0].contains("status 301"), "{finding:?}");
        drop(server);

        nft(
            "table inet filter { chain input { type filter hook input priority 0; tcp dport 5081 drop\n}\n}\n",
        );
        let finding = only(&daemon, UPSTREAM_SLOW);
        assert_eq!(finding.severity, Severity::Fault);
    });
}

#[test]
fn tls_alpn_01_is_tried_to_the_certificate() {
    inside(|| {
        address();
        let tls = "[tls]\nlisten = [\"[::]:443\"]\n";
        let config =
            |rest: &str| format!("{tls}{}challenges = [\"tls-alpn-01\"]\n{rest}", site(""));
        let daemon = Daemon::start(&config(""));
        let finding = only(&daemon, SITE_ANSWERS);
        assert!(finding.finding.contains("tls-alpn-01"), "{finding:?}");
        drop(daemon);
        // A gate that keeps loopback out says nothing here either, and nothing is assumed.
        let daemon = Daemon::start(&format!("[allow]\nlocal = false\n{}", config("")));
        let kept_out = exam(&daemon, &[]);
        assert_eq!(kept_out.findings, Vec::new());
        assert!(
            kept_out.not_covered[0].contains("`local` in [allow]"),
            "{kept_out:?}"
        );
        drop(daemon);
        let daemon = Daemon::start(&config(""));
        // An ordinary web server in its place.
        let _site = TlsSite::start(Server::HaProxy, 5443);
        nft(
            "table inet nat { chain output { type nat hook output priority -100; tcp dport 443 redirect to :5443\n}\n}\n",
        );
        let finding = only(&daemon, HANDSHAKE_FAILS);
        assert_eq!(finding.severity, Severity::Fault);
        assert!(
            finding.evidence[0].contains("ordinary web server"),
            "{finding:?}"
        );
        nft("delete table inet nat\n");
        drop(daemon);

        let responder = "tls_answer = { upstream = \"127.0.0.1:5443\" }\n";
        let daemon = Daemon::start(&config(responder));
        let codes: Vec<Code> = exam(&daemon, &[])
            .findings
            .iter()
            .map(|one| one.code)
            .collect();
        assert_eq!(codes, [UPSTREAM_REACHED, SITE_ANSWERS]);
        let config = config("tls_answer = { upstream = \"127.0.0.1:5444\" }\n");
        daemon.write_config(&config);
        let found = exam(&daemon, &[]).findings;
        assert_eq!(found[0].code, UPSTREAM_GONE);
    });
}

#[test]
fn a_redirect_to_nobody_and_a_name_that_leads_nowhere_from_inside_are_advice() {
    inside(|| {
        address();
        let daemon = Daemon::start(&format!(
            "[[site]]\nidentifiers = [\"{NAME}\"]\nanswer = \"pushed\"\n"
        ));
        let found = exam(&daemon, &[]).findings;
        let codes: Vec<Code> = found.iter().map(|one| one.code).collect();
        assert_eq!(codes, [SITE_ANSWERS, REDIRECT_TO_NOBODY]);
        assert_eq!(found[1].severity, Severity::Advice);
        let _https = TcpListener::bind("[::]:443").expect("a free port");
        only(&daemon, SITE_ANSWERS);
        drop(daemon);

        let elsewhere = "203.0.113.9";
        ip(&format!("route add unreachable {elsewhere}"));
        let daemon = Daemon::start(&format!(
            "[[site]]\nidentifiers = [\"{elsewhere}\"]\nredirect = \"off\"\nanswer = \"pushed\"\n"
        ));
        let found = exam(&daemon, &[]).findings;
        let codes: Vec<Code> = found.iter().map(|one| one.code).collect();
        assert_eq!(codes, [SITE_ANSWERS, NO_HAIRPIN]);
        assert_eq!(found[1].severity, Severity::Advice);
    });
}

/// A webroot and its gate, whose port nobody reaches: an exam waits, and there is a moment in which its file stands.
fn unheard(directory: &TempDir) -> (String, Daemon) {
    address();
    let html = html(directory);
    let daemon = Daemon::start(&webroot(&html));
    nft(
        "table inet slow { chain in { type filter hook input priority 0; iif lo tcp dport 80 drop; }\n }",
    );
    (html, daemon)
}

#[test]
fn an_exam_that_is_given_up_on_the_way_takes_its_file_down() {
    inside(|| {
        let directory = TempDir::new();
        let (html, daemon) = unheard(&directory);
        let case = case(&daemon, &[]);
        wait(async {
            let looking = tokio::spawn(async move { examine(&case).await });
            let begun = tokio::time::Instant::now();
            while !Path::new(&html).join(".well-known/acme-challenge").exists() {
                assert!(begun.elapsed() < SOON, "the file is made");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(!looking.is_finished());
            looking.abort();
            assert!(looking.await.unwrap_err().is_cancelled());
        });
        assert_eq!(below(&html), Vec::<String>::new());
    });
}

/// One that was killed while it waited leaves its file; the next one takes that away, and nothing else.
#[test]
fn what_a_killed_examination_left_is_cleared_by_the_next_one() {
    inside(|| {
        let directory = TempDir::new();
        let (html, daemon) = unheard(&directory);
        let mut doctor = daemon.command();
        doctor.args(["doctor", "--only", "sites"]);
        let mut doctor = doctor.spawn().expect("our own program");
        let left = wait_for(SOON, "its file", || {
            below(&html)
                .into_iter()
                .find(|path| path.contains("/acmegate-doctor-"))
        });
        doctor.kill().expect("it still waits");
        doctor.wait().expect("it ends");
        nft("delete table inet slow");
        assert!(below(&html).contains(&left), "nobody cleared up");
        let (place, token) = left.rsplit_once("acmegate-doctor-").expect("as found");
        // As long as tokens are, and none is the token itself.
        let mut letters = ('A'..='Z').filter(|letter| !token.starts_with(*letter));
        let mut beside = |name: &str| {
            let letter = letters.next().expect("a letter");
            format!("{place}{name}-{letter}{}", &token[1..])
        };
        // No file, a link, an ACME client's, one with two names, one that is too long.
        let kept = [
            "acmegate-doctor",
            "acmegate-doctor",
            "other",
            "acmegate-doctor",
            "acmegate-doctor",
        ]
        .map(&mut beside);
        let [made, link, other, linked, long] = &kept;
        fs::copy(&left, other).expect("a file");
        fs::create_dir(made).expect("a directory");
        symlink("/etc/hostname", link).expect("a link");
        fs::hard_link(other, linked).expect("another name");
        fs::write(long, [b'a'; 4096]).expect("a file");
        let age = |path: &str| {
            let mut command = Command::new(find("touch"));
            command.args(["-h", "-d", "10 minutes ago", path]);
            run(command, SOON).success();
        };
        kept.iter().for_each(|path| age(path));
        // It may still run.
        only(&daemon, SITE_ANSWERS);
        assert!(below(&html).contains(&left));
        age(&left);
        only(&daemon, SITE_ANSWERS);
        let now = below(&html);
        assert!(!now.contains(&left), "{now:?}");
        for path in &kept {
            assert!(now.contains(path), "{path}: {now:?}");
        }
    });
}
