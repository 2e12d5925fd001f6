//! The process that is the twin: `acmegate twin`. An order comes by standard input, an answer goes to standard
//! output.
//!
//! What is read of the host is read first; then the process leaves the host's network for good, and every
//! socket that it had there is closed. It has one thread, and dies with who started it.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::time::Instant;

use nlink::netlink::nftables::Family as NftFamily;
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

use super::advice::Advisor;
use super::answers::{Listeners, Owners};
use super::guard::Guard;
use super::knock::{DROPPED, Knocker, OWNED, Told, UNANSWERED, ended_by, losses, reason};
use super::netlink::Socket;
use super::network::Network;
use super::order::{Answer, Letter, MAX_LISTING_BYTES, Source, Window};
use super::ruleset::expressions::expressions;
use super::ruleset::send::Copy;
use super::ruleset::state::State;
use super::ruleset::{ChainName, Elements, Ruleset, compat, family_word};
use super::words::{Live, Texts};
use super::{TwinError, listing, watch};
use crate::doctor::namespaces::{self, Netns};
use crate::doctor::path::{End, Fate, Knock, Protocol, Step};
use crate::firewall::evidence::{Traced, What};
use crate::firewall::{legacy, names};

/// A listing and what is asked about it.
const MAX_LETTER_BYTES: u64 = 2 * MAX_LISTING_BYTES as u64 + (16 << 20);

/// A listing without a table: well where there is no firewall, and what is in the file as well where nobody was let read.
const EMPTY: &str = "the rules: what was saved has no table (`nft list ruleset` prints one for each, and without root \
                     nothing)";

