//! Does each site answer? Tried end to end through the real front, with random tokens that nobody asked a CA for.
//!
//! A token is put up as the ACME client would put it up (a file in the webroot, a pushed answer) and asked for
//! from a loopback address with the site's Host; then it is taken down, however this ends. Upstreams answer
//! for tokens of their own alone, so they are asked for one that they cannot know, and must say so. No
//! window is opened and nothing leaves this host but questions to the configured upstreams and to this host's own names.

pub mod acl;
pub mod answer;
mod around;
mod ask;
mod hidden;
mod leftovers;
mod reach;
mod tls;
mod token;
mod upstream;
mod webroot;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use self::answer::Answer;
use self::ask::{Door, Heard};
use self::token::NotPushed;
use super::case::Case;
use super::finding::{Area, Exam, Finding, Severity};
use super::listener;
use crate::config::{self, Config, Source};
use crate::control::client::{self, ClientError};
use crate::control::protocol::ChallengeName;
use crate::control::status::Status;
use crate::gate::challenge::{ChallengeType, PREFIX};
use crate::gate::identifier::{Identifier, Pattern};
use crate::gate::site::site_for;
use crate::gate::tls::ProxyVersion;
use crate::gate::token::KeyAuthorization;

crate::findings! { Site:
    /// What was put up was answered, in full.
    SITE_ANSWERS = "site-answers";
    /// No site has the name.
    NO_SITE = "no-site";
    /// Somebody else answers in the gate's place.
    SOMEBODY_ELSE = "somebody-else-answers";
    /// The gate runs by another configuration than the file has.
    OTHER_CONFIGURATION = "other-configuration";
    /// The answer that was put up is refused.
    ANSWER_REFUSED = "answer-refused";
    /// The front's account may not read the webroot.
    WEBROOT_UNREADABLE = "webroot-unreadable";
    /// The front's unit hides the webroot from it.
    WEBROOT_HIDDEN = "webroot-hidden";
    /// The webroot is another directory than the one that the front has open.
    WEBROOT_REPLACED = "webroot-replaced";
    /// A symbolic link stands in the webroot where the gate follows none.
    WEBROOT_LINK = "webroot-link";
    /// No file can be made in the webroot.
    WEBROOT_UNWRITABLE = "webroot-unwritable";
    /// The upstream answers, and knows no foreign token.
    UPSTREAM_REACHED = "upstream-reached";
    /// Nothing listens at the upstream's address.
    UPSTREAM_GONE = "upstream-gone";
    /// The upstream's packets go missing, or it does not answer in time.
    UPSTREAM_SLOW = "upstream-slow";
    /// The upstream answers a token that it cannot know with something else than "unknown".
    UPSTREAM_STRANGE = "upstream-strange";
    /// A validation by tls-alpn-01 fails.
    HANDSHAKE_FAILS = "handshake-fails";
    /// Visitors are sent to a port where nobody listens.
    REDIRECT_TO_NOBODY = "redirect-to-nobody";
    /// The name's own address does not lead here from inside.
    NO_HAIRPIN = "no-hairpin";
}

/// How long all of it may take; what is left then was not covered.
const DEADLINE: Duration = Duration::from_secs(60);
/// How many names are tried: as many as one certificate has (of Let's Encrypt's).
const MAX_NAMES: usize = 100;
/// What a name is made up with where a site stands for many.
const MADE_UP: &str = "acmegate-doctor";

/// One name, and everything that its trial needs.
struct Trial<'case> {
    case: &'case Case,
    name: Identifier,
    site: &'case config::Site,
    front: Option<u32>,
}

