//! The enforcer in the test's own process, with settings that no file needs to say, and the test in the
//! place of its front.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use acmegate::config::lists::Lists;
use acmegate::config::{Config, Unchecked};
use acmegate::daemon::parts::{self, AnyAccount};
use acmegate::firewall::allow::Listed;
use acmegate::firewall::enforcer::{Answer, Enforcer, Orders, Read, Reader};
use acmegate::firewall::message::{Claim, FRAME_BYTES, Frame, Health, List, Reply, Request};
use acmegate::gate::event::Evidence;
use acmegate::gate::lease::LeaseName;
use tokio::sync::oneshot;

use crate::enforcer::claim;
use crate::lab::wait_for;

const SOON: Duration = Duration::from_secs(30);

/// What a configuration of this text asks for.
pub fn orders(text: &str) -> Orders {
    let config = Config::parse(text, "orders", &AnyAccount, &Unchecked).expect("a configuration");
    let lists = Lists::read(&config.allow).expect("its lists");
    parts::orders(&config, lists.list(), None)
}

/// What there is to read.
#[derive(Clone, Default)]
struct Files(Arc<Mutex<Option<Orders>>>);

impl Files {
    fn change(&self, list: &Listed) {
        let mut orders = self.0.lock().expect("nobody panics");
        let orders = orders.as_mut().expect("orders");
        orders.settings = orders.settings.with_allow(list.clone());
    }
}

impl Reader for Files {
    fn read(&mut self, _: Read) -> oneshot::Receiver<Answer> {
        let (send, answer) = oneshot::channel();
        let orders = self.0.lock().expect("nobody panics").clone();
        drop(send.send(Ok(orders.expect("orders"))));
        answer
    }

    fn accept(&mut self) {}
}

/// The enforcer in a thread of the host's, and the test as its front.
pub struct Enforcing {
    front: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
    files: Files,
    evidence: RefCell<Vec<Evidence>>,
}

impl Enforcing {
    /// Starts it and waits until it answers: what `orders` ask for stands, but for a long list.
    pub fn start(orders: Orders) -> Self {
        let files = Files::default();
        *files.0.lock().expect("nobody panics") = Some(orders.clone());
        let reader = files.clone();
        let (front, theirs) = UnixStream::pair().expect("a socket pair");
        theirs.set_nonblocking(true).expect("fcntl");
        front.set_read_timeout(Some(SOON)).expect("a timeout");
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let front = tokio::net::UnixStream::from_std(theirs).expect("a socket");
                let (enforcer, events) =
                    Enforcer::prepare(orders, Box::new(reader)).expect("netlink");
                enforcer.serve(front, events).await.expect("it serves");
            });
        });
        let enforcing = Self {
            front: Some(front),
            thread: Some(thread),
            files,
            evidence: RefCell::default(),
        };
        let reply = enforcing.ask(&Request::Apply);
        assert!(matches!(&reply, Reply::Health(health) if health.is_installed));
        enforcing
    }

    /// Asks, and waits for the last reply.
    pub fn ask(&self, request: &Request) -> Reply {
        self.send(request);
        loop {
            match self.hear() {
                (7, reply) if reply.is_last() => return reply,
                _ => {}
            }
        }
    }

    /// Asks and does not wait.
    pub fn send(&self, request: &Request) {
        let mut front = self.front.as_ref().expect("it serves");
        front.write_all(&request.to_frame(7)).expect("it reads");
    }

    /// The next that it says, asked or not.
    pub fn hear(&self) -> (u32, Reply) {
        let mut frame: Frame = [0; FRAME_BYTES];
        let mut front = self.front.as_ref().expect("it serves");
        front.read_exact(&mut frame).expect("it answers");
        let (sequence, reply) = Reply::from_frame(&frame).expect("a frame of ours");
        let seen = match &reply {
            Reply::Sighted(sighting) => Some(Evidence::Sighted(sighting.clone())),
            Reply::Tallied(tally) => Some(Evidence::Tallied(tally.clone())),
            _ => None,
        };
        if let Some(seen) = seen {
            assert_eq!(sequence, 0, "evidence comes unasked");
            self.evidence.borrow_mut().push(seen);
        }
        (sequence, reply)
    }

    /// What it told of who came, since this was asked before.
    pub fn evidence(&self) -> Vec<Evidence> {
        self.health();
        self.evidence.take()
    }

    /// The list changes on disk, and the front says so.
    pub fn change_list(&self, list: &Listed) {
        self.files.change(list);
        let reply = self.ask(&Request::Refresh);
        assert!(matches!(reply, Reply::Health(_)), "{reply:?}");
    }

    /// The configuration changes on disk, and is followed.
    pub fn reload(&self, orders: Orders) {
        *self.files.0.lock().expect("nobody panics") = Some(orders);
        let reply = self.ask(&Request::Prepare);
        assert!(matches!(reply, Reply::Health(_)), "{reply:?}");
        wait_for(SOON, "it is read", || {
            (!self.health().is_reading).then_some(())
        });
        let reply = self.ask(&Request::Reload);
        assert!(
            matches!(&reply, Reply::Health(health) if health.is_installed),
            "{reply:?}"
        );
    }

    /// How the list stands, as asked now.
    pub fn list(&self) -> List {
        self.health().list
    }

    /// How the kernel stands, as asked now.
    pub fn health(&self) -> Health {
        match self.ask(&Request::Snapshot) {
            Reply::Health(health) => health,
            reply => panic!("{reply:?}"),
        }
    }

    /// Waits until a part of the newest list is there, and gives its number of ranges.
    pub fn wait_for_a_part(&self) -> u32 {
        wait_for(Duration::from_secs(120), "a part of the list", || {
            let health = self.health();
            match health.list {
                _ if health.is_reading => None,
                List::Filling { percent, ranges } => (percent > 0).then_some(ranges),
                List::Whole => panic!("too short a list to be tried with"),
                List::Refused { errno } => panic!("refused: {errno}"),
            }
        })
    }

    /// Waits until the newest list is whole.
    pub fn wait_for_the_list(&self) {
        wait_for(Duration::from_secs(120), "the list is whole", || {
            let health = self.health();
            (!health.is_reading && health.list == List::Whole).then_some(())
        });
    }

    /// Opens lease `a`.
    #[track_caller]
    pub fn open(&self, ports: &[u16]) {
        let claim = Claim {
            ports: ports.to_vec(),
            ..claim("a")
        };
        let reply = self.ask(&Request::Open(claim));
        assert!(matches!(&reply, Reply::Health(_)), "{reply:?}");
    }

    /// Closes it.
    pub fn close(&self) {
        let name = LeaseName::parse("a").expect("a name");
        assert!(matches!(self.ask(&Request::Close(name)), Reply::Health(_)));
    }
}

impl Drop for Enforcing {
    fn drop(&mut self) {
        self.front = None;
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || std::thread::panicking());
    }
}
