//! A zone's own servers, each asked by itself: by UDP and TCP, IPv4 and IPv6, beside what the parent zone says.
//!
//! A perspective's resolver asks any one of them, so each has to be right (RFC 1912 §2.8, RFC 7766). Nothing is
//! judged here; `delegation` says what it means.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_net::proto::op::{Message, ResponseCode};
use hickory_net::proto::rr::{Name, RData, RecordType};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::ask::{Over, Silence, ask, ask_over, question};
use super::chain::{Lookup, is_answer};
use super::{signatures, words};

/// Where name servers listen (RFC 1035 §4.2).
const PORT: u16 = 53;
/// How many servers of a zone are looked at; the root has as many.
const MAX_SERVERS: usize = 13;
/// How many addresses are asked: two of each.
const MAX_ADDRESSES: usize = 26;
/// How many servers of the parent zone are asked for the delegation.
const MAX_PARENTS: usize = 4;
/// How many names of the zone the servers are asked for.
const MAX_NAMES: usize = 8;
/// How many questions to name servers are under way at once.
const MAX_AT_ONCE: usize = 64;

/// What the parent zone's servers say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Delegation {
    /// The servers named, in order.
    pub(super) servers: Vec<Name>,
    /// Their addresses, as far as the parent gives them.
    pub(super) glue: BTreeMap<Name, Vec<IpAddr>>,
    /// Whether it was a referral: a server that has both zones gives none.
    pub(super) is_referral: bool,
}

/// What one server says of the zone by one transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// It has the zone, with this serial; `None` where the answer was cut short before it.
    Has(Option<u32>),
    /// It answers, and has it not; in words.
    Lame(String),
}

/// One address of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) server: Name,
    pub(super) address: IpAddr,
    pub(super) udp: Result<Reply, Silence>,
    pub(super) tcp: Result<Reply, Silence>,
    /// When its signature over the zone's SOA record ends, if there is one: in seconds after 1970, modulo 2^32.
    pub(super) signed_until: Option<u32>,
    /// The addresses of the zone's names, as this server gives them.
    pub(super) answers: BTreeMap<Name, Vec<IpAddr>>,
}

/// A zone as its servers and its parent's show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) zone: Name,
    /// The names of ours in it.
    pub(super) names: Vec<Name>,
    pub(super) delegation: Option<Delegation>,
    /// The servers that the zone itself names.
    pub(super) own: Vec<Name>,
    /// Servers that no address is known of.
    pub(super) without_address: Vec<Name>,
    pub(super) asked: Vec<Asked>,
}

impl Asked {
    /// Whether it said anything at all.
    pub(super) fn spoke(&self) -> bool {
        self.udp.is_ok() || self.tcp.is_ok()
    }

    /// The server with this address, for a sentence.
    pub(super) fn shown(&self) -> String {
        format!("{} ({})", words::name(&self.server), self.address)
    }
}

/// The zone of a name: as the resolvers see it, or where they see nothing because its servers are broken, as the
/// servers of the zone above do.
pub(super) async fn zone_of(lookup: &Lookup, name: &Name) -> Option<Name> {
    let known = lookup.zone_of(name).await?;
    if lookup.is_answered(name).await || known == *name {
        return Some(known);
    }
    let message = ask_zone(lookup, &known, name).await;
    let below = message.as_ref().and_then(|message| {
        let mut owners = message.authorities.iter();
        owners.find(|record| record.record_type() == RecordType::NS && record.name != known)
    });
    Some(below.map_or(known, |record| record.name.clone()))
}

