//! Leases: one holder's claim that a window be open, what it opens, and who holds it. Values only;
//! how long a window is open is `window.rs`'s.

use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use super::identifier::Identifier;

/// The longest lease name, in octets. With holder, trigger and ports it fits the 127 octets of an
/// nftables comment, where a lease survives every process.
pub const MAX_LEASE_NAME_BYTES: usize = 40;
/// The most ports of one lease.
pub const MAX_PORTS: usize = 4;
/// The most characters of a holder's command name: what the kernel keeps (proc(5), `comm`).
pub const MAX_COMMAND_BYTES: usize = 15;
/// The longest name of an interface (netdevice(7): IFNAMSIZ without its NUL).
pub const MAX_INTERFACE_BYTES: usize = 15;
/// The largest process id (proc_sys_kernel(5), `pid_max` on 64-bit systems).
pub const MAX_PID: u32 = 1 << 22;
/// The latest start of a process, in clock ticks after boot: three hundred years at 100 a second.
pub const MAX_START_TICKS: u64 = 999_999_999_999;

/// A lease's name: 1 to 40 of `A-Z a-z 0-9 . _ : @ + -`, the first of them no hyphen, so that no program
/// that an operator hands it to takes it for an option.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseName(String);

impl LeaseName {
    /// Parses a name; anything else than the alphabet above is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=MAX_LEASE_NAME_BYTES).contains(&text.len())
            && !text.starts_with('-')
            && text.bytes().all(|byte| {
                byte.is_ascii_alphanumeric()
                    || matches!(byte, b'.' | b'_' | b':' | b'@' | b'+' | b'-')
            });
        fits.then(|| Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What it is counted as where its holder has this process id: a client that named no lease got
    /// one with its process id behind, and its next run is the same matter.
    #[must_use]
    pub fn counted(&self, holder: Option<u32>) -> Self {
        let counted = holder.and_then(|pid| {
            let name = self.0.strip_suffix(&pid.to_string())?;
            Self::parse(name.strip_suffix('-')?)
        });
        counted.unwrap_or_else(|| self.clone())
    }
}

impl fmt::Display for LeaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LeaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An address family of the Internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// What the status, and commands, call it.
    pub fn word(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }

    /// The family that packets from `address` belong to.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// Which families a lease opens. CAs prefer IPv6 and do not always fall back, so both is the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl Families {
    /// Both families.
    pub const BOTH: Self = Self { v4: true, v6: true };

    /// Whether `family` is one of them.
    pub fn has(self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// The process for which a lease is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its start, in clock ticks after boot (proc_pid_stat(5), field 22): pid and start name a
    /// process for good, where a pid alone is used again.
    pub start_ticks: u64,
    /// Its command name, at most [`MAX_COMMAND_BYTES`], printable ASCII without spaces.
    pub command: String,
}

impl Holder {
    /// Whether a kernel could have such a process. What a caller says of its client may be anything.
    pub fn is_possible(&self) -> bool {
        (1..=MAX_PID).contains(&self.pid) && self.start_ticks <= MAX_START_TICKS
    }
}

/// What made a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// Somebody, or somebody's hook, asked by the control socket.
    Asked,
    /// acmegate itself, because of what it saw.
    Automatic,
}

/// By which way validations come in, where a lease does not open all of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entrance {
    /// Every address of this host, by every interface.
    Any,
    /// This address of this host alone.
    Address(IpAddr),
    /// This interface alone.
    Interface(Interface),
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Interface {
    name: String,
    index: u32,
}

