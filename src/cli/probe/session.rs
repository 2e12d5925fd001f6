//! What a probe puts up, and takes away again: a window that this process holds, and random tokens.

use std::path::PathBuf;
use std::time::Duration;

use super::setup::Setup;
use crate::cli::terminal::complain;
use crate::cli::{Failure, caller, granted, open};
use crate::control::client;
use crate::control::protocol::{Ask, ChallengeName, Exit, Open, ReportWord, Response};
use crate::doctor::probe::Question;
use crate::doctor::probe::seen::Vantage;
use crate::doctor::probe::verdict::Probe;
use crate::gate::site::site_for;
use crate::observe::record::{Record, Source};

/// How long places are waited for; the history looks them up when a window's record is stored.
const PLACES: Duration = Duration::from_secs(2);
/// How often they are looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The tokens of one asker: one for each name.
pub type Questions = Vec<Question>;

/// A window and tokens.
#[derive(Debug)]
pub struct Session {
    runtime_dir: PathBuf,
    /// The lease; none without a window.
    lease: Option<String>,
    /// Tokens for this host itself.
    pub here: Questions,
    /// Tokens for each that `--from` names, in that order.
    pub from: Vec<Questions>,
    /// Tokens for Let's Debug, if it is asked.
    pub letsdebug: Questions,
}

