//! The enforcer believes nothing: a front that was taken over gets no more than the configuration
//! gives, whatever it says.
//!
//! The test is the front: it starts the enforcer with a socket pair as its standard input and
//! speaks frames, true and false ones, and bytes that are none.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use acmegate::firewall::message::{Claim, FRAME_BYTES, Frame, Reply, Request};
use acmegate::gate::lease::{Families, Holder, Trigger};
use acmegate::gate::usage::{Account, Kind, Span};
use acmegate::gate::window::Refusal;

use crate::enforcer::{Enforcer, claim};
use crate::kernel::{SHUT, elements, open_ports};
use crate::lab::{inside, wait_for};

const CONFIG: &str =
    "[http]\nlisten = []\n[window]\nmax = \"2m\"\n[firewall]\nports = [80, 8080]\n";

fn on_ports(ports: &[u16]) -> Claim {
    Claim {
        ports: ports.to_vec(),
        ..claim("a")
    }
}

fn for_time(length: Duration) -> Claim {
    Claim {
        length,
        ..claim("a")
    }
}

#[test]
fn the_enforcer_refuses_what_the_configuration_does_not_give() {
    inside(|| {
        let mut enforcer = Enforcer::start(CONFIG);
        let none = Families {
            v4: false,
            v6: false,
        };
        let longest = Duration::from_secs(120);
        let lies = [
            (Refusal::Port, on_ports(&[22])),
            (Refusal::Port, on_ports(&[443])),
            (Refusal::Port, on_ports(&[80, 22])),
            (Refusal::Port, on_ports(&[0])),
            (Refusal::Port, on_ports(&[])),
            (
                Refusal::Length,
                for_time(longest + Duration::from_millis(1)),
            ),
            (
                Refusal::Length,
                for_time(Duration::from_secs(365 * 24 * 3600)),
            ),
            (Refusal::Length, for_time(Duration::ZERO)),
            (
                Refusal::Family,
                Claim {
                    families: none,
                    ..claim("a")
                },
            ),
        ];
        for (refusal, lie) in lies {
            for ask in [Request::Check, Request::Bounds, Request::Open] {
                let request = ask(lie.clone());
                assert_eq!(enforcer.ask(&request), [Reply::Refused(refusal)], "{lie:?}");
                assert_eq!(open_ports(), SHUT, "{lie:?}");
                assert!(elements("lease").is_empty(), "{lie:?}");
            }
        }
        // The positive control: the longest lease of every port is given, and is in the kernel.
        let given = enforcer.open(&Claim {
            length: longest,
            ..on_ports(&[80, 8080])
        });
        assert!(matches!(given, Reply::Health(_)), "{given:?}");
        assert_eq!(open_ports(), [vec![80, 8080], vec![80, 8080]]);
        for (port, element) in elements("window4") {
            let left = element.seconds_left.expect("a timeout");
            assert!((100..=120).contains(&left), "{port}: {left}");
        }
        // Renewing does not add up.
        let given = enforcer.open(&for_time(longest));
        assert!(matches!(given, Reply::Health(_)), "{given:?}");
        assert!(elements("window4")[&80].seconds_left <= Some(120));
        // What is closed is closed in the kernel's book too, where a restart would find it.
        enforcer.ask(&Request::Close(claim("a").name));
        assert_eq!(open_ports(), SHUT);
        assert!(elements("lease").is_empty());
    });
}

