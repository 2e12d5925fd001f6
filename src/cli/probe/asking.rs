//! Everybody is asked at the same time; progress goes to standard error as it comes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::session::Session;
use super::setup::Setup;
use crate::cli::terminal::{complain, plain};
use crate::doctor::probe::letsdebug::{self, Problem, State};
use crate::doctor::probe::mpic;
use crate::doctor::probe::seen::{Here, Outcome, Service, Vantage, View};
use crate::doctor::probe::told::Told;
use crate::doctor::probe::trace::Trace;
use crate::doctor::probe::vantage::{From, proves_nothing};
use crate::doctor::probe::verdict::{Probe, of_view, words};
use crate::doctor::probe::web::{self, Key, Url};
use crate::doctor::probe::{PORT, Question, mark, ssh};
use crate::gate::allow_list::AllowList;
use crate::observe::report::words::many;

/// How often Let's Debug is asked whether it is done; its own page does so every 3 s.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// The most strangers that are told of.
const MAX_STRANGERS: usize = 16;

/// A service's perspectives, and what of it could not be asked.
#[derive(Debug, Default)]
pub struct Perspectives {
    pub vantages: Vec<Vantage>,
    pub not_covered: Vec<String>,
    pub told: Option<Service>,
}

/// What the gate answers to this host itself.
pub async fn here(setup: &Setup, session: &Session) -> Vec<Here> {
    let Some(listener) = setup
        .config
        .http
        .listen
        .iter()
        .find(|address| address.port() == PORT)
    else {
        return Vec::new();
    };
    // Behind a balancer the gate wants a head before the request that nobody here has.
    let at = SocketAddr::new(reachable(listener.ip()), PORT);
    if setup
        .config
        .proxy
        .protocol_from
        .iter()
        .any(|prefix| prefix.contains(&at.ip()))
    {
        return Vec::new();
    }
    let deadline = Instant::now() + setup.timeout;
    let mut outcomes = Vec::new();
    for question in session.here.clone() {
        let name = question.name.to_string();
        let asked = tokio::task::spawn_blocking(move || {
            let asked = web::ask_here(
                at,
                &question.name.to_authority(),
                &question.path(),
                deadline,
            );
            match asked {
                Ok((status, body)) => Outcome::Answered {
                    status,
                    matches: body.trim_ascii_end() == question.answer.to_body().as_bytes(),
                },
                Err(why) => Outcome::Silent(why),
            }
        });
        if let Ok(outcome) = asked.await {
            progress(&format!("from here: {name}: {}", words(&outcome)));
            outcomes.push(Here { name, outcome });
        }
    }
    outcomes
}

