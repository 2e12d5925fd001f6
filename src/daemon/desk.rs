//! The desk: what callers of the control socket get, and what the status says.
//!
//! It checks who may ask what, turns words into values, and passes on to the book of leases and
//! the store of answers. Every refusal says what to do next.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::armed::Armed;
use super::asked_ports::asked_ports;
use super::confine::Account;
use super::early::EarlyClose;
use super::history::History;
use super::lease_error::LeaseError;
use super::leases::Leases;
use super::notices::Notices;
use super::now;
use super::rate_limit::RateLimit;
use super::recorder::Recorder;
use super::refused::{Refused, explain, not_yours};
use super::seal::Landlocked;
use super::words::{Told, entrance, identifier, lease_name};
use crate::answer::Pushed;
use crate::config::{Config, format_duration};
use crate::control::protocol::{Ask, Exit, FamilyName, Open, Response, SaidWord};
use crate::firewall::message::Claim;
use crate::firewall::record::command_name;
use crate::front::{Front, Rules, Speaks};
use crate::gate::caller::{Ask as GateAsk, Caller, may};
use crate::gate::identifier::Identifier;
use crate::gate::lease::{Entrance, Families, Holder, LeaseName, Trigger};
use crate::observe::Observer;
use crate::observe::record::EndedBy;

/// Everything that callers can reach.
pub struct Desk {
    /// The configuration in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// The book of leases.
    pub leases: Arc<Leases>,
    /// The armed leases.
    pub armed: Armed,
    /// What may end before its time.
    pub early: Arc<EarlyClose>,
    /// Windows that were.
    pub history: Arc<History>,
    /// The pushed answers.
    pub pushed: Arc<Pushed>,
    /// What was seen.
    pub observer: Arc<Observer>,
    /// What becomes of windows.
    pub recorder: Arc<Recorder>,
    /// Who is told of windows.
    pub notices: Arc<Notices>,
    /// The addresses that are really listened on.
    pub listeners: Vec<SocketAddr>,
    /// What is spoken there.
    pub spoken: Vec<Speaks>,
    /// How far landlock went.
    pub landlocked: Landlocked,
    /// Who the processes run as.
    pub account: Account,
    /// What the front decides by.
    pub rules: watch::Receiver<Arc<Rules>>,
    /// What is wrong since the last start or reload, for the status.
    pub problems: Mutex<Vec<String>>,
    /// What is wrong with the lists now, for the status.
    pub list_problems: Mutex<Vec<String>>,
    /// When the oldest of the lists was written.
    pub oldest_list: Mutex<Option<SystemTime>>,
    /// Who holds the connections.
    pub front: Arc<Front>,
    /// The addresses where metrics are shown.
    pub scraped_at: Vec<SocketAddr>,
    /// When the daemon started.
    pub started: SystemTime,
    /// What failed lately.
    pub rate_limit: Arc<RateLimit>,
}

impl Desk {
    /// Does what is asked; a refusal says what to do next.
    pub(super) async fn serve(
        &self,
        caller: Caller,
        ask: Ask,
        under: Option<String>,
    ) -> Result<Response, Refused> {
        match ask {
            Ask::Open(open) => self.open(caller, open, None).await,
            // Only a connection that stays can have one.
            Ask::Arm(_) => Err(Refused::new(Exit::Software, "nothing was armed")),
            Ask::Close { lease, said } => self.close(caller, &lease, said).await,
            Ask::Report(which) => self.report(caller, which).await,
            Ask::Watch => Err(Refused::new(Exit::Software, "nobody stayed to watch")),
            Ask::AnswerAdd {
                challenge,
                identifier,
                key_authorization,
                digest,
                milliseconds,
            } => {
                let challenge = challenge.to_type();
                let told = Told::of(challenge, key_authorization, digest)?;
                let answer = self.answer(caller, &identifier, told)?;
                let opened = self
                    .open_for_token(caller, under, challenge, &answer.0)
                    .await?;
                let added = self.add_answer(caller, answer, milliseconds)?;
                Ok(match opened {
                    None => added,
                    Some(opened) => Response {
                        message: format!("{}; {}", opened.message, added.message),
                        warnings: opened.warnings,
                        ..added
                    },
                })
            }
            Ask::AnswerRemove {
                challenge,
                identifier,
                token,
            } => self.remove_answer(caller, challenge.to_type(), &identifier, &token),
            Ask::FirewallApply => {
                self.permit(caller, GateAsk::Firewall, "change the firewall")?;
                self.leases
                    .apply_firewall()
                    .await
                    .map_err(|error| self.explain(error))?;
                Ok(Response::done("our part of the ruleset is in the kernel"))
            }
            Ask::FirewallRemove => {
                self.permit(caller, GateAsk::Firewall, "change the firewall")?;
                self.leases
                    .remove_firewall(EndedBy::Removed)
                    .await
                    .map_err(|error| self.explain(error))?;
                Ok(Response::done(
                    "our part of the ruleset is gone, every lease ended; `acmegate firewall apply` puts it back",
                ))
            }
        }
    }