/// Tries every name. If it is dropped on the way, what it put up is taken down.
pub async fn examine(case: &Case) -> Exam {
    let mut exam = Exam::of(Area::Site);
    let names = names(case);
    let (status, front) = match ask_status(case).await {
        Ok(found) => found,
        Err(error) => {
            exam.not_covered.push(format!("what sites answer: {error}"));
            return exam;
        }
    };
    let end = Instant::now() + DEADLINE;
    let sites = case.config.gate_sites();
    let mut resolves = true;
    for (at, name) in names.iter().enumerate() {
        if at >= MAX_NAMES || Instant::now() >= end {
            let left = names.len() - at;
            exam.not_covered.push(format!(
                "what {left} more names answer: name some, as in `acmegate doctor {name}`"
            ));
            break;
        }
        let found = site_for(&sites, name).and_then(|(id, _)| case.config.sites.get(id.0));
        let Some(site) = found else {
            exam.findings.push(no_site(name));
            continue;
        };
        let trial = Trial {
            case,
            name: name.clone(),
            site,
            front,
        };
        for challenge in &site.challenges {
            let doors = doors(&status, &case.config, *challenge, &mut exam);
            match challenge {
                ChallengeType::Http01 => trial.by_http(&doors, &mut exam).await,
                ChallengeType::TlsAlpn01 => tls::examine(&trial, &doors, &mut exam).await,
            }
        }
        resolves = resolves && around::hairpin(&trial, &mut exam).await;
    }
    exam.looked_at.push(match names.len() {
        1 => "the answer of 1 name, through the front".to_owned(),
        count => format!("the answers of {count} names, through the front"),
    });
    gather(&mut exam.findings);
    exam.not_covered.dedup();
    exam
}

async fn ask_status(case: &Case) -> Result<(Status, Option<u32>), ClientError> {
    let runtime_dir = case.runtime_dir.clone();
    let asked = blocking(move || {
        let status = client::status(&runtime_dir)?;
        Ok((status, client::daemon_pid(&runtime_dir).ok().flatten()))
    });
    asked
        .await
        .unwrap_or_else(|| Err(ClientError::System(std::io::ErrorKind::Interrupted.into())))
}

/// Does something that blocks for a bounded time; nothing if it ended early.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// What is tried: the case's names, else one made up for each site that stands for many.
fn names(case: &Case) -> Vec<Identifier> {
    if !case.names.is_empty() {
        return case.names.clone();
    }
    let made_up = case.config.sites.iter().filter_map(|site| {
        let wildcard = site.gate.identifiers.iter().find_map(|pattern| {
            let text = pattern.to_string();
            matches!(pattern, Pattern::Wildcard(_)).then(|| text.replacen('*', MADE_UP, 1))
        });
        let default = site
            .gate
            .is_default
            .then(|| format!("{MADE_UP}.example.net"));
        Identifier::parse(&wildcard.or(default)?).ok()
    });
    made_up.collect()
}

/// Where the gate may be asked for this challenge: a loopback address of each family, or the very address
/// that it is bound to.
fn doors(status: &Status, config: &Config, challenge: ChallengeType, exam: &mut Exam) -> Vec<Door> {
    let (wanted, _) = listener::wanted(config, challenge);
    let listens = status
        .listeners
        .iter()
        .filter_map(|address| address.parse::<SocketAddr>().ok())
        .filter(|own| wanted.iter().any(|wanted| wanted.port() == own.port()));
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for own in listens {
        let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, own.port()));
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, own.port()));
        let of_own = match own.ip() {
            IpAddr::V4(address) if address.is_unspecified() => vec![v4],
            IpAddr::V6(address) if address.is_unspecified() => vec![v4, v6],
            _ => vec![own],
        };
        addresses.extend(of_own);
    }
    addresses.dedup();
    let doors: Vec<Door> = addresses
        .into_iter()
        .map(|address| Door {
            address,
            proxy: speaks_for_others(config, address).then_some(ProxyVersion::V2),
            by_loopback: true,
        })
        .collect();
    let owes_fields = |door: &Door| {
        let from = loopback(door.address);
        challenge == ChallengeType::Http01
            && config
                .proxy
                .headers_from
                .iter()
                .any(|net| net.contains(&from))
    };
    if doors.iter().any(owes_fields) {
        exam.not_covered.push(
            "what sites answer: the gate believes the fields of proxies on this very host ([proxy] headers_from), so a trial must come by that proxy"
                .to_owned(),
        );
        return Vec::new();
    }
    doors
}

