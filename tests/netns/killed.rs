//! The kernel closes: whoever is killed, and whenever, the port shuts on time.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::host::{Host, Probe, on_each_host};
use crate::lab::{self, Daemon, inside, send};
use crate::scope::Way;

/// How long the window is.
const LEASE: Duration = Duration::from_secs(3);
/// What a timeout may be late: the kernel counts it in ticks of at most 10 ms.
const MARGIN: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug)]
enum Victim {
    Front,
    Enforcer,
    Both,
}

#[test]
fn whoever_is_killed_the_port_shuts_on_time() {
    inside(|| {
        let cases: Vec<_> = [Victim::Front, Victim::Enforcer, Victim::Both]
            .into_iter()
            .flat_map(|victim| Way::ALL.map(|way| (victim, way)))
            .collect();
        on_each_host(&cases, |host, (victim, way)| {
            let shut = kill_inside_a_window(host, victim, way, "", || {});
            shut.unwrap_or_else(|error| panic!("{victim:?}, {way:?}: {error}"));
        });
    });
}

/// The same assertion, where somebody has taken the kernel's timeout away: it must not hold.
#[test]
fn without_the_kernels_timeout_the_same_test_is_red() {
    inside(|| {
        on_each_host(&[Victim::Front, Victim::Both], |host, victim| {
            let owner = "owner = \"never\"\n";
            let shut = kill_inside_a_window(host, victim, Way::Guard, owner, || {
                // In one transaction, for a probe may fall between two.
                let forever = ["window4", "window6"].map(|set| {
                    format!(
                        "delete element inet acmegate {set} {{ 80 }}
                        add element inet acmegate {set} {{ 80 timeout 1h }}\n"
                    )
                });
                lab::nft(&forever.concat());
            });
            let error = shut.expect_err("nothing closes it");
            assert!(error.contains("still open"), "{error}");
        });
    });
}

/// Opens, kills, and says whether the port was shut on time for both families.
fn kill_inside_a_window(
    host: &Host,
    victim: Victim,
    way: Way,
    firewall: &str,
    after: impl FnOnce(),
) -> Result<(), String> {
    let config = format!("{}{firewall}", way.prepare());
    let mut daemon = Daemon::start(&config);
    assert!(!host.is_open(80), "shut before the window");
    let watch = host.watch(80);
    let length = format!("{}s", LEASE.as_secs());
    daemon
        .cli(&["open", "--lease", "victim", "--for", &length])
        .success();
    let deadline = Instant::now() + LEASE;
    watch.wait_until(Instant::now(), 2);
    let killed = Instant::now();
    match victim {
        Victim::Front => send(daemon.front(), Signal::KILL),
        Victim::Enforcer => send(daemon.enforcer(), Signal::KILL),
        Victim::Both => daemon.kill(),
    }
    // Each of them ends with the other; then nobody is left to put anything right.
    daemon.gone();
    after();
    let probes = watch.wait_until(deadline + MARGIN, 10);
    shut_on_time(&probes, killed, deadline)
}

fn shut_on_time(probes: &[Probe], killed: Instant, deadline: Instant) -> Result<(), String> {
    for is_ipv4 in [true, false] {
        let of_family = |from: Instant, to: Option<Instant>| {
            probes
                .iter()
                .filter(move |probe| probe.to.is_ipv4() == is_ipv4)
                .filter(move |probe| probe.at >= from && to.is_none_or(|to| probe.at < to))
        };
        let first = probes.first().ok_or("no probe")?.at;
        if !of_family(first, Some(killed)).any(|probe| probe.seen.passed()) {
            return Err("the control: nothing passed before the kill".to_owned());
        }
        let before_the_end = deadline - PROBE_TIME;
        let lived = of_family(killed, Some(before_the_end));
        if let Some(early) = lived.into_iter().find(|probe| !probe.seen.passed()) {
            return Err(format!("shut before its time: {early:?}"));
        }
        let after: Vec<_> = of_family(deadline + MARGIN, None).collect();
        if after.len() < 3 {
            return Err("the control: too few tries after the deadline".to_owned());
        }
        if let Some(open) = after.iter().find(|probe| probe.seen.passed()) {
            let late = open.at - deadline;
            return Err(format!("still open {late:?} after the deadline: {open:?}"));
        }
    }
    Ok(())
}

/// How long one try may take.
const PROBE_TIME: Duration = Duration::from_millis(150);

/// What mode `set` asks of an administrator whose firewall drops by default.
pub const SET_BY_ADMINISTRATOR: &str = "table inet filter {
    set acmegate { type inet_service; flags timeout; }
    chain input {
        type filter hook input priority filter; policy drop;
        iif lo accept
        meta l4proto icmpv6 accept
        ct state established,related accept
        ip saddr 10.0.0.0/8 accept
        tcp dport @acmegate accept
    }
}
";