fn reachable(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

/// Every vantage point by ssh, in the order of the command line.
pub async fn ssh_points(setup: &Setup, session: &Session) -> Vec<Vantage> {
    let mut asking = JoinSet::new();
    for (at, (from, questions)) in setup.from.iter().zip(&session.from).enumerate() {
        if let From::Ssh(destination) = from {
            let (destination, questions) = (destination.clone(), questions.clone());
            let (servers, timeout) = (setup.name_servers.clone(), setup.timeout);
            asking.spawn(async move {
                (
                    at,
                    ssh_point(&destination, &questions, &servers, timeout).await,
                )
            });
        }
    }
    let mut vantages = Vec::new();
    while let Some(asked) = asking.join_next().await {
        if let Ok((at, vantage)) = asked {
            tell(&vantage);
            vantages.push((at, vantage));
        }
    }
    vantages.sort_by_key(|(at, _)| *at);
    vantages.into_iter().map(|(_, vantage)| vantage).collect()
}

async fn ssh_point(
    destination: &str,
    questions: &[Question],
    servers: &[String],
    timeout: Duration,
) -> Vantage {
    let mut vantage = Vantage {
        from: format!("ssh:{destination}"),
        ..Vantage::default()
    };
    let mut told = match mark() {
        Ok(mark) => Told::new(&mark),
        Err(why) => {
            vantage.not_asked = Some(why);
            return vantage;
        }
    };
    let asked = tokio::time::timeout(
        timeout,
        ssh::ask(destination, questions, servers, &mut told),
    )
    .await;
    let failed = match asked {
        Ok(Ok(())) => None,
        Ok(Err(why)) => Some(why),
        Err(_) => Some(format!("it was not done within {} s", timeout.as_secs())),
    };
    let Some((fetches, asks)) = told.tools.clone() else {
        vantage.not_asked = Some(failed.unwrap_or_else(|| "it told nothing".to_owned()));
        return vantage;
    };
    if fetches == "none" {
        vantage.not_asked = Some("it has neither curl nor wget".to_owned());
    }
    vantage.tools = Some(format!("{fetches}, {asks}"));
    vantage.addresses.clone_from(&told.own);
    for (number, question) in questions.iter().enumerate() {
        let mut fetched = told.fetches(number, &question.answer.to_body());
        fetched.sort_by_key(|fetch| fetch.family);
        let servers = told.servers.iter().filter(|(of, _)| *of == number);
        vantage.views.push(View {
            name: question.name.to_string(),
            resolves_to: told.resolved.get(&number).cloned().unwrap_or_default(),
            fetches: fetched,
            name_servers: servers.map(|(_, server)| server.clone()).collect(),
            ..View::default()
        });
    }
    if vantage.not_asked.is_none() && vantage.views.iter().all(|view| view.fetches.is_empty()) {
        vantage.not_asked = Some(failed.unwrap_or_else(|| "it fetched nothing".to_owned()));
    }
    vantage
}

/// Every service, one after another its names, as somebody who orders one certificate would.
pub async fn services(setup: &Setup, session: &Session) -> Vec<Perspectives> {
    let mut asking = JoinSet::new();
    let deadline = Instant::now() + setup.timeout;
    for (at, (from, questions)) in setup.from.iter().zip(&session.from).enumerate() {
        if let From::Mpic(url) = from {
            let (url, questions) = (url.clone(), questions.clone());
            let (key, issuers) = (setup.key.clone(), setup.issuers.clone());
            asking.spawn_blocking(move || {
                (
                    at,
                    service(&url, key.as_ref(), &questions, &issuers, deadline),
                )
            });
        }
    }
    let mut services = Vec::new();
    while let Some(asked) = asking.join_next().await {
        if let Ok((at, perspectives)) = asked {
            perspectives.vantages.iter().for_each(tell);
            services.push((at, perspectives));
        }
    }
    services.sort_by_key(|(at, _)| *at);
    services.into_iter().map(|(_, service)| service).collect()
}

fn service(
    url: &Url,
    key: Option<&Key>,
    questions: &[Question],
    issuers: &[String],
    deadline: Instant,
) -> Perspectives {
    let mut all = Perspectives::default();
    let mut told = Service {
        from: format!("mpic:{url}"),
        ..Service::default()
    };
    for question in questions {
        let heard = match mpic::ask(url, key, question, issuers, deadline) {
            Ok(heard) => heard,
            Err(why) => {
                all.not_covered
                    .push(format!("{} by mpic:{url}: {why}", question.name));
                continue;
            }
        };
        told.refused.extend(heard.refused);
        let without = heard.without_caa.into_iter();
        all.not_covered
            .extend(without.map(|why| format!("CAA by mpic:{url}: {why}")));
        for vantage in heard.vantages {
            match all
                .vantages
                .iter_mut()
                .find(|known| known.from == vantage.from)
            {
                Some(known) => known.views.extend(vantage.views),
                None => all.vantages.push(vantage),
            }
        }
    }
    all.told = (!all.vantages.is_empty()).then_some(told);
    all
}

/// Let's Debug, if it is asked.
pub async fn lets_debug(setup: &Setup, session: &Session) -> Option<Result<Vec<Problem>, String>> {
    let url = setup.letsdebug.clone()?;
    let deadline = Instant::now() + setup.timeout;
    let mut problems = Vec::new();
    for question in &session.letsdebug {
        match one_by_lets_debug(&url, question, deadline).await {
            Ok(found) => problems.extend(found),
            Err(why) => return Some(Err(why)),
        }
    }
    Some(Ok(problems))
}

async fn one_by_lets_debug(
    url: &Url,
    question: &Question,
    deadline: Instant,
) -> Result<Vec<Problem>, String> {
    let blocking = |error: tokio::task::JoinError| error.to_string();
    let (at, asked) = (url.clone(), question.clone());
    let id = tokio::task::spawn_blocking(move || letsdebug::order(&at, &asked, deadline));
    let id = id.await.map_err(blocking)??;
    loop {
        let (at, asked) = (url.clone(), question.clone());
        let state = tokio::task::spawn_blocking(move || letsdebug::look(&at, &asked, id, deadline));
        match state.await.map_err(blocking)?? {
            State::Over(problems) => {
                progress(&format!(
                    "{}: {}: {}",
                    url.host(),
                    question.name,
                    many(problems.len(), "problem")
                ));
                return Ok(problems);
            }
            State::Running if deadline.saturating_duration_since(Instant::now()) < LOOK_AGAIN => {
                return Err(format!("its test {id} was not over in time"));
            }
            State::Running => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

/// Marks whoever would get in anyway. Where the gate saw it, by that address; else by those it has itself.
pub fn prove(probe: &mut Probe, allow: &AllowList) {
    for vantage in &mut probe.vantage_points {
        let came: Vec<IpAddr> = vantage
            .views
            .iter()
            .flat_map(|view| view.came_from.clone())
            .collect();
        let why = |address: &IpAddr| proves_nothing(*address, allow);
        vantage.proves_nothing = match came.is_empty() {
            false => came.iter().find_map(why),
            // What it has behind a translation of addresses says nothing of how it comes here.
            true => {
                let public = vantage
                    .addresses
                    .iter()
                    .filter(|address| !is_private(**address));
                public.filter_map(why).next()
            }
        };
    }
}

fn is_private(address: IpAddr) -> bool {
    AllowList::new(AllowList::local()).contains(address)
}

/// What their packets met; and those of others, where somebody failed whose address is not known.
pub async fn paths(trace: &Trace, probe: &mut Probe) {
    let mut claimed = Vec::new();
    for vantage in &mut probe.vantage_points {
        vantage.paths = trace.paths(&vantage.addresses).await;
        claimed.extend(vantage.addresses.iter().copied());
    }
    for service in &mut probe.services {
        service.paths = trace.paths(&service.came_from).await;
        claimed.extend(service.came_from.iter().copied());
    }
    let is_stranger = |source: &IpAddr| !claimed.contains(source) && !source.is_loopback();
    let strangers: Vec<IpAddr> = trace.sources().into_iter().filter(is_stranger).collect();
    let mut dropped = trace.paths(&strangers).await;
    dropped.retain(|path| !path.fate.passes());
    dropped.truncate(MAX_STRANGERS);
    probe.strangers = dropped;
}

fn tell(vantage: &Vantage) {
    match &vantage.not_asked {
        Some(why) => progress(&format!("{}: could not be asked: {why}", vantage.from)),
        None => {
            for view in &vantage.views {
                progress(&format!(
                    "{}: {}: {}",
                    vantage.from,
                    view.name,
                    of_view(view)
                ));
            }
        }
    }
}

fn progress(text: &str) {
    complain(format_args!("acmegate: {}", plain(text)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proven(addresses: &[&str], came_from: &[&str]) -> Option<String> {
        let read = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let mut probe = Probe {
            vantage_points: vec![Vantage {
                addresses: read(addresses),
                views: vec![View {
                    came_from: read(came_from),
                    ..View::default()
                }],
                ..Vantage::default()
            }],
            ..Probe::default()
        };
        let allow = AllowList::new(["198.51.100.0/24".parse().unwrap()]);
        prove(&mut probe, &allow);
        probe.vantage_points.remove(0).proves_nothing
    }

    #[test]
    fn by_the_address_that_the_gate_saw_it_is_known_who_gets_in_anyway() {
        assert_eq!(proven(&["203.0.113.7"], &["203.0.113.7"]), None);
        // Behind a translation of addresses it has one of its own that is nobody's here.
        assert_eq!(proven(&["10.0.0.7"], &["203.0.113.7"]), None);
        assert_eq!(proven(&["10.0.0.7"], &[]), None);
        assert_eq!(proven(&["198.51.100.7"], &["203.0.113.7"]), None);
        for (addresses, came_from) in [
            (&["10.0.0.7"][..], &["198.51.100.7"][..]),
            (&["203.0.113.7"], &["203.0.113.7", "198.51.100.7"]),
            (&["198.51.100.7"], &[]),
            (&["10.0.0.7"], &["10.0.0.7"]),
        ] {
            let why = proven(addresses, came_from);
            assert!(why.is_some(), "{addresses:?} {came_from:?}");
        }
    }
}
