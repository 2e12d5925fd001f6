//! SIGKILL at random moments of open and close, in every mode: shut on time, nothing left behind.
//!
//! The moments are random and yet the same every time: a failure names its seed.
//! `ACMEGATE_MOMENTS=N` asks for another number of them, `ACMEGATE_FULL=1` for a thousand.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use acmegate::control::protocol::{Ask, CONTROL_SOCKET, Envelope, Open, Response, VERSION};
use rustix::process::Signal;

use crate::host::{Host, on_each_host};
use crate::kernel::{SHUT, elements, elements_of, nft, open_ports};
use crate::lab::{self, Daemon, Numbers, inside, send, wait_for};
use crate::scope::Way;

/// The longest lease. The kernel's clock starts when it is written, so before the kill.
const LONGEST: Duration = Duration::from_millis(1200);
/// What a timeout may be late: the kernel counts it in ticks of at most 10 ms.
const MARGIN: Duration = Duration::from_millis(250);
/// A lease with less than this left is not asked whether it still is open.
const ENOUGH: Duration = Duration::from_millis(400);

#[derive(Clone, Copy, Debug)]
struct Case {
    way: Way,
    owner: &'static str,
    /// The gate gets it beside somebody else's port, or nobody does.
    is_diverted: bool,
    seed: u64,
}

fn moments() -> usize {
    let asked = std::env::var("ACMEGATE_MOMENTS").ok();
    match asked.and_then(|number| number.parse().ok()) {
        Some(number) => number,
        None if std::env::var_os("ACMEGATE_FULL").is_some() => 1000,
        None => 50,
    }
}

#[test]
fn a_guard_killed_at_any_moment_shuts_on_time_and_leaves_nothing() {
    inside(|| in_way(Way::Guard, false));
}

#[test]
fn a_filled_set_shuts_on_time_whenever_its_filler_is_killed() {
    inside(|| in_way(Way::Set, false));
}

#[test]
fn an_attached_chain_shuts_on_time_whenever_the_daemon_is_killed() {
    inside(|| in_way(Way::Attach, false));
}

#[test]
fn a_diverted_port_is_nobodys_whenever_the_gate_is_killed() {
    inside(|| in_way(Way::Guard, true));
}

/// One way's share of the moments, with and without an owner of the table, on many hosts at once.
fn in_way(way: Way, is_diverted: bool) {
    let share = moments().div_ceil(4);
    let hosts: u64 = if share > 100 { 12 } else { 4 };
    let cases: Vec<_> = (1..=hosts)
        .map(|number| Case {
            way,
            is_diverted,
            owner: if number % 2 == 0 { "auto" } else { "never" },
            seed: number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ way as u64,
        })
        .collect();
    let each = share.div_ceil(cases.len());
    let open_at_the_end = AtomicUsize::new(0);
    on_each_host(&cases, |host, case| {
        let count = many_moments(host, case, each);
        open_at_the_end.fetch_add(count, Ordering::Relaxed);
    });
    // The control: that windows were open when it died, and seen so.
    let (open, all) = (open_at_the_end.into_inner(), each * cases.len());
    assert!(open > all / 5, "only {open} of {all}");
}

/// How many of these moments found a window open, which it stayed.
fn many_moments(host: &Host, case: Case, count: usize) -> usize {
    let (firewall, owner) = (case.way.prepare(), case.owner);
    let listen = match case.is_diverted {
        true => "[http]\nlisten = \"divert\"\n",
        false => "",
    };
    let pristine = lab::ruleset();
    let config = format!("[budget]\nper_hour = 3600\n{firewall}owner = \"{owner}\"\n{listen}");
    let mut daemon = Daemon::start(&config);
    let terse = || nft(&["-s", "-t", "list", "ruleset"]);
    let before = terse();
    let mut numbers = Numbers(case.seed);
    let mut open_at_the_end = 0;
    for moment in 0..count {
        let told = format!("{case:?}, moment {moment}");
        let cycles = Cycles::start(&daemon, Numbers(numbers.below(1 << 31) + 1));
        cycles.begin();
        pause(Duration::from_micros(numbers.below(60_000)));
        match numbers.below(3) {
            0 => send(daemon.front(), Signal::KILL),
            1 => send(daemon.enforcer(), Signal::KILL),
            _ => daemon.kill(),
        }
        daemon.gone();
        let killed = Instant::now();
        let last = cycles.last();
        // Not shut before its time: the kernel alone keeps what was promised.
        if let Some(until) = last.filter(|until| *until > Instant::now() + ENOUGH) {
            let is_right = match case.is_diverted {
                // The gate is dead, and nobody else gets it.
                true => !host.is_open(80),
                false => host.lets_in(80),
            };
            // What was seen after the window's end says nothing.
            if Instant::now() < until {
                assert!(is_right, "{told}: promised, and not so");
                open_at_the_end += 1;
            }
        }
        // An hour's memory of openings is meant to stay; here it would run full.
        forget_openings();
        if numbers.below(2) == 0 {
            // Nobody is left to put anything right.
            pause((killed + LONGEST + MARGIN).saturating_duration_since(Instant::now()));
            assert!(!host.is_open(80), "{told}: nobody shut it");
        }
        daemon.start_again();
        assert_eq!(terse(), before, "{told}: the rules as before");
        assert!(!is_open_for_nobody(), "{told}: open for nobody");
        for name in NAMES {
            ask(
                &daemon.runtime_dir(),
                Ask::Close {
                    lease: name.to_owned(),
                    said: None,
                },
            )
            .expect("it serves");
        }
        assert_eq!(open_ports(), SHUT, "{told}: swept");
        assert!(
            !host.is_open(80),
            "{told}: open after everything was closed"
        );
    }
    wait_for(Duration::from_secs(15), "the last grace is over", || {
        let ours = ["grace4", "grace6", "lease", "window4", "window6"].map(elements);
        let theirs = elements_of("inet filter", "acmegate");
        (ours.iter().all(|set| set.is_empty()) && theirs.is_empty()).then_some(())
    });
    assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
    assert_eq!(lab::ruleset(), pristine, "{case:?}");
    open_at_the_end
}

