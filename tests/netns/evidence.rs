//! Who came to an open window, and who got through: what the kernel saw of it, as the enforcer tells it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, TcpListener};
use std::time::Duration;

use acmegate::gate::event::{Evidence, Sight, Sighting, Tally};

use crate::enforcing::{self, Enforcing};
use crate::host::{HOST_4, HOST_6, Host, Seen};
use crate::lab::{inside, wait_for};

const SOON: Duration = Duration::from_secs(20);
/// The peer's own addresses.
const PEERS: [&str; 2] = ["192.0.2.2", "2001:db8:1::2"];
const GUARD: &str = "[firewall]\nports = [80, 443]\n";

/// What was told of one source and port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    packets: u64,
    reached: bool,
    dropped: Option<[String; 3]>,
}

/// Everything that was told.
pub struct Report<'enforcing> {
    enforcing: &'enforcing Enforcing,
    all: RefCell<Vec<Evidence>>,
}

impl<'enforcing> Report<'enforcing> {
    fn of(enforcing: &'enforcing Enforcing) -> Self {
        Self {
            enforcing,
            all: RefCell::default(),
        }
    }

    fn sources(&self) -> BTreeMap<(IpAddr, u16), Known> {
        self.all.borrow_mut().extend(self.enforcing.evidence());
        let mut sources: BTreeMap<_, Known> = BTreeMap::new();
        for seen in self.all.borrow().iter() {
            let Evidence::Sighted(Sighting {
                source,
                port,
                sight,
            }) = seen
            else {
                continue;
            };
            let known = sources.entry((*source, *port)).or_default();
            match sight {
                Sight::Seen { packets, ago } => {
                    assert!(*ago < Duration::from_secs(5), "{ago:?}");
                    known.packets = *packets;
                }
                Sight::Reached => known.reached = true,
                Sight::Dropped { table, chain, rule } => {
                    let rule = rule.clone().unwrap_or_else(|| "policy".to_owned());
                    known.dropped = Some([table.clone(), chain.clone(), rule]);
                }
            }
        }
        sources
    }

    fn of_source(&self, source: &str, port: u16) -> Known {
        let source = source.parse().expect("an address");
        self.sources().remove(&(source, port)).unwrap_or_default()
    }

    #[track_caller]
    fn wait_for(&self, source: &str, port: u16, is_so: impl Fn(&Known) -> bool) -> Known {
        wait_for(SOON, "it is told", || {
            Some(self.of_source(source, port)).filter(&is_so)
        })
    }

    fn tally(&self) -> Tally {
        self.sources();
        let all = self.all.borrow();
        let tallies = all.iter().filter_map(|seen| match seen {
            Evidence::Tallied(tally) => Some(tally.clone()),
            Evidence::Sighted(_) => None,
        });
        tallies.last().unwrap_or_default()
    }
}

fn listen(port: u16) {
    let listener = TcpListener::bind(("::", port)).expect("a free port");
    std::thread::spawn(move || listener.incoming().for_each(drop));
}

#[test]
fn who_came_and_who_got_through_is_told_of_both_families() {
    inside(|| {
        let host = &Host::new();
        listen(80);
        let enforcing = &Enforcing::start(enforcing::orders(GUARD));
        let report = Report::of(enforcing);
        assert_eq!(host.probe(HOST_4, 80), Seen::Silence, "shut");
        enforcing.open(&[80, 443]);
        for (to, from) in [HOST_4, HOST_6].into_iter().zip(PEERS) {
            assert_eq!(host.probe(to, 80), Seen::Connected);
            report.wait_for(from, 80, |known| known.packets == 1 && known.reached);
            // Nobody listens there: its reset is no finished handshake.
            assert_eq!(host.probe(to, 443), Seen::Refused);
            let known = report.wait_for(from, 443, |known| known.packets == 1);
            assert!(!known.reached);
        }
        let tally = report.tally();
        assert_eq!((tally.packets, tally.seen, tally.reached), (4, 4, 2));
        assert!(tally.is_kept && tally.incomplete.is_none(), "{tally:?}");
        // Whoever has the answer has the evidence: of the connection just before, too.
        assert_eq!(host.probe(HOST_4, 80), Seen::Connected);
        enforcing.close();
        let known = report.of_source(PEERS[0], 80);
        assert_eq!((known.packets, known.reached), (2, true));
        // What comes to a shut port is nobody's business.
        assert_eq!(host.probe(HOST_4, 80), Seen::Silence);
        enforcing.open(&[80]);
        enforcing.close();
        assert_eq!(report.tally().packets, 5);
    });
}
