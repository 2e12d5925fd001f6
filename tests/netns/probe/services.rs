//! Services of the web: the Open MPIC API as its makers' own coordinator speaks it, and a double of Let's Debug.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::lab::{Daemon, find, inside, nft, run, wait_for};

use super::world::{
    CONFIG, GEO_BLOCK, HOST_4, NAME, World, codes, command, nothing_is_left, probe,
};

const SOON: Duration = Duration::from_secs(30);
const KEY: &str = "a-key-that-is-nobody-elses";
const PORT: &str = "8443";

/// Where `tests/python` puts what tests need from PyPI.
#[track_caller]
fn python_path() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("target");
    let path = target.join("open-mpic-core-6.5.0");
    assert!(
        path.join("open_mpic_core").is_dir(),
        "{} is missing: `tests/python` installs it from PyPI",
        path.display()
    );
    path
}

fn data(file: &str) -> String {
    format!("{}/tests/data/probe/{file}", env!("CARGO_MANIFEST_DIR"))
}

fn python(arguments: &[&str]) -> Command {
    let mut command = Command::new(find("python3"));
    command
        .args(arguments)
        .env("PYTHONPATH", python_path())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// An Open MPIC service on the host's loopback, with a perspective at every vantage point there is.
fn service(world: &mut World, perspectives: &[(&str, &str)]) {
    let directory = world.directory().at("mpic");
    std::fs::create_dir(&directory).expect("a new directory");
    let at = |name: &str| format!("{directory}/{name}");
    let mut certificate = Command::new("openssl");
    certificate
        .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
        .args(["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=mpic"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", &at("key.pem"), "-out", &at("cert.pem")]);
    run(certificate, SOON).success();
    let mut sockets = Vec::new();
    for (number, (code, rir)) in perspectives.iter().enumerate() {
        let socket = at(&format!("{code}.{rir}.sock"));
        world.serve(
            python(&[&data("mpic.py"), "perspective", &socket]),
            Some(number),
        );
        sockets.push(socket);
    }
    for socket in sockets {
        wait_for(SOON, "the perspective is there", || {
            Path::new(&socket).exists().then_some(())
        });
    }
    world.serve(
        python(&[&data("mpic.py"), "coordinator", PORT, &directory, KEY]),
        None,
    );
    wait_for(SOON, "the coordinator listens", || {
        if let Some(words) = world.last_words() {
            panic!("{words}");
        }
        TcpStream::connect(format!("127.0.0.1:{PORT}")).ok()
    });
}

#[test]
fn a_service_of_open_mpic_is_asked_for_the_token_and_for_caa() {
    inside(|| {
        let mut world = World::new(false);
        world.name_server();
        for (name, address) in [
            ("a", "198.51.100.7"),
            ("b", "100.64.9.7"),
            ("c", "45.33.9.7"),
            ("d", "198.51.100.200"),
        ] {
            world.point(name, address, None, &[]);
        }
        service(
            &mut world,
            &[
                ("us", "ARIN"),
                ("eu", "RIPE NCC"),
                ("ap", "APNIC"),
                ("sa", "LACNIC"),
            ],
        );
        nft(GEO_BLOCK);
        let daemon = Daemon::start(CONFIG);
        let url = format!("mpic:https://127.0.0.1:{PORT}/v2");
        let bundle = world.directory().at("mpic/cert.pem");
        let key = world.directory().write("key", &format!("{KEY}\n"));
        let ask = |more: &[&str], with_trust: bool| {
            let mut command = command(&daemon, &[&[NAME, "--from", &url, "--json"], more].concat());
            if with_trust {
                command.env("SSL_CERT_FILE", &bundle);
            }
            let output = run(command, SOON * 2);
            nothing_is_left(&daemon);
            let told: serde_json::Value = serde_json::from_str(&output.stdout)
                .unwrap_or_else(|error| panic!("{error}: {output}"));
            (output, told)
        };
        let (output, told) = ask(
            &["--mpic-key-file", &key, "--issuer", "letsencrypt.org"],
            true,
        );
        let points = told["probe"]["vantage_points"]
            .as_array()
            .expect("perspectives");
        let good = |code: &str| {
            let point = points
                .iter()
                .find(|point| point["from"] == format!("{url} {code}"));
            let view = &point.unwrap_or_else(|| panic!("no {code}: {output}"))["views"][0];
            assert_eq!(view["caa"], "permits", "{output}");
            view["fetches"][0]["outcome"]["answered"]["matches"] == true
        };
        assert_eq!(
            ["us", "eu", "ap", "sa"].map(good),
            [true, true, true, false],
            "{output}"
        );
        let service = &told["probe"]["services"][0];
        assert_eq!(
            service["came_from"],
            serde_json::json!(["45.33.9.7", "100.64.9.7", "198.51.100.7"]),
            "{output}"
        );
        // The one that was stopped cannot be told by its token; what stopped somebody is told all the same.
        let stranger = &told["probe"]["strangers"][0];
        assert_eq!(stranger["source"], "198.51.100.200", "{output}");
        let quorum = &told["probe"]["quorum"][0];
        assert_eq!(
            (&quorum["counted"], &quorum["answered"]),
            (&4.into(), &3.into()),
            "{output}"
        );
        assert_eq!(codes(&told)[0], "tolerated", "{output}");
        assert!(
            told["letter"]["findings"][0]
                .to_string()
                .contains("inet geo early"),
            "{output}"
        );
        assert_eq!(output.code, 1, "{output}");

        let (output, told) = ask(
            &["--mpic-key-file", &key, "--issuer", "other.example.net"],
            true,
        );
        assert!(codes(&told).contains(&"caa-forbids"), "{output}");
        assert_eq!(output.code, 2, "{output}");

        // Without the key, and with a certificate that nobody vouches for.
        let (output, _) = ask(&[], true);
        assert!(
            output.stdout.contains("wants another key (status 403)"),
            "{output}"
        );
        let (output, _) = ask(&["--mpic-key-file", &key], false);
        assert!(
            output.stdout.contains("invalid peer certificate"),
            "{output}"
        );
        assert!(!output.text().contains(KEY), "{output}");
    });
}

#[test]
fn lets_debug_is_asked_on_request_only_and_its_answer_is_merged() {
    inside(|| {
        let mut world = World::new(false);
        world.point("far", "198.51.100.7", None, &[]);
        world.serve(python(&[&data("letsdebug.py"), "8001", HOST_4]), None);
        wait_for(SOON, "the double listens", || {
            TcpStream::connect("127.0.0.1:8001").ok()
        });
        let daemon = Daemon::start("");
        let at = ["--letsdebug-url", "http://127.0.0.1:8001"];
        let (output, told) = probe(&daemon, &[&[NAME, "--letsdebug"], &at[..]].concat());
        nothing_is_left(&daemon);
        assert_eq!(
            told["probe"]["lets_debug"],
            serde_json::json!([]),
            "{output}"
        );
        assert!(
            output
                .stderr
                .contains("to 127.0.0.1 go the name www.example.com and a random token"),
            "{output}"
        );
        assert_eq!(output.code, 0, "{output}");
        // Not asked, it hears nothing.
        let (output, told) = probe(&daemon, &[&[NAME, "--from", "ssh:far"], &at[..]].concat());
        assert!(told["probe"]["lets_debug"].is_null(), "{output}");
        assert!(!output.stderr.contains("go the name"), "{output}");
        // What it finds is a finding: a firewall that stops it.
        nft(
            "table inet f { chain input { type filter hook input priority 0; policy accept;
            iif lo ip daddr 192.0.2.1 tcp dport 80 reject with tcp reset
        }
        }",
        );
        let (output, told) = probe(&daemon, &[&[NAME, "--letsdebug"], &at[..]].concat());
        assert_eq!(
            told["probe"]["lets_debug"][0]["name"], "ANotWorking",
            "{output}"
        );
        assert_eq!(
            told["probe"]["lets_debug"].as_array().map(Vec::len),
            Some(1),
            "{output}"
        );
        assert_eq!(codes(&told)[0], "lets-debug", "{output}");
        assert_eq!(output.code, 2, "{output}");
        // And one that is not there could not be asked.
        let (output, told) = probe(
            &daemon,
            &[
                NAME,
                "--letsdebug",
                "--letsdebug-url",
                "http://127.0.0.1:8002",
            ],
        );
        assert!(
            told["letter"]["not_covered"]
                .to_string()
                .contains("Let's Debug: 127.0.0.1"),
            "{output}"
        );
        assert_eq!(output.code, 1, "{output}");
    });
}
