//! The sealed front, serving: tasks, signals, reload, and the end.

use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::armed::Armed;
use super::child::reap;
use super::confine::Account;
use super::desk::Desk;
use super::early::{EarlyClose, Overheard, watch_early};
use super::history::History;
use super::lease_error::LeaseError;
use super::leases::{Leases, watch_commands, watch_deadlines, watch_holders};
use super::link::{Link, Lost};
use super::lists::{FrontLists, watch_lists};
use super::measure::watch_exposure;
use super::notices::{Notices, send_notices};
use super::notify::{Notify, keep_alive};
use super::parts::{Remembered, Room};
use super::privilege::HostAccounts;
use super::rate_limit::RateLimit;
use super::recorder::{Around, Recorder, watch_evidence, watch_records};
use super::reload::Reloader;
use super::seal::Landlocked;
use super::{ControlSockets, Fatal, Listener, Options, Scraped, now, wall_clock};
use crate::answer::Pushed;
use crate::config::Config;
use crate::config::lists::Lists;
use crate::control::protocol::Exit;
use crate::control::server::{Authority, serve_control, serve_observe};
use crate::front::{self, Front, Rules};
use crate::locked::locked;
use crate::observe::metrics::Metrics;
use crate::observe::record::EndedBy;
use crate::observe::{Observer, scrape};

/// How long held connections may take to end after a stop was asked for. A validation's answer
/// takes milliseconds; systemd waits 90 s.
const DRAIN: Duration = Duration::from_secs(5);
/// How long taking everything away may take: a transaction, and the closing commands. With the drain
/// it stays below the unit's TimeoutStopSec=.
const REMOVAL: Duration = Duration::from_secs(8);
/// How often the observer looks whether something was left unwritten, and the service manager hears
/// what is new.
const TICK: Duration = Duration::from_secs(10);
/// How long the end of a daemon that cannot go on waits for its records to be written.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Everything that was prepared before the seal.
pub struct Daemon {
    pub options: Options,
    pub accounts: Remembered<HostAccounts>,
    pub upstream_ports: Vec<u16>,
    pub room: Room,
    pub config: Arc<Config>,
    pub listeners: Vec<Listener>,
    pub scraped: Vec<Scraped>,
    pub sockets: ControlSockets,
    pub pushed: Arc<Pushed>,
    pub rules: Rules,
    pub lists: Lists,
    pub problems: Vec<String>,
    pub notify: Notify,
    pub enforcer: UnixStream,
    pub child: Child,
    pub runner: Option<(UnixStream, Child)>,
    pub historian: Option<(UnixStream, Child)>,
    pub landlocked: Landlocked,
    pub account: Account,
}

/// How the daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// For good: our part of the ruleset goes.
    Stop,
    /// A restart follows: it stays, and windows with it.
    HandOver,
}

/// What a signal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// SIGTERM, SIGINT, SIGUSR1.
    End(End),
    /// SIGHUP.
    Reload,
}

