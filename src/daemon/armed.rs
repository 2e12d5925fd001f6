//! Armed leases: what `exec` was promised for its command. Nothing is open because of them; they
//! say what the command's own asking may open, and whom to tell when that fails.
//!
//! An arming lives exactly as long as its caller's connection. The book is bounded, and nobody who
//! may not ask for its leases can have a command ended through it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::mpsc;

use crate::control::protocol::{Open, Response};
use crate::gate::caller::Caller;
use crate::gate::challenge::ChallengeType;
use crate::gate::identifier::Identifier;
use crate::gate::lease::LeaseName;
use crate::locked::locked;

/// How many leases one account may arm at once: of its 64 places among the callers most stay free
/// for what the commands ask.
pub const MAX_ARMED_OF_ONE: usize = 16;
/// How many all accounts together may arm that are not root, of their 128 places.
pub const MAX_ARMED: usize = 32;

/// Why a lease was not armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotArmed {
    /// That name is armed already.
    Taken,
    /// The account has [`MAX_ARMED_OF_ONE`] already, or all have [`MAX_ARMED`].
    TooMany,
}

/// What an armed lease may open, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Its number among all that were ever armed.
    pub number: u64,
    /// Who armed it, by the kernel's word.
    pub caller: Caller,
    /// What it opens when nothing else is said; identifiers as they are printed.
    pub open: Open,
    /// Its command is over: it may open nothing any more.
    pub is_ending: bool,
}

impl Terms {
    /// What is opened when this is asked for under these terms: what is not said is as armed, and
    /// what is said must not be more.
    ///
    /// # Errors
    /// The option that asks for more.
    pub fn narrow(&self, asked: Open) -> Result<Open, &'static str> {
        let armed = &self.open;
        if let (Some(asked), Some(armed)) = (asked.milliseconds, armed.milliseconds)
            && asked > armed
        {
            return Err("--for");
        }
        let (asked_ports, armed_ports) = (asked.named_ports(), armed.named_ports());
        let has_port = |port: &u16| armed_ports.is_empty() || armed_ports.contains(port);
        if !asked.ports.iter().all(has_port) {
            return Err("--port");
        }
        for challenge in asked.challenges.iter().map(|name| name.to_type()) {
            if !has_port(&challenge.port()) {
                return Err(match challenge {
                    ChallengeType::Http01 => "--http-01",
                    ChallengeType::TlsAlpn01 => "--tls-alpn-01",
                });
            }
        }
        let as_armed = asked_ports.is_empty();
        if let (Some(asked), Some(armed)) = (asked.family, armed.family)
            && asked != armed
        {
            return Err("--family");
        }
        let is_armed_at = armed.address.is_some() || armed.interface.is_some();
        let is_other = asked.address != armed.address || asked.interface != armed.interface;
        if is_armed_at && is_other {
            match (&asked.address, &asked.interface) {
                (Some(_), _) => return Err("--address"),
                (None, Some(_)) => return Err("--interface"),
                // Nothing was said: as armed.
                (None, None) => {}
            }
        }
        let asked_names = asked.identifiers.as_deref().map(printed);
        if let (Some(asked), Some(armed)) = (&asked_names, &armed.identifiers)
            && !asked.iter().all(|name| armed.contains(name))
        {
            return Err("--identifier");
        }
        Ok(Open {
            lease: armed.lease.clone(),
            milliseconds: asked.milliseconds.or(armed.milliseconds),
            ports: match as_armed {
                true => armed.ports.clone(),
                false => asked.ports,
            },
            challenges: match as_armed {
                true => armed.challenges.clone(),
                false => asked.challenges,
            },
            validates: asked.validates.or(armed.validates),
            family: asked.family.or(armed.family),
            address: asked.address.or(armed.address),
            interface: asked.interface.or_else(|| armed.interface.clone()),
            identifiers: asked_names.or_else(|| armed.identifiers.clone()),
            holder: armed.holder.clone(),
            dry_run: asked.dry_run,
            force: asked.force || armed.force,
        })
    }
}

/// Identifiers as they are printed, so that two ways to write one are the same; what is none stays
/// as it is, for whoever refuses it.
fn printed(names: &[String]) -> Vec<String> {
    names
        .iter()
        .map(|name| Identifier::parse(name).map_or_else(|_| name.clone(), |name| name.to_string()))
        .collect()
}

/// Every armed lease.
#[derive(Debug, Default)]
pub struct Armed(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    last: u64,
    entries: BTreeMap<LeaseName, Entry>,
}

#[derive(Debug)]
struct Entry {
    terms: Terms,
    is_told_of_the_end: bool,
    news: mpsc::Sender<Response>,
}

