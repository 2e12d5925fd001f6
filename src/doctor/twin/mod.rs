//! Proves what becomes of a packet: the ruleset is copied into a throw-away namespace, with interfaces of the same
//! names, numbers and addresses, and real packets are sent to it; the kernel's own trace tells the rest.
//!
//! Copied octet by octet over netlink, not by `nft list`: no program can print everything that iptables-nft
//! writes in a form that can be loaded again. The namespace has no way out: nothing that is sent there can reach the
//! host's own network, and nothing of the host is changed. What is not in the copy is said.
//!
//! | file | |
//! | --- | --- |
//! | `order.rs` | what is asked and answered |
//! | `netlink.rs` | messages and sockets |
//! | `ruleset.rs` `ruleset/` | the ruleset, read, sent and put back |
//! | `network.rs` `network/` | interfaces, addresses, routes, switches |
//! | `listing.rs` `pieces.rs` | a saved ruleset, loaded by the program that printed it |
//! | `watch.rs` `packet.rs` `knock.rs` | what is sent, and what became of it |
//! | `guard.rs` | our own table, with the window shut and open |
//! | `words.rs` `advice.rs` | rules in nft's words; what to do about what drops |
//! | `answers.rs` | who answers, and whether that gets out |
//! | `entrances.rs` `visits.rs` | what is knocked at, and by whom |
//! | `exam.rs` `exam/` `opening.rs` | the doctor's findings; one opening alone |
//! | `inside.rs` | the process that is the twin: `acmegate twin` |

mod advice;
mod answers;
mod entrances;
mod exam;
mod guard;
mod inside;
mod knock;
mod listing;
mod netlink;
mod network;
mod opening;
mod order;
mod packet;
mod pieces;
mod ruleset;
mod visits;
mod watch;
mod words;

use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use self::netlink::Socket;
use self::ruleset::{Elements, Ruleset};
use super::namespaces::Netns;

pub use self::entrances::{Door, doors};
pub use self::exam::{
    ALL, PROVED_ANSWERS_DROPPED, PROVED_DROPPED, PROVED_DROPPED_FOR_SOME, PROVED_ELSEWHERE,
    PROVED_LOST, PROVED_OPEN_WITHOUT_WINDOW, PROVED_PASSES, examine, examine_by,
};
pub use self::inside::{NOT_CARRIED, run};
pub use self::opening::{Opening, prove_opening};
pub use self::order::{Answer, MAX_KNOCKS, MAX_LISTING_BYTES, Order, PATIENCE, Source, Window};

/// The longest answer: some 100 octets for each step of each knock.
const MAX_ANSWER_BYTES: u64 = 64 << 20;
/// What the twin gets beyond its own patience, to say that it ran out.
const GRACE: Duration = Duration::from_secs(2);

/// What is said of a twin that could not be made, or did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TwinError {
    /// The system refuses namespaces: what was refused, and what may allow it.
    Namespaces(String, Vec<String>),
    /// Only root may read the live ruleset.
    NoPower,
    /// A saved listing cannot be loaded: why.
    Listing(String),
    /// The order is larger than what is tried.
    TooMuch(String),
    /// It took too long, and was ended.
    Late(Duration),
    /// The kernel lacks something, or the process broke.
    Broken(String),
}

impl fmt::Display for TwinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespaces(reason, _) => f.write_str(reason),
            Self::NoPower => f.write_str(
                "only root may read the live ruleset: `sudo`, or a saved one with `--ruleset FILE`",
            ),
            Self::Listing(why) => write!(f, "the saved ruleset cannot be loaded: {why}"),
            Self::TooMuch(what) => f.write_str(what),
            Self::Late(after) => {
                write!(f, "the twin was not done after {} s", after.as_secs())
            }
            Self::Broken(why) => write!(f, "the twin broke: {why}"),
        }
    }
}

impl std::error::Error for TwinError {}

impl TwinError {
    /// What may allow it, a line each, the likeliest first.
    pub fn ways_out(&self) -> &[String] {
        match self {
            Self::Namespaces(_, ways) => ways,
            _ => &[],
        }
    }
}

/// Makes a twin, sends it the order's knocks, and tells what became of each. The twin is a process of its own, this
/// program's `twin`; it is ended when the caller goes away, and when its time is up.
///
/// # Errors
/// [`TwinError`].
pub async fn prove(order: &Order) -> Result<Answer, TwinError> {
    prove_by(Path::new("/proc/self/exe"), order).await
}