/// Reads an order, does it, and writes the answer. Must be called before the process has started any thread.
pub fn run() -> ExitCode {
    let answer = work();
    let Ok(text) = serde_json::to_vec(&answer) else {
        return ExitCode::FAILURE;
    };
    match io::stdout().lock().write_all(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn work() -> Result<Answer, TwinError> {
    die_with_the_parent();
    let mut text = Vec::new();
    let mut input = io::stdin().lock().take(MAX_LETTER_BYTES);
    input.read_to_end(&mut text).map_err(broken("its order"))?;
    let letter: Letter = serde_json::from_slice(&text)
        .map_err(|error| TwinError::Broken(format!("its order: {error}")))?;
    drop(text);
    let began = now();

    let ruleset = match &letter.source {
        Source::Live => Some(read_live()?),
        Source::Listing(_) => None,
    };
    let mut network = Network::read().map_err(broken("the host's network"))?;
    let made_up = network.make_up(&letter.knocks);
    let legacy = match &letter.source {
        Source::Live => legacy_tables(),
        Source::Listing(_) => None,
    };

    namespaces::enter().map_err(|refusal| {
        let ways = refusal.ways_out().into_iter().map(str::to_owned).collect();
        TwinError::Namespaces(refusal.reason(), ways)
    })?;
    // A change of credentials takes it away.
    die_with_the_parent();
    stay_on_one_processor();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(broken("a runtime"))?;
    let mut answer = Answer::default();
    answer.not_carried.extend(legacy);
    answer.not_carried.extend(
        made_up
            .iter()
            .map(|name| format!("this host has no interface {name}: one was made up for it")),
    );

    let here = Netns::here().map_err(broken("a namespace"))?;
    let outside = here.beside().map_err(broken("a namespace"))?;
    let entrances: BTreeSet<String> = letter
        .knocks
        .iter()
        .map(|knock| knock.interface.clone())
        .collect();
    let built = network.build(&outside);
    let (world, missing) = built.map_err(broken("interfaces in a namespace"))?;
    answer.not_carried.extend(missing);
    answer.otherwise.extend(network.otherwise(&entrances));

    let mut socket = Socket::netfilter().map_err(broken("a socket"))?;
    let copy = match (&letter.source, &ruleset) {
        (Source::Listing(listings), _) => {
            for text in listings {
                listing::load(text).map_err(TwinError::Listing)?;
            }
            Copy::default()
        }
        (Source::Live, Some(ruleset)) => {
            answer.generation = ruleset.generation;
            answer.copied = ruleset.size();
            if ruleset.generation.is_none() {
                let told = "the ruleset changed all the while: parts of two are in the twin";
                answer.not_carried.push(told.to_owned());
            }
            ruleset
                .send(&mut socket)
                .map_err(broken("copying the ruleset"))?
        }
        (Source::Live, None) => Copy::default(),
    };
    answer.not_carried.extend(copy.missing.iter().cloned());
    answer.otherwise.extend(copy.otherwise.iter().cloned());
    let loaded = Ruleset::read(&mut socket, Elements::OfChangingSets)
        .map_err(broken("reading the copy back"))?;
    answer.not_carried.extend(loaded.beside_tracking());
    if ruleset.is_none() {
        answer.copied = loaded.size();
        if loaded.is_empty() {
            answer.not_carried.push(EMPTY.to_owned());
        }
    }
    let live = Live::of(ruleset.as_ref(), &loaded, &copy);
    drop(ruleset);

    let settings = letter.settings();
    let guard = match settings.clone() {
        None => None,
        Some(settings) => {
            let is_there = loaded.has_table(NftFamily::Inet as u8, names::TABLE);
            let is_asked = letter
                .windows
                .iter()
                .any(|window| *window != Window::AsItStands);
            match runtime.block_on(Guard::prepare(settings, is_asked && !is_there)) {
                Ok(guard) => Some(guard),
                Err(error) => {
                    answer
                        .not_carried
                        .push(format!("acmegate's own part: {error}"));
                    None
                }
            }
        }
    };
    answer.has_guard = guard.is_some();
    let interfaces = watched(&entrances, &network);
    let sees_ingress = watch::install(&mut socket, &interfaces).map_err(broken("its own table"))?;
    if !sees_ingress {
        let told = "this kernel has no ingress hook to trace from: what drops there is not named";
        answer.not_carried.push(told.to_owned());
    }
    let tells = Ruleset::read(&mut socket, Elements::OfChangingSets)
        .map_err(broken("reading the copy back"))?;
    let state = tells.state(names::TABLE);
    answer.otherwise.extend(
        state
            .not_restored
            .iter()
            .map(|set| format!("set {set} is long: what one packet adds to it the next one finds")),
    );
    answer.not_carried.extend(programs_that_decide(&tells));
    let texts = runtime.block_on(Texts::read(&tells));
    let mut texts = texts.map_err(|error| TwinError::Broken(format!("reading rules: {error}")))?;
    // What is made anew for each knock loses the sets that stand in it.
    for (place, handle) in state.rules() {
        texts.text(&runtime, place, handle);
    }
    let advisor = runtime.block_on(Advisor::read(&texts.nft, &tells, settings.as_ref()));
    let advisor = advisor.map_err(|error| TwinError::Broken(format!("reading rules: {error}")))?;
    let knocker = Knocker::prepare(&network, &outside, world).map_err(broken("raw sockets"))?;
    let mut twin = Twin {
        listeners: Listeners::default(),
        owners: Owners::of(&tells, names::TABLE),
        socket,
        knocker,
        state,
        live,
        texts,
        advisor,
        runtime: &runtime,
    };
    for window in &letter.windows {
        if let Some(guard) = &guard {
            let set = runtime.block_on(guard.set(*window));
            set.map_err(|error| TwinError::Broken(format!("acmegate's own table: {error}")))?;
        }
        let mut fates = Vec::with_capacity(letter.knocks.len());
        let mut advice = Vec::with_capacity(letter.knocks.len());
        for knock in &letter.knocks {
            if now().duration_since(began) > letter.patience {
                return Err(TwinError::Late(letter.patience));
            }
            let (fate, advised) = twin.fate(knock).map_err(broken("a packet"))?;
            fates.push(fate);
            advice.push(advised);
        }
        let mut replies = vec![None; fates.len()];
        if *window != Window::Shut {
            watch::answer(&mut twin.socket).map_err(broken("its own table"))?;
            for ((knock, fate), reply) in letter.knocks.iter().zip(&fates).zip(&mut replies) {
                if now().duration_since(began) > letter.patience {
                    return Err(TwinError::Late(letter.patience));
                }
                *reply = twin.reply(knock, fate).map_err(broken("an answer"))?;
            }
            watch::answer_no_more(&mut twin.socket).map_err(broken("its own table"))?;
        }
        answer.fates.push(fates);
        answer.replies.push(replies);
        answer.advice.push(advice);
    }
    Ok(answer)
}

/// The namespace with its rules, and what is known of them.
struct Twin<'a> {
    socket: Socket,
    knocker: Knocker<'a>,
    state: State,
    live: Live,
    texts: Texts,
    advisor: Advisor,
    runtime: &'a tokio::runtime::Runtime,
    listeners: Listeners,
    owners: Owners,
}

impl Twin<'_> {
    /// What becomes of a knock, and what to do about it if it is dropped.
    fn fate(&mut self, knock: &Knock) -> io::Result<(Fate, Option<String>)> {
        let told = self.once(knock)?;
        let end = match (&told.end, ended_by(&told.steps)) {
            (Some(end), _) => end.clone(),
            (None, Some(DROPPED)) => End::Dropped {
                rejects: told
                    .steps
                    .last()
                    .is_some_and(|step| self.texts.rejects(step)),
            },
            (None, Some(why)) => End::Lost(why.to_owned()),
            (None, None) => {
                let before = losses();
                self.forget()?;
                self.once(knock)?;
                End::Lost(reason(&before, &losses()))
            }
        };
        let steps = told.steps.iter();
        let steps: Vec<Step> = steps.map(|step| self.step(step)).collect();
        let advice = match end {
            End::Dropped { rejects } => {
                let handle = steps.last().and_then(|step| step.handle);
                self.advisor.advise(knock, &told, handle, rejects)
            }
            _ => None,
        };
        self.forget()?;
        Ok((Fate { end, steps }, advice))
    }

    /// What becomes of the answer to a knock that ended so; `None` if it is none that is answered.
    fn reply(&mut self, knock: &Knock, fate: &Fate) -> io::Result<Option<Fate>> {
        match &fate.end {
            _ if knock.protocol != Protocol::Tcp => return Ok(None),
            End::Delivered { port, .. } => self.listeners.listen(*port),
            End::Forwarded { .. } => {}
            End::Dropped { .. } | End::Lost(_) => return Ok(None),
        }
        let Some(told) = self.knocker.answer(knock)? else {
            self.forget()?;
            return Ok(Some(Fate {
                end: End::Lost(UNANSWERED.to_owned()),
                steps: Vec::new(),
            }));
        };
        let original = |place: &ChainName, handle| self.texts.original(place, handle);
        let is_owned = self.owners.asked(&told.steps, original).is_some();
        let end = match (&told.end, ended_by(&told.steps)) {
            _ if is_owned => End::Lost(OWNED.to_owned()),
            (Some(end), _) => end.clone(),
            (None, Some(DROPPED)) => End::Dropped {
                rejects: told
                    .steps
                    .last()
                    .is_some_and(|step| self.texts.rejects(step)),
            },
            (None, Some(why)) => End::Lost(why.to_owned()),
            (None, None) => End::Lost(UNANSWERED.to_owned()),
        };
        let steps = told.steps.iter();
        let steps = steps.map(|step| self.step(step)).collect();
        self.forget()?;
        Ok(Some(Fate { end, steps }))
    }

    fn once(&mut self, knock: &Knock) -> io::Result<Told> {
        self.knocker.knock(knock)
    }

    /// Puts back what the knock changed: the next one finds everything as it was.
    fn forget(&mut self) -> io::Result<()> {
        for (place, old, new) in self.state.restore(&mut self.socket)? {
            self.texts.rename(&place, old, new);
        }
        Ok(())
    }

    fn step(&mut self, traced: &Traced) -> Step {
        let place = ChainName {
            family: traced.family,
            table: traced.table.clone().into_bytes(),
            chain: traced.chain.clone().into_bytes(),
        };
        let table = format!("{} {}", family_word(traced.family), traced.table);
        let chain = traced.chain.clone();
        match &traced.what {
            What::Rule(handle, verdict) => {
                let original = self.texts.original(&place, *handle);
                let (handle, is_left_out) = self.live.handle(&place, original);
                let (rule, verdict) = match is_left_out {
                    true => (
                        "a rule that the twin cannot have".to_owned(),
                        NOT_CARRIED.to_owned(),
                    ),
                    false => (
                        self.texts.text(self.runtime, &place, original),
                        verdict.to_string(),
                    ),
                };
                Step {
                    table,
                    chain,
                    handle: Some(handle),
                    rule: Some(rule),
                    verdict,
                }
            }
            What::Policy { drops } => Step {
                table,
                chain,
                handle: None,
                rule: None,
                verdict: if *drops { "drop" } else { "accept" }.to_owned(),
            },
            What::Return => Step {
                table,
                chain,
                handle: None,
                rule: None,
                verdict: "return".to_owned(),
            },
        }
    }
}