#[test]
fn the_enforcer_counts_for_itself() {
    inside(|| {
        let budget = "[budget]\nper_hour = 90\nper_caller = 3\nreserve = 20\n";
        let mut enforcer = Enforcer::start(&format!("{CONFIG}{budget}"));
        let by = |caller, name: &str| Claim {
            caller,
            ..claim(name)
        };
        for _ in 0..3 {
            let given = enforcer.open(&by(1000, "user"));
            assert!(matches!(given, Reply::Health(_)), "{given:?}");
        }
        assert_eq!(
            enforcer.open(&by(1000, "user")),
            Reply::Refused(Refusal::Budget)
        );
        // As many leases as the kernel's set has places for, and not one more.
        for number in 1..64 {
            let given = enforcer.open(&by(0, &format!("root-{number}")));
            assert!(matches!(given, Reply::Health(_)), "{number}: {given:?}");
        }
        assert_eq!(
            enforcer.open(&by(0, "one-more")),
            Reply::Refused(Refusal::TooMany)
        );
        assert_eq!(elements("lease").len(), 64);
        // What acmegate opens by itself never uses up root's reserve, even if it calls itself root.
        let automatic = Claim {
            trigger: Trigger::Automatic,
            ..by(0, "root-1")
        };
        assert_eq!(enforcer.open(&automatic), Reply::Refused(Refusal::Budget));
        // And root's own askings end as well. The book counted every one of them.
        let given =
            (0..100).take_while(|_| matches!(enforcer.open(&by(0, "root-1")), Reply::Health(_)));
        assert_eq!(given.count(), 90 - 66);
        assert_eq!(elements("budget").len(), 90);
    });
}

#[test]
fn the_enforcer_counts_open_time_for_itself() {
    inside(|| {
        let budget = "[budget]\nper_hour = 200\nper_caller = 200\nreserve = 100\nday = \"100s\"\nlease_month = \"95s\"\n";
        let mut enforcer = Enforcer::start(&format!("{CONFIG}{budget}"));
        let lasting = |name: &str, seconds| Claim {
            length: Duration::from_secs(seconds),
            ..claim(name)
        };
        let mut refused = |claim: &Claim| {
            let requests = [Request::Check(claim.clone()), Request::Open(claim.clone())];
            let [checked, opened] = requests.map(|request| enforcer.ask(&request));
            assert_eq!(checked, opened);
            let [Reply::Refused(Refusal::Time(shortage))] = opened[..] else {
                panic!("{claim:?} is not refused for its time: {opened:?}");
            };
            (shortage.kind, shortage.span, shortage.limit.as_secs())
        };
        // Nobody but root has the half that is root's, by whatever name.
        for (caller, trigger) in [(1000, Trigger::Asked), (0, Trigger::Automatic)] {
            let lie = Claim {
                caller,
                trigger,
                ..lasting("others", 51)
            };
            assert_eq!(refused(&lie), (Kind::Total, Span::Day, 50));
        }
        // A name has its own, and a pid behind it makes no other name.
        for pid in [7, 8] {
            let lie = Claim {
                holder: Some(Holder {
                    pid,
                    start_ticks: 1,
                    command: "a".to_owned(),
                }),
                ..lasting(&format!("a-{pid}"), 96)
            };
            assert_eq!(refused(&lie), (Kind::Lease, Span::Month, 95));
        }
        assert_eq!(open_ports(), SHUT);
        for name in ["a", "b"] {
            let given = enforcer.open(&lasting(name, 90));
            assert!(matches!(given, Reply::Health(_)), "{given:?}");
        }
        // What is open is given away already: no name has room for more behind it.
        let mut refused = |claim: &Claim| match enforcer.open(claim) {
            Reply::Refused(Refusal::Time(shortage)) => (shortage.kind, shortage.limit.as_secs()),
            other => panic!("{claim:?} is not refused for its time: {other:?}"),
        };
        for number in 0..40 {
            let lie = lasting(&format!("c-{number}"), 101);
            assert_eq!(refused(&lie), (Kind::Total, 100));
        }
        // Closing gives back what was not used, and no more.
        for name in ["a", "b"] {
            enforcer.ask(&Request::Close(claim(name).name));
        }
        let told = enforcer.ask(&Request::Snapshot);
        let used = told.iter().find_map(|reply| match reply {
            Reply::Time {
                account: Account::Total,
                span: Span::Day,
                spent,
                ..
            } => Some(*spent),
            _ => None,
        });
        assert!(used.is_some_and(|used| !used.is_zero()), "{told:?}");
        assert!(used < Some(Duration::from_secs(60)), "{told:?}");
        let refused = enforcer.open(&lasting("d", 100));
        assert!(
            matches!(refused, Reply::Refused(Refusal::Time(_))),
            "{refused:?}"
        );
        assert_eq!(open_ports(), SHUT);
    });
}

