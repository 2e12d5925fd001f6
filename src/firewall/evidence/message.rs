//! The kernel's sets and counters as messages of netlink: what is asked, and what is answered. Pure, and
//! written here because a look reads a long set piece by piece, between whatever else there is to do.
//!
//! Numbers are those of linux/netlink.h and linux/netfilter/nf_tables.h. What is cut short is not
//! read; nothing is allocated by a length that was sent.

use std::net::IpAddr;
use std::time::Duration;

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
                let lists = attributes_in(attributes)
                    .filter(|(kind, _)| *kind == NFTA_SET_ELEM_LIST_ELEMENTS);
                let elements = lists.flat_map(|(_, list)| attributes_in(list));
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

/// The attributes of a message, or of one of them, each with its type. Wherever in memory: nlink's own
/// reading of them finds nothing at an odd address.
pub(super) fn attributes_in(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const FLAGS: u16 = 0xc000;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let payload = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & !FLAGS, payload))
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
    let mut found = attributes_in(attributes).filter(|(found, _)| *found == kind);
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

#[cfg(test)]
mod tests {
    use super::*;

    // Captured from Linux 6.18; the questions had the number 1.
    const FOUR: &[u8] = include_bytes!("../../../tests/data/netlink/elements-four");
    const SIX: &[u8] = include_bytes!("../../../tests/data/netlink/elements-six");
    const COUNTER: &[u8] = include_bytes!("../../../tests/data/netlink/counter");
    const NO_SUCH_SET: &[u8] = include_bytes!("../../../tests/data/netlink/no-such-set");

    fn sources(datagrams: &[u8]) -> Vec<(String, u16, u64)> {
        let answers = answers(datagrams, 1);
        assert_eq!(answers.last(), Some(&Answer::Done));
        let mut sources: Vec<_> = answers
            .into_iter()
            .filter_map(|answer| match answer {
                Answer::Element(element) => {
                    assert!(element.left <= Duration::from_secs(30), "{element:?}");
                    let source = element.source.to_string();
                    Some((source, element.port, element.packets))
                }
                _ => None,
            })
            .collect();
        sources.sort();
        sources
    }

    #[test]
    fn elements_of_both_families_are_read() {
        let four = "192.0.2.2".to_owned();
        let four = [80, 81, 82, 443].map(|port| (four.clone(), port, 1));
        assert_eq!(sources(FOUR), four);
        assert_eq!(sources(SIX), [("2001:db8:1::2".to_owned(), 80, 1)]);
    }

    #[test]
    fn counters_and_refusals_are_read_and_other_peoples_answers_are_not() {
        assert_eq!(answers(COUNTER, 1), [Answer::Counter(5)]);
        assert_eq!(answers(NO_SUCH_SET, 1), [Answer::Error(2)]);
        assert_eq!(answers(COUNTER, 2), []);
    }

    #[test]
    fn what_is_cut_short_is_left_out() {
        let whole = answers(FOUR, 1);
        for end in 0..FOUR.len() {
            let part = answers(&FOUR[..end], 1);
            assert!(whole.starts_with(&part), "cut at {end}");
        }
    }

    #[test]
    fn where_in_memory_it_lies_changes_nothing() {
        for offset in 0..4 {
            let moved = [&[0; 4][..offset], FOUR].concat();
            assert_eq!(answers(&moved[offset..], 1), answers(FOUR, 1));
        }
    }

    #[test]
    fn a_question_says_how_long_it_is() {
        for question in [ask_for_elements("seen4", 7), ask_for_counter("arrived", 7)] {
            let length = u32::from_ne_bytes(*question.first_chunk().unwrap());
            assert_eq!(length as usize, question.len());
            assert_eq!(messages(&question, Some(7)).count(), 1);
        }
    }
}