impl Armed {
    /// Arms a lease; gives its number, and what its caller is to be told.
    ///
    /// # Errors
    /// [`NotArmed`]; then nothing has changed.
    pub fn arm(
        &self,
        name: LeaseName,
        caller: Caller,
        open: Open,
    ) -> Result<(u64, mpsc::Receiver<Response>), NotArmed> {
        let mut book = self.lock();
        if book.entries.contains_key(&name) {
            return Err(NotArmed::Taken);
        }
        let of = |is_counted: &dyn Fn(u32) -> bool| {
            let entries = book.entries.values();
            entries
                .filter(|entry| is_counted(entry.terms.caller.uid))
                .count()
        };
        let own = of(&|uid| uid == caller.uid);
        // Root's own are bounded by its places; it is never kept out by others.
        let is_full = match caller.uid {
            0 => own >= MAX_ARMED,
            _ => own >= MAX_ARMED_OF_ONE || of(&|uid| uid != 0) >= MAX_ARMED,
        };
        if is_full {
            return Err(NotArmed::TooMany);
        }
        book.last += 1;
        let number = book.last;
        // One refusal and one note are all that is ever told.
        let (news, to_tell) = mpsc::channel(2);
        let open = Open {
            identifiers: open.identifiers.as_deref().map(printed),
            ..open
        };
        let terms = Terms {
            number,
            caller,
            open,
            is_ending: false,
        };
        let entry = Entry {
            terms,
            is_told_of_the_end: false,
            news,
        };
        book.entries.insert(name, entry);
        Ok((number, to_tell))
    }

    /// The terms of an armed lease.
    pub fn terms(&self, name: &LeaseName) -> Option<Terms> {
        self.lock()
            .entries
            .get(name)
            .map(|entry| entry.terms.clone())
    }

    /// Whether this very arming may still open.
    pub fn is_armed(&self, number: u64) -> bool {
        let book = self.lock();
        let mut terms = book.entries.values().map(|entry| &entry.terms);
        terms.any(|terms| terms.number == number && !terms.is_ending)
    }

    /// Tells the caller of an arming why what was asked under it failed. A refusal too many to be
    /// kept says nothing new: its command is being ended.
    pub fn tell(&self, number: u64, refusal: Response) {
        let book = self.lock();
        let mut entries = book.entries.values();
        if let Some(entry) = entries.find(|entry| entry.terms.number == number) {
            let _ = entry.news.try_send(refusal);
        }
    }

    /// Tells whoever armed a lease that its time was over before its command was; the first time
    /// only, so that there is always room for a refusal.
    pub fn tell_of_the_end(&self, name: &LeaseName) {
        let mut book = self.lock();
        let Some(entry) = book.entries.get_mut(name) else {
            return;
        };
        if !entry.terms.is_ending && !std::mem::replace(&mut entry.is_told_of_the_end, true) {
            let _ = entry.news.try_send(Response::done(format!(
                "the time of lease {name} is over, and its window shut unless another lease keeps it open; \
                 its command still runs, and may open again"
            )));
        }
    }

    /// From now on this arming opens nothing; gives its name, which stays taken until
    /// [`Armed::forget`], and who armed it.
    pub fn end(&self, number: u64) -> Option<(LeaseName, Caller)> {
        let mut book = self.lock();
        let mut entries = book.entries.iter_mut();
        let (name, entry) = entries.find(|(_, entry)| entry.terms.number == number)?;
        entry.terms.is_ending = true;
        Some((name.clone(), entry.terms.caller))
    }

    /// Forgets an arming.
    pub fn forget(&self, number: u64) {
        self.lock()
            .entries
            .retain(|_, entry| entry.terms.number != number);
    }

