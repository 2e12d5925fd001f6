//! What front and runner say to each other over their socket pair.
//!
//! The runner believes nothing in it: no word of a command line crosses here, only which lease, of
//! which ports, for how long. A frame that is not exactly as written here ends the runner.

use std::time::Duration;

use super::book::Claim;
use crate::gate::command::Notice;
use crate::gate::lease::{LeaseName, MAX_LEASE_NAME_BYTES};
use crate::wire::{Frame, Malformed, Reader, Writer};

/// The longest of the two texts of a [`Health`], in octets; longer ones are cut.
pub const MAX_NOTE_BYTES: usize = 230;

/// The longest event of a notification, in octets; what tells of more is made shorter.
pub const MAX_EVENT_BYTES: usize = 64 * 1024;
/// The longest part of it in one frame.
pub const MAX_PART_BYTES: usize = 480;

/// What the front may ask. Nothing else is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Run the opening command for a lease. An earlier opening of the same lease stays until
    /// [`Request::Settle`] says which one counts.
    Open {
        /// What is to be opened.
        claim: Claim,
        /// How long the front can wait for the answer.
        within: Duration,
    },
    /// Of this lease only one opening counts, or none; the others are closed.
    Settle {
        /// The lease's name.
        lease: LeaseName,
        /// The number of the opening that stays.
        kept: Option<u16>,
        /// How long the front can wait for the answer; if not at all, closing comes afterwards.
        within: Duration,
    },
    /// A lease that was there before the runner was.
    Living {
        /// The lease's name.
        lease: LeaseName,
        /// For how long it lives yet.
        length: Duration,
    },
    /// Close what is left from earlier and no living lease needs.
    Sweep,
    /// Read the configuration again, and keep it aside.
    Prepare,
    /// Follow the configuration that was read.
    Switch,
    /// Close everything.
    CloseAll {
        /// How long the front can wait.
        within: Duration,
    },
    /// Tell of a window: the event follows, in parts.
    Notice {
        /// Which window.
        notice: Notice,
        /// How many octets the event has.
        bytes: u32,
    },
    /// The next part of the event; with the last one the command starts, and nobody waits for it.
    Part {
        /// How many octets came before.
        at: u32,
        /// 1 to [`MAX_PART_BYTES`] octets.
        part: Vec<u8>,
    },
    /// How the last notification stands.
    Noticed,
}

/// What the runner answers, the request's sequence number repeated. `Health` also comes unasked,
/// with sequence number 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is open, or known to be: the number of the opening; `None` where there is none.
    Opened(Option<u16>),
    /// Done; how closing stands.
    Health(Health),
    /// It could not be done.
    Failed(Fault, String),
    /// A notification still runs.
    Running,
}

/// Whose fault it is that a command did not do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The front asked for more than the configuration gives.
    Bounds,
    /// The program is not there, or cannot be started.
    Missing,
    /// It said that it failed.
    Failed,
    /// It took too long.
    Slow,
    /// The configuration cannot be used.
    Config,
}

/// How the commands stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// What is wrong now; empty if nothing.
    pub problem: String,
    /// The last failure, mended or not; empty if there was none.
    pub failure: String,
}