/// Serves until a signal ends it, or the enforcer or the runner is lost.
pub async fn serve(daemon: Daemon) -> Result<(), Fatal> {
    let os = |error: std::io::Error| Fatal::new(Exit::Os, error);
    let mut signals = Signals::listen().map_err(os)?;
    let enforcer = tokio::net::UnixStream::from_std(daemon.enforcer).map_err(os)?;
    let (link, evidence, carrying) = Link::new(enforcer);
    let mut lost = tokio::spawn(carrying);
    let (runner, runner_child) = daemon.runner.unzip();
    let runner = runner.map(tokio::net::UnixStream::from_std);
    let runner = runner.transpose().map_err(os)?.map(Link::new);
    let (runner, runner_carrying) = runner.map(|(link, _, carrying)| (link, carrying)).unzip();
    let mut runner_lost = tokio::spawn(until_lost(runner_carrying));
    let (history, recording) = match daemon.historian {
        Some((socket, child)) => {
            let (history, carrying) = History::new(socket, child).map_err(os)?;
            (history, Some(tokio::spawn(carrying)))
        }
        None => (History::none(daemon.config.report.history), None),
    };
    let history = Arc::new(history);
    let (config_tx, config) = watch::channel(Arc::clone(&daemon.config));
    let metrics = Metrics::new().map_err(|error| Fatal::new(Exit::Software, error))?;
    let observer = Arc::new(Observer::new(metrics, now()));
    let (notices, to_tell) = Notices::new(config.clone());
    let notices = Arc::new(notices);
    let rate_limit = Arc::new(RateLimit::default());
    let around = Around {
        observer: Arc::clone(&observer),
        history: Arc::clone(&history),
        notices: Arc::clone(&notices),
        rate_limit: Arc::clone(&rate_limit),
        config: config.clone(),
    };
    let recorder = Arc::new(Recorder::new(around, evidence));
    let runner = runner.map(Arc::new);
    let (leases, to_watch) =
        Leases::new(link, runner.clone(), config.clone(), Arc::clone(&recorder));
    let leases = Arc::new(leases);
    if leases.adopt().await.is_err() {
        return Err(one_lost(&lost, daemon.child, runner_child).await);
    }

    let windows = Arc::clone(&leases.windows().borrow());
    recorder.adopt(&windows).await;

    let (rules_tx, rules) = watch::channel(Arc::new(daemon.rules));
    let (stop_tx, stop) = watch::channel(false);
    let early = Arc::new(EarlyClose::new(&daemon.config));
    recorder.recall_failures().await;
    let witness = Arc::new(Overheard::new(
        Arc::clone(&observer),
        Arc::clone(&early),
        Arc::clone(&recorder),
        Arc::clone(&rate_limit),
    ));
    let front = Arc::new(Front::new(rules.clone(), leases.windows(), witness));
    let desk = Arc::new(Desk {
        config,
        early: Arc::clone(&early),
        history: Arc::clone(&history),
        leases: Arc::clone(&leases),
        armed: Armed::default(),
        pushed: Arc::clone(&daemon.pushed),
        observer: Arc::clone(&observer),
        recorder: Arc::clone(&recorder),
        notices: Arc::clone(&notices),
        spoken: daemon.listeners.iter().map(|own| own.speaks).collect(),
        listeners: daemon
            .listeners
            .iter()
            .map(|listener| listener.address)
            .collect(),
        landlocked: daemon.landlocked,
        account: daemon.account,
        problems: Mutex::new(daemon.problems),
        rules,
        list_problems: Mutex::default(),
        oldest_list: Mutex::new(daemon.lists.oldest()),
        front: Arc::clone(&front),
        scraped_at: daemon.scraped.iter().map(|own| own.address).collect(),
        started: wall_clock(),
        rate_limit,
    });
    for problem in desk.problems().iter() {
        tracing::warn!("{problem}");
    }

    let mut serving: JoinSet<std::io::Result<()>> = JoinSet::new();
    for listener in daemon.listeners {
        serving.spawn(front::serve(
            listener.socket,
            listener.speaks,
            Arc::clone(&front),
            stop.clone(),
            DRAIN,
        ));
    }
    let authority: Arc<dyn Authority> = desk.clone();
    serving.spawn(serve_control(
        daemon.sockets.control,
        Arc::clone(&authority),
        stop.clone(),
    ));
    serving.spawn(serve_observe(
        daemon.sockets.observe,
        authority,
        stop.clone(),
    ));
    for scraped in daemon.scraped {
        let told = Arc::clone(&desk);
        let page: scrape::Page = Arc::new(move || told.tell_all().1);
        serving.spawn(scrape::serve(scraped.socket, page, stop.clone()));
    }
    // These have no end of their own and are dropped with the set.
    let mut watching: JoinSet<()> = JoinSet::new();
    watching.spawn(watch_holders(Arc::clone(&leases), to_watch));
    watching.spawn(watch_deadlines(Arc::clone(&leases)));
    watching.spawn(watch_early(early, Arc::clone(&leases)));
    watching.spawn(send_notices(notices, to_tell, runner));
    watching.spawn(watch_records(Arc::clone(&recorder)));
    watching.spawn(watch_evidence(Arc::clone(&recorder)));
    watching.spawn(watch_exposure(Arc::clone(&observer), leases.windows()));
    let watched = Arc::clone(&desk);
    watching.spawn(async move { watched.watch_armed().await });
    watching.spawn(watch_commands(Arc::clone(&leases)));
    let lists = Arc::new(FrontLists::new(daemon.lists));
    watching.spawn(watch_lists(
        Arc::clone(&lists),
        Arc::clone(&desk),
        config_tx.subscribe(),
        rules_tx.clone(),
    ));

    let reloader = Reloader {
        options: daemon.options,
        accounts: daemon.accounts,
        upstream_ports: daemon.upstream_ports,
        room: daemon.room,
        started_with: daemon.config,
        pushed: daemon.pushed,
        desk: desk.clone(),
        lists,
        config: config_tx,
        rules: rules_tx,
    };
    let notify = Arc::new(daemon.notify);
    watching.spawn(keep_alive(Arc::clone(&notify)));
    let mut line = desk.line();
    notify.ready(&line);
    tracing::info!(landlock = desk.landlocked.as_str(), "{line}");

    let mut tick = tokio::time::interval(TICK);
    let end = loop {
        tokio::select! {
            told = signals.next() => match told {
                Told::End(end) => break end,
                Told::Reload => {
                    notify.reloading();
                    tokio::select! {
                        () = reloader.reload() => {}
                        // Lists may take their time, and an end needs no new rules.
                        end = signals.end() => break end,
                    }
                    line = desk.line();
                    notify.ready(&line);
                }
            },
            _ = tick.tick() => {
                observer.tick(now());
                // What was wrong may be right again, and the other way round.
                let now = desk.line();
                if now != line {
                    line = now;
                    notify.status(&line);
                }
            }
            _ = &mut lost => {
                keep_records(&recorder).await;
                return Err(enforcer_lost(daemon.child).await);
            }
            _ = &mut runner_lost => {
                keep_records(&recorder).await;
                return Err(runner_lost_by(runner_child).await);
            }
            Some(served) = serving.join_next() => {
                let error = match served {
                    Ok(Ok(())) => "a listener ended".to_owned(),
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => error.to_string(),
                };
                keep_records(&recorder).await;
                return Err(Fatal::new(Exit::Software, format!("cannot go on serving: {error}")));
            }
        }
    };

    notify.stopping();
    tracing::info!(hand_over = end == End::HandOver, "stopping");
    let _ = stop_tx.send(true);
    let drained = async { while serving.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN * 2, drained).await.is_err() {
        tracing::warn!("some connections did not end in time and are cut");
    }
    if end == End::Stop {
        match tokio::time::timeout(REMOVAL, leases.remove_firewall(EndedBy::Stop)).await {
            Ok(Ok(())) => {}
            Ok(Err(error @ LeaseError::Command(..))) => {
                tracing::error!(%error, "what a command opened may still be open");
            }
            Ok(Err(error)) => not_removed(&error),
            Err(_) => not_removed(&"no answer in time"),
        }
    }
    recorder.hand_on_changed().await;
    history.finish().await;
    if let Some(recording) = recording {
        // It ends when the historian has; who holds it up is left behind.
        let _ = tokio::time::timeout(DRAIN, recording).await;
    }
    // The others end when our ends of the socket pairs do.
    watching.shutdown().await;
    lost.abort();
    runner_lost.abort();
    reap(daemon.child).await;
    if let Some(child) = runner_child {
        reap(child).await;
    }
    Ok(())
}

