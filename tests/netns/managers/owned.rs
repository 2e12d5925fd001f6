//! A firewall whose table belongs to its program (`flags owner`), as newer firewalld has it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use crate::host::Host;
use crate::kernel::nft;
use crate::lab::{Daemon, Process, TempDir, find, inside, ruleset, run, wait_for};
use crate::managers::life::{Outside, attach, open_is_refused, window_and_reloads};
use crate::managers::own::tool;
use crate::managers::validations::site;

const SOON: Duration = Duration::from_secs(60);

/// Makes and owns the table `inet corporate`; it goes with its owner.
const TABLE: [&str; 6] = [
    "add table inet corporate { flags owner; }",
    "add chain inet corporate input { type filter hook input priority 0; policy drop; }",
    "add rule inet corporate input iif lo accept",
    "add rule inet corporate input meta l4proto { icmp, ipv6-icmp } accept",
    "add rule inet corporate input ip saddr 10.0.0.0/8 accept",
    "add rule inet corporate input ct state established accept",
];

/// An `nft -i` that goes on reading commands.
struct Owner {
    commands: File,
    _nft: Process,
    _directory: TempDir,
}

impl Owner {
    fn new() -> Self {
        let directory = TempDir::new();
        let pipe = directory.at("commands");
        tool("mkfifo", &[&pipe]);
        // For reading too: so it opens at once, and the program sees no end while this lives.
        let commands = OpenOptions::new().read(true).write(true).open(&pipe);
        let mut shell = Command::new("sh");
        let nft = find("nft");
        shell
            .args(["-c", "exec \"$1\" -i < \"$2\"", "sh"])
            .arg(nft)
            .arg(&pipe);
        let mut owner = Self {
            commands: commands.expect("our own pipe"),
            _nft: Process::spawn(shell),
            _directory: directory,
        };
        TABLE.iter().for_each(|command| owner.does(command));
        wait_for(SOON, "the table is there", || {
            let rules = ruleset();
            (rules.contains("flags owner") && rules.contains("ct state established")).then_some(())
        });
        owner
    }

    fn does(&mut self, command: &str) {
        writeln!(self.commands, "{command}").expect("it is read");
    }
}

#[test]
fn a_table_with_an_owner_is_named_and_guarded_beside() {
    inside(|| {
        let host = Host::new();
        let mut owner = Owner::new();
        let mut foreign = Command::new("nft");
        foreign.args(["insert", "rule", "inet", "corporate", "input", "accept"]);
        let refused = run(foreign, SOON);
        assert_ne!(refused.code, 0, "the control: nobody else may write");

        let attached = Daemon::start(&attach(&["inet corporate input"]));
        let words = ["belongs to its own program", "use mode `guard`"];
        open_is_refused(&host, &attached, &words);
        drop(attached);

        let mut daemon = Daemon::start(&site());
        let words = [
            "inet corporate input policy drops tcp port 80",
            "nobody but its owner may write into this table",
            "use mode `guard`",
        ];
        open_is_refused(&host, &daemon, &words);
        let said = daemon.cli(&["open", "--lease", "a"]).stderr;
        assert!(!said.contains("attach"), "what cannot work: {said}");

        // As it was advised; and so again whenever the owner makes its rules anew.
        let mut round = 0;
        let mut rebuild = || {
            round += 1;
            owner.does("flush chain inet corporate input");
            TABLE[2..].iter().for_each(|rule| owner.does(rule));
            let opened = format!("tcp dport 80 accept comment \"round {round}\"");
            owner.does(&format!("add rule inet corporate input {opened}"));
            wait_for(SOON, "the owner's rules are back", || {
                let rules = nft(&["list", "table", "inet", "corporate"]);
                rules.contains(&opened).then_some(())
            });
        };
        rebuild();
        window_and_reloads(&host, &daemon, Outside::Ours, 2, &mut rebuild);
        assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
        assert!(!ruleset().contains("acmegate"));
    });
}

/// Where a living process that is no acmegate of this host's lock owns the very table.
#[test]
fn a_table_of_our_name_that_somebody_owns_is_refused_with_a_code_to_wait_for() {
    inside(|| {
        let _host = Host::new();
        let mut owner = Owner::new();
        owner.does("add table inet acmegate { flags owner; }");
        wait_for(SOON, "it is there", || {
            ruleset().contains("table inet acmegate").then_some(())
        });
        let before = ruleset();
        let refused = Daemon::with(&site()).refuse();
        assert_eq!(refused.code, 75, "{refused}");
        let word = "owned by another living process";
        assert!(refused.stderr.contains(word), "{refused}");
        assert_eq!(ruleset(), before);
    });
}