/// Whether the kernel holds an open port and no lease that opens it. They end at the same moment and
/// are read one after the other, so what is seen once may be that moment.
fn is_open_for_nobody() -> bool {
    let is_so = || open_ports() != SHUT && elements("lease").is_empty();
    is_so() && is_so()
}

/// Whose leases come and go.
const NAMES: [&str; 3] = ["one", "two", "three"];

/// Opens and closes as fast as it can until nobody answers.
struct Cycles {
    running: std::thread::JoinHandle<Option<Instant>>,
    stop: Arc<AtomicBool>,
    begun: Arc<AtomicBool>,
}

impl Cycles {
    fn start(daemon: &Daemon, mut numbers: Numbers) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let begun = Arc::new(AtomicBool::new(false));
        let (runtime_dir, stopped) = (daemon.runtime_dir(), Arc::clone(&stop));
        let answered = Arc::clone(&begun);
        let running = std::thread::spawn(move || {
            // Until when each lease was promised, if the last thing heard of it was a promise.
            let mut promised: [Option<Instant>; NAMES.len()] = [None; NAMES.len()];
            while !stopped.load(Ordering::Relaxed) {
                let at = numbers.below(NAMES.len() as u64) as usize;
                let length = LONGEST - Duration::from_millis(numbers.below(400));
                let (lease, from) = (NAMES[at].to_owned(), Instant::now());
                let close = numbers.below(3) == 0;
                // Whatever is asked now may happen or not.
                promised[at] = None;
                let what = match close {
                    true => Ask::Close { lease, said: None },
                    false => open(lease, length),
                };
                let Some(code) = ask(&runtime_dir, what) else {
                    break;
                };
                if code == 0 && !close {
                    promised[at] = Some(from + length);
                    answered.store(true, Ordering::Relaxed);
                }
            }
            promised.into_iter().flatten().max()
        });
        Self {
            running,
            stop,
            begun,
        }
    }

    /// Waits until the first window was open, however busy the machine is.
    fn begin(&self) {
        wait_for(Duration::from_secs(20), "a first window", || {
            self.begun.load(Ordering::Relaxed).then_some(())
        });
    }

    /// Until when a window was promised that nobody asked to close.
    fn last(self) -> Option<Instant> {
        self.stop.store(true, Ordering::Relaxed);
        self.running.join().expect("it does not panic")
    }
}

fn open(lease: String, length: Duration) -> Ask {
    Ask::Open(Open {
        lease,
        milliseconds: u64::try_from(length.as_millis()).ok(),
        ports: Vec::new(),
        challenges: Vec::new(),
        validates: None,
        family: None,
        identifiers: None,
        holder: None,
        address: None,
        interface: None,
        dry_run: false,
        force: false,
    })
}

/// The answer's code, if there was an answer. The command line's own way would wait for the next
/// daemon where there is none.
fn ask(runtime_dir: &str, ask: Ask) -> Option<u8> {
    let version = VERSION;
    let line = serde_json::to_string(&Envelope {
        version,
        ask,
        under: None,
    })
    .expect("JSON");
    let mut stream = UnixStream::connect(Path::new(runtime_dir).join(CONTROL_SOCKET)).ok()?;
    stream.write_all(format!("{line}\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let response: Response = serde_json::from_str(&answer).ok()?;
    Some(response.code)
}

/// Empties the memory of openings. An orphaned table can be written by anyone.
fn forget_openings() {
    nft(&["flush", "set", "inet", "acmegate", "budget"]);
}

fn pause(length: Duration) {
    let start = Instant::now();
    wait_for(length + Duration::from_secs(10), "time passes", || {
        (start.elapsed() >= length).then_some(())
    });
}
