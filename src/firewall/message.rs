//! What front and enforcer say to each other over the socket pair: frames of one fixed size.
//!
//! The enforcer believes nothing in them. A frame that is not exactly as written here is refused,
//! down to the zeros that fill it, so that no two readings of one frame exist.

use std::time::Duration;

use crate::gate::event::{Sighting, Tally};
use crate::gate::lease::{Entrance, Families, Holder, LeaseName, Trigger};
use crate::gate::usage::{Account, Span};
use crate::gate::window::Refusal;
pub use crate::wire::{FRAME_BYTES, Frame, MAX_TEXT_BYTES, Malformed};
use crate::wire::{Reader, Writer};

/// What the front may ask. Nothing else is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Acquire or renew a lease.
    Open(Claim),
    /// Say whether a lease would be given, and change nothing.
    Check(Claim),
    /// Say whether a lease is within bounds, whatever foreign chains do, and change nothing.
    Bounds(Claim),
    /// Release a lease.
    Close(LeaseName),
    /// Tell every lease, opening and slot of time.
    Snapshot,
    /// Read the configuration again, and keep it aside. What is done, with or without success, is told
    /// by [`Health::is_reading`].
    Prepare,
    /// Follow what was read.
    Reload,
    /// Read the lists again that the allow-list is made of, and follow them.
    Refresh,
    /// Make sure that our part of the ruleset is there.
    Apply,
    /// Take our part of the ruleset away, leases included.
    Remove,
}

/// A lease as it crosses the socket pair: instants as what is left, identifiers as a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The lease's name.
    pub name: LeaseName,
    /// For whom.
    pub holder: Option<Holder>,
    /// Who asked.
    pub caller: u32,
    /// What made it.
    pub trigger: Trigger,
    /// Which TCP ports.
    pub ports: Vec<u16>,
    /// Which families.
    pub families: Families,
    /// By which way.
    pub entrance: Entrance,
    /// Whether it covers only identifiers that the front knows.
    pub is_scoped: bool,
    /// How long from now, in whole milliseconds.
    pub length: Duration,
}

/// What the enforcer answers. Every request ends with one of the last four, its sequence number
/// repeated; `Health` also comes unasked, with sequence number 0, and `Sighted` and `Tallied` only so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// One living lease of a snapshot.
    Lease(Box<Claim>),
    /// One opening of a snapshot that the budget still counts.
    Opening {
        /// Who asked.
        caller: u32,
        /// For how long it counts yet.
        left: Duration,
    },
    /// One slot of time of a snapshot: of all windows, or of a lease name.
    Time {
        /// Whose; never an identifier's, of which the enforcer knows nothing.
        account: Account,
        /// Of which span.
        span: Span,
        /// How much.
        spent: Duration,
        /// For how long it counts yet.
        left: Duration,
    },
    /// The kernel saw something of somebody.
    Sighted(Sighting),
    /// What the kernel counted, of all together.
    Tallied(Tally),
    /// Done; how the kernel stands.
    Health(Health),
    /// The lease is out of bounds.
    Refused(Refusal),
    /// Somebody else's chain would drop the packets; which one, and what to do.
    Blocked(String),
    /// It could not be done; why.
    Failed(String),
}

/// How our part of the ruleset stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Whether it is in the kernel.
    pub is_installed: bool,
    /// Whether nobody else can change it.
    pub is_owned: bool,
    /// How often somebody took it away and it was put back.
    pub gaps: u32,
    /// What is wrong, or worth knowing; empty if nothing.
    pub note: String,
    /// With the answer to an opening: the generation of the ruleset that was surveyed for it, as it was
    /// when it was read. The same number again means that nobody but us has changed anything since.
    pub surveyed: Option<u32>,
    /// How the allow-list stands there.
    pub list: List,
    /// The configuration or its lists are being read.
    pub is_reading: bool,
}

/// How the allow-list stands in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum List {
    /// The newest one, whole.
    #[default]
    Whole,
    /// It is being written beside what stands; until it is whole that one counts.
    Filling {
        /// How far, in hundredths.
        percent: u8,
        /// How many ranges it has.
        ranges: u32,
    },
    /// The kernel refused it; the one before stands.
    Refused {
        /// The kernel's error number; 0 if it gave none.
        errno: u32,
    },
}

