//! Grants: what callers of the control socket besides root may ask.

use crate::gate::identifier::Pattern;

/// Looks accounts up. An argument, so that checking a file needs no system.
pub trait Accounts {
    /// The uid of the account with this name.
    fn user(&self, name: &str) -> Option<u32>;

    /// The group with this name.
    fn group(&self, name: &str) -> Option<Group>;
}

/// A group of accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its gid.
    pub gid: u32,
    /// The uids that name it as an additional group.
    pub members: Vec<u32>,
}

/// One `[[grant]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// To whom.
    pub who: Who,
    /// What; not empty, nothing twice.
    pub may: Vec<Verb>,
    /// For which identifiers tokens may be pushed; empty exactly if `may` has no [`Verb::Answer`].
    pub identifiers: Vec<Pattern>,
}

/// Whom a grant is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// The account with this uid.
    User(u32),
    /// Whoever has this gid as their own, or is one of the members.
    Group {
        /// The gid.
        gid: u32,
        /// The uids that name it as an additional group.
        members: Vec<u32>,
    },
}

/// What a caller may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Open a window.
    Open,
    /// Close one.
    Close,
    /// Push and withdraw tokens.
    Answer,
}
