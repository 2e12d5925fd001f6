//! What is looked at: a name, and how it is to be validated.

use hickory_net::proto::rr::Name;

use super::words::name;

/// A name that is to be validated, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) name: Name,
    /// `http-01` and the like.
    pub(super) methods: Vec<&'static str>,
    /// Whether a site stands for every label in front of it.
    pub(super) is_wildcard: bool,
    /// Whether a dns-persist-01 record is expected, and if so, one for the wildcard too.
    pub(super) persist: Option<bool>,
}

impl Subject {
    /// The name as people write it.
    pub(super) fn shown(&self) -> String {
        name(&self.name)
    }
}
