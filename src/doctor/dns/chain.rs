//! Lookups by the host's resolvers, every answer validated here up to the trust anchor.
//!
//! The resolvers are asked with checking disabled: what is bogus comes back as it is, so that it can be said what
//! is wrong with it. It never asks the zones' own servers; `servers` does.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hickory_net::dnssec::DnssecDnsHandle;
use hickory_net::proto::dnssec::{Proof, TrustAnchors};
use hickory_net::proto::op::{
    DnsRequest, DnsRequestOptions, DnsResponse, Message, Query, ResponseCode,
};
use hickory_net::proto::rr::{Name, RData, Record, RecordType};
use hickory_net::runtime::TokioRuntimeProvider;
use hickory_net::xfer::{DnsHandle, DnsResponseStream};
use hickory_net::{DnsError, NetError};
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;

use super::ask::{Silence, ask, question};
use crate::locked::locked;

/// How many questions are under way at once, to whomever.
const MAX_AT_ONCE: usize = 32;
/// The longest chain of aliases that is followed; resolvers follow no more either.
const MAX_ALIASES: usize = 12;

/// Why a lookup gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// No resolver answered.
    Silent(Silence),
    /// The resolver could not find it out, and says so.
    Said(ResponseCode),
    /// There is an answer, and no chain of signatures to it although there has to be one.
    Bogus,
}

/// What a lookup found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The records of the type that was asked for.
    pub(super) records: Vec<Record>,
    /// The aliases that led there, in order, without the name itself.
    pub(super) aliases: Vec<Name>,
    /// Whether the name, or what it is an alias of, exists.
    pub(super) exists: bool,
    /// Whether signatures prove all of it.
    pub(super) is_secure: bool,
    /// The zone that says there is nothing, where there is nothing.
    pub(super) denied_by: Option<Name>,
}

/// What is known of a resolver's answers to DNSSEC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chain {
    /// Its answers can be validated from the root on.
    Whole,
    /// It leaves the signatures out.
    Stripped,
    /// The root's keys are not those of the trust anchor.
    OtherRoot,
    /// It knows no root: whatever it knows is not the Internet's DNS.
    NoRoot,
}

type Slot = Arc<OnceCell<Result<Message, Silence>>>;

/// The resolvers, with what they answered in this run: each question is asked once.
#[derive(Clone)]
pub(super) struct Resolvers {
    servers: Arc<[SocketAddr]>,
    /// Those that let their time pass although another answered. Each question would wait for them anew.
    silent: Arc<Mutex<HashSet<SocketAddr>>>,
    answers: Arc<Mutex<HashMap<(Name, RecordType), Slot>>>,
    gauge: Arc<Semaphore>,
}

/// Lookups with validation.
#[derive(Clone)]
pub(super) struct Lookup {
    resolvers: Resolvers,
    validator: Option<DnssecDnsHandle<Resolvers>>,
}

impl Resolvers {
    pub(super) fn new(servers: Vec<SocketAddr>) -> Self {
        Self {
            servers: servers.into(),
            silent: Arc::default(),
            answers: Arc::default(),
            gauge: Arc::new(Semaphore::new(MAX_AT_ONCE)),
        }
    }

    /// What the resolvers say, the first one first, those that were silent last; not validated.
    pub(super) async fn ask(&self, name: &Name, kind: RecordType) -> Result<Message, Silence> {
        let slot = {
            let mut answers = locked(&self.answers);
            Arc::clone(answers.entry((name.to_lowercase(), kind)).or_default())
        };
        slot.get_or_init(|| self.ask_servers(name, kind))
            .await
            .clone()
    }

    async fn ask_servers(&self, name: &Name, kind: RecordType) -> Result<Message, Silence> {
        let mut last = Err(Silence::Timeout);
        let (silent, mut servers): (Vec<SocketAddr>, Vec<SocketAddr>) = {
            let known = locked(&self.silent);
            self.servers.iter().partition(|one| known.contains(one))
        };
        servers.extend(silent);
        let mut waited_for = Vec::new();
        for server in servers {
            let _turn = self.gauge.acquire().await;
            let answer = ask(server, &question(name, kind, true)).await;
            match (&answer, &last) {
                (Ok(message), _) if is_answer(message) => {
                    locked(&self.silent).extend(waited_for);
                    return answer;
                }
                // A server that said something says more than a later one that did not.
                (Err(_), Ok(_)) => {}
                _ => last = answer.clone(),
            }
            if answer == Err(Silence::Timeout) {
                waited_for.push(server);
            }
        }
        last
    }