impl Request {
    /// Renders a frame.
    pub fn to_frame(&self, sequence: u32) -> Frame {
        match self {
            Self::Open { claim, within } => Writer::new(1, sequence)
                .short(claim.lease.as_str())
                .u32(claim.caller)
                .trigger(claim.trigger)
                .families(claim.families)
                .millis(claim.length)
                .ports(&claim.ports)
                .millis(*within),
            Self::Settle {
                lease,
                kept,
                within,
            } => Writer::new(2, sequence)
                .short(lease.as_str())
                .u32(number(*kept))
                .millis(*within),
            Self::Living { lease, length } => Writer::new(3, sequence)
                .short(lease.as_str())
                .millis(*length),
            Self::Sweep => Writer::new(4, sequence),
            Self::Prepare => Writer::new(5, sequence),
            Self::Switch => Writer::new(6, sequence),
            Self::CloseAll { within } => Writer::new(7, sequence).millis(*within),
            Self::Notice { notice, bytes } => Writer::new(8, sequence)
                .u64(notice.window.unwrap_or(0))
                .short(notice.lease.as_ref().map_or("", LeaseName::as_str))
                .u32(*bytes),
            Self::Part { at, part } => Writer::new(9, sequence)
                .u32(*at)
                .bytes(&(part.len() as u16).to_be_bytes())
                .bytes(part),
            Self::Noticed => Writer::new(10, sequence),
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
            1 => Self::Open {
                claim: Claim {
                    lease: reader.name()?,
                    caller: reader.u32()?,
                    trigger: reader.trigger()?,
                    families: reader.families()?,
                    length: reader.millis()?,
                    ports: reader.ports()?,
                },
                within: reader.millis()?,
            },
            2 => Self::Settle {
                lease: reader.name()?,
                kept: reader.number()?,
                within: reader.millis()?,
            },
            3 => Self::Living {
                lease: reader.name()?,
                length: reader.millis()?,
            },
            4 => Self::Sweep,
            5 => Self::Prepare,
            6 => Self::Switch,
            7 => Self::CloseAll {
                within: reader.millis()?,
            },
            8 => Self::Notice {
                notice: Notice {
                    // No record has the number 0.
                    window: Some(reader.u64()?).filter(|number| *number != 0),
                    lease: match reader.short(MAX_LEASE_NAME_BYTES)? {
                        "" => None,
                        name => Some(LeaseName::parse(name).ok_or(Malformed)?),
                    },
                },
                bytes: reader.u32()?,
            },
            9 => Self::Part {
                at: reader.u32()?,
                part: match usize::from(u16::from_be_bytes(reader.array()?)) {
                    length @ 1..=MAX_PART_BYTES => reader.bytes(length)?.to_vec(),
                    _ => return Err(Malformed),
                },
            },
            10 => Self::Noticed,
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok((sequence, request))
    }
}

impl Reply {
    /// Renders a frame.
    pub fn to_frame(&self, sequence: u32) -> Frame {
        match self {
            Self::Opened(opening) => Writer::new(1, sequence).u32(number(*opening)),
            Self::Health(health) => Writer::new(2, sequence)
                .text(brief(&health.problem))
                .text(brief(&health.failure)),
            Self::Failed(fault, text) => Writer::new(3, sequence)
                .u8(match fault {
                    Fault::Bounds => 1,
                    Fault::Missing => 2,
                    Fault::Failed => 3,
                    Fault::Slow => 4,
                    Fault::Config => 5,
                })
                .text(text),
            Self::Running => Writer::new(4, sequence),
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
            1 => Self::Opened(reader.number()?),
            2 => Self::Health(Health {
                problem: reader.brief()?,
                failure: reader.brief()?,
            }),
            3 => Self::Failed(
                match reader.u8()? {
                    1 => Fault::Bounds,
                    2 => Fault::Missing,
                    3 => Fault::Failed,
                    4 => Fault::Slow,
                    5 => Fault::Config,
                    _ => return Err(Malformed),
                },
                reader.text()?,
            ),
            4 => Self::Running,
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok((sequence, reply))
    }
}

/// No opening has the number 0.
fn number(opening: Option<u16>) -> u32 {
    u32::from(opening.unwrap_or(0))
}

fn brief(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_NOTE_BYTES)]
}

impl Reader<'_> {
    fn number(&mut self) -> Result<Option<u16>, Malformed> {
        let number = u16::try_from(self.u32()?).map_err(|_| Malformed)?;
        Ok((number != 0).then_some(number))
    }

    fn brief(&mut self) -> Result<String, Malformed> {
        let text = self.text()?;
        match text.len() <= MAX_NOTE_BYTES {
            true => Ok(text),
            false => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gate::lease::{Families, Trigger};
    use crate::wire::FRAME_BYTES;

    fn requests() -> Vec<Request> {
        let lease = LeaseName::parse("certbot-812").unwrap();
        let within = Duration::from_secs(5);
        vec![
            Request::Open {
                claim: Claim {
                    lease: lease.clone(),
                    caller: 33,
                    trigger: Trigger::Asked,
                    ports: vec![80, 443],
                    families: Families::BOTH,
                    length: Duration::from_secs(120),
                },
                within,
            },
            Request::Settle {
                lease: lease.clone(),
                kept: Some(9),
                within,
            },
            Request::Living {
                lease,
                length: within,
            },
            Request::Sweep,
            Request::Prepare,
            Request::Switch,
            Request::CloseAll { within },
            Request::Notice {
                notice: Notice {
                    window: Some(12),
                    lease: LeaseName::parse("a"),
                },
                bytes: 700,
            },
            Request::Notice {
                notice: Notice::default(),
                bytes: u32::MAX,
            },
            Request::Part {
                at: 480,
                part: vec![0xff; MAX_PART_BYTES],
            },
            Request::Noticed,
        ]
    }

    fn replies() -> Vec<Reply> {
        vec![
            Reply::Opened(None),
            Reply::Opened(Some(7)),
            Reply::Health(Health {
                problem: "a".repeat(MAX_NOTE_BYTES),
                failure: "é".repeat(MAX_NOTE_BYTES / 2),
            }),
            Reply::Failed(Fault::Slow, "too slow".to_owned()),
            Reply::Running,
        ]
    }

    #[test]
    fn every_message_reads_back() {
        for request in requests() {
            assert_eq!(Request::from_frame(&request.to_frame(9)), Ok((9, request)));
        }
        for reply in replies() {
            assert_eq!(Reply::from_frame(&reply.to_frame(9)), Ok((9, reply)));
        }
    }

    proptest! {
        /// Whatever is understood is written the same way again: no two frames mean the same.
        #[test]
        fn a_frame_has_one_reading(
            which in 0usize..16,
            changes in prop::collection::vec((0usize..60, any::<u8>()), 0..12),
        ) {
            let frames: Vec<Frame> = requests().iter().map(|request| request.to_frame(1))
                .chain(replies().iter().map(|reply| reply.to_frame(1))).collect();
            let mut frame: [u8; FRAME_BYTES] = frames[which];
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
