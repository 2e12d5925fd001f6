//! `acmegate status --security`: what holds the daemon's processes, read from the kernel while they run.
//!
//! Which processes they are says the kernel too: the one that serves the observe socket, and its children.
//! The one thing that it shows to nobody is a landlock domain; of that the daemon tells what the kernel
//! answered when it was made. This changes nothing, and needs root for namespaces and the table alone.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use rustix::thread::CapabilitySet;
use serde::Serialize;

use super::Failure;
use super::terminal::{plain, print};
use crate::control::client;
use crate::control::protocol::Exit;
use crate::control::status::Status;
use crate::daemon::process;
use crate::firewall::netlink::{Kernel, Standing};

/// The names that our processes give themselves, and what each is.
const PROCESSES: [(&str, &str); 4] = [
    ("acmegate", "front"),
    ("acmegate-enf", "enforcer"),
    ("acmegate-run", "runner"),
    ("acmegate-hist", "historian"),
];
/// Without these two there is no daemon.
const ALWAYS: [&str; 2] = ["front", "enforcer"];
/// How many filters each puts on itself, besides those that it was started with.
const OWN_FILTERS: usize = 2;

/// Everything, as JSON has it.
#[derive(Debug, Serialize)]
pub struct Security {
    /// The version of this document.
    version: u32,
    /// What is not as it should be, one sentence each.
    problems: Vec<String>,
    /// The daemon's processes, the front first.
    processes: Vec<Process>,
    /// How far landlock restricts them: `fully`, `partly` or `not`, as the kernel said at the start.
    landlock: String,
    /// What it does not restrict.
    unrestricted: Vec<String>,
    /// Where the account may connect to, or why that is not limited.
    egress: String,
    /// Our table, as it stands; `null` if this caller may not ask.
    table: Option<Table>,
}

/// One process.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Process {
    /// `front`, `enforcer`, `runner` or `historian`.
    name: String,
    pid: u32,
    /// Real, effective, saved and file system uid, each once.
    uids: BTreeSet<u32>,
    gids: BTreeSet<u32>,
    /// Supplementary groups.
    groups: BTreeSet<u32>,
    threads: usize,
    /// How many of them have any capability.
    threads_with_capabilities: usize,
    /// What any of them has, or could pass on: permitted, effective, inheritable and ambient.
    capabilities: Vec<String>,
    /// What a program that they execute could get from a file's attribute, were `no_new_privs` not set.
    bounding: Vec<String>,
    /// Whether none of them can gain anything by executing a program.
    no_new_privs: bool,
    /// Filters of system calls, of the thread that has the fewest; 1 where this kernel (before 5.9) does not count them.
    filters: usize,
    /// Whether they were counted.
    #[serde(skip)]
    is_counted: bool,
    /// The namespaces that are not those of the caller; `null` if it may not know.
    namespaces: Option<Vec<String>>,
}

/// Our table in the kernel.
#[derive(Debug, Serialize)]
struct Table {
    /// Whether it stands at all.
    stands: bool,
    /// Whether a living socket owns it, so that nobody else can change it.
    owned: bool,
    /// The rules that limit the account, in nft's words; empty if there are none.
    confined: Vec<String>,
}

/// Looks, and tells in text or JSON.
pub fn run(runtime_dir: &Path, json: bool) -> Result<(), Failure> {
    let status = client::status(runtime_dir)?;
    let front = client::daemon_pid(runtime_dir)?;
    let security = examine(&status, front)?;
    if json {
        let text = serde_json::to_string_pretty(&security)
            .map_err(|error| Failure::new(Exit::Software, error))?;
        print(&format!("{text}\n"))?;
    } else {
        print(&render(&security))?;
    }
    Ok(())
}

fn examine(status: &Status, front: Option<u32>) -> Result<Security, Failure> {
    let unseen = || {
        Failure::new(
            Exit::NoPerm,
            "this kernel does not show the daemon's processes to this caller: run as root, outside of containers, where /proc shows all",
        )
    };
    let front = front.ok_or_else(unseen)?;
    let mut processes = Vec::new();
    for found in process::tree(front) {
        let is_ours = found.pid == front || found.parent == front;
        let known = PROCESSES.iter().find(|(name, _)| *name == found.command);
        if let (true, Some((_, name))) = (is_ours, known) {
            processes.push(look(found.pid, name).ok_or_else(unseen)?);
        }
    }
    if processes.is_empty() {
        return Err(unseen());
    }
    let table = table();
    let mut problems = problems(status, &processes, table.as_ref());
    problems.extend(absent(&processes));
    Ok(Security {
        version: 1,
        problems,
        processes,
        landlock: status.firewall.landlock.clone(),
        unrestricted: status.firewall.unrestricted.clone(),
        egress: status.firewall.egress.clone(),
        table,
    })
}