    /// Whether any of them answers, and whether its answers can be validated.
    pub(super) async fn chain(&self, anchors: &Arc<TrustAnchors>) -> Result<Chain, Trouble> {
        let root = self.ask(&Name::root(), RecordType::DNSKEY).await;
        let message = root.map_err(Trouble::Silent)?;
        let has = |kind| {
            message
                .answers
                .iter()
                .any(|record| record.record_type() == kind)
        };
        if !has(RecordType::DNSKEY) || !has(RecordType::RRSIG) {
            let servers = self.ask(&Name::root(), RecordType::NS).await;
            let servers = servers.map_err(Trouble::Silent)?;
            return match (servers.answers.is_empty(), is_answer(&servers)) {
                (false, _) => Ok(Chain::Stripped),
                (true, true) => Ok(Chain::NoRoot),
                (true, false) => Err(Trouble::Said(servers.metadata.response_code)),
            };
        }
        let validator = DnssecDnsHandle::with_trust_anchor(self.clone(), Arc::clone(anchors));
        match validated(&validator, &Name::root(), RecordType::DNSKEY).await {
            Ok(true) => Ok(Chain::Whole),
            _ => Ok(Chain::OtherRoot),
        }
    }
}

impl DnsHandle for Resolvers {
    type Response = DnsResponseStream;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let resolvers = self.clone();
        let query = request.queries.first().cloned();
        Box::pin(async move {
            let query = query.ok_or(NetError::Message("no question"))?;
            let answer = resolvers.ask(&query.name, query.query_type).await;
            let message = answer.map_err(|silence| NetError::Msg(silence.to_string()))?;
            if !is_answer(&message) {
                return Err(NetError::Msg(message.metadata.response_code.to_string()));
            }
            Ok(DnsResponse::from_message(message)?)
        })
        .into()
    }
}

/// Whether the server knew, be it that there is nothing.
pub(super) fn is_answer(message: &Message) -> bool {
    matches!(
        message.metadata.response_code,
        ResponseCode::NoError | ResponseCode::NXDomain
    )
}

/// Whether signatures prove the answer; `Ok(false)` where the zone is provably unsigned.
async fn validated(
    validator: &DnssecDnsHandle<Resolvers>,
    name: &Name,
    kind: RecordType,
) -> Result<bool, Trouble> {
    let query = Query::query(name.clone(), kind);
    let mut options = DnsRequestOptions::default();
    options.use_edns = true;
    options.edns_set_dnssec_ok = true;
    match validator.lookup(query, options).next().await {
        Some(Ok(response)) => {
            let is_signature = |record: &&Record| record.record_type() == RecordType::RRSIG;
            let told = match response.answers.is_empty() {
                true => response.authorities.iter(),
                false => response.answers.iter(),
            };
            // Of two proofs the lesser counts.
            let told = told.filter(|record| !is_signature(record));
            let proof = told.map(|record| record.proof).min();
            match proof {
                Some(Proof::Secure) => Ok(true),
                // Nothing at all is what an unsigned zone's careless server says of what is not there.
                Some(Proof::Insecure) | None => Ok(false),
                Some(Proof::Bogus | Proof::Indeterminate) => Err(Trouble::Bogus),
            }
        }
        Some(Err(NetError::Dns(DnsError::Nsec {
            proof: Proof::Insecure,
            ..
        }))) => Ok(false),
        Some(Err(_)) | None => Err(Trouble::Bogus),
    }
}

impl Lookup {
    /// `anchors` is `None` where answers cannot be validated.
    pub(super) fn new(resolvers: Resolvers, anchors: Option<Arc<TrustAnchors>>) -> Self {
        let validator =
            anchors.map(|anchors| DnssecDnsHandle::with_trust_anchor(resolvers.clone(), anchors));
        Self {
            resolvers,
            validator,
        }
    }

    /// Whether answers are validated.
    pub(super) fn is_validating(&self) -> bool {
        self.validator.is_some()
    }

    /// What the resolvers say, not validated: evidence for what is wrong.
    pub(super) async fn raw(&self, name: &Name, kind: RecordType) -> Vec<Record> {
        let answer = self.resolvers.ask(name, kind).await;
        answer.map_or_else(|_| Vec::new(), |message| message.answers)
    }

    /// Asks for the zones above a name all at once: each may take as long as an answer is waited for.
    async fn ask_upwards(&self, name: &Name) {
        let mut asking = JoinSet::new();
        let mut at = name.clone();
        while !at.is_root() && asking.len() < MAX_AT_ONCE {
            let (resolvers, name) = (self.resolvers.clone(), at.clone());
            asking.spawn(async move { resolvers.ask(&name, RecordType::SOA).await.is_ok() });
            at = at.base_name();
        }
        asking.join_all().await;
    }