    pub(super) fn permit(
        &self,
        caller: Caller,
        ask: GateAsk<'_>,
        what: &str,
    ) -> Result<(), Refused> {
        if may(&self.config.borrow().grants, caller, ask) {
            return Ok(());
        }
        Err(Refused::new(
            Exit::NoPerm,
            format!(
                "uid {} may not {what}: run as root, or add a [[grant]] for this account",
                caller.uid
            ),
        ))
    }

    pub(super) fn lives(&self, name: &LeaseName) -> bool {
        let windows = self.leases.windows();
        let windows = windows.borrow();
        windows
            .lease(name)
            .is_some_and(|lease| lease.deadline > now())
    }

    /// What is asked, in values.
    pub(super) fn claim(
        &self,
        caller: Caller,
        open: &Open,
    ) -> Result<(Claim, Option<Vec<Identifier>>), Refused> {
        let name = lease_name(&open.lease)?;
        let identifiers = open
            .identifiers
            .as_ref()
            .map(|texts| {
                texts
                    .iter()
                    .map(|text| identifier(text))
                    .collect::<Result<Vec<_>, _>>()
            })
            .transpose()?;
        let (ports, max) = {
            let config = self.config.borrow();
            let ports = asked_ports(&config, open, identifiers.as_deref())?;
            (ports, config.window.max)
        };
        let entrance = entrance(open.address, open.interface.as_deref())?;
        let length = open.milliseconds.map_or(max, Duration::from_millis);
        if length > max {
            return Err(Refused::new(
                Exit::Data,
                format!(
                    "{} is longer than the {} of [window] max",
                    format_duration(length),
                    format_duration(max)
                ),
            ));
        }
        let claim = Claim {
            name,
            // A pid of another process namespace would name somebody else here.
            holder: open
                .holder
                .as_ref()
                .filter(|holder| caller.pid == Some(holder.caller_pid))
                .map(|holder| Holder {
                    pid: holder.pid,
                    start_ticks: holder.start_ticks,
                    command: command_name(&holder.command),
                })
                .filter(Holder::is_possible),
            caller: caller.uid,
            trigger: Trigger::Asked,
            ports,
            families: match open.family {
                None => entrance.families(),
                Some(FamilyName::Ipv4) => Families {
                    v4: true,
                    v6: false,
                },
                Some(FamilyName::Ipv6) => Families {
                    v4: false,
                    v6: true,
                },
            },
            entrance,
            is_scoped: identifiers.is_some(),
            length,
        };
        Ok((claim, identifiers))
    }