/// What is not as it is made at the start. Whatever it is, somebody or something changed it.
fn problems(status: &Status, processes: &[Process], table: Option<&Table>) -> Vec<String> {
    let firewall = &status.firewall;
    let commands_may = status.commands.as_ref().is_some_and(|own| own.net_admin);
    // All have what the service manager puts on besides: who has less than another lacks some of its own.
    let most = processes.iter().map(|process| process.filters).max();
    let least = most.unwrap_or(0).max(OWN_FILTERS);
    let mut problems = Vec::new();
    for process in processes {
        let name = &process.name;
        let may = match name.as_str() {
            "enforcer" => firewall.mode != "gate-only",
            "runner" => commands_may,
            _ => false,
        };
        let allowed: &[&str] = if may { &["CAP_NET_ADMIN"] } else { &[] };
        let mut held = process.capabilities.iter();
        if !held.all(|one| allowed.contains(&one.as_str())) {
            problems.push(format!("the {name} has more capabilities than it needs"));
        }
        if process.filters == 0 || (process.is_counted && process.filters < least) {
            problems.push(format!(
                "a thread of the {name} has no filter of system calls, or not all of them"
            ));
        }
        if !process.no_new_privs {
            problems.push(format!("the {name} could gain privileges by a program"));
        }
    }
    if !firewall.unrestricted.is_empty() {
        problems.push(format!(
            "landlock does not restrict {}: it is whole from Linux 6.12 on",
            firewall.unrestricted.join(", ")
        ));
    }
    if let Some(table) = table {
        if firewall.installed && !table.stands {
            problems.push("the table is not in the kernel".to_owned());
        }
        let is_limited = firewall.egress.starts_with("uid ");
        if table.stands && is_limited == table.confined.is_empty() {
            problems
                .push("the rules that limit the account are not what the daemon says".to_owned());
        }
    }
    problems
}

/// Whatever is not looked at is no proof of anything.
fn absent(processes: &[Process]) -> impl Iterator<Item = String> {
    let is_absent = |name: &&str| !processes.iter().any(|process| process.name == *name);
    let names = ALWAYS.into_iter().filter(is_absent);
    names.map(|name| format!("the {name} is not there, or not shown to this caller: run as root"))
}

fn look(pid: u32, name: &str) -> Option<Process> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let texts: Vec<String> = threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok())
        .collect();
    let process = parse(pid, name, &texts)?;
    Some(Process {
        namespaces: namespaces(pid).ok(),
        ..process
    })
}

/// proc_pid_status(5), of every thread.
fn parse(pid: u32, name: &str, threads: &[String]) -> Option<Process> {
    let each = |field: &str| -> Option<Vec<&str>> {
        let of = |text: &&String| -> bool { !text.is_empty() };
        let lines = threads.iter().filter(of).map(|text| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        });
        lines.collect()
    };
    let numbers = |field: &str| -> Option<BTreeSet<u32>> {
        let words = each(field)?.into_iter().flat_map(str::split_whitespace);
        words.map(|word| word.parse().ok()).collect()
    };
    let sets = |field: &str| -> Option<Vec<u64>> {
        let sets = each(field)?.into_iter();
        sets.map(|set| u64::from_str_radix(set.trim(), 16).ok())
            .collect()
    };
    let mut held = vec![0; threads.len()];
    for field in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        for (sum, set) in held.iter_mut().zip(sets(field)?) {
            *sum |= set;
        }
    }
    let all = |sets: &[u64]| sets.iter().fold(0, |all, set| all | set);
    let is_filtered = each("Seccomp")?.iter().all(|mode| mode.trim() == "2");
    // Older kernels (before 5.9) do not count them; that there is one they say.
    let counts = numbers("Seccomp_filters").unwrap_or_default();
    let counted = counts.first().map(|least| *least as usize);
    Some(Process {
        name: name.to_owned(),
        pid,
        uids: numbers("Uid")?,
        gids: numbers("Gid")?,
        groups: numbers("Groups")?,
        threads: threads.len(),
        threads_with_capabilities: held.iter().filter(|set| **set != 0).count(),
        capabilities: names(all(&held)),
        bounding: names(all(&sets("CapBnd")?)),
        no_new_privs: each("NoNewPrivs")?.iter().all(|set| set.trim() == "1"),
        filters: if is_filtered { counted.unwrap_or(1) } else { 0 },
        is_counted: counted.is_some(),
        namespaces: None,
    })
}