/// Has the records kept of a daemon that cannot go on: the next one takes them up.
async fn keep_records(recorder: &Recorder) {
    // What is late is written as far as the historian goes on by itself.
    let _ = tokio::time::timeout(LAST_WORD, recorder.hand_on_changed()).await;
}

impl Desk {
    pub(super) fn problems(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        locked(&self.problems)
    }

    fn line(&self) -> String {
        let listeners: Vec<String> = self.listeners.iter().map(ToString::to_string).collect();
        let health = self.leases.health();
        let listening = match listeners.as_slice() {
            [] => "windows only".to_owned(),
            listeners => format!("listening on {}", listeners.join(", ")),
        };
        if health.note.is_empty() {
            listening
        } else {
            format!("{listening}; {}", health.note)
        }
    }
}

fn not_removed(error: &dyn std::fmt::Display) {
    tracing::error!(%error,
        "our part of the ruleset could not be taken away: `acmegate firewall remove`"
    );
}

/// Ends when the runner is lost; never, where there is none.
async fn until_lost(carrying: Option<impl Future<Output = Lost>>) -> Lost {
    match carrying {
        Some(carrying) => carrying.await,
        None => std::future::pending().await,
    }
}

/// Which of the two was lost while the front asked both.
async fn one_lost(enforcer: &JoinHandle<Lost>, child: Child, runner: Option<Child>) -> Fatal {
    // The enforcer's carrier ends as soon as it sees the end of file.
    tokio::task::yield_now().await;
    match enforcer.is_finished() || runner.is_none() {
        true => enforcer_lost(child).await,
        false => runner_lost_by(runner).await,
    }
}

async fn runner_lost_by(child: Option<Child>) -> Fatal {
    let how = match child {
        Some(child) => reap(child).await,
        None => None,
    };
    let how = how.map_or_else(String::new, |status| format!(" ({status})"));
    Fatal::new(
        Exit::Software,
        format!("the runner is gone{how}; the next start closes what its commands left open"),
    )
}

async fn enforcer_lost(child: Child) -> Fatal {
    let status = reap(child).await;
    let how = status.map_or_else(String::new, |status| format!(" ({status})"));
    // Why it ended it has said itself, and its code says whose matter that is.
    let code = status.and_then(|status| u8::try_from(status.code()?).ok());
    Fatal::new(
        code.filter(|code| *code != 0)
            .map_or(Exit::Software, Exit::from_code),
        format!("the enforcer is gone{how}; what is open closes in the kernel by itself"),
    )
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hand_over: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            // The unit's RestartKillSignal.
            hand_over: signal(SignalKind::user_defined1())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

impl Signals {
    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::End(End::Stop),
            _ = self.interrupt.recv() => Told::End(End::Stop),
            _ = self.hand_over.recv() => Told::End(End::HandOver),
            _ = self.hang_up.recv() => Told::Reload,
        }
    }

    /// Leaves another reload for later.
    async fn end(&mut self) -> End {
        tokio::select! {
            _ = self.terminate.recv() => End::Stop,
            _ = self.interrupt.recv() => End::Stop,
            _ = self.hand_over.recv() => End::HandOver,
        }
    }
}