impl Session {
    /// Opens the window for so many milliseconds, unless none is wanted, and pushes the tokens. If something is
    /// refused, nothing of it stays.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn begin(setup: &Setup, window: Option<u64>) -> Result<Self, Failure> {
        let tokens = || questions(setup);
        let letsdebug = match setup.letsdebug {
            Some(_) => tokens()?,
            None => Vec::new(),
        };
        let mut session = Self {
            runtime_dir: setup.runtime_dir.clone(),
            lease: None,
            here: tokens()?,
            from: setup
                .from
                .iter()
                .map(|_| tokens())
                .collect::<Result<_, _>>()?,
            letsdebug,
        };
        match session.open(setup, window).await {
            // Nobody was there who could have opened it.
            Err(failure) if failure.exit == Exit::Unavailable => return Err(failure),
            Err(failure) => {
                session.end().await;
                return Err(failure);
            }
            Ok(()) => {}
        }
        match session.push(setup, window).await {
            Ok(()) => Ok(session),
            Err(failure) => {
                session.end().await;
                Err(failure)
            }
        }
    }

    async fn open(&mut self, setup: &Setup, window: Option<u64>) -> Result<(), Failure> {
        let longest = u64::try_from(setup.config.window.max.as_millis()).unwrap_or(u64::MAX);
        if let Some(length) = window {
            let lease = format!("probe-{}", std::process::id());
            self.lease = Some(lease.clone());
            let wanted = Open {
                lease,
                milliseconds: Some(length.min(longest)),
                validates: Some(ChallengeName::Http01),
                identifiers: Some(setup.names.iter().map(ToString::to_string).collect()),
                holder: caller::this("probe"),
                // A CA counts no probe, so failures that it would count do not stop one.
                force: true,
                ..Open::default()
            };
            let runtime_dir = self.runtime_dir.clone();
            let opened =
                tokio::task::spawn_blocking(move || open::acquire(&runtime_dir, wanted, None))
                    .await;
            let opened = opened.map_err(|error| Failure::new(Exit::Software, error))??;
            for warning in &opened.warnings {
                complain(format_args!("acmegate: warning: {warning}"));
            }
        }
        Ok(())
    }

    async fn push(&self, setup: &Setup, window: Option<u64>) -> Result<(), Failure> {
        let pushes: Vec<Ask> = self
            .questions()
            .map(|question| Ask::AnswerAdd {
                challenge: ChallengeName::Http01,
                identifier: question.name.to_string(),
                key_authorization: Some(question.answer.to_body()),
                digest: None,
                milliseconds: window.or(Some(crate::cli::milliseconds(setup.timeout))),
            })
            .collect();
        let runtime_dir = self.runtime_dir.clone();
        let pushed = tokio::task::spawn_blocking(move || {
            pushes.into_iter().try_for_each(|push| {
                let response = client::ask(&runtime_dir, push)?;
                granted(response).map(drop)
            })
        });
        pushed
            .await
            .map_err(|error| Failure::new(Exit::Software, error))?
    }

    fn questions(&self) -> impl Iterator<Item = &Question> {
        let from = self.from.iter().flatten();
        self.here.iter().chain(from).chain(&self.letsdebug)
    }

    /// Takes all of it away. What cannot be taken away ends by itself, and that is said.
    pub async fn end(&mut self) {
        let withdrawals = self.questions().map(|question| Ask::AnswerRemove {
            challenge: ChallengeName::Http01,
            identifier: question.name.to_string(),
            token: question.answer.token().as_str().to_owned(),
        });
        // The window first: it is what lets somebody in.
        let close = self
            .lease
            .clone()
            .map(|lease| Ask::Close { lease, said: None });
        let asks: Vec<Ask> = close.into_iter().chain(withdrawals).collect();
        let runtime_dir = self.runtime_dir.clone();
        let ended = tokio::task::spawn_blocking(move || {
            asks.into_iter()
                .try_for_each(|ask| client::ask(&runtime_dir, ask).map(drop))
        });
        match ended.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => complain(format_args!(
                "acmegate: the window may stay open until its time is over, and tokens as long: {error}"
            )),
            Err(error) => complain(format_args!("acmegate: {error}")),
        }
    }

    /// Asks the daemon for the record of our window.
    async fn record(&self) -> Option<Record> {
        let word = ReportWord {
            lease: Some(self.lease.clone()?),
            ..ReportWord::default()
        };
        let runtime_dir = self.runtime_dir.clone();
        let asked =
            tokio::task::spawn_blocking(move || client::ask(&runtime_dir, Ask::Report(word)));
        let response: Response = asked.await.ok()?.ok()?;
        response.report.last()?.read().ok()
    }

    /// From which addresses each asked, as the gate's record has it.
    pub async fn who_came(&self, probe: &mut Probe, setup: &Setup) {
        let Some(record) = self.record().await else {
            if self.lease.is_some() {
                probe.not_covered.push(
                    "from which addresses they came: the daemon has no record of the window"
                        .to_owned(),
                );
            }
            return;
        };
        for (from, questions) in setup.from.iter().zip(&self.from) {
            let from = from.to_string();
            for question in questions {
                let (name, mark) = (question.name.to_string(), question.mark());
                let asked_for_it = |source: &&Source| {
                    source
                        .visits
                        .iter()
                        .any(|visit| visit.token.as_deref() == Some(mark.as_str()))
                };
                let came: Vec<_> = record
                    .sources
                    .iter()
                    .filter(asked_for_it)
                    .map(|source| source.address)
                    .collect();
                let is_it = |vantage: &&mut Vantage| vantage.from == from;
                if let Some(vantage) = probe.vantage_points.iter_mut().find(is_it) {
                    for address in &came {
                        if !vantage.addresses.contains(address) {
                            vantage.addresses.push(*address);
                        }
                    }
                    let of = vantage.views.iter_mut().find(|view| view.name == name);
                    if let Some(view) = of {
                        view.came_from = came;
                    }
                } else if let Some(service) = probe
                    .services
                    .iter_mut()
                    .find(|service| service.from == from)
                {
                    service.came_from.extend(came);
                    service.came_from.sort_unstable();
                    service.came_from.dedup();
                }
            }
        }
    }

    /// In which regions they are, where databases tell.
    pub async fn where_they_are(&self, probe: &mut Probe, setup: &Setup) {
        if setup.config.report.databases.is_empty() || self.lease.is_none() {
            return;
        }
        let deadline = tokio::time::Instant::now() + PLACES;
        let record = loop {
            let record = self.record().await;
            let is_known =
                |record: &Record| record.sources.iter().any(|source| source.place.is_some());
            if record.as_ref().is_some_and(is_known) || tokio::time::Instant::now() > deadline {
                break record;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        };
        let sources = record.map(|record| record.sources).unwrap_or_default();
        for vantage in &mut probe.vantage_points {
            let of = sources
                .iter()
                .filter(|source| vantage.addresses.contains(&source.address));
            let regions = of.filter_map(|source| source.place.as_ref()?.region);
            vantage.regions = regions.collect();
            vantage.regions.sort_unstable();
            vantage.regions.dedup();
        }
    }
}

/// One token for each name, in the account that its site wants.
fn questions(setup: &Setup) -> Result<Questions, Failure> {
    let sites = setup.config.gate_sites();
    let one = |name: &crate::gate::identifier::Identifier| {
        let account = site_for(&sites, name).and_then(|(_, site)| site.accounts.first().cloned());
        Question::of(name.clone(), account).map_err(|error| Failure::new(Exit::Os, error))
    };
    setup.names.iter().map(one).collect()
}
