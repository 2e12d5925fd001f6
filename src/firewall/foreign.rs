//! Mode `attach`: one rule of ours at the head of somebody else's chain, and nothing else there.
//!
//! The rule accepts what our own table marked, `meta mark & BIT == BIT accept comment "acmegate"`. It is
//! literal, so that iptables-nft prints, saves and restores it as what it is, and it opens nothing
//! by itself, so that a saved ruleset holds no open window. What is not known by our tag is never
//! changed or deleted.

use nlink::netlink::nftables::{
    ChainInfo, ChainType, Expr, Family as NftFamily, NFT_MSG_NEWRULE, NFT_TABLE_F_OWNER,
    NFTA_RULE_CHAIN, NFTA_RULE_TABLE, NFTA_RULE_USERDATA, RawMessage, Register, RuleExpr, RuleInfo,
    Verdict, parse_expressions, write_expressions,
};
use nlink::netlink::nftables::{CmpOp, MetaKey};
use nlink::netlink::{AttrIter, Connection, MessageBuilder, Nftables};

use super::error::{Doing, KernelError};
use super::names::{TABLE, TAG};
use super::rules::{Hook, TAG_PRIORITY, rule_text};
use super::ruleset::{ForeignChain, Mode, Settings};

/// `NLM_F_CREATE` of linux/netlink.h; without `NLM_F_APPEND` a rule goes to the head of its chain.
const CREATE: u16 = 0x400;
/// A userdata entry of libnftnl: a rule's comment.
const COMMENT: u8 = 0;
/// `NFTA_MATCH_NAME` and `NFTA_MATCH_INFO` of linux/netfilter/nf_tables.h.
const MATCH_NAME: u16 = 1;
const MATCH_INFO: u16 = 3;
/// NF_INET_PRE_ROUTING, NF_INET_LOCAL_IN and NF_INET_FORWARD of linux/netfilter.h.
const HOOKS: [u32; 3] = [0, 1, 2];

/// Checks that every configured chain is there and that our rule can stand in it.
///
/// # Errors
/// [`KernelError`]: the operator's to mend.
pub(super) async fn check(
    nft: &Connection<Nftables>,
    settings: &Settings,
) -> Result<(), KernelError> {
    let Mode::Attach(chains) = &settings.mode else {
        return Ok(());
    };
    let tables = nft.list_tables().await.doing("listing tables")?;
    let found = nft.list_chains().await.doing("listing chains")?;
    for wanted in chains {
        let Some(chain) = found.iter().find(|found| is_that(found, wanted)) else {
            return Err(KernelError::NoForeignChain(wanted.clone()));
        };
        let is_owned = tables.iter().any(|table| {
            table.family == wanted.family
                && table.name == wanted.table
                && table.flags & NFT_TABLE_F_OWNER != 0
        });
        if is_owned {
            return Err(KernelError::OwnedForeignTable(wanted.clone()));
        }
        let is_elsewhere = chain.hook.is_some_and(|hook| !HOOKS.contains(&hook));
        let translates = chain.chain_type == Some(ChainType::Nat);
        if is_elsewhere || translates {
            return Err(KernelError::UnfitForeignChain(wanted.clone()));
        }
        let is_early = chain.hook == Some(Hook::Prerouting as u32)
            && chain
                .priority
                .is_some_and(|priority| priority <= TAG_PRIORITY);
        if is_early {
            return Err(KernelError::EarlyForeignChain(wanted.clone()));
        }
    }
    Ok(())
}

fn is_that(found: &ChainInfo, wanted: &ForeignChain) -> bool {
    found.family == wanted.family && found.table == wanted.table && found.name == wanted.name
}