impl Request {
    /// Whether a window may be closed after it that was open before.
    pub(super) fn may_end_a_window(&self) -> bool {
        matches!(self, Self::Close(_) | Self::Reload | Self::Remove)
    }

    /// Whether what the kernel saw may be gone after it.
    pub(super) fn may_take_evidence_away(&self) -> bool {
        matches!(self, Self::Reload | Self::Remove)
    }

    /// Renders a frame.
    pub fn to_frame(&self, sequence: u32) -> Frame {
        match self {
            Self::Open(claim) => Writer::new(1, sequence).claim(claim),
            Self::Close(name) => Writer::new(2, sequence).short(name.as_str()),
            Self::Snapshot => Writer::new(4, sequence),
            Self::Reload => Writer::new(5, sequence),
            Self::Apply => Writer::new(6, sequence),
            Self::Remove => Writer::new(7, sequence),
            Self::Check(claim) => Writer::new(8, sequence).claim(claim),
            Self::Bounds(claim) => Writer::new(9, sequence).claim(claim),
            Self::Prepare => Writer::new(10, sequence),
            Self::Refresh => Writer::new(11, sequence),
        }
        .frame
    }

    /// Reads a frame and its sequence number.
    ///
    /// # Errors
    /// [`Malformed`]: the fault of the front, which is then no longer to be trusted.
    pub fn from_frame(frame: &Frame) -> Result<(u32, Self), Malformed> {
        let (mut reader, kind, sequence) = Reader::new(frame)?;
        let request = match kind {
            1 => Self::Open(reader.claim()?),
            2 => Self::Close(reader.name()?),
            4 => Self::Snapshot,
            5 => Self::Reload,
            6 => Self::Apply,
            7 => Self::Remove,
            8 => Self::Check(reader.claim()?),
            9 => Self::Bounds(reader.claim()?),
            10 => Self::Prepare,
            11 => Self::Refresh,
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok((sequence, request))
    }
}

impl Reply {
    /// Whether a request ends with it.
    pub fn is_last(&self) -> bool {
        match self {
            Self::Lease(_)
            | Self::Opening { .. }
            | Self::Time { .. }
            | Self::Sighted(_)
            | Self::Tallied(_) => false,
            Self::Health(_) | Self::Refused(_) | Self::Blocked(_) | Self::Failed(_) => true,
        }
    }

    /// Renders a frame.
    pub fn to_frame(&self, sequence: u32) -> Frame {
        match self {
            Self::Lease(claim) => Writer::new(1, sequence).claim(claim),
            Self::Opening { caller, left } => Writer::new(2, sequence).u32(*caller).millis(*left),
            Self::Health(health) => Writer::new(3, sequence)
                .u8(u8::from(health.is_installed))
                .u8(u8::from(health.is_owned))
                .u32(health.gaps)
                .list(health.list)
                .u8(u8::from(health.is_reading))
                .u8(u8::from(health.surveyed.is_some()))
                .u32(health.surveyed.unwrap_or(0))
                .text(&health.note),
            Self::Time {
                account,
                span,
                spent,
                left,
            } => Writer::new(7, sequence)
                .account(account)
                .span(*span)
                .millis(*spent)
                .millis(*left),
            Self::Refused(refusal) => {
                let writer = Writer::new(4, sequence);
                match refusal {
                    Refusal::Port => writer.u8(1),
                    Refusal::Family => writer.u8(2),
                    Refusal::Length => writer.u8(3),
                    Refusal::TooMany => writer.u8(4),
                    Refusal::Budget => writer.u8(5),
                    Refusal::Entrance => writer.u8(6),
                    Refusal::Time(shortage) => writer.u8(7).shortage(*shortage),
                }
            }
            Self::Blocked(text) => Writer::new(5, sequence).text(text),
            Self::Failed(text) => Writer::new(6, sequence).text(text),
            Self::Sighted(sighting) => Writer::new(8, sequence).sighting(sighting),
            Self::Tallied(tally) => Writer::new(9, sequence).tally(tally),
        }
        .frame
    }