#[test]
fn bytes_that_are_no_frame_end_the_enforcer_and_open_nothing() {
    inside(|| {
        let open = Request::Open(claim("a")).to_frame(7);
        let with = |at: usize, byte: u8| {
            let mut frame = open;
            frame[at] = byte;
            frame
        };
        // The layout, up to the name: version, kind, sequence (4), length of the name.
        let mut garbage: Vec<Frame> = vec![
            [0; FRAME_BYTES],
            [0xff; FRAME_BYTES],
            with(0, 2),
            with(1, 0),
            with(1, 99),
            with(6, 0),
            with(6, 255),
            with(7, b'/'),
            with(FRAME_BYTES - 1, 1),
        ];
        // Five ports, where the book has places for four.
        let length_of_claim = 7 + 1 + 1 + 4 + 1 + 3 + 1 + 8;
        assert_eq!(open[length_of_claim], 1, "here the ports are counted");
        garbage.push(with(length_of_claim, 5));
        // A length of a century.
        garbage.push(with(length_of_claim - 8, 1));
        for frame in garbage {
            let mut enforcer = Enforcer::start(CONFIG);
            enforcer.stream.write_all(&frame).expect("it reads");
            enforcer.ends();
            assert_eq!(open_ports(), SHUT, "{:?}", &frame[..32]);
            assert!(elements("lease").is_empty());
        }
        // Half a frame and an end: it ends as well, and nothing is open.
        let mut enforcer = Enforcer::start(CONFIG);
        let half = &open[..FRAME_BYTES / 2];
        enforcer.stream.write_all(half).expect("it reads");
        let (nobody, _) = UnixStream::pair().expect("a socket pair");
        drop(std::mem::replace(&mut enforcer.stream, nobody));
        enforcer.ends();
        assert_eq!(open_ports(), SHUT);
        // The control: the whole frame opens.
        let mut enforcer = Enforcer::start(CONFIG);
        assert!(matches!(enforcer.say(&open)[..], [Reply::Health(_)]));
        assert_eq!(open_ports(), [vec![80], vec![80]]);
    });
}

#[test]
fn a_front_that_has_everything_read_again_and_again_keeps_no_window_waiting() {
    inside(|| {
        let mut enforcer = Enforcer::start(CONFIG);
        let failed = |replies: Vec<Reply>| matches!(&replies[..], [Reply::Failed(_)]);
        assert!(failed(enforcer.ask(&Request::Reload)), "nothing was read");
        for _ in 0..500 {
            for request in [Request::Prepare, Request::Refresh] {
                let replies = enforcer.ask(&request);
                assert!(matches!(replies[..], [Reply::Health(_)]), "{replies:?}");
            }
        }
        assert!(matches!(enforcer.open(&claim("a")), Reply::Health(_)));
        assert_eq!(open_ports(), [vec![80], vec![80]]);
        // What was asked for a thousand times is read once or twice, and can be followed.
        wait_for(Duration::from_secs(20), "it has read", || {
            let replies = enforcer.ask(&Request::Snapshot);
            let is_reading =
                |reply: &Reply| matches!(reply, Reply::Health(health) if health.is_reading);
            (!replies.iter().any(is_reading)).then_some(())
        });
        let replies = enforcer.ask(&Request::Reload);
        assert!(matches!(replies[..], [Reply::Health(_)]), "{replies:?}");
        assert!(failed(enforcer.ask(&Request::Reload)), "only once");
    });
}