/// The same by another copy of this program.
///
/// # Errors
/// [`TwinError`].
pub async fn prove_by(program: &Path, order: &Order) -> Result<Answer, TwinError> {
    check(order)?;
    let broken = |error: std::io::Error| TwinError::Broken(error.to_string());
    let letter = serde_json::to_vec(&order::Letter::of(order))
        .map_err(|error| TwinError::Broken(error.to_string()))?;
    let mut child = Command::new(program)
        .arg("twin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // With everything that it starts.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(broken)?;
    let mut group = Group(child.id());
    let answered = timeout(order.patience + GRACE, exchange(&mut child, &letter)).await;
    let (answer, errors) = match answered {
        Ok(answered) => answered.map_err(broken)?,
        Err(_) => return Err(TwinError::Late(order.patience)),
    };
    // It has ended: its number may be somebody else's soon.
    group.0 = None;
    match serde_json::from_slice::<Result<Answer, TwinError>>(&answer) {
        Ok(answer) => answer,
        Err(_) => {
            let errors = String::from_utf8_lossy(&errors);
            let last = errors.lines().last().unwrap_or("it said nothing");
            Err(TwinError::Broken(last.to_owned()))
        }
    }
}

async fn exchange(child: &mut Child, letter: &[u8]) -> std::io::Result<(Vec<u8>, Vec<u8>)> {
    let (Some(mut input), Some(output), Some(errors)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(std::io::Error::other("no pipes"));
    };
    let write = async {
        // A twin that ends early has said why.
        let _ = input.write_all(letter).await;
        drop(input);
    };
    let (mut answer, mut told) = (Vec::new(), Vec::new());
    let mut output = output.take(MAX_ANSWER_BYTES);
    let mut errors = errors.take(1 << 16);
    let (_, read, heard) = tokio::join!(
        write,
        output.read_to_end(&mut answer),
        errors.read_to_end(&mut told)
    );
    read.and(heard)?;
    child.wait().await?;
    Ok((answer, told))
}

/// The twin's process group: whatever of it is left ends when this goes.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let leader = self.0.and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(leader) = leader {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Copies the ruleset of the namespace that the calling thread is in to another one, which has none yet. What the
/// kernel refused there, a line each.
///
/// # Errors
/// The kernel's: no CAP_NET_ADMIN in one of them.
pub fn copy_ruleset(into: &Netns) -> std::io::Result<Vec<String>> {
    let read = Ruleset::read(&mut Socket::netfilter()?, Elements::All)?;
    let mut socket = into.within(Socket::netfilter)??;
    Ok(read.send(&mut socket)?.missing)
}

fn check(order: &Order) -> Result<(), TwinError> {
    let knocks = order.knocks.len().saturating_mul(order.windows.len());
    if knocks > MAX_KNOCKS {
        return Err(TwinError::TooMuch(format!(
            "{knocks} packets are more than the {MAX_KNOCKS} that are tried"
        )));
    }
    if let Source::Listing(listings) = &order.source {
        let bytes: usize = listings.iter().map(String::len).sum();
        if bytes > MAX_LISTING_BYTES {
            return Err(TwinError::TooMuch(format!(
                "a saved ruleset of {bytes} octets is longer than the {MAX_LISTING_BYTES} that are read"
            )));
        }
    }
    let mismatched = order
        .knocks
        .iter()
        .find(|knock| !order::same_family(knock.source, knock.destination));
    if let Some(knock) = mismatched {
        return Err(TwinError::TooMuch(format!(
            "{} and {} are not of one family",
            knock.source, knock.destination
        )));
    }
    let needs_settings = order
        .windows
        .iter()
        .any(|window| *window != Window::AsItStands);
    if needs_settings && order.settings.is_none() {
        return Err(TwinError::TooMuch(
            "without settings there is no window to shut or open".to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::path::{Knock, Protocol};

    fn order(knocks: usize, windows: usize) -> Order {
        let knock = Knock {
            interface: "eth0".to_owned(),
            source: "198.51.100.7".parse().unwrap(),
            destination: "192.0.2.1".parse().unwrap(),
            protocol: Protocol::Tcp,
            port: 80,
        };
        Order {
            source: Source::Live,
            settings: None,
            windows: vec![Window::AsItStands; windows],
            knocks: vec![knock; knocks],
            patience: PATIENCE,
        }
    }

    #[test]
    fn what_is_too_much_is_refused_before_a_process_is_started() {
        let too_much = |order: &Order| matches!(check(order), Err(TwinError::TooMuch(_)));
        assert!(!too_much(&order(MAX_KNOCKS / 2, 2)));
        assert!(too_much(&order(MAX_KNOCKS / 2 + 1, 2)));
        let long = |octets: usize| Order {
            source: Source::Listing(vec![String::new(), "x".repeat(octets)]),
            ..order(1, 1)
        };
        assert!(!too_much(&long(MAX_LISTING_BYTES)));
        assert!(too_much(&long(MAX_LISTING_BYTES + 1)));
        let mut mixed = order(2, 1);
        mixed.knocks[1].source = "2001:db8::7".parse().unwrap();
        assert!(too_much(&mixed));
        let mut without_settings = order(1, 2);
        without_settings.windows[1] = Window::Open;
        assert!(too_much(&without_settings));
    }
}