    /// Reads a frame and its sequence number.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn from_frame(frame: &Frame) -> Result<(u32, Self), Malformed> {
        let (mut reader, kind, sequence) = Reader::new(frame)?;
        let reply = match kind {
            1 => Self::Lease(Box::new(reader.claim()?)),
            2 => Self::Opening {
                caller: reader.u32()?,
                left: reader.millis()?,
            },
            3 => Self::Health(Health {
                is_installed: reader.flag()?,
                is_owned: reader.flag()?,
                gaps: reader.u32()?,
                list: reader.list()?,
                is_reading: reader.flag()?,
                surveyed: match (reader.flag()?, reader.u32()?) {
                    (true, generation) => Some(generation),
                    (false, 0) => None,
                    (false, _) => return Err(Malformed),
                },
                note: reader.text()?,
            }),
            4 => Self::Refused(match reader.u8()? {
                1 => Refusal::Port,
                2 => Refusal::Family,
                3 => Refusal::Length,
                4 => Refusal::TooMany,
                5 => Refusal::Budget,
                6 => Refusal::Entrance,
                7 => Refusal::Time(reader.shortage()?),
                _ => return Err(Malformed),
            }),
            5 => Self::Blocked(reader.text()?),
            6 => Self::Failed(reader.text()?),
            7 => Self::Time {
                account: reader.account()?,
                span: reader.span()?,
                spent: reader.millis()?,
                left: reader.millis()?,
            },
            8 => Self::Sighted(reader.sighting()?),
            9 => Self::Tallied(reader.tally()?),
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok((sequence, reply))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gate::event::Sight;
    use crate::gate::lease::Interface;
    use crate::gate::usage::{Kind, Shortage};

    fn claim() -> Claim {
        Claim {
            name: LeaseName::parse("certbot-812").unwrap(),
            holder: Some(Holder {
                pid: 812,
                start_ticks: 77,
                command: "certbot".to_owned(),
            }),
            caller: 0,
            trigger: Trigger::Asked,
            ports: vec![80, 443],
            families: Families::BOTH,
            entrance: Entrance::Any,
            is_scoped: true,
            length: Duration::from_secs(120),
        }
    }

    fn shortage(fits_in: Option<Duration>) -> Shortage {
        Shortage {
            kind: Kind::Lease,
            span: Span::Month,
            limit: Duration::from_secs(60),
            used: Duration::from_secs(59),
            fits_in,
        }
    }

    fn time(account: Account) -> Reply {
        Reply::Time {
            account,
            span: Span::Day,
            spent: Duration::from_millis(7),
            left: Duration::from_secs(3600),
        }
    }

    fn sighted(sight: Sight) -> Reply {
        Reply::Sighted(Sighting {
            source: "2001:db8::7".parse().unwrap(),
            port: 443,
            sight,
        })
    }

    fn dropped(rule: Option<&str>) -> Reply {
        sighted(Sight::Dropped {
            table: "inet filter".to_owned(),
            chain: "input".to_owned(),
            rule: rule.map(str::to_owned),
        })
    }

    #[test]
    fn every_message_reads_back() {
        let by = Interface::parse("eth0").unwrap().numbered(2);
        let at = |address: &str| Entrance::Address(address.parse().unwrap());
        let scoped = |entrance| Claim {
            entrance,
            ..claim()
        };
        for request in [
            Request::Open(claim()),
            Request::Open(scoped(Entrance::Interface(by))),
            Request::Open(scoped(at("192.0.2.1"))),
            Request::Open(scoped(at("2001:db8::1"))),
            Request::Check(claim()),
            Request::Bounds(claim()),
            Request::Close(claim().name),
            Request::Snapshot,
            Request::Prepare,
            Request::Reload,
            Request::Refresh,
            Request::Apply,
            Request::Remove,
        ] {
            assert_eq!(Request::from_frame(&request.to_frame(9)), Ok((9, request)));
        }
        for reply in [
            Reply::Lease(Box::new(Claim {
                holder: None,
                ..claim()
            })),
            Reply::Opening {
                caller: 7,
                left: Duration::from_secs(1),
            },
            Reply::Health(Health {
                is_installed: true,
                is_owned: false,
                gaps: 3,
                note: "é".to_owned(),
                list: List::Whole,
                is_reading: true,
                surveyed: Some(u32::MAX),
            }),
            Reply::Health(Health {
                note: "a".repeat(MAX_TEXT_BYTES),
                list: List::Filling {
                    percent: 100,
                    ranges: 1_000_000,
                },
                ..Health::default()
            }),
            Reply::Health(Health {
                list: List::Refused { errno: 12 },
                ..Health::default()
            }),
            Reply::Refused(Refusal::Budget),
            Reply::Refused(Refusal::Time(shortage(None))),
            Reply::Refused(Refusal::Time(shortage(Some(Duration::from_secs(9))))),
            time(Account::Total),
            time(Account::Lease(claim().name, 7)),
            Reply::Blocked("a".repeat(MAX_TEXT_BYTES)),
            sighted(Sight::Reached),
            sighted(Sight::Seen {
                packets: u64::MAX,
                ago: Duration::from_millis(250),
            }),
            sighted(Sight::Dropped {
                table: "t".repeat(80),
                chain: "c".repeat(64),
                rule: Some("r".repeat(300)),
            }),
            dropped(None),
            Reply::Tallied(Tally::default()),
            Reply::Tallied(Tally {
                is_kept: true,
                packets: u64::MAX,
                seen: 3,
                reached: 2,
                incomplete: Some("w".repeat(300)),
            }),
            Reply::Failed(String::new()),
        ] {
            assert_eq!(Reply::from_frame(&reply.to_frame(9)), Ok((9, reply)));
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let frame = Reply::Failed(format!("a{}", "é".repeat(400))).to_frame(0);
        let Ok((_, Reply::Failed(text))) = Reply::from_frame(&frame) else {
            panic!()
        };
        assert_eq!(text.len(), MAX_TEXT_BYTES - 1);
    }

    /// Somebody else chooses names and rules.
    #[test]
    fn long_names_of_somebody_elses_are_cut_and_no_address_is_mapped() {
        let long = |length| "é".repeat(length);
        let sight = Sight::Dropped {
            table: long(300),
            chain: long(300),
            rule: Some(long(3000)),
        };
        let frame = sighted(sight).to_frame(0);
        let Ok((0, Reply::Sighted(Sighting { sight, .. }))) = Reply::from_frame(&frame) else {
            panic!()
        };
        let cut = Sight::Dropped {
            table: long(40),
            chain: long(32),
            rule: Some(long(150)),
        };
        assert_eq!(sight, cut);
        let mut frame = sighted(Sight::Reached).to_frame(0);
        let mapped = [[0; 10].as_slice(), &[255, 255, 192, 0, 2, 1]].concat();
        frame[7..23].copy_from_slice(&mapped);
        assert_eq!(Reply::from_frame(&frame), Err(Malformed));
    }

    #[test]
    fn padding_that_is_not_zero_is_refused() {
        let mut frame = Request::Snapshot.to_frame(1);
        frame[FRAME_BYTES - 1] = 1;
        assert_eq!(Request::from_frame(&frame), Err(Malformed));
    }

    proptest! {
        /// Whatever is understood is written the same way again: no two frames mean the same.
        #[test]
        fn a_frame_has_one_reading(
            which in 0..5,
            changes in prop::collection::vec((0usize..120, any::<u8>()), 0..12),
        ) {
            let filling = Health {
                list: List::Filling { percent: 7, ranges: 1000 },
                note: "words".to_owned(),
                ..Health::default()
            };
            let mut frame = match which {
                0 => Request::Open(claim()).to_frame(1),
                1 => Reply::Lease(Box::new(claim())).to_frame(1),
                2 => dropped(Some("drop")).to_frame(1),
                3 => Reply::Tallied(Tally {
                    incomplete: Some("words".to_owned()),
                    ..Tally::default()
                })
                .to_frame(1),
                _ => Reply::Health(filling).to_frame(1),
            };
            for (at, byte) in changes {
                frame[at] = byte;
            }
            if let Ok((sequence, request)) = Request::from_frame(&frame) {
                prop_assert_eq!(request.to_frame(sequence), frame);
            }
            if let Ok((sequence, reply)) = Reply::from_frame(&frame) {
                prop_assert_eq!(reply.to_frame(sequence), frame);
            }
        }
    }
}
