//! A rule of somebody else's as people know it: as `nft list` shows it, as far as that can be told from
//! what the kernel dumps. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use nlink::netlink::nftables::{
    Family as NftFamily, RuleExpr, RuleInfo, RuleSpec, SetElement, SetInfo, SetKeyType,
    parse_expressions,
};

use super::message::attributes_in;

/// `NFTA_MATCH_NAME` and `NFTA_TARGET_NAME`.
const XT_NAME: u16 = 1;

/// What the names of sets begin with that stand in a rule itself.
const ANONYMOUS: &str = "__";
/// What such a set is called while its rule is printed: nothing is printed of one without a name.
const STAND_IN: &str = "in-the-rule-";
/// The most elements that are told of a set.
const MAX_ELEMENTS: usize = 16;

/// The rule's text, without counters, on one line. `sets` are the texts of those that stand in it.
pub(super) fn rule_words(rule: &RuleInfo, sets: &BTreeMap<String, String>) -> String {
    let whole = rule.spec().nft_syntax_stateless(rule.family);
    let text = whole.unwrap_or_else(|| {
        let mut expressions = parse_expressions(&rule.expression_bytes);
        for expression in &mut expressions {
            if let RuleExpr::Lookup { set, .. } = expression
                && set.starts_with(ANONYMOUS)
            {
                *set = format!("{STAND_IN}{set}");
            }
        }
        let mut words = in_parts(&expressions, rule.family);
        let comment = rule.comment_text.iter();
        words.extend(comment.map(|comment| format!("comment \"{comment}\"")));
        let words = words.join(" ");
        let words = words.split(' ').map(|word| {
            let set = word
                .strip_prefix('@')
                .and_then(|set| set.strip_prefix(STAND_IN));
            match set {
                Some(set) => sets.get(set).map_or("{ … }", String::as_str),
                None => word,
            }
        });
        words.collect::<Vec<_>>().join(" ")
    });
    plain(&text)
}

/// The names of the sets that stand in the rule itself.
pub(super) fn anonymous_sets(rule: &RuleInfo) -> BTreeSet<String> {
    let expressions = parse_expressions(&rule.expression_bytes).into_iter();
    let sets = expressions.filter_map(|expression| match expression {
        RuleExpr::Lookup { set, .. } if set.starts_with(ANONYMOUS) => Some(set),
        _ => None,
    });
    sets.collect()
}

/// Whether the elements of a set can be told in a few words.
pub(super) fn is_short(set: &SetInfo) -> bool {
    let size = set.size.and_then(|size| usize::try_from(size).ok());
    let is_map = set.data_type.is_some() || set.object_type.is_some();
    // Each range takes two.
    size.is_some_and(|size| size <= 2 * MAX_ELEMENTS) && !is_map
}

/// `{ 80, 443 }`, of addresses and ports.
pub(super) fn set_words(set: &SetInfo, elements: &[SetElement]) -> Option<String> {
    let key = SetKeyType::from_kernel(set.key_type, set.key_len);
    let is_port = match key {
        SetKeyType::Ipv4Addr | SetKeyType::Ipv6Addr => false,
        SetKeyType::InetService => true,
        _ => return None,
    };
    let mut sorted: Vec<&SetElement> = elements.iter().collect();
    sorted.sort_by_key(|element| element.key());
    let words: Option<Vec<String>> = sorted
        .into_iter()
        .map(|element| {
            let first = one(element.key(), is_port)?;
            let last = element.key_end().filter(|last| *last != element.key());
            let Some(last) = last else { return Some(first) };
            let text = match prefix_length(element.key(), last) {
                Some(length) if !is_port => format!("{first}/{length}"),
                _ => format!("{first}-{}", one(last, is_port)?),
            };
            Some(text)
        })
        .collect();
    words.map(|words| format!("{{ {} }}", words.join(", ")))
}

fn one(key: &[u8], is_port: bool) -> Option<String> {
    match (key.len(), is_port) {
        (2, true) => Some(u16::from_be_bytes(key.try_into().ok()?).to_string()),
        (4, false) => Some(Ipv4Addr::from(<[u8; 4]>::try_from(key).ok()?).to_string()),
        (16, false) => Some(Ipv6Addr::from(<[u8; 16]>::try_from(key).ok()?).to_string()),
        _ => None,
    }
}

