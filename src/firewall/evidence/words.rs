//! A rule of somebody else's as people know it: as `nft list` shows it, as far as that can be told from
//! what the kernel dumps. Pure.

use nlink::netlink::attr::AttrIter;
use nlink::netlink::nftables::{
    Family as NftFamily, RuleExpr, RuleInfo, RuleSpec, parse_expressions,
};

/// `NFTA_MATCH_NAME` and `NFTA_TARGET_NAME`.
const XT_NAME: u16 = 1;

/// The rule's text, without counters, on one line.
pub(super) fn rule_words(rule: &RuleInfo) -> String {
    let whole = rule.spec().nft_syntax_stateless(rule.family);
    let text = whole.unwrap_or_else(|| {
        let expressions = parse_expressions(&rule.expression_bytes);
        let mut words = in_parts(&expressions, rule.family);
        let comment = rule.comment_text.iter();
        words.extend(comment.map(|comment| format!("comment \"{comment}\"")));
        words.join(" ")
    });
    plain(&text)
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
    let mut attributes = AttrIter::new(data);
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
    let is_plain = |character: char| !character.is_control();
    text.chars()
        .map(|character| match is_plain(character) {
            true => character,
            false => '?',
        })
        .collect()
}