impl Interface {
    /// An interface by its name: 1 to 15 printable ASCII characters without spaces, slashes or
    /// colons (the kernel's own bound, IFNAMSIZ, and a little more for the sake of records). Its
    /// index is not known yet.
    pub fn parse(name: &str) -> Option<Self> {
        let fits = (1..=MAX_INTERFACE_BYTES).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'"'));
        fits.then(|| Self {
            name: name.to_owned(),
            index: 0,
        })
    }

    /// The same interface, with the number that the kernel gives it now.
    pub fn numbered(self, index: u32) -> Self {
        Self { index, ..self }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kernel's number for it, or 0 where nobody has asked yet. An interface that is made anew
    /// gets another one: a window by the old one does not open it.
    pub fn index(&self) -> u32 {
        self.index
    }
}

impl Entrance {
    /// The families that can come in there.
    pub fn families(&self) -> Families {
        Families {
            v4: self.is_of(Family::V4),
            v6: self.is_of(Family::V6),
        }
    }

    /// Whether packets of `family` can come in there at all.
    pub fn is_of(&self, family: Family) -> bool {
        match self {
            Self::Any | Self::Interface(_) => true,
            Self::Address(address) => Family::of(*address) == family,
        }
    }

    /// Whether a connection to this address of the host may have come in there. Which interface it
    /// came by is not to be seen in a connection: that is the kernel's to judge.
    pub fn may_be(&self, local: Option<IpAddr>) -> bool {
        match (self, local) {
            (Self::Address(address), Some(local)) => *address == local.to_canonical(),
            (Self::Address(_), None) => false,
            (Self::Any | Self::Interface(_), _) => true,
        }
    }
}

impl fmt::Display for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Address(address) => address.fmt(f),
            Self::Interface(interface) => f.write_str(&interface.name),
        }
    }
}

/// What the kernel's sets hold: a family's port, at one entrance.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Door {
    /// The family.
    pub family: Family,
    /// The TCP port.
    pub port: u16,
    /// The entrance.
    pub entrance: Entrance,
}

/// What a lease opens. What is optional is `None` or empty for "all".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// TCP ports, 1 to [`MAX_PORTS`] of them.
    pub ports: Vec<u16>,
    /// Address families.
    pub families: Families,
    /// By which way.
    pub entrance: Entrance,
    /// Which identifiers are being validated; `None` covers all.
    pub identifiers: Option<Vec<Identifier>>,
}

impl Scope {
    /// Every door that it opens.
    pub fn doors(&self) -> impl Iterator<Item = Door> + '_ {
        let Self {
            families, entrance, ..
        } = self;
        Family::ALL
            .into_iter()
            .filter(|family| families.has(*family) && entrance.is_of(*family))
            .flat_map(move |family| {
                self.ports.iter().map(move |port| Door {
                    family,
                    port: *port,
                    entrance: entrance.clone(),
                })
            })
    }
}

/// One holder's claim that the window be open, with a deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its number among the kernel's elements; 0 until it is acquired.
    pub id: u32,
    /// Its name; acquiring the same name again renews it.
    pub name: LeaseName,
    /// The process for which it is held, if that is known.
    pub holder: Option<Holder>,
    /// The uid that asked.
    pub caller: u32,
    /// What made it.
    pub trigger: Trigger,
    /// What it opens.
    pub scope: Scope,
    /// When it expires.
    pub deadline: Instant,
}

impl Lease {
    /// The name under which its time is counted. A client that named no lease got one with its
    /// process id behind: the next run of the same client is the same matter.
    pub(super) fn counted_as(&self) -> LeaseName {
        let pid = self.holder.as_ref().map(|holder| holder.pid);
        self.name.counted(pid)
    }

    /// Whether root itself asked for it.
    pub(super) fn is_roots(&self) -> bool {
        self.caller == 0 && self.trigger == Trigger::Asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_taken_for_an_option() {
        for name in ["a", "certbot-812", "+a", "@x:1.2_3", &"a".repeat(40)] {
            assert!(LeaseName::parse(name).is_some(), "{name}");
        }
        for name in ["", "a b", "a/b", "ä", "-", "-a", "--help", &"a".repeat(41)] {
            assert!(LeaseName::parse(name).is_none(), "{name}");
        }
    }
}
