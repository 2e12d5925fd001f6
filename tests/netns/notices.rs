//! Somebody is told of windows that did not go well: by a command, by a webhook, and nobody waits for it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::Host;
use crate::lab::{Daemon, TempDir, inside, wait_for};

/// A record is complete some seconds after its window's end.
const SOON: Duration = Duration::from_secs(40);

/// A window that is cut by its deadline.
fn cut(daemon: &Daemon, lease: &str) {
    let words = ["open", "--lease", lease, "--for", "1s"];
    daemon.cli(&words).success();
}

#[test]
fn a_command_reads_the_event_and_one_that_hangs_delays_nothing() {
    inside(|| {
        let _host = Host::new();
        let directory = TempDir::new();
        let told = directory.at("told");
        let script = format!(
            "#!/bin/sh\necho \"$*\" >> {told}.words\ncat >> {told}\ncase \"$2\" in hangs) sleep 1000;; esac\n"
        );
        let program = directory.program("tell", &script);
        let daemon = Daemon::start(&format!(
            "[notify]\ncommand = [\"{program}\", \"{{window}}\", \"{{lease}}\", \"; reboot\"]\ntimeout = \"2s\"\n"
        ));
        cut(&daemon, "hangs");
        wait_for(SOON, "the command was told", || {
            std::fs::read_to_string(&told)
                .ok()
                .filter(|told| told.ends_with('\n'))
        });
        // It hangs now: openings come and go.
        let begun = Instant::now();
        daemon.cli(&["open", "--lease", "b"]).success();
        daemon.cli(&["close", "--lease", "b"]).success();
        assert!(begun.elapsed() < Duration::from_secs(2));
        wait_for(SOON, "it was killed", || {
            daemon.log().contains("was not delivered").then_some(())
        });
        let status = daemon.cli(&["status"]).success();
        assert!(
            status
                .stdout
                .contains("the last notification was not delivered"),
            "{status}"
        );
        cut(&daemon, "good");
        let events = wait_for(SOON, "the next one is told", || {
            let told = std::fs::read_to_string(&told).ok()?;
            (told.lines().count() == 2).then_some(told)
        });
        let words = std::fs::read_to_string(format!("{told}.words")).expect("written");
        let words: Vec<&str> = words.lines().collect();
        assert!(words[0].ends_with(" hangs ; reboot"), "{words:?}");
        assert!(words[1].ends_with(" good ; reboot"), "{words:?}");
        for (line, lease) in events.lines().zip(["hangs", "good"]) {
            let event: Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(event["event"], "cut", "{line}");
            assert_eq!(event["record"]["lease"], lease, "{line}");
            assert_eq!(event["summary"].as_array().map(Vec::len), Some(2), "{line}");
        }
        // What was closed in time is nobody's concern.
        assert!(!events.contains("\"lease\":\"b\""), "{events}");
        wait_for(SOON, "the status has nothing to say", || {
            let status = daemon.cli(&["status"]).success();
            (!status.stdout.contains("last notification")).then_some(())
        });
    });
}

#[test]
fn a_webhook_is_told_by_the_sealed_front() {
    inside(|| {
        let _host = Host::new();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let daemon = Daemon::start(&format!(
            "[notify]\nwebhook = \"http://127.0.0.1:{port}/told?by=acmegate\"\nwhen = [\"always\"]\n"
        ));
        daemon.cli(&["open", "--lease", "a"]).success();
        daemon.cli(&["close", "--lease", "a"]).success();
        let (mut stream, _) = listener.accept().expect("it comes");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        let (mut said, mut part) = (Vec::new(), [0; 4096]);
        while !said.ends_with(b"}") {
            let count = stream.read(&mut part).expect("it goes on");
            assert_ne!(count, 0, "{}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&part[..count]);
        }
        stream
            .write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            .expect("it hears");
        let said = String::from_utf8(said).expect("ASCII");
        assert!(
            said.starts_with("POST /told?by=acmegate HTTP/1.1\r\n"),
            "{said}"
        );
        let (_, body) = said.split_once("\r\n\r\n").expect("a body");
        let event: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(event["event"], "window");
        assert_eq!(event["record"]["lease"], "a");
        wait_for(SOON, "it is written down", || {
            daemon.log().contains("notified").then_some(())
        });
        // Somebody who takes it and says nothing is not waited for.
        daemon.cli(&["open", "--lease", "a"]).success();
        daemon.cli(&["close", "--lease", "a"]).success();
        let (silent, _) = listener.accept().expect("it comes");
        wait_for(SOON, "the status says so", || {
            let status = daemon.cli(&["status"]).success();
            let late = "no whole answer within five seconds";
            status.stdout.contains(late).then_some(())
        });
        // Nobody there: said, and nothing else is harmed.
        drop((stream, silent, listener));
        daemon.cli(&["open", "--lease", "a"]).success();
        daemon.cli(&["close", "--lease", "a"]).success();
        wait_for(SOON, "the status says so", || {
            let status = daemon.cli(&["status"]).success();
            status.stdout.contains("Connection refused").then_some(())
        });
        daemon.cli(&["open", "--lease", "a"]).success();
    });
}

#[test]
fn a_program_that_is_not_there_is_said_beforehand() {
    inside(|| {
        let _host = Host::new();
        let daemon = Daemon::start("[notify]\ncommand = [\"no-such-program\"]\n");
        let status = daemon.cli(&["status"]).success();
        assert!(
            status.stdout.contains("no program `no-such-program`"),
            "{status}"
        );
        let checked = daemon.cli(&["config", "check"]);
        let said = format!("{}{}", checked.stdout, checked.stderr);
        assert!(said.contains("no program `no-such-program`"), "{checked}");
    });
}
