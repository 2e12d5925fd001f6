//! Processes of this host, as /proc tells of them.

use std::fs;

/// One process, as /proc tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its process id.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// Its start in clock ticks after boot.
    pub start_ticks: u64,
    /// Its command name.
    pub command: String,
    /// What it was started with, its own name first.
    pub arguments: Vec<String>,
}

/// The process of that id, if there is one.
pub fn read(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    parse(pid, &stat, &arguments)
}

/// Reads /proc/PID/stat (proc_pid_stat(5): `pid (comm) state ppid …`, the start being field 22) and cmdline. The
/// command may hold spaces and parentheses of its own, so the last parenthesis ends it.
pub fn parse(pid: u32, stat: &str, arguments: &[u8]) -> Option<Process> {
    let (_, rest) = stat.split_once('(')?;
    let (command, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
        command: command.to_owned(),
        arguments: arguments
            .split(|byte| *byte == 0)
            .filter(|argument| !argument.is_empty())
            .map(|argument| String::from_utf8_lossy(argument).into_owned())
            .collect(),
    })
}

/// A process and everything below it, parents before their children.
pub fn tree(root: u32) -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let all: Vec<Process> = pids.filter_map(read).collect();
    let mut found: Vec<Process> = all.iter().filter(|one| one.pid == root).cloned().collect();
    // What is read one after the other may hold a circle; a tree has no more steps than processes.
    for at in 0..all.len() {
        let Some(parent) = found.get(at).map(|process| process.pid) else {
            break;
        };
        let children = all.iter().filter(|process| process.parent == parent);
        found.extend(children.cloned());
    }
    found
}

/// Whether that very process is still there.
pub fn is_there(pid: u32, start_ticks: u64) -> bool {
    read(pid).is_some_and(|process| process.start_ticks == start_ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_parentheses_is_read_whole() {
        let fields = (3..52).map(|at| {
            if at == 3 {
                "S".to_owned()
            } else {
                at.to_string()
            }
        });
        let stat = format!("12 (a) b) {}", fields.collect::<Vec<_>>().join(" "));
        let process = parse(12, &stat, b"x\0y\0").unwrap();
        assert_eq!(
            (
                process.command.as_str(),
                process.parent,
                process.start_ticks
            ),
            ("a) b", 4, 22)
        );
    }

    #[test]
    fn a_tree_begins_with_its_root_and_knows_a_process_from_its_successor() {
        let own = std::process::id();
        let found = tree(own);
        assert_eq!(found.first().map(|process| process.pid), Some(own));
        assert!(is_there(own, found[0].start_ticks));
        assert!(!is_there(own, found[0].start_ticks + 1));
    }

    #[test]
    fn this_very_test_has_a_parent() {
        assert!(read(std::process::id()).is_some_and(|own| own.start_ticks > 0));
    }
}
