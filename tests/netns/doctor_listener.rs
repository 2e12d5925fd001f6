//! The doctor's exam of listeners: every finding is produced by real sockets and a real daemon.

use std::net::TcpListener;
use std::os::fd::AsRawFd;

use acmegate::doctor::finding::{Code, Exam, Finding, Severity};
use acmegate::doctor::listener::{
    GATE_LISTENS, LISTENS_ELSEWHERE, NOBODY_LISTENS, NOT_RUNNING, ONE_FAMILY, OTHER_ANSWERS,
    OTHER_PORT, PORT_TAKEN, SHADOWED, examine,
};
use socket2::{Domain, Socket, Type};

use crate::doctor_case::{case, wait};
use crate::lab::{Daemon, inside, ip, nft};

fn exam(daemon: &Daemon) -> Exam {
    let exam = wait(examine(&case(daemon, &[])));
    assert_eq!(exam.not_covered, Vec::<String>::new());
    exam
}

/// Exactly one finding, of this code.
#[track_caller]
fn only(daemon: &Daemon, code: Code) -> Finding {
    let mut exam = exam(daemon);
    assert_eq!(exam.findings.len(), 1, "{exam:#?}");
    let finding = exam.findings.remove(0);
    assert_eq!(finding.code, code, "{finding:#?}");
    finding
}

fn own_name() -> String {
    let name = std::fs::read_to_string("/proc/self/comm").expect("our own name");
    format!("{} (pid {})", name.trim_end(), std::process::id())
}

/// A host with both families and a way out.
fn addresses() {
    ip("link add out0 type veth peer name out1");
    ip("link set out1 up");
    ip("link set out0 up");
    for address in ["192.0.2.1/24", "192.0.2.2/24"] {
        ip(&format!("addr add {address} dev out0"));
    }
    ip("addr add 2001:db8:1::1/64 dev out0 nodad");
    ip("route add default via 192.0.2.254");
    ip("-6 route add default via 2001:db8:1::fe");
}

fn for_ipv6_alone(address: &str) -> Socket {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("a socket");
    socket.set_only_v6(true).expect("IPV6_V6ONLY");
    let address: std::net::SocketAddr = address.parse().expect("an address");
    socket.bind(&address.into()).expect("a free port");
    socket.listen(1).expect("listening");
    socket
}

#[test]
fn a_gate_that_listens_in_both_families_is_fine() {
    inside(|| {
        addresses();
        let daemon = Daemon::start("");
        let finding = only(&daemon, GATE_LISTENS);
        assert_eq!(finding.severity, Severity::Fine);
        assert!(finding.finding.contains("[::]:80"), "{finding:?}");
    });
}

#[test]
fn a_gate_on_a_socket_that_a_service_manager_keeps_is_nobody_beside_it() {
    inside(|| {
        addresses();
        // What a service manager does (sd_listen_fds(3)): it holds the socket, too, and did so first.
        let kept = TcpListener::bind("[::]:80").expect("a free port");
        rustix::io::fcntl_setfd(&kept, rustix::io::FdFlags::empty()).expect("a descriptor");
        let hand_over = format!(
            "import os, sys\n\
             os.dup2({}, 3)\n\
             os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n\
             os.execv(sys.argv[1], sys.argv[1:])",
            kept.as_raw_fd()
        );
        let daemon = Daemon::with("")
            .under(&["python3", "-c", &hand_over])
            .start();
        only(&daemon, GATE_LISTENS);
    });
}

#[test]
fn a_firewall_that_keeps_the_host_from_itself_is_no_missing_listener() {
    inside(|| {
        addresses();
        let daemon = Daemon::start("");
        // As hosts have it that let answers out and nothing else.
        nft(
            "table inet own { chain out { type filter hook output priority 0; policy drop; \
              ct state established,related accept; }; }",
        );
        only(&daemon, GATE_LISTENS);
    });
}

#[test]
fn of_a_gate_that_does_not_run_there_is_one_finding_and_it_names_who_is_in_the_way() {
    inside(|| {
        let mut daemon = Daemon::start("[tls]\nlisten = [\"[::]:443\"]\n");
        daemon.terminate();
        only(&daemon, NOT_RUNNING);
        // For each family alone it is in the way of `[::]`.
        for address in ["[::]:80", "0.0.0.0:80"] {
            let taken = TcpListener::bind(address).expect("a free port");
            let finding = only(&daemon, PORT_TAKEN);
            assert_eq!(finding.severity, Severity::Fault);
            let seen = &finding.evidence[0];
            assert!(seen.contains(&own_name()), "{finding:?}");
            assert!(seen.contains(address), "{finding:?}");
            drop(taken);
        }
        only(&daemon, NOT_RUNNING);
    });
}

