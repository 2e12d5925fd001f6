//! Why the kernel is not as it should be, in words that name who can mend it.

use super::names::TABLE;
use super::rules::TAG_PRIORITY;
use super::ruleset::{ForeignChain, ForeignSet};

/// Why the kernel is not as it should be.
#[derive(Debug)]
pub enum KernelError {
    /// The administrator's set is not there. The operator's to mend.
    NoForeignSet(ForeignSet),
    /// It is there, but ports with a timeout do not fit into it. The operator's to mend.
    UnfitForeignSet(ForeignSet, &'static str),
    /// A chain of `[firewall] chains` is not there. The operator's to mend.
    NoForeignChain(ForeignChain),
    /// It is there, but our rule would do nothing in it. The operator's to mend.
    UnfitForeignChain(ForeignChain),
    /// It comes before our mark is set. The operator's to mend.
    EarlyForeignChain(ForeignChain),
    /// Its table belongs to a process that alone may change it. The operator's to mend.
    OwnedForeignTable(ForeignChain),
    /// Our table belongs to another living process.
    Owned,
    /// What was read back is not what was written.
    ReadBack(String),
    /// The kernel refused; what was being done is said with it.
    Refused(&'static str, Box<nlink::Error>),
}

impl std::fmt::Display for KernelError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoForeignSet(set) => write!(
                f,
                "the set `{set}` does not exist; in table {} {} declare `set {} {{ type inet_service; flags timeout; }}` \
                 and let the chain that drops say `tcp dport @{} accept`",
                set.family.name(),
                set.table,
                set.name,
                set.name
            ),
            Self::UnfitForeignSet(set, why) => write!(
                f,
                "the set `{set}` {why}; declare it as `set {} {{ type inet_service; flags timeout; }}`",
                set.name
            ),
            Self::NoForeignChain(chain) => write!(
                f,
                "the chain `{chain}` of [firewall] chains does not exist; `nft list chains` shows those that do, and \
                 where the firewall has no chain that drops, mode `guard` is the right one"
            ),
            Self::UnfitForeignChain(chain) => write!(
                f,
                "in the chain `{chain}` a rule of ours would open nothing: name a chain of type filter in prerouting, \
                 input or forward, the one that drops"
            ),
            Self::EarlyForeignChain(chain) => write!(
                f,
                "the chain `{chain}` comes before acmegate has marked anything (priority {TAG_PRIORITY} in prerouting): \
                 give it a priority above that, as `raw` is"
            ),
            Self::OwnedForeignTable(chain) => write!(
                f,
                "table {} {} belongs to its own program (flags owner) and nobody else can put a rule into it: \
                 open the port in that program's words and use mode `guard`",
                chain.family.name(),
                chain.table
            ),
            Self::Owned => write!(
                f,
                "table inet {TABLE} is owned by another living process; only one acmegate can run on a host"
            ),
            Self::ReadBack(what) => write!(f, "the kernel did not keep what was written: {what}"),
            Self::Refused(doing, error) if error.is_permission_denied() => {
                write!(
                    f,
                    "{doing}: not permitted; this needs CAP_NET_ADMIN, as root or as the systemd unit gives it"
                )
            }
            Self::Refused(doing, error) => write!(f, "{doing}: {error}"),
        }
    }
}

impl std::error::Error for KernelError {}

impl KernelError {
    /// Whether the configuration, ours or the firewall's, must change first.
    pub fn is_operators(&self) -> bool {
        matches!(
            self,
            Self::NoForeignSet(_)
                | Self::UnfitForeignSet(..)
                | Self::NoForeignChain(_)
                | Self::UnfitForeignChain(_)
                | Self::EarlyForeignChain(_)
                | Self::OwnedForeignTable(_)
        )
    }
}

/// Says what was being done when netlink refused.
pub(super) trait Doing<T> {
    fn doing(self, what: &'static str) -> Result<T, KernelError>;
}

impl<T> Doing<T> for nlink::Result<T> {
    fn doing(self, what: &'static str) -> Result<T, KernelError> {
        self.map_err(|error| KernelError::Refused(what, Box::new(error)))
    }
}