    /// Opens as asked. `about` is the identifier whose token makes it open, where one does.
    pub(super) async fn acquire(
        &self,
        caller: Caller,
        open: Open,
        about: Option<&Identifier>,
    ) -> Result<Response, Refused> {
        self.permit(caller, GateAsk::Open, "open a window")?;
        let (claim, identifiers) = self.claim(caller, &open)?;
        self.permit_lease(caller, &claim.name)?;
        // Who has a window already makes no new attempt by keeping it.
        if !self.lives(&claim.name) && !open.force {
            let pid = claim.holder.as_ref().map(|holder| holder.pid);
            let named = identifiers.as_deref();
            self.within_failures((&claim.name, pid), caller.uid, named, about)?;
        }
        let (what, ports) = (describe(&claim), claim.ports.clone());
        let (found, acquired, message) = if open.dry_run {
            let found = self
                .leases
                .check(claim, identifiers)
                .await
                .map_err(|error| self.explain(error))?;
            (found, None, format!("would open: {what}"))
        } else {
            let opened = self
                .leases
                .open(claim, identifiers)
                .await
                .map_err(|error| self.explain(error))?;
            self.early.follow(&self.leases.windows().borrow());
            (opened.health, opened.acquired, format!("open: {what}"))
        };
        let mut response = Response::done(message);
        if !found.note.is_empty() {
            response.warnings.push(format!(
                "in the way of some packets, perhaps: {}",
                found.note
            ));
        }
        response.surveyed = found.surveyed;
        response.acquired = acquired.map(Box::new);
        response.ports = ports;
        response.gate_ports = self.gate_ports();
        Ok(response)
    }

    /// The ports on which a peer that a window let in meets the gate.
    fn gate_ports(&self) -> Vec<u16> {
        let config = self.config.borrow();
        let targets = [config.http.divert, config.tls.divert];
        let listened = self.listeners.iter().map(SocketAddr::port);
        let own = listened.filter(|port| !targets.contains(&Some(*port)));
        own.chain(config.diverted().into_iter().map(|(port, _)| port))
            .collect()
    }

    /// A name that somebody else's lease has is theirs: renewing it would change its end.
    pub(super) fn permit_lease(&self, caller: Caller, name: &LeaseName) -> Result<(), Refused> {
        let windows = self.leases.windows();
        let owner = windows.borrow().lease(name).map(|lease| lease.caller);
        match owner {
            Some(owner) if owner != caller.uid && caller.uid != 0 => Err(not_yours(name, owner)),
            _ => Ok(()),
        }
    }

    async fn close(
        &self,
        caller: Caller,
        lease: &str,
        said: Option<SaidWord>,
    ) -> Result<Response, Refused> {
        let name = lease_name(lease)?;
        let windows = self.leases.windows();
        let owner = windows.borrow().lease(&name).map(|lease| lease.caller);
        let ask = GateAsk::Close {
            owner: owner.unwrap_or(caller.uid),
        };
        self.permit(caller, ask, "close this window")?;
        self.note_said(lease, said)?;
        let was_there = self
            .leases
            .close(&name)
            .await
            .map_err(|error| self.explain(error))?;
        self.recorder.lease_ended(&name);
        Ok(match (was_there, self.closing_words(&name).await) {
            (true, Some([first, second])) => Response {
                more: vec![second],
                ..Response::done(first)
            },
            (true, None) => Response::done(format!("closed: lease {name}")),
            // A post-hook after the lease expired is no failure.
            (false, Some([first, second])) => Response {
                more: vec![second],
                ..Response::done(format!("no lease {name}: nothing to close; {first}"))
            },
            (false, None) => Response::done(format!("no lease {name}: nothing to close")),
        })
    }

    pub(super) fn explain(&self, error: LeaseError) -> Refused {
        explain(&self.config.borrow(), error)
    }
}

fn describe(claim: &Claim) -> String {
    let ports: Vec<String> = claim.ports.iter().map(u16::to_string).collect();
    let families = match claim.families {
        Families {
            v4: true,
            v6: false,
        } => "IPv4",
        Families {
            v4: false,
            v6: true,
        } => "IPv6",
        _ => "IPv4 and IPv6",
    };
    let way = match &claim.entrance {
        Entrance::Any => String::new(),
        Entrance::Address(address) => format!(" to {address}"),
        Entrance::Interface(interface) => format!(" by {}", interface.name()),
    };
    format!(
        "tcp {}{way} for {families}, {} at most, lease {}",
        ports.join(", "),
        format_duration(claim.length),
        claim.name
    )
}