#[test]
fn a_taken_loopback_port_is_what_keeps_a_diverting_gate_away() {
    inside(|| {
        let daemon = Daemon::start("[http]\nlisten = \"divert\"\n");
        let finding = only(&daemon, GATE_LISTENS);
        assert!(finding.finding.contains("127.0.0.1:8402"), "{finding:?}");
        let mut daemon = daemon;
        daemon.terminate();
        // Whoever has port 80 itself is meant to.
        let _site = TcpListener::bind("[::]:80").expect("a free port");
        only(&daemon, NOT_RUNNING);
        let _taken = TcpListener::bind("127.0.0.1:8402").expect("a free port");
        let finding = only(&daemon, PORT_TAKEN);
        assert!(finding.remedy[0].contains("divert_port"), "{finding:?}");
        assert!(finding.evidence[0].contains("127.0.0.1:8402"));
    });
}

#[test]
fn somebody_beside_the_gate_on_its_port_is_named_with_the_family() {
    inside(|| {
        addresses();
        let daemon = Daemon::start("[http]\nlisten = [\"0.0.0.0:80\"]\n");
        let finding = only(&daemon, ONE_FAMILY);
        assert_eq!(finding.severity, Severity::Doubt);
        assert!(finding.finding.contains("IPv6"), "{finding:?}");
        assert!(finding.evidence[0].contains("2001:db8:1::1"), "{finding:?}");
        let other = for_ipv6_alone("[::]:80");
        let finding = only(&daemon, SHADOWED);
        assert_eq!(finding.severity, Severity::Fault);
        assert!(finding.finding.contains(&own_name()), "{finding:?}");
        assert!(finding.finding.contains("all of IPv6"), "{finding:?}");
        drop(other);
        drop(daemon);

        let daemon = Daemon::start("[http]\nlisten = [\"192.0.2.1:80\", \"[2001:db8:1::1]:80\"]\n");
        only(&daemon, GATE_LISTENS);
        // On loopback nobody of the world comes.
        let _inner = TcpListener::bind("127.0.0.1:80").expect("a free port");
        only(&daemon, GATE_LISTENS);
        let _other = TcpListener::bind("192.0.2.2:80").expect("a free port");
        let finding = only(&daemon, SHADOWED);
        assert_eq!(finding.severity, Severity::Doubt);
        assert!(finding.finding.contains("192.0.2.2"), "{finding:?}");
    });
}

#[test]
fn a_gate_on_ipv6_alone_leaves_ipv4_without_an_answer() {
    inside(|| {
        addresses();
        let daemon = Daemon::start("[http]\nlisten = [\"[2001:db8:1::1]:80\"]\n");
        let finding = only(&daemon, ONE_FAMILY);
        assert!(finding.finding.contains("IPv4"), "{finding:?}");
        assert!(finding.remedy[0].contains("[::]:80"), "{finding:?}");
    });
}

#[test]
fn a_gate_that_listens_elsewhere_than_is_written_or_asked_is_told_apart() {
    inside(|| {
        let daemon = Daemon::start("[http]\nlisten = [\"[::]:8080\"]\n");
        let finding = only(&daemon, OTHER_PORT);
        assert_eq!(finding.severity, Severity::Doubt);
        daemon.write_config("[http]\nlisten = [\"[::]:80\"]\n");
        let finding = only(&daemon, LISTENS_ELSEWHERE);
        assert_eq!(finding.severity, Severity::Fault);
        assert!(finding.evidence[0].contains("[::]:8080"), "{finding:?}");
        assert!(finding.remedy[0].contains("restart"), "{finding:?}");
    });
}

#[test]
fn with_windows_only_somebody_else_must_answer() {
    inside(|| {
        let daemon = Daemon::start("[http]\nlisten = []\n[firewall]\nports = [80]\n");
        assert_eq!(only(&daemon, NOBODY_LISTENS).severity, Severity::Doubt);
        let _site = TcpListener::bind("[::]:80").expect("a free port");
        let finding = only(&daemon, OTHER_ANSWERS);
        assert_eq!(finding.severity, Severity::Fine);
        assert!(finding.finding.contains(&own_name()), "{finding:?}");
    });
}
