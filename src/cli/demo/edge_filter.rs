//! The edge's own firewall, as its administrator would have written it: drop by default, one set
//! beside it, and one line that lets in what the set holds (mode `set`).
//!
//! ```text
//! table inet filter {
//!   set acmegate { type inet_service; flags timeout; }
//!   chain input {
//!     type filter hook input priority filter; policy drop;
//!     iif lo accept
//!     ct state established,related accept
//!     icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
//!     tcp dport @acmegate accept
//!   }
//! }
//! ```

use nlink::netlink::nftables::{
    BaseChain, Chain, CtState, Family, FilterHook, PacketField, Policy, Priority, Rule, Set,
    SetKeyType,
};
use nlink::netlink::{Connection, Nftables};

/// The set as the configuration names it.
pub const SET: &str = "inet filter acmegate";

const TABLE: &str = "filter";
const CHAIN: &str = "input";
const SET_NAME: &str = "acmegate";

/// RFC 4861 §4.3 and §4.4. Without them no IPv6 packet would find its way at all.
const NEIGHBOUR_DISCOVERY: [u8; 2] = [135, 136];

/// Installs the chain in the namespace that the calling thread is in, in one transaction.
///
/// # Errors
/// netlink's: no nf_tables in this kernel, or no power over this namespace.
pub async fn install() -> nlink::Result<()> {
    let nft = Connection::<Nftables>::new()?;
    let set = Set::new(TABLE, SET_NAME)
        .family(Family::Inet)
        .key_type(SetKeyType::InetService)
        .per_element_timeouts();
    let chain = Chain::new(TABLE, CHAIN)?
        .family(Family::Inet)
        .base(BaseChain::filter(FilterHook::Input, Priority::Filter).policy(Policy::Drop));
    let transaction = nft
        .transaction()
        .add_table(TABLE, Family::Inet)
        .add_set(set)
        .add_chain(chain);
    rules()
        .into_iter()
        .fold(transaction, |transaction, rule| transaction.add_rule(rule))
        .commit(&nft)
        .await
}

fn rules() -> Vec<Rule> {
    let rule = || Rule::new(TABLE, CHAIN).family(Family::Inet);
    let mut rules = vec![
        rule().match_iif("lo").accept(),
        rule()
            .match_ct_state(CtState::ESTABLISHED | CtState::RELATED)
            .accept(),
    ];
    rules.extend(NEIGHBOUR_DISCOVERY.map(|kind| rule().match_icmpv6_type(kind).accept()));
    rules.push(
        rule()
            .match_in_set(PacketField::TcpDport, SET_NAME)
            .accept(),
    );
    rules
}