/// The length of the prefix that a range of addresses is, if it is one.
fn prefix_length(first: &[u8], last: &[u8]) -> Option<usize> {
    let bits = |bytes: &[u8]| -> u128 {
        bytes
            .iter()
            .fold(0, |all, byte| all << 8 | u128::from(*byte))
    };
    let (first_bits, last_bits) = (bits(first), bits(last));
    let host = first_bits ^ last_bits;
    let is_prefix = host & host.wrapping_add(1) == 0 && first_bits & host == 0;
    let host_bits = usize::try_from(u128::BITS - host.leading_zeros()).ok()?;
    is_prefix.then(|| first.len() * 8 - host_bits)
}

/// What iptables-nft left as it was has a name and a structure of its own: the name is told, and what is
/// between in nft's words.
fn in_parts(expressions: &[RuleExpr], family: NftFamily) -> Vec<String> {
    let mut words = Vec::new();
    let is_foreign = |expr: &RuleExpr| matches!(expr, RuleExpr::Unknown { .. });
    for part in expressions.chunk_by(|one, next| !is_foreign(one) && !is_foreign(next)) {
        match part {
            [RuleExpr::Unknown { name, data, .. }] => words.push(foreign(name, data)),
            part => {
                let text = RuleSpec::lift(part, family).nft_syntax_stateless(family);
                words.push(text.unwrap_or_else(|| "…".to_owned()));
            }
        }
    }
    words
}

fn foreign(kind: &str, data: &[u8]) -> String {
    let mut attributes = attributes_in(data);
    let name = attributes.find(|(kind, _)| *kind == XT_NAME);
    let name = name.and_then(|(_, name)| name.split(|byte| *byte == 0).next());
    let name = name.map(String::from_utf8_lossy);
    match (kind, name) {
        ("match", Some(name)) => format!("xt match \"{name}\""),
        ("target", Some(name)) => format!("xt target \"{name}\""),
        (other, _) => format!("({other})"),
    }
}

/// Names and comments are whatever somebody wrote: nothing of them moves a cursor.
pub(super) fn plain(text: &str) -> String {
    // What turns the direction of writing around is no control character.
    let turns = ['\u{200e}', '\u{200f}', '\u{61c}'];
    let is_plain = |character: char| {
        !character.is_control()
            && !turns.contains(&character)
            && !('\u{202a}'..='\u{202e}').contains(&character)
            && !('\u{2066}'..='\u{2069}').contains(&character)
    };
    text.chars()
        .map(|character| match is_plain(character) {
            true => character,
            false => '?',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_a_prefix_or_is_not() {
        let length = |first: [u8; 4], last: [u8; 4]| prefix_length(&first, &last);
        assert_eq!(length([10, 0, 0, 0], [10, 255, 255, 255]), Some(8));
        assert_eq!(length([0; 4], [255; 4]), Some(0));
        assert_eq!(length([10, 0, 0, 1], [10, 0, 0, 1]), Some(32));
        assert_eq!(length([10, 0, 0, 1], [10, 0, 0, 2]), None);
        assert_eq!(length([10, 0, 0, 0], [10, 0, 0, 2]), None);
        assert_eq!(prefix_length(&[0; 16], &[255; 16]), Some(0));
    }

    #[test]
    fn what_iptables_left_as_it_was_is_told_by_name_and_moves_no_cursor() {
        let name = |name: &[u8]| {
            let mut data = ((4 + name.len()) as u16).to_ne_bytes().to_vec();
            data.extend(XT_NAME.to_ne_bytes());
            data.extend(name);
            data
        };
        assert_eq!(foreign("match", &name(b"set\0")), "xt match \"set\"");
        assert_eq!(foreign("target", &name(b"LOG")), "xt target \"LOG\"");
        assert_eq!(foreign("target", &[]), "(target)");
        assert_eq!(foreign("tunnel", &name(b"x")), "(tunnel)");
        assert_eq!(plain("a\u{1b}[2Jb\n\u{202e}c"), "a?[2Jb??c");
    }
}