    /// Whether the resolvers can say anything of a name.
    pub(super) async fn is_answered(&self, name: &Name) -> bool {
        let answer = self.resolvers.ask(name, RecordType::SOA).await;
        answer.is_ok_and(|message| is_answer(&message))
    }

    /// Looks up records of one type, through aliases.
    pub(super) async fn find(&self, name: &Name, kind: RecordType) -> Result<Found, Trouble> {
        let mut found = Found {
            records: Vec::new(),
            aliases: Vec::new(),
            exists: true,
            is_secure: self.validator.is_some(),
            denied_by: None,
        };
        let mut at = name.clone();
        // A resolver follows aliases by itself; a server that only knows its own zones stops at theirs.
        while found.aliases.len() <= MAX_ALIASES {
            let answer = self.resolvers.ask(&at, kind).await;
            let message = answer.map_err(Trouble::Silent)?;
            if !is_answer(&message) {
                return Err(Trouble::Said(message.metadata.response_code));
            }
            if let Some(validator) = &self.validator {
                found.is_secure &= validated(validator, &at, kind).await?;
            }
            let before = found.aliases.len();
            follow(&message.answers, at.clone(), kind, &mut found);
            found.exists = message.metadata.response_code == ResponseCode::NoError;
            found.denied_by = soa_owner(&message);
            let is_done = !found.records.is_empty() || !found.exists || found.denied_by.is_some();
            match found.aliases.get(before..).and_then(<[Name]>::last) {
                Some(last) if !is_done => at = last.clone(),
                _ => break,
            }
        }
        Ok(found)
    }

    /// The zone that a name stands in, as its servers tell.
    pub(super) async fn zone_of(&self, name: &Name) -> Option<Name> {
        self.ask_upwards(name).await;
        let mut at = name.clone();
        loop {
            let Ok(message) = self.resolvers.ask(&at, RecordType::SOA).await else {
                if at.is_root() {
                    return None;
                }
                at = at.base_name();
                continue;
            };
            let kinds = |kind| move |record: &&Record| record.record_type() == kind;
            let own = message.answers.iter().find(kinds(RecordType::SOA));
            if own.is_some_and(|record| record.name == at) {
                return Some(at);
            }
            // An alias is no zone, and what is said beside it is of where it leads.
            if !message.answers.iter().any(|record| record.name == at)
                && let Some(zone) = soa_owner(&message)
                && zone.zone_of(&at)
                && is_answer(&message)
            {
                return Some(zone);
            }
            if at.is_root() {
                return None;
            }
            at = at.base_name();
        }
    }
}

/// Follows the aliases of one answer and takes the records at their end.
fn follow(answers: &[Record], from: Name, kind: RecordType, found: &mut Found) {
    let mut at = from;
    loop {
        let own = |record: &&Record| record.name == at && record.record_type() == kind;
        found.records.extend(answers.iter().filter(own).cloned());
        let alias = answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == at => Some(target.0.clone()),
            _ => None,
        });
        match alias {
            Some(next) if found.records.is_empty() && found.aliases.len() <= MAX_ALIASES => {
                found.aliases.push(next.clone());
                at = next;
            }
            _ => return,
        }
    }
}

/// The zone in whose name there is nothing.
fn soa_owner(message: &Message) -> Option<Name> {
    let mut authorities = message.authorities.iter();
    authorities
        .find(|record| record.record_type() == RecordType::SOA)
        .map(|record| record.name.clone())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::{Duration, Instant};

    use hickory_net::proto::op::MessageType;
    use tokio::net::UdpSocket;

    use super::*;

    #[tokio::test]
    async fn a_resolver_that_is_silent_is_waited_for_once() {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let (silent, living) = (bind().await.unwrap(), bind().await.unwrap());
        let servers = vec![silent.local_addr().unwrap(), living.local_addr().unwrap()];
        tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            loop {
                let (length, from) = living.recv_from(&mut buffer).await.unwrap();
                let mut answer = Message::from_vec(&buffer[..length]).unwrap();
                answer.metadata.message_type = MessageType::Response;
                living
                    .send_to(&answer.to_vec().unwrap(), from)
                    .await
                    .unwrap();
            }
        });
        let resolvers = Resolvers::new(servers);
        let mut took = Vec::new();
        for name in ["a.test.", "b.test.", "c.test."] {
            let begun = Instant::now();
            let name = Name::from_ascii(name).unwrap();
            assert!(resolvers.ask(&name, RecordType::A).await.is_ok());
            took.push(begun.elapsed());
        }
        let second = Duration::from_secs(1);
        assert!(took[0] > second, "{took:?}");
        assert!(took[1] < second && took[2] < second, "{took:?}");
    }
}
