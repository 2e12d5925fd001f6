//! The enforcer's reader: a thread that reads the configuration and the lists for it, so that windows
//! open and close meanwhile.
//!
//! It gives up everything before its first file: what it parses while the enforcer serves is the only
//! foreign text near the firewall, and it holds no capability. (The first reading, at the start, is done
//! before anything is sealed, so that a wrong list can refuse it.) It never writes, and it never speaks
//! to the kernel of rules.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc;

use rustix::thread::CapabilitySet;
use tokio::sync::oneshot;

use super::confine::Account;
use super::parts;
use super::seal::{Calls, Seal};
use crate::config::Config;
use crate::config::lists::{Lists, Trust};
use crate::firewall::enforcer::{Answer, Read, Reader};

enum Told {
    Read(Read, oneshot::Sender<Answer>),
    Accept,
}

/// The thread, from the enforcer's side. It ends with the process.
pub struct ReaderThread {
    told: mpsc::Sender<Told>,
}

impl ReaderThread {
    /// Starts it, and waits until it is sealed.
    ///
    /// # Errors
    /// It cannot be started or sealed; then the process must not go on.
    pub fn start(config: Config, lists: Lists, account: Account) -> io::Result<Self> {
        let (told, orders) = mpsc::channel();
        let (sealed, is_sealed) = mpsc::channel();
        let seal = reader_seal(&config);
        let require_seals = config.daemon.require_seals;
        let thread = std::thread::Builder::new().name("acmegate-read".to_owned());
        thread.spawn(move || {
            let done = seal.apply().and_then(|done| done.demand(require_seals));
            let is_ready = done.is_ok();
            let _ = sealed.send(done.map(drop));
            if is_ready {
                Files::of(config, lists, account).obey(&orders);
            }
        })?;
        let gone = |_| io::Error::other("the thread that reads is gone");
        is_sealed.recv().map_err(gone)??;
        Ok(Self { told })
    }
}

impl Reader for ReaderThread {
    fn read(&mut self, what: Read) -> oneshot::Receiver<Answer> {
        let (send, answer) = oneshot::channel();
        // A thread that is gone drops the sender, which is an answer.
        let _ = self.told.send(Told::Read(what, send));
        answer
    }

    fn accept(&mut self) {
        let _ = self.told.send(Told::Accept);
    }
}

/// What the reader may still do once it is sealed.
pub fn reader_seal(config: &Config) -> Seal {
    Seal {
        capabilities: CapabilitySet::empty(),
        readable: parts::read_again(config).collect(),
        writable: Vec::new(),
        connect_ports: Vec::new(),
        calls: Calls::Reader,
    }
}

/// What counts, and what was read since and may come to count.
struct Files {
    path: Option<PathBuf>,
    /// Looked up in time: here it could not be.
    account: Account,
    counts: (Config, Lists),
    proposed: Option<(Config, Lists)>,
}

impl Files {
    fn of(config: Config, lists: Lists, account: Account) -> Self {
        Self {
            account,
            path: config.source.clone(),
            counts: (config, lists),
            proposed: None,
        }
    }

    fn obey(mut self, orders: &mpsc::Receiver<Told>) {
        while let Ok(told) = orders.recv() {
            match told {
                Told::Read(what, answer) => {
                    // Whoever asked has ended, and this thread with it; or asked anew, for another configuration counts.
                    let _ = answer.send(self.read(what));
                }
                Told::Accept => {
                    if let Some(accepted) = self.proposed.take() {
                        self.counts = accepted;
                    }
                }
            }
        }
    }

    fn read(&mut self, what: Read) -> Answer {
        let (config, lists) = &self.counts;
        match what {
            Read::Configuration => {
                let config = parts::load(self.path.as_deref())?;
                let lists = lists.refresh(&config.allow, Trust::Asked);
                let lists = lists.map_err(|error| error.to_string())?;
                let orders = parts::orders(&config, lists.list(), Some(self.account));
                self.proposed = Some((config, lists));
                Ok(orders)
            }
            Read::Lists => {
                let lists = lists.refresh(&config.allow, Trust::Careful);
                let lists = lists.map_err(|error| error.to_string())?;
                let orders = parts::orders(config, lists.list(), Some(self.account));
                self.counts.1 = lists;
                Ok(orders)
            }
        }
    }
}