/// The loopback address of that family.
fn loopback(address: SocketAddr) -> IpAddr {
    match address {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

fn speaks_for_others(config: &Config, address: SocketAddr) -> bool {
    let from = loopback(address);
    config
        .proxy
        .protocol_from
        .iter()
        .any(|net| net.contains(&from))
}

fn no_site(name: &Identifier) -> Finding {
    Finding::new(
        NO_SITE,
        Severity::Fault,
        "no [[site]] has this name, so every validation of it is refused",
    )
    .of(name.to_string())
    .seen("the gate answers unknown names with 421 (`unknown-host`)")
    .remedy(format!(
        "add \"{name}\" to the `identifiers` of a [[site]], then `systemctl reload acmegate`"
    ))
}

impl Trial<'_> {
    fn finding(
        &self,
        code: super::finding::Code,
        severity: Severity,
        finding: impl Into<String>,
    ) -> Finding {
        Finding::new(code, severity, finding).of(self.name.to_string())
    }

    /// Tries http-01 at every door, by the site's own source.
    async fn by_http(&self, doors: &[Door], exam: &mut Exam) {
        if doors.is_empty() {
            exam.not_covered.push(format!(
                "what answers {} by http-01: the gate does not listen for it, and whose server does cannot be tried without its ACME client (`acmegate doctor --staging -- CLIENT…`)",
                self.name
            ));
            return;
        }
        match &self.site.source {
            Source::Webroot(path) => webroot::examine(self, path, doors, exam).await,
            Source::Upstream(server) => upstream::examine(self, *server, doors, exam).await,
            Source::Pushed => self.by_pushing(doors, exam).await,
            Source::Thumbprint(account) => match token::random(Some(account)) {
                Ok(answer) => self.ask_for(&answer, doors, exam).await,
                Err(error) => exam.not_covered.push(format!("what sites answer: {error}")),
            },
        }
        around::redirect(self, doors, exam).await;
    }

    async fn by_pushing(&self, doors: &[Door], exam: &mut Exam) {
        let Some((_pushed, answer)) = self.push(ChallengeName::Http01, exam).await else {
            return;
        };
        self.ask_for(&answer, doors, exam).await;
    }

    /// Puts up an answer by the control socket.
    async fn push(
        &self,
        challenge: ChallengeName,
        exam: &mut Exam,
    ) -> Option<(token::PushedUp, KeyAuthorization)> {
        let answer = match token::random(self.site.gate.accounts.first()) {
            Ok(answer) => answer,
            Err(error) => {
                exam.not_covered.push(format!("what sites answer: {error}"));
                return None;
            }
        };
        let (runtime_dir, name) = (self.case.runtime_dir.clone(), self.name.clone());
        let own = answer.clone();
        let pushed = blocking(move || token::push(&runtime_dir, challenge, &name, &own)).await?;
        match pushed {
            Ok(pushed) => return Some((pushed, answer)),
            Err(NotPushed::Client(error)) => exam
                .not_covered
                .push(format!("what {} answers: {error}", self.name)),
            Err(NotPushed::Refused(why)) => exam.not_covered.push(format!(
                "what {} answers: the gate takes no token for it: {why}",
                self.name
            )),
        }
        None
    }

    /// Asks at every door for what was put up, and says what came of it.
    async fn ask_for(&self, answer: &KeyAuthorization, doors: &[Door], exam: &mut Exam) {
        let mut answered = Vec::new();
        for door in doors {
            match self.ask(*door, answer).await {
                Outcome::Answered => answered.push(door.address.to_string()),
                Outcome::NotCovered(why) => exam.not_covered.push(why),
                Outcome::Wrong(finding) => {
                    exam.findings.push(*finding);
                    return;
                }
                Outcome::Refused(refused) => {
                    let why = format!(
                        "the gate refuses an answer that was put up: {}",
                        said(&refused)
                    );
                    exam.findings.push(
                        self.finding(ANSWER_REFUSED, Severity::Fault, why)
                            .seen(self.asked(*door))
                            .remedy("`acmegate watch` shows the reason while this is tried again; `acmegate status` shows each site"),
                    );
                    return;
                }
            }
        }
        if !answered.is_empty() {
            exam.findings.push(self.answers(&answered));
        }
    }

    fn answers(&self, at: &[String]) -> Finding {
        let source = match &self.site.source {
            Source::Pushed => "a pushed token".to_owned(),
            Source::Webroot(path) => format!("a file in {}", path.display()),
            Source::Upstream(server) => format!("the upstream {}", server.address),
            Source::Thumbprint(_) => "any token by the account's thumbprint".to_owned(),
        };
        self.finding(
            SITE_ANSWERS,
            Severity::Fine,
            format!("the gate answers {source} (tried at {})", at.join(" and ")),
        )
    }

    fn asked(&self, door: Door) -> String {
        format!(
            "a random token was asked for at {} with Host {}",
            door.address,
            self.name.to_authority()
        )
    }

    /// Asks at one door for this token.
    async fn ask(&self, door: Door, answer: &KeyAuthorization) -> Outcome {
        let host = self.name.to_authority();
        let target = format!("{PREFIX}{}", answer.token().as_str());
        let heard = blocking(move || ask::get(door, &host, &target)).await;
        match heard {
            Some(Heard::Answer(heard)) => self.understand(door, heard, answer),
            Some(Heard::NotReached(why)) => Outcome::NotCovered(format!(
                "what {} answers at {}: {why}",
                self.name, door.address
            )),
            Some(Heard::Nothing) | None => Outcome::NotCovered(self.without_a_word(door)),
        }
    }

    fn without_a_word(&self, door: Door) -> String {
        format!(
            "what {} answers at {}: it closes without a word, as the gate does to whom the allow-list has not while no window is open (loopback too: `local` in [allow])",
            self.name, door.address
        )
    }

    fn understand(&self, door: Door, heard: Answer, answer: &KeyAuthorization) -> Outcome {
        if !heard.is_the_gates() {
            let mut finding = self
                .finding(
                    SOMEBODY_ELSE,
                    Severity::Fault,
                    format!(
                        "somebody else answers at {}: {}",
                        door.address,
                        said(&heard)
                    ),
                )
                .seen(self.asked(door))
                .remedy(format!(
                    "`ss -ltnp sport = {}` names it: see that connections get to the gate",
                    door.address.port()
                ));
            if let Some(server) = heard.field("server") {
                finding = finding.seen(format!("it calls itself {server}"));
            }
            return Outcome::Wrong(Box::new(finding));
        }
        match heard.status {
            200 if heard.content == answer.to_body().as_bytes() => Outcome::Answered,
            421 => Outcome::Wrong(Box::new(
                self.finding(
                    OTHER_CONFIGURATION,
                    Severity::Fault,
                    "the running gate does not know this name, although the configuration has it",
                )
                .seen(format!("{}: {}", self.asked(door), said(&heard)))
                .remedy("`systemctl reload acmegate` (`acmegate config check` before)"),
            )),
            _ => Outcome::Refused(heard),
        }
    }
}

/// What came of asking.
enum Outcome {
    /// Exactly what was put up.
    Answered,
    /// Something that has one explanation, whatever the source is.
    Wrong(Box<Finding>),
    /// A refusal of the gate's own.
    Refused(Answer),
    /// Nothing that shows anything.
    NotCovered(String),
}

/// An answer in a few words.
fn said(answer: &Answer) -> String {
    let mut said = match answer.field("location") {
        Some(location) => format!("status {} to {location}", answer.status),
        None => format!("status {}", answer.status),
    };
    let content = String::from_utf8_lossy(&answer.content);
    let first = content.lines().next().unwrap_or_default().trim();
    if answer.status == 200 && !first.is_empty() {
        let brief: String = first.chars().take(40).collect();
        said.push_str(&format!(", \"{brief}\""));
    }
    said
}

/// What is true of several names is said once.
fn gather(findings: &mut Vec<Finding>) {
    let mut gathered: Vec<Finding> = Vec::new();
    for finding in findings.drain(..) {
        let same = gathered.iter_mut().find(|other| {
            other.code == finding.code
                && other.finding == finding.finding
                && other.remedy == finding.remedy
        });
        match same {
            Some(same) => same.names.extend(finding.names),
            None => gathered.push(finding),
        }
    }
    *findings = gathered;
}