/// Whether our rule stands at the head of every configured chain, once and as we write it.
///
/// # Errors
/// [`KernelError`], also where a chain is gone.
pub(super) async fn is_attached(
    nft: &Connection<Nftables>,
    settings: &Settings,
) -> Result<bool, KernelError> {
    let Mode::Attach(chains) = &settings.mode else {
        return Ok(true);
    };
    for chain in chains {
        if !rules_in(nft, chain).await?.are_right(settings) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Puts our rule at the head of every configured chain where it is missing, not as we write it, or
/// behind a rule that came later; says whether anything had to be done.
///
/// # Errors
/// [`KernelError`]; where a chain is missing, after all others were seen to.
pub(super) async fn attach(
    nft: &Connection<Nftables>,
    settings: &Settings,
) -> Result<bool, KernelError> {
    let Mode::Attach(chains) = &settings.mode else {
        return Ok(false);
    };
    let there = nft.list_chains().await.doing("listing chains")?;
    let mut changed = false;
    let mut missing = None;
    for chain in chains {
        if !there.iter().any(|found| is_that(found, chain)) {
            missing.get_or_insert(KernelError::NoForeignChain(chain.clone()));
            continue;
        }
        let rules = rules_in(nft, chain).await?;
        if rules.are_right(settings) {
            continue;
        }
        let mut change = nft.transaction();
        for rule in &rules.ours {
            change = change.del_rule(&chain.table, &chain.name, chain.family, rule.handle);
        }
        change = change.raw(at_the_head(chain, settings.mark));
        change
            .commit(nft)
            .await
            .doing("putting our rule into a chain of [firewall] chains")?;
        changed = true;
    }
    match missing {
        Some(error) => Err(error),
        None => Ok(changed),
    }
}

/// Takes our rule out of every chain but `kept`, wherever some run of ours put it.
///
/// # Errors
/// [`KernelError`], after everything was tried.
pub(super) async fn detach(
    nft: &Connection<Nftables>,
    kept: &[ForeignChain],
) -> Result<(), KernelError> {
    let mut first_error = Ok(());
    let tables = nft.list_tables().await.doing("listing tables")?;
    let foreign = tables.into_iter().filter(|table| {
        // Nobody can have put a rule into a table that its owner alone may change.
        table.flags & NFT_TABLE_F_OWNER == 0
            && matches!(
                table.family,
                NftFamily::Ip | NftFamily::Ip6 | NftFamily::Inet
            )
            && !(table.family == NftFamily::Inet && table.name == TABLE)
    });
    for table in foreign {
        let rules = match nft.list_rules(&table.name, table.family).await {
            Err(error) if error.is_not_found() => continue,
            rules => rules.doing("listing rules")?,
        };
        let stale = rules.into_iter().filter(|rule| {
            let is_kept = kept.iter().any(|chain| {
                chain.family == table.family
                    && chain.table == table.name
                    && chain.name == rule.chain
            });
            !is_kept && is_ours(rule)
        });
        let mut change = nft.transaction();
        let mut is_empty = true;
        for rule in stale {
            change = change.del_rule(&table.name, &rule.chain, table.family, rule.handle);
            is_empty = false;
        }
        if !is_empty {
            match change.commit(nft).await {
                Err(error) if error.is_not_found() => {}
                done => {
                    let done = done.doing("taking our rules out of other chains");
                    first_error = first_error.and(done);
                }
            }
        }
    }
    first_error
}

/// Our rules in a chain, however they got there.
struct Found {
    ours: Vec<RuleInfo>,
    /// Whether one of them is the chain's first rule: what stands before it may drop first.
    is_at_the_head: bool,
}

impl Found {
    fn are_right(&self, settings: &Settings) -> bool {
        match self.ours.as_slice() {
            [rule] => {
                self.is_at_the_head
                    && rule_text(&rule.spec()) == rule_text(&settings.attached_rule())
            }
            _ => false,
        }
    }
}

async fn rules_in(nft: &Connection<Nftables>, chain: &ForeignChain) -> Result<Found, KernelError> {
    let rules = match nft.list_rules(&chain.table, chain.family).await {
        Err(error) if error.is_not_found() => {
            return Err(KernelError::NoForeignChain(chain.clone()));
        }
        rules => rules.doing("listing rules")?,
    };
    let mut of_chain = rules
        .into_iter()
        .filter(|rule| rule.chain == chain.name)
        .peekable();
    Ok(Found {
        is_at_the_head: of_chain.peek().is_some_and(is_ours),
        ours: of_chain.filter(is_ours).collect(),
    })
}

/// Known by its comment and by all that it says: an administrator may call a rule of theirs by our
/// name.
fn is_ours(rule: &RuleInfo) -> bool {
    accepts_one_bit(&parse_expressions(&rule.expression_bytes), |rest| {
        match (&rule.comment_text, rest) {
            (Some(comment), []) => comment == TAG,
            // As iptables-restore writes it.
            (None, [only]) => is_tag(only),
            _ => false,
        }
    })
}

/// `meta mark & BIT == BIT REST accept`, whichever bit the run that wrote it had. Counters, which
/// iptables puts into every rule, are no part of the rest.
fn accepts_one_bit(expressions: &[RuleExpr], is_rest: impl Fn(&[RuleExpr]) -> bool) -> bool {
    let [
        RuleExpr::Meta {
            key: MetaKey::Mark, ..
        },
        RuleExpr::Bitwise { mask, .. },
        RuleExpr::Cmp {
            op: CmpOp::Eq,
            data,
            ..
        },
        rest @ ..,
        RuleExpr::Verdict(Verdict::Accept),
    ] = expressions
    else {
        return false;
    };
    let rest: Vec<RuleExpr> = rest
        .iter()
        .filter(|expression| !matches!(expression, RuleExpr::Counter { .. }))
        .cloned()
        .collect();
    let ones: u32 = mask.iter().map(|octet| octet.count_ones()).sum();
    mask == data && ones == 1 && is_rest(&rest)
}

/// Whether this is xtables' match of the name `comment`, with our tag for its text.
fn is_tag(expression: &RuleExpr) -> bool {
    let RuleExpr::Unknown { name, data, .. } = expression else {
        return false;
    };
    let text = |wanted: u16| {
        let mut attributes = AttrIter::new(data);
        let (_, value) = attributes.find(|(kind, _)| *kind == wanted)?;
        value.split(|octet| *octet == 0).next()
    };
    name == "match"
        && text(MATCH_NAME) == Some(b"comment")
        && text(MATCH_INFO) == Some(TAG.as_bytes())
}

/// nlink appends rules, or puts them behind others; this is `nft insert rule`.
fn at_the_head(chain: &ForeignChain, mark: u32) -> RawMessage {
    let dreg = Register::R0;
    let bit = mark.to_ne_bytes().to_vec();
    let expressions = [
        Expr::Meta {
            dreg,
            key: MetaKey::Mark,
        },
        Expr::Bitwise {
            sreg: dreg,
            dreg,
            len: 4,
            mask: bit.clone(),
            xor: vec![0; 4],
        },
        Expr::Cmp {
            sreg: dreg,
            op: CmpOp::Eq,
            data: bit,
        },
        Expr::Verdict(Verdict::Accept),
    ];
    let mut comment = vec![COMMENT, TAG.len() as u8 + 1];
    comment.extend(TAG.bytes().chain([0]));
    let mut message = MessageBuilder::new(0, 0);
    let header = message.len();
    message.append_attr_str(NFTA_RULE_TABLE, &chain.table);
    message.append_attr_str(NFTA_RULE_CHAIN, &chain.name);
    write_expressions(&mut message, &expressions);
    message.append_attr(NFTA_RULE_USERDATA, &comment);
    RawMessage::new(NFT_MSG_NEWRULE, chain.family)
        .flags(CREATE)
        .attrs(message.as_bytes()[header..].to_vec())
}