    /// Every armed lease, by name.
    pub fn list(&self) -> Vec<(LeaseName, Terms)> {
        let book = self.lock();
        let entries = book.entries.iter();
        entries
            .map(|(name, entry)| (name.clone(), entry.terms.clone()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        locked(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{ChallengeName, FamilyName};

    fn name(text: &str) -> LeaseName {
        LeaseName::parse(text).unwrap()
    }

    fn caller(uid: u32) -> Caller {
        Caller {
            uid,
            gid: uid,
            pid: Some(7),
        }
    }

    fn named(lease: &str) -> Open {
        Open {
            lease: lease.to_owned(),
            ..Open::default()
        }
    }

    fn terms(open: Open) -> Terms {
        let armed = Armed::default();
        armed.arm(name("a"), caller(0), open).unwrap();
        armed.terms(&name("a")).unwrap()
    }

    #[test]
    fn what_is_not_said_is_as_armed_and_what_is_said_is_not_more() {
        let armed = terms(Open {
            milliseconds: Some(60_000),
            ports: vec![80, 443],
            family: Some(FamilyName::Ipv6),
            identifiers: Some(vec!["A.example".to_owned(), "b.example".to_owned()]),
            ..named("a")
        });
        assert_eq!(armed.narrow(named("a")).unwrap(), armed.open);
        let less = Open {
            milliseconds: Some(1000),
            ports: vec![443],
            family: Some(FamilyName::Ipv6),
            identifiers: Some(vec!["a.EXAMPLE".to_owned()]),
            ..named("a")
        };
        let narrowed = armed.narrow(less).unwrap();
        assert_eq!(narrowed.milliseconds, Some(1000));
        assert_eq!(narrowed.ports, [443]);
        assert_eq!(narrowed.identifiers.unwrap(), ["a.example"]);
        for (more, option) in [
            (
                Open {
                    milliseconds: Some(60_001),
                    ..named("a")
                },
                "--for",
            ),
            (
                Open {
                    ports: vec![80, 53],
                    ..named("a")
                },
                "--port",
            ),
            (
                Open {
                    family: Some(FamilyName::Ipv4),
                    ..named("a")
                },
                "--family",
            ),
            (
                Open {
                    identifiers: Some(vec!["c.example".to_owned()]),
                    ..named("a")
                },
                "--identifier",
            ),
        ] {
            assert_eq!(armed.narrow(more), Err(option));
        }
        let address = |text: &str| Some(text.parse().unwrap());
        let at_one = terms(Open {
            address: address("192.0.2.1"),
            ..named("a")
        });
        let same = at_one.narrow(named("a")).unwrap();
        assert_eq!(same.address, address("192.0.2.1"));
        let elsewhere = Open {
            address: address("192.0.2.2"),
            ..named("a")
        };
        assert_eq!(at_one.narrow(elsewhere), Err("--address"));
        let by_one = Open {
            interface: Some("eth0".to_owned()),
            ..named("a")
        };
        assert_eq!(at_one.narrow(by_one.clone()), Err("--interface"));
        assert_eq!(terms(by_one).narrow(at_one.open), Err("--address"));
        let by_http = terms(Open {
            challenges: vec![ChallengeName::Http01],
            ..named("a")
        });
        let by = |challenge| Open {
            challenges: vec![challenge],
            ..named("a")
        };
        assert_eq!(
            by_http.narrow(by(ChallengeName::TlsAlpn01)),
            Err("--tls-alpn-01")
        );
        assert_eq!(by_http.narrow(named("a")).unwrap(), by_http.open);
        let by_number = Open {
            ports: vec![80],
            ..named("a")
        };
        assert_eq!(by_http.narrow(by_number.clone()).unwrap(), by_number);
        // Where nothing was said at arming, everything may be said later.
        let free = terms(named("a"));
        let asked = Open {
            ports: vec![53],
            milliseconds: Some(1),
            ..named("a")
        };
        assert_eq!(free.narrow(asked.clone()).unwrap(), asked);
    }

    #[test]
    fn no_account_takes_the_places_of_others_and_none_those_of_root() {
        let armed = Armed::default();
        let mut at = 0;
        let mut take = |uid| {
            at += 1;
            armed.arm(name(&format!("n{at}")), caller(uid), Open::default())
        };
        for _ in 0..MAX_ARMED_OF_ONE {
            take(1000).unwrap();
        }
        assert_eq!(take(1000).unwrap_err(), NotArmed::TooMany);
        for _ in 0..MAX_ARMED - MAX_ARMED_OF_ONE {
            take(1001).unwrap();
        }
        assert_eq!(take(1002).unwrap_err(), NotArmed::TooMany);
        for _ in 0..MAX_ARMED {
            take(0).unwrap();
        }
        assert_eq!(take(0).unwrap_err(), NotArmed::TooMany);
        assert_eq!(armed.list().len(), 2 * MAX_ARMED);
    }

    #[test]
    fn a_name_is_taken_until_its_end_is_over() {
        let armed = Armed::default();
        let (number, mut news) = armed.arm(name("a"), caller(0), named("a")).unwrap();
        assert_eq!(
            armed.arm(name("a"), caller(0), named("a")).unwrap_err(),
            NotArmed::Taken
        );
        for _ in 0..3 {
            armed.tell_of_the_end(&name("a"));
        }
        armed.tell(number, Response::done("first"));
        armed.tell(number, Response::done("second"));
        assert!(
            news.try_recv()
                .unwrap()
                .message
                .contains("time of lease a is over")
        );
        assert_eq!(news.try_recv().unwrap().message, "first");
        assert!(news.try_recv().is_err());
        assert!(armed.is_armed(number));
        assert_eq!(armed.end(number), Some((name("a"), caller(0))));
        assert!(!armed.is_armed(number) && armed.terms(&name("a")).unwrap().is_ending);
        assert!(armed.arm(name("a"), caller(0), named("a")).is_err());
        armed.forget(number);
        let (next, _news) = armed.arm(name("a"), caller(0), named("a")).unwrap();
        armed.forget(number);
        assert!(next != number && armed.is_armed(next));
    }
}
