//! The kernel's sets and counters as messages of netlink: what is asked, and what is answered. Pure, and
//! written here because a look reads a long set piece by piece, between whatever else there is to do.
//!
//! Numbers are those of linux/netlink.h and linux/netfilter/nf_tables.h. What is cut short is not
//! read; nothing is allocated by a length that was sent.

use std::net::IpAddr;
use std::time::Duration;

use nlink::netlink::attr::AttrIter;
use nlink::netlink::nftables::{
    Family as NftFamily, NFT_MSG_GETSETELEM, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_TABLE,
};

use crate::firewall::names::TABLE;

const HEADER: usize = 16;
/// `struct nfgenmsg`: family, version, resource.
const GENERIC: usize = 4;
const NLM_F_REQUEST: u16 = 0x001;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Subsystem 10 of netfilter's netlink.
const NFTABLES: u16 = 0x0a00;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_NEWOBJ: u16 = 18;
const NFT_MSG_GETOBJ: u16 = 19;
const NFTA_OBJ_TABLE: u16 = 1;
const NFTA_OBJ_NAME: u16 = 2;
const NFTA_OBJ_TYPE: u16 = 3;
const NFTA_OBJ_DATA: u16 = 4;
const NFT_OBJECT_COUNTER: u32 = 1;
const NFTA_COUNTER_PACKETS: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_EXPIRATION: u16 = 5;
const NFTA_SET_ELEM_EXPR: u16 = 7;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A source and a port of a set.
    Element(Element),
    /// How many packets a named counter has counted.
    Counter(u64),
    /// That was all.
    Done,
    /// The kernel refuses, with this error number; 0 is an acknowledgement.
    Error(i32),
}

/// An element of a set of sources and ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Whose packets, never IPv4-mapped.
    pub source: IpAddr,
    /// The port.
    pub port: u16,
    /// How many.
    pub packets: u64,
    /// For how long it stays, if no more come.
    pub left: Duration,
}

/// Asks for every element of a set of ours.
pub(super) fn ask_for_elements(set: &str, sequence: u32) -> Vec<u8> {
    let mut body = Vec::new();
    attribute(&mut body, NFTA_SET_ELEM_LIST_TABLE, text(TABLE));
    attribute(&mut body, NFTA_SET_ELEM_LIST_SET, text(set));
    request(NFT_MSG_GETSETELEM.into(), NLM_F_DUMP, sequence, &body)
}

/// Asks what a counter of ours has counted.
pub(super) fn ask_for_counter(name: &str, sequence: u32) -> Vec<u8> {
    let mut body = Vec::new();
    attribute(&mut body, NFTA_OBJ_TABLE, text(TABLE));
    attribute(&mut body, NFTA_OBJ_NAME, text(name));
    attribute(&mut body, NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER.to_be_bytes());
    request(NFT_MSG_GETOBJ, 0, sequence, &body)
}

fn request(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = (HEADER + GENERIC + body.len()) as u32;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend((NFTABLES | kind).to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    message.extend([NftFamily::Inet as u8, 0, 0, 0]);
    message.extend(body);
    message
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

/// At most 255 octets.
fn attribute(body: &mut Vec<u8>, kind: u16, payload: impl AsRef<[u8]>) {
    let payload = payload.as_ref();
    body.extend(((4 + payload.len()) as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(payload);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// The messages of a datagram that answer the request of this number, each with its elements.
pub fn answers(datagram: &[u8], sequence: u32) -> Vec<Answer> {
    let mut answers = Vec::new();
    for (kind, body) in messages(datagram, Some(sequence)) {
        match kind {
            NLMSG_DONE => answers.push(Answer::Done),
            NLMSG_ERROR => {
                let code = body
                    .first_chunk()
                    .map_or(0, |code| i32::from_ne_bytes(*code));
                answers.push(Answer::Error(code.saturating_neg()));
            }
            kind if kind == NFTABLES | NFT_MSG_NEWSETELEM => {
                let attributes = body.get(GENERIC..).unwrap_or_default();
                let lists = AttrIter::new(attributes)
                    .filter(|(kind, _)| *kind == NFTA_SET_ELEM_LIST_ELEMENTS);
                let elements = lists.flat_map(|(_, list)| AttrIter::new(list));
                answers.extend(
                    elements
                        .filter_map(|(_, of)| element(of))
                        .map(Answer::Element),
                );
            }
            kind if kind == NFTABLES | NFT_MSG_NEWOBJ => {
                let attributes = body.get(GENERIC..).unwrap_or_default();
                let data = find(attributes, NFTA_OBJ_DATA).unwrap_or_default();
                answers.extend(u64_in(data, NFTA_COUNTER_PACKETS).map(Answer::Counter));
            }
            _ => {}
        }
    }
    answers
}

/// The messages of a datagram, each with its type and what is behind its header.
pub(super) fn messages(
    mut datagram: &[u8],
    sequence: Option<u32>,
) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        loop {
            let length = u32::from_ne_bytes(*datagram.first_chunk()?);
            let length = usize::try_from(length).ok()?;
            let message = datagram.get(..length).filter(|_| length >= HEADER)?;
            let rest = datagram.get(length.next_multiple_of(4)..);
            datagram = rest.unwrap_or_default();
            let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
            let own = u32::from_ne_bytes(message.get(8..12)?.try_into().ok()?);
            if sequence.is_none_or(|wanted| wanted == own) {
                return Some((kind, &message[HEADER..]));
            }
        }
    })
}

fn element(attributes: &[u8]) -> Option<Element> {
    let key = find(find(attributes, NFTA_SET_ELEM_KEY)?, NFTA_DATA_VALUE)?;
    // Each part of a key fills whole words.
    let (source, port): (IpAddr, _) = match key.len() {
        8 => (<[u8; 4]>::try_from(&key[..4]).ok()?.into(), &key[4..6]),
        20 => (<[u8; 16]>::try_from(&key[..16]).ok()?.into(), &key[16..18]),
        _ => return None,
    };
    let counter = find(attributes, NFTA_SET_ELEM_EXPR);
    let counter = counter.and_then(|expression| find(expression, NFTA_EXPR_DATA));
    let left = u64_in(attributes, NFTA_SET_ELEM_EXPIRATION);
    Some(Element {
        source: source.to_canonical(),
        port: u16::from_be_bytes(port.try_into().ok()?),
        packets: counter.and_then(|data| u64_in(data, NFTA_COUNTER_PACKETS))?,
        left: Duration::from_millis(left?),
    })
}

pub(super) fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut found = AttrIter::new(attributes).filter(|(found, _)| *found == kind);
    found.next().map(|(_, payload)| payload)
}

pub(super) fn u32_in(attributes: &[u8], kind: u16) -> Option<u32> {
    let bytes = find(attributes, kind)?.try_into().ok()?;
    Some(u32::from_be_bytes(bytes))
}

pub(super) fn u64_in(attributes: &[u8], kind: u16) -> Option<u64> {
    let bytes = find(attributes, kind)?.try_into().ok()?;
    Some(u64::from_be_bytes(bytes))
}
