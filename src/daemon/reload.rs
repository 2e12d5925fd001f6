//! Reload: everything is read again, and followed by all processes or by none.
//!
//! What only a restart can change is told; a bad configuration leaves the old one standing, loudly.

use std::sync::Arc;

use tokio::sync::watch;

use super::desk::Desk;
use super::history::HistoryError;
use super::lease_error::LeaseError;
use super::lists::{FrontLists, refreshed};
use super::parts::{self, Remembered, Room};
use super::privilege::HostAccounts;
use super::{Options, unnamed_ports};
use crate::answer::Pushed;
use crate::config::lists::Trust;
use crate::config::{Config, Unchecked};
use crate::front::Rules;

/// How the status begins to tell of a configuration that was refused.
const NOT_ACCEPTED: &str = "the configuration file was changed but not accepted";

/// What a reload needs.
pub(super) struct Reloader {
    pub(super) options: Options,
    pub(super) accounts: Remembered<HostAccounts>,
    pub(super) upstream_ports: Vec<u16>,
    pub(super) room: Room,
    pub(super) started_with: Arc<Config>,
    pub(super) pushed: Arc<Pushed>,
    pub(super) desk: Arc<Desk>,
    pub(super) lists: Arc<FrontLists>,
    pub(super) config: watch::Sender<Arc<Config>>,
    pub(super) rules: watch::Sender<Arc<Rules>>,
}

impl Reloader {
    /// Reads everything again; keeps the old configuration, loudly, when the new one is bad.
    pub(super) async fn reload(&self) {
        let mut problems = Vec::new();
        match self.try_reload(&mut problems).await {
            Ok(()) => {
                for problem in &problems {
                    tracing::warn!("{problem}");
                }
                tracing::info!("configuration reloaded");
            }
            Err(error) => {
                tracing::error!("the new configuration is not used, the old one stays:\n{error}");
                let line = error
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .trim_start_matches("error: ");
                // What was wrong with the old configuration still is.
                problems.clone_from(&self.desk.problems());
                problems.retain(|problem| !problem.starts_with(NOT_ACCEPTED));
                problems.push(format!(
                    "{NOT_ACCEPTED}: {line}; `acmegate config check` shows more"
                ));
            }
        }
        *self.desk.problems() = problems;
    }

    async fn try_reload(&self, problems: &mut Vec<String>) -> Result<(), String> {
        let path = self
            .started_with
            .source
            .as_deref()
            .or(self.options.config.as_deref());
        let config = Config::load_with(path, &self.accounts, &Unchecked).map_err(|error| {
            match self.accounts.take_missed() {
                Some(name) => format!(
                    "a [[grant]] names `{}`, which none did at start: that needs a restart, because a sealed \
                     process can look up no account",
                    name.escape_debug()
                ),
                None => error.to_string(),
            }
        })?;
        self.compare(&config, problems)?;
        if let Some(refusal) = self.desk.account.confined(&config).refusal(&config) {
            return Err(refusal.to_owned());
        }
        problems.extend(parts::missing_programs(&config));
        problems.extend(unnamed_ports(&config, self.desk.listeners.iter().copied()));
        let mut held = self.lists.turn().await;
        let lists = refreshed(&held, &config.allow, Trust::Asked).await?;
        let rules = parts::rules(&config, lists.list(), &self.pushed, self.room, problems)
            .map_err(|error| error.to_string())?;
        // The enforcer reads the same files itself; if it refuses, nobody changes.
        self.desk
            .leases
            .reload()
            .await
            .map_err(|error| match error {
                LeaseError::Command(..) => format!("the runner refuses: {error}"),
                error => format!("the enforcer refuses: {error}"),
            })?;
        self.desk.early.configure(&config);
        self.desk.tell_of_lists(&lists);
        *held = lists;
        self.rules.send_replace(Arc::new(rules));
        self.config.send_replace(Arc::new(config));
        // Last, because it may wait for a disk, and keeps nobody from anything.
        match self.desk.history.reload().await {
            Ok(()) | Err(HistoryError::Off) => {}
            Err(error) => tracing::warn!("[report] may not be followed yet: {error}"),
        }
        Ok(())
    }

    /// What only a restart can change is told, and what the seal no longer allows is refused.
    fn compare(&self, config: &Config, problems: &mut Vec<String>) -> Result<(), String> {
        let before = &self.started_with;
        let needs_restart = [
            ("[http] listen", before.http.listen != config.http.listen),
            ("[tls] listen", before.tls.listen != config.tls.listen),
            (
                "[metrics] listen",
                before.metrics.listen != config.metrics.listen,
            ),
            ("[daemon]", before.daemon != config.daemon),
            ("[log]", before.log != config.log),
            (
                "[report] history",
                before.report.history != config.report.history,
            ),
            (
                "the first [[grant]]",
                before.grants.is_empty() && !config.grants.is_empty(),
            ),
            (
                "the first command of [firewall], or command_net_admin,",
                needs_another_runner(before, config),
            ),
            ("the command of [notify]", needs_a_runner(before, config)),
        ];
        for (what, changed) in needs_restart {
            if changed {
                problems.push(format!("{what} was changed: that needs a restart"));
            }
        }
        let new_port = parts::upstream_ports(config)
            .into_iter()
            .find(|port| !self.upstream_ports.contains(port));
        match new_port {
            Some(port) => Err(format!(
                "an upstream, a server or a webhook on port {port}, which none had at start: the sealed process may not connect there before a restart"
            )),
            None => Ok(()),
        }
    }
}

/// A runner that was not started cannot be.
fn needs_a_runner(before: &Config, config: &Config) -> bool {
    let has_none = before.firewall.commands.is_none() && before.notify.notifier.is_none();
    has_none && config.notify.notifier.is_some()
}

/// What is run for leases a runner is started with, and keeps.
fn needs_another_runner(before: &Config, config: &Config) -> bool {
    match (&before.firewall.commands, &config.firewall.commands) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(before), Some(now)) => before.net_admin != now.net_admin,
    }
}
