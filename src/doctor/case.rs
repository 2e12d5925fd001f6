//! What is examined: a host with its configuration, for the names that are to be validated.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::Config;
use crate::daemon::confine::Account;
use crate::daemon::parts;
use crate::firewall::ruleset::Settings;
use crate::gate::allow_list::AllowList;
use crate::gate::identifier::Identifier;

/// One host, and what is to be validated on it. Every exam gets the same case.
#[derive(Clone, Debug)]
pub struct Case {
    /// The checked configuration; the built-in defaults where there is no file.
    pub config: Config,
    /// What `[allow]` came to.
    pub allow: Arc<AllowList>,
    /// Where the daemon's sockets are.
    pub runtime_dir: PathBuf,
    /// What is to be validated: the names that were given, else those of the sites that stand for one name
    /// each.
    pub names: Vec<Identifier>,
    /// Whether the caller is root, in its user namespace.
    pub is_root: bool,
}

impl Case {
    /// The part of the ruleset that a daemon with this configuration would install here.
    pub fn settings(&self) -> Settings {
        let account = Account::to_be(&self.config);
        parts::orders(&self.config, self.allow.clone(), account).settings
    }
}
