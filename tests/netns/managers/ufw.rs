//! ufw, with its own directories replaced by copies.

use std::time::Duration;

use crate::host::Host;
use crate::lab::{Daemon, TempDir, inside, ruleset, wait_for};
use crate::managers::life::{Outside, attach, open_is_refused, window_and_reloads};
use crate::managers::own;
use crate::managers::validations::site;

/// ufw as it is installed: enabled, and open for SSH and for the private network.
pub struct Ufw {
    _copies: Vec<TempDir>,
}

impl Ufw {
    pub fn new() -> Self {
        let copies = ["/etc/ufw", "/usr/lib/ufw"].map(own::copy_of).into();
        // Its lock.
        own::empty("/run");
        let ufw = Self { _copies: copies };
        ufw.run("default deny incoming");
        ufw.run("allow 22/tcp");
        ufw.run("allow from 10.0.0.0/8");
        ufw.run("--force enable");
        ufw
    }

    #[track_caller]
    pub fn run(&self, words: &str) {
        own::tool("ufw", &words.split(' ').collect::<Vec<_>>());
    }
}

#[test]
fn a_guarded_window_outlives_ufw() {
    inside(|| {
        let host = Host::new();
        let ufw = Ufw::new();
        let mut daemon = Daemon::start(&site());
        let words = [
            "ip filter INPUT policy drops tcp port 80",
            "use mode `attach` with `chains = [\"ip filter INPUT\", \"ip6 filter INPUT\"]`",
            "`ufw allow 80/tcp`",
        ];
        open_is_refused(&host, &daemon, &words);

        ufw.run("allow 80/tcp");
        let mut ways = ["reload", "allow 8080/tcp", "disable", "--force enable"]
            .iter()
            .cycle();
        window_and_reloads(&host, &daemon, Outside::Ours, 4, || {
            ufw.run(ways.next().expect("it goes round"));
        });
        assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
        assert!(!ruleset().contains("acmegate"));
    });
}

#[test]
fn a_window_in_ufws_chains_outlives_ufw() {
    inside(|| {
        let host = Host::new();
        // At boot either may come first.
        let chains = ["ip filter INPUT", "ip6 filter INPUT"];
        let mut daemon = Daemon::start(&format!("{}{}", site(), attach(&chains)));
        let problems = || daemon.status()["problems"].to_string();
        assert!(problems().contains("does not exist"), "{}", problems());
        let ufw = Ufw::new();
        wait_for(Duration::from_secs(10), "ufw's chains are found", || {
            (problems() == "[]").then_some(())
        });
        let ways: [&[&str]; 3] = [
            &["reload"],
            &["allow 8080/tcp"],
            &["disable", "--force enable"],
        ];
        let mut ways = ways.iter().cycle();
        // While ufw is disabled everything is open: that is its own word.
        window_and_reloads(&host, &daemon, Outside::Theirs, 4, || {
            for words in *ways.next().expect("it goes round") {
                ufw.run(words);
            }
        });
        assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
        assert!(!ruleset().contains("acmegate"));
        assert!(!ruleset().contains("0x08000000"));
    });
}