/// Looks at a zone.
pub(super) async fn look(lookup: Lookup, zone: Name, names: Vec<Name>) -> Seen {
    let (delegation, own) = tokio::join!(delegation(&lookup, &zone), servers_of(&lookup, &zone));
    let mut servers = own.clone();
    let by_parent = delegation.iter().flat_map(|one| &one.servers);
    servers.extend(by_parent.cloned());
    servers.sort_unstable();
    servers.dedup();
    servers.truncate(MAX_SERVERS);
    let mut seen = Seen {
        zone: zone.clone(),
        names: names.into_iter().take(MAX_NAMES).collect(),
        delegation,
        own,
        without_address: Vec::new(),
        asked: Vec::new(),
    };
    let mut finding = JoinSet::new();
    for server in servers {
        let lookup = lookup.clone();
        finding.spawn(async move {
            let addresses = addresses_of(&lookup, &server).await;
            (server, addresses)
        });
    }
    let mut asking = JoinSet::new();
    let gauge = Arc::new(Semaphore::new(MAX_AT_ONCE));
    for (server, mut addresses) in finding.join_all().await {
        let glue = seen.delegation.as_ref();
        let glue = glue.and_then(|delegation| delegation.glue.get(&server));
        addresses.extend(glue.into_iter().flatten());
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.is_empty() {
            seen.without_address.push(server);
            continue;
        }
        for address in addresses {
            if asking.len() < MAX_ADDRESSES {
                let (zone, names) = (zone.clone(), seen.names.clone());
                asking.spawn(one(
                    server.clone(),
                    address,
                    zone,
                    names,
                    Arc::clone(&gauge),
                ));
            }
        }
    }
    seen.asked = asking.join_all().await;
    seen.asked.sort_unstable_by(|one, other| {
        (&one.server, one.address).cmp(&(&other.server, other.address))
    });
    seen
}

/// Asks one address everything.
async fn one(
    server: Name,
    address: IpAddr,
    zone: Name,
    names: Vec<Name>,
    gauge: Arc<Semaphore>,
) -> Asked {
    let to = SocketAddr::new(address, PORT);
    let soa = question(&zone, RecordType::SOA, false);
    let by = |over| {
        let (soa, zone, gauge) = (&soa, &zone, &gauge);
        async move {
            let _turn = gauge.acquire().await;
            let message = ask_over(over, to, soa).await?;
            let until = message.answers.iter().filter_map(signatures::ends).min();
            Ok((reply(&message, zone), until))
        }
    };
    let (udp, tcp) = tokio::join!(by(Over::Udp), by(Over::Tcp));
    let until = |answer: &Result<(Reply, Option<u32>), Silence>| answer.as_ref().ok()?.1;
    let signed_until = until(&udp).or(until(&tcp));
    let (udp, tcp) = (udp.map(|(reply, _)| reply), tcp.map(|(reply, _)| reply));
    let mut answers = BTreeMap::new();
    if matches!(udp, Ok(Reply::Has(_))) {
        for name in names {
            let _turn = gauge.acquire().await;
            let (four, six) = (
                question(&name, RecordType::A, false),
                question(&name, RecordType::AAAA, false),
            );
            if let (Ok(four), Ok(six)) = tokio::join!(ask(to, &four), ask(to, &six))
                && let Some(addresses) = addresses_in(&four, &six, &name)
            {
                answers.insert(name, addresses);
            }
        }
    }
    Asked {
        server,
        address,
        udp,
        tcp,
        signed_until,
        answers,
    }
}

/// A name's own addresses in the answers for A and AAAA. Where an alias leads is another name's matter: one server may
/// have that zone too, and tell more. `None`: an answer that was refused says nothing of what it would have been.
fn addresses_in(four: &Message, six: &Message, name: &Name) -> Option<Vec<IpAddr>> {
    if !is_answer(four) || !is_answer(six) {
        return None;
    }
    let records = four.answers.iter().chain(&six.answers);
    let own = records.filter(|record| record.name == *name);
    Some(words::addresses(own.map(|record| &record.data)))
}

fn reply(message: &Message, zone: &Name) -> Reply {
    let code = message.metadata.response_code;
    if code != ResponseCode::NoError {
        return Reply::Lame(code.to_string());
    }
    let serial = message
        .answers
        .iter()
        .find_map(|record| match &record.data {
            RData::SOA(soa) if record.name == *zone => Some(soa.serial),
            _ => None,
        });
    match serial {
        // Cut short is no matter here: the rest is asked by TCP.
        None if message.metadata.truncation && message.metadata.authoritative => Reply::Has(None),
        Some(_) if message.metadata.authoritative => Reply::Has(serial),
        Some(_) => Reply::Lame("its answer is not authoritative".to_owned()),
        None => Reply::Lame("it answers without the zone's SOA record".to_owned()),
    }
}