/// The verdict of a rule that is not in the twin.
pub const NOT_CARRIED: &str = "unknown";

/// The interfaces that are watched at their very edge: those that knocks come in by, then any by which an answer may
/// leave, as many as one chain takes (`NFT_NETDEVICE_MAX`).
fn watched(entrances: &BTreeSet<String>, network: &Network) -> Vec<String> {
    const MOST: usize = 256;
    let others = network.links.iter().map(|link| &link.name);
    let others = others.filter(|name| *name != "lo" && !entrances.contains(*name));
    entrances.iter().chain(others).take(MOST).cloned().collect()
}

/// Rules whose verdict is not the kernel's own, and state that only a program, or time, brings about.
fn programs_that_decide(ruleset: &Ruleset) -> Vec<String> {
    let mut told = BTreeSet::new();
    for rule in &ruleset.rules {
        let is_ours = rule.place.table == names::TABLE.as_bytes();
        for (name, data) in expressions(&rule.expressions) {
            let what = match name {
                b"queue" => "hands packets to a program, which is not there",
                b"tproxy" if !is_ours => "hands packets to a program's socket, which is not there",
                b"socket" if !is_ours => "asks for a program's socket, which is not there",
                b"match" => match compat::name_in(data).unwrap_or_default() {
                    b"set" => "asks an ipset, which is not there",
                    b"bpf" => "asks a BPF program",
                    _ => continue,
                },
                _ => continue,
            };
            told.insert(format!("{} {what}", rule.place));
        }
    }
    told.into_iter().collect()
}

fn read_live() -> Result<Ruleset, TwinError> {
    let mut socket = Socket::netfilter().map_err(broken("a socket"))?;
    Ruleset::read(&mut socket, Elements::All).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => TwinError::NoPower,
        io::ErrorKind::FileTooLarge => {
            TwinError::TooMuch("the live ruleset is larger than what is copied".to_owned())
        }
        _ => broken("reading the live ruleset")(error),
    })
}

/// Tables of iptables-legacy, which nftables neither shows nor copies.
fn legacy_tables() -> Option<String> {
    let tables: Vec<String> = legacy::tables().into_iter().collect();
    (!tables.is_empty()).then(|| format!("tables of iptables-legacy ({})", tables.join(", ")))
}

fn broken(what: &'static str) -> impl Fn(io::Error) -> TwinError {
    move |error| TwinError::Broken(format!("{what}: {error}"))
}

fn die_with_the_parent() {
    // Without it the twin would end by its own patience.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
}

/// Packets of one processor are received in the order in which they were sent.
fn stay_on_one_processor() {
    let mut here = CpuSet::new();
    here.set(sched_getcpu());
    let _ = sched_setaffinity(None, &here);
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
