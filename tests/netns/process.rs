//! Processes as /proc tells them.

use std::fs;

/// The bit of CAP_NET_ADMIN (capabilities(7)).
pub const NET_ADMIN: u64 = 1 << 12;

/// Every capability that a thread has or could pass on, whether it may gain no more
/// (`NoNewPrivs`), and whether its system calls are filtered (`Seccomp`): proc_pid_status(5).
pub fn powers(status: &str) -> (u64, bool, bool) {
    let text = fs::read_to_string(status).unwrap_or_else(|error| panic!("{status}: {error}"));
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {status}"))
            .trim()
            .to_owned()
    };
    let capabilities = ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"]
        .map(|set| u64::from_str_radix(&field(set), 16).expect("a hexadecimal number"));
    let all = capabilities.into_iter().fold(0, |all, set| all | set);
    (all, field("NoNewPrivs:") == "1", field("Seccomp:") == "2")
}