/// What the parent zone's servers say of the zone.
async fn delegation(lookup: &Lookup, zone: &Name) -> Option<Delegation> {
    if zone.is_root() {
        return None;
    }
    let parent = lookup.zone_of(&zone.base_name()).await?;
    let message = ask_zone(lookup, &parent, zone).await?;
    let is_referral = message.answers.is_empty() && !message.metadata.authoritative;
    let told = message.answers.iter().chain(&message.authorities);
    let servers: Vec<Name> = told
        .filter(|record| record.name == *zone)
        .filter_map(|record| match &record.data {
            RData::NS(server) => Some(server.0.to_lowercase()),
            _ => None,
        })
        .collect();
    let mut glue: BTreeMap<Name, Vec<IpAddr>> = BTreeMap::new();
    for record in &message.additionals {
        for address in words::addresses(std::iter::once(&record.data)) {
            glue.entry(record.name.to_lowercase())
                .or_default()
                .push(address);
        }
    }
    (!servers.is_empty()).then_some(Delegation {
        servers,
        glue,
        is_referral,
    })
}

/// Asks the servers of `zone` for the servers of `name`, without recursion: the first answer.
async fn ask_zone(lookup: &Lookup, zone: &Name, name: &Name) -> Option<Message> {
    let mut asking = JoinSet::new();
    for server in servers_of(lookup, zone).await {
        for address in addresses_of(lookup, &server).await {
            let message = question(name, RecordType::NS, false);
            if asking.len() < MAX_PARENTS {
                asking.spawn(async move { ask(SocketAddr::new(address, PORT), &message).await });
            }
        }
    }
    while let Some(answer) = asking.join_next().await {
        if let Ok(Ok(message)) = answer
            && message.metadata.response_code == ResponseCode::NoError
        {
            return Some(message);
        }
    }
    None
}

/// The servers that a zone names, as the resolvers see it.
async fn servers_of(lookup: &Lookup, zone: &Name) -> Vec<Name> {
    let records = lookup.raw(zone, RecordType::NS).await;
    let mut servers: Vec<Name> = records
        .iter()
        .filter(|record| record.name == *zone)
        .filter_map(|record| match &record.data {
            RData::NS(server) => Some(server.0.to_lowercase()),
            _ => None,
        })
        .collect();
    servers.sort_unstable();
    servers.dedup();
    servers
}

async fn addresses_of(lookup: &Lookup, server: &Name) -> Vec<IpAddr> {
    let (four, six) = tokio::join!(
        lookup.raw(server, RecordType::A),
        lookup.raw(server, RecordType::AAAA)
    );
    words::addresses(four.iter().chain(&six).map(|record| &record.data))
}

#[cfg(test)]
mod tests {
    use hickory_net::proto::rr::Record;
    use hickory_net::proto::rr::rdata::{A, CNAME};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn answer(records: Vec<Record>) -> Message {
        let mut message = Message::query();
        message.add_answers(records);
        message
    }

    #[test]
    fn only_what_a_server_says_of_the_name_itself_is_compared() {
        let a = |owner: &str| {
            let data = RData::A(A::new(192, 0, 2, 1));
            Record::from_rdata(name(owner), 60, data)
        };
        let target = RData::CNAME(CNAME(name("b.test.")));
        let alias = Record::from_rdata(name("a.test."), 60, target);
        let none = answer(Vec::new());
        let own = name("a.test.");
        let addresses = |four: Vec<Record>| addresses_in(&answer(four), &none, &own);
        assert_eq!(
            addresses(vec![a("a.test.")]),
            Some(vec!["192.0.2.1".parse().unwrap()])
        );
        assert_eq!(addresses(vec![alias.clone()]), Some(Vec::new()));
        assert_eq!(addresses(vec![alias, a("b.test.")]), Some(Vec::new()));
        let mut refused = answer(Vec::new());
        refused.metadata.response_code = ResponseCode::Refused;
        assert_eq!(addresses_in(&refused, &none, &own), None);
        assert_eq!(addresses_in(&none, &refused, &own), None);
    }

    #[test]
    fn an_answer_that_was_cut_short_tells_no_serial() {
        let mut cut = answer(Vec::new());
        cut.metadata.truncation = true;
        assert!(matches!(reply(&cut, &name("a.test.")), Reply::Lame(_)));
        cut.metadata.authoritative = true;
        assert_eq!(reply(&cut, &name("a.test.")), Reply::Has(None));
    }
}
