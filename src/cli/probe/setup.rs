//! What one probe is about: checked before anything is touched, and the same for everything that it does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::doctor::probe::vantage::From;
use crate::doctor::probe::web::{Key, Url};
use crate::gate::allow_list::AllowList;
use crate::gate::identifier::Identifier;

/// What is asked, and by whom.
#[derive(Debug)]
pub struct Setup {
    /// The names, each once.
    pub names: Vec<Identifier>,
    /// Who is asked.
    pub from: Vec<From>,
    /// Where Let's Debug is, if it is asked.
    pub letsdebug: Option<Url>,
    /// Which name servers vantage points ask; none for those of each zone.
    pub name_servers: Vec<String>,
    /// Which CAs CAA has to permit; none for the service's own.
    pub issuers: Vec<String>,
    /// The key for services.
    pub key: Option<Key>,
    /// For how long anybody is waited for.
    pub timeout: Duration,
    /// Who gets in anyway.
    pub allow: Arc<AllowList>,
    /// Where the daemon's sockets are.
    pub runtime_dir: PathBuf,
    /// The configuration.
    pub config: Config,
}