/// As capabilities(7) calls them; one that is newer than this program by its number.
fn names(bits: u64) -> Vec<String> {
    let set = CapabilitySet::from_bits_retain(bits);
    let known = set.iter_names().map(|(name, _)| format!("CAP_{name}"));
    let unknown = bits & !CapabilitySet::all().bits();
    let newer = (0..64).filter(|bit| unknown >> bit & 1 == 1);
    known
        .chain(newer.map(|bit| format!("capability {bit}")))
        .collect()
}

/// Which namespaces a process has that we have not.
fn namespaces(pid: u32) -> io::Result<Vec<String>> {
    let mut own = Vec::new();
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        let theirs = fs::read_link(format!("/proc/{pid}/ns/{name}"))?;
        if fs::read_link(format!("/proc/self/ns/{name}"))? != theirs {
            own.push(name.to_owned());
        }
    }
    Ok(own)
}

fn table() -> Option<Table> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    let standing = runtime.block_on(async { Kernel::connect().ok()?.standing().await.ok() })?;
    let Standing {
        stands,
        owned,
        confined,
    } = standing;
    Some(Table {
        stands,
        owned,
        confined,
    })
}

fn render(security: &Security) -> String {
    let mut out = String::new();
    let words = |words: &[String]| match words {
        [] => "none".to_owned(),
        words => words.join(" "),
    };
    let ids = |ids: &BTreeSet<u32>| {
        let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
        words(&ids)
    };
    for problem in &security.problems {
        let _ = writeln!(out, "  problem: {}", plain(problem));
    }
    for process in &security.processes {
        let Process {
            name,
            pid,
            threads,
            threads_with_capabilities,
            ..
        } = process;
        let _ = writeln!(
            out,
            "{name:9} pid {pid}, uid {}, gid {}, groups {}, threads {threads}",
            ids(&process.uids),
            ids(&process.gids),
            ids(&process.groups)
        );
        let of = match threads_with_capabilities {
            0 => String::new(),
            some => format!(" ({some} of {threads} threads)"),
        };
        // As it is where no service manager has made it smaller; no_new_privs makes up for that.
        let bounding = match process.bounding.len() > CapabilitySet::all().iter().count() / 2 {
            true => format!("of {} capabilities", process.bounding.len()),
            false => words(&process.bounding),
        };
        let _ = writeln!(
            out,
            "          capabilities {}{of}; bounding set {bounding}",
            words(&process.capabilities),
        );
        let gains = match process.no_new_privs {
            true => "no_new_privs",
            false => "MAY GAIN PRIVILEGES",
        };
        let _ = writeln!(
            out,
            "          {gains}; filters of system calls: {}",
            process.filters
        );
        let namespaces = match &process.namespaces {
            None => "not shown to this caller".to_owned(),
            Some(own) if own.is_empty() => "all of them this caller's".to_owned(),
            Some(own) => format!("other than this caller's: {}", own.join(" ")),
        };
        let _ = writeln!(out, "          namespaces {namespaces}");
    }
    let runner = security.processes.iter().any(|one| one.name == "runner");
    let but = if runner { ", but for the runner" } else { "" };
    let _ = writeln!(
        out,
        "landlock  {}{but}, as the kernel said at the start (it shows that to nobody)",
        plain(&security.landlock)
    );
    if !security.unrestricted.is_empty() {
        let missing: Vec<String> = security.unrestricted.iter().map(|one| plain(one)).collect();
        let _ = writeln!(out, "          does not restrict {}", missing.join(", "));
    }
    let _ = writeln!(out, "egress    {}", plain(&security.egress));
    match &security.table {
        None => out.push_str("table     not shown to this caller: run as root\n"),
        Some(table) if !table.stands => out.push_str("table     none in the kernel\n"),
        Some(table) => {
            let owned = match table.owned {
                true => "owned by the enforcer's socket, nobody else can change it",
                false => "not owned: others can change it, and it is put back",
            };
            let _ = writeln!(out, "table     inet acmegate: {owned}");
            for rule in &table.confined {
                let _ = writeln!(out, "          {}", plain(rule));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::status::{Commands, Firewall};

    fn thread(capabilities: u64, filters: u32) -> String {
        format!(
            "Name:\tacmegate\nUid:\t996\t996\t996\t996\nGid:\t995\t995\t995\t995\nGroups:\t33 995 \n\
             CapInh:\t0000000000000000\nCapPrm:\t{capabilities:016x}\nCapEff:\t{capabilities:016x}\n\
             CapBnd:\t0000000000001400\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t{filters}\n"
        )
    }

    fn process(name: &str, threads: &[String]) -> Process {
        parse(812, name, threads).unwrap()
    }

    fn status(mode: &str) -> Status {
        Status {
            firewall: Firewall {
                mode: mode.to_owned(),
                installed: true,
                landlock: "fully".to_owned(),
                egress: "uid 996 connects to 10.0.0.5:80".to_owned(),
                ..Firewall::default()
            },
            ..Status::default()
        }
    }

    fn standing() -> Table {
        Table {
            stands: true,
            owned: true,
            confined: vec!["meta skuid 996 goto reach".to_owned()],
        }
    }

    #[test]
    fn as_people_read_it() {
        let processes = vec![
            process("front", &[thread(0, 3), thread(0, 3)]),
            Process {
                namespaces: Some(vec!["mnt".to_owned()]),
                ..process("enforcer", &[thread(1 << 12, 3), thread(0, 3)])
            },
        ];
        let (status, table) = (status("guard"), standing());
        insta::assert_snapshot!(render(&Security {
            version: 1,
            problems: problems(&status, &processes, Some(&table)),
            processes,
            landlock: "partly".to_owned(),
            unrestricted: vec!["TCP ports".to_owned()],
            egress: status.firewall.egress,
            table: Some(table),
        }));
    }

    #[test]
    fn one_thread_that_is_not_sealed_is_found_among_many() {
        let sealed = || thread(0, 3);
        let bare = thread(0, 3)
            .replace("Seccomp:\t2", "Seccomp:\t0")
            .replace("Seccomp_filters:\t3", "Seccomp_filters:\t0");
        let gains = thread(0, 3).replace("NoNewPrivs:\t1", "NoNewPrivs:\t0");
        for (threads, problem) in [
            (vec![sealed(), thread(1 << 10, 3)], "more capabilities"),
            (vec![sealed(), bare], "no filter of system calls"),
            (vec![sealed(), thread(0, 1)], "no filter of system calls"),
            (vec![gains, sealed()], "could gain privileges"),
        ] {
            let found = problems(&status("guard"), &[process("front", &threads)], None);
            assert!(
                matches!(&found[..], [one] if one.contains(problem)),
                "{found:?}"
            );
        }
        assert_eq!(
            problems(&status("guard"), &[process("front", &[sealed()])], None),
            [""; 0]
        );
    }

    /// A unit's own filters make many of few: what counts is that nobody has fewer than another.
    #[test]
    fn a_process_without_filters_of_its_own_is_found_beneath_the_unit_s() {
        let all = |front: u32| {
            let process = |name, filters| process(name, &[thread(0, filters)]);
            let processes = [process("front", front), process("runner", 36)];
            problems(&status("guard"), &processes, None)
        };
        assert_eq!(all(36), [""; 0]);
        assert_eq!(
            all(34),
            ["a thread of the front has no filter of system calls, or not all of them"]
        );
    }

    #[test]
    fn a_kernel_that_counts_no_filters_is_no_problem() {
        let old = |text: &str| text.replace("Seccomp_filters:\t3\n", "");
        let process = |mode: &str| {
            let text = thread(0, 3).replace("Seccomp:\t2", mode);
            process("front", &[old(&text)])
        };
        let problems = |mode: &str| problems(&status("guard"), &[process(mode)], None).len();
        assert_eq!([problems("Seccomp:\t2"), problems("Seccomp:\t0")], [0, 1]);
    }

    #[test]
    fn who_is_not_there_is_told() {
        let front = process("front", &[thread(0, 3)]);
        let enforcer = process("enforcer", &[thread(0, 3)]);
        let told: Vec<String> = absent(std::slice::from_ref(&front)).collect();
        assert_eq!(
            told,
            ["the enforcer is not there, or not shown to this caller: run as root"]
        );
        assert_eq!(absent(&[front, enforcer]).count(), 0);
        assert_eq!(absent(&[]).count(), 2);
    }

    #[test]
    fn net_admin_is_right_only_where_it_is_needed() {
        let holds = |name: &str, status: &Status| {
            let process = process(name, &[thread(1 << 12, 2)]);
            !problems(status, &[process], None).is_empty()
        };
        assert!(!holds("enforcer", &status("guard")));
        assert!(holds("enforcer", &status("gate-only")));
        assert!(holds("historian", &status("guard")));
        assert!(holds("runner", &status("guard")));
        let with_commands = Status {
            commands: Some(Commands {
                net_admin: true,
                ..Commands::default()
            }),
            ..status("guard")
        };
        assert!(!holds("runner", &with_commands));
    }

    #[test]
    fn a_table_that_does_not_do_what_is_said_is_a_problem() {
        let bare = Table {
            confined: Vec::new(),
            ..standing()
        };
        let gone = Table {
            stands: false,
            ..standing()
        };
        for (table, count) in [(standing(), 0), (bare, 1), (gone, 1)] {
            assert_eq!(
                problems(&status("guard"), &[], Some(&table)).len(),
                count,
                "{table:?}"
            );
        }
    }
}
