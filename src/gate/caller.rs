//! Callers of the control socket, and what they may ask: a table from uid and gid to verbs and
//! identifiers. Root may ask everything; nobody else may ask anything that is not granted.

use super::identifier::{Identifier, Pattern};

/// Who is calling, by the kernel's word (unix(7), SO_PEERCRED).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Effective uid when it connected.
    pub uid: u32,
    /// Effective gid when it connected.
    pub gid: u32,
    /// Its process id in the daemon's namespace, if it has one there.
    pub pid: Option<u32>,
}

/// What a caller may be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Open a window.
    Open,
    /// Close one of its own.
    Close,
    /// Push and withdraw tokens.
    Answer,
    /// Read what windows let in, peers' addresses included.
    Report,
}

impl Verb {
    /// The verb as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Close => "close",
            Self::Answer => "answer",
            Self::Report => "report",
        }
    }
}

/// What a caller asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask<'ask> {
    /// Open a window.
    Open,
    /// Close a lease that this uid acquired.
    Close {
        /// Who acquired it.
        owner: u32,
    },
    /// Push or withdraw a token of this identifier.
    Answer(&'ask Identifier),
    /// Read what windows let in.
    Report,
    /// Put our part of the ruleset in place or take it away: root alone.
    Firewall,
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

impl Grant {
    fn is_for(&self, caller: Caller) -> bool {
        match &self.who {
            Who::User(uid) => caller.uid == *uid,
            Who::Group { gid, members } => caller.gid == *gid || members.contains(&caller.uid),
        }
    }
}

/// Whether `caller` may ask this.
pub fn may(grants: &[Grant], caller: Caller, ask: Ask<'_>) -> bool {
    if caller.uid == 0 {
        return true;
    }
    grants
        .iter()
        .filter(|grant| grant.is_for(caller))
        .any(|grant| match ask {
            Ask::Open => grant.may.contains(&Verb::Open),
            Ask::Close { owner } => grant.may.contains(&Verb::Close) && owner == caller.uid,
            Ask::Answer(identifier) => {
                grant.may.contains(&Verb::Answer)
                    && grant
                        .identifiers
                        .iter()
                        .any(|pattern| pattern.covers(identifier))
            }
            Ask::Report => grant.may.contains(&Verb::Report),
            Ask::Firewall => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(uid: u32, gid: u32) -> Caller {
        Caller {
            uid,
            gid,
            pid: None,
        }
    }

    #[test]
    fn root_may_everything_and_nobody_else_anything() {
        let name = Identifier::parse("example.com").unwrap();
        for ask in [
            Ask::Open,
            Ask::Close { owner: 5 },
            // Not even its own, should a grant have been taken away since.
            Ask::Close { owner: 1000 },
            Ask::Answer(&name),
            Ask::Report,
            Ask::Firewall,
        ] {
            assert!(may(&[], caller(0, 0), ask));
            assert!(
                !may(&[], caller(1000, 0), ask),
                "gid 0 is not root: {ask:?}"
            );
        }
    }

    #[test]
    fn a_grant_gives_its_verbs_for_its_identifiers_only() {
        let grants = [
            Grant {
                who: Who::Group {
                    gid: 50,
                    members: vec![1001],
                },
                may: vec![Verb::Open, Verb::Close],
                identifiers: vec![],
            },
            Grant {
                who: Who::User(1002),
                may: vec![Verb::Answer],
                identifiers: vec![Pattern::parse("*.example.com").unwrap()],
            },
            Grant {
                who: Who::User(1004),
                may: vec![Verb::Report],
                identifiers: vec![],
            },
        ];
        let own = Identifier::parse("www.example.com").unwrap();
        let other = Identifier::parse("example.org").unwrap();
        for member in [caller(1000, 50), caller(1001, 100)] {
            assert!(may(&grants, member, Ask::Open));
            assert!(may(&grants, member, Ask::Close { owner: member.uid }));
            assert!(!may(&grants, member, Ask::Close { owner: 0 }));
            assert!(!may(&grants, member, Ask::Answer(&own)));
            assert!(!may(&grants, member, Ask::Report));
            assert!(!may(&grants, member, Ask::Firewall));
        }
        assert!(may(&grants, caller(1004, 100), Ask::Report));
        assert!(!may(&grants, caller(1004, 100), Ask::Open));
        assert!(may(&grants, caller(1002, 100), Ask::Answer(&own)));
        assert!(!may(&grants, caller(1002, 100), Ask::Answer(&other)));
        assert!(!may(&grants, caller(1002, 100), Ask::Open));
        assert!(!may(&grants, caller(1003, 100), Ask::Open));
    }
}
