//! What iptables-nft says beside a rule's expressions and the kernel does not give back: which transport its
//! matches are for. Without it the kernel refuses `-p tcp --dport 80` as a match for no transport. Pure.

use super::expressions::expressions;
use crate::doctor::twin::netlink::{find, find_text, find_u32, put};

const NFTA_RULE_COMPAT_PROTO: u16 = 1;
const NFTA_RULE_COMPAT_FLAGS: u16 = 2;
const NFT_RULE_COMPAT_F_INV: u32 = 2;
/// `NFTA_MATCH_NAME` and `NFTA_TARGET_NAME`.
const XT_NAME: u16 = 1;
const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFT_META_L4PROTO: u32 = 16;
const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_DATA_VALUE: u16 = 1;
const NFT_CMP_EQ: u32 = 0;
const NFT_CMP_NEQ: u32 = 1;
const IPV6: u8 = 10;

/// The attributes that belong beside these expressions of a rule of this family, if any of them is xtables'.
pub fn of(list: &[u8], family: u8) -> Option<Vec<u8>> {
    expressions(list).find(|(name, _)| is_xtables(name))?;
    // IPv4's protocol, or IPv6's next header.
    let offset = if family == IPV6 { 6 } else { 9 };
    let mut register = None;
    for (name, data) in expressions(list) {
        match name {
            b"meta" if find_u32(data, NFTA_META_KEY) == Some(NFT_META_L4PROTO) => {
                register = find_u32(data, NFTA_META_DREG);
            }
            b"payload"
                if find_u32(data, NFTA_PAYLOAD_BASE) == Some(NFT_PAYLOAD_NETWORK_HEADER)
                    && find_u32(data, NFTA_PAYLOAD_OFFSET) == Some(offset)
                    && find_u32(data, NFTA_PAYLOAD_LEN) == Some(1) =>
            {
                register = find_u32(data, NFTA_PAYLOAD_DREG);
            }
            b"cmp" if register.is_some() && find_u32(data, NFTA_CMP_SREG) == register => {
                let flags = match find_u32(data, NFTA_CMP_OP)? {
                    NFT_CMP_EQ => 0,
                    NFT_CMP_NEQ => NFT_RULE_COMPAT_F_INV,
                    _ => return None,
                };
                let value = find(find(data, NFTA_CMP_DATA)?, NFTA_DATA_VALUE)?;
                let protocol = u32::from(*value.first()?);
                let mut compat = Vec::new();
                put(&mut compat, NFTA_RULE_COMPAT_PROTO, &protocol.to_be_bytes());
                put(&mut compat, NFTA_RULE_COMPAT_FLAGS, &flags.to_be_bytes());
                return Some(compat);
            }
            // Whatever loads a register takes the earlier one away.
            b"meta" | b"payload" => register = None,
            _ => {}
        }
    }
    None
}

/// What a rule consists of that is xtables', by name.
pub fn names(list: &[u8]) -> Vec<String> {
    let xtables = expressions(list).filter(|(name, _)| is_xtables(name));
    xtables
        .map(|(kind, data)| {
            let name = name_in(data).unwrap_or_default();
            let [kind, name] = [kind, name].map(String::from_utf8_lossy);
            format!("xt {kind} \"{name}\"")
        })
        .collect()
}

/// The name of a match or target.
pub fn name_in(data: &[u8]) -> Option<&[u8]> {
    find_text(data, XT_NAME)
}

fn is_xtables(name: &[u8]) -> bool {
    matches!(name, b"match" | b"target")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::twin::netlink::{put_nested, put_text};

    fn expression(list: &mut Vec<u8>, name: &[u8], data: &[u8]) {
        let mut expression = Vec::new();
        put_text(&mut expression, 1, name);
        put_nested(&mut expression, 2, data);
        put_nested(list, 1, &expression);
    }

    /// `meta l4proto`, compared with `protocol`, and xtables' match of that name.
    fn rule(operation: u32, protocol: u8, name: &[u8]) -> Vec<u8> {
        let mut list = Vec::new();
        let mut meta = Vec::new();
        put(&mut meta, NFTA_META_DREG, &1_u32.to_be_bytes());
        put(&mut meta, NFTA_META_KEY, &NFT_META_L4PROTO.to_be_bytes());
        expression(&mut list, b"meta", &meta);
        let mut value = Vec::new();
        put(&mut value, NFTA_DATA_VALUE, &[protocol]);
        let mut compare = Vec::new();
        put(&mut compare, NFTA_CMP_SREG, &1_u32.to_be_bytes());
        put(&mut compare, NFTA_CMP_OP, &operation.to_be_bytes());
        put_nested(&mut compare, NFTA_CMP_DATA, &value);
        expression(&mut list, b"cmp", &compare);
        let mut of_xtables = Vec::new();
        put_text(&mut of_xtables, XT_NAME, name);
        expression(&mut list, b"match", &of_xtables);
        list
    }

    fn said(list: &[u8]) -> Option<(u32, u32)> {
        let compat = of(list, 2)?;
        let protocol = find_u32(&compat, NFTA_RULE_COMPAT_PROTO)?;
        Some((protocol, find_u32(&compat, NFTA_RULE_COMPAT_FLAGS)?))
    }

    #[test]
    fn the_transport_of_a_match_is_found_in_its_rule() {
        assert_eq!(said(&rule(NFT_CMP_EQ, 6, b"tcp")), Some((6, 0)));
        assert_eq!(said(&rule(NFT_CMP_NEQ, 17, b"comment")), Some((17, 2)));
        assert_eq!(names(&rule(NFT_CMP_EQ, 6, b"tcp")), ["xt match \"tcp\""]);
    }

    #[test]
    fn rules_of_nft_alone_need_none() {
        let mut list = rule(NFT_CMP_EQ, 6, b"tcp");
        let whole = list.len();
        for end in 0..whole {
            // Whatever is cut short is no panic.
            let _ = (said(&list[..end]), names(&list[..end]));
        }
        list.clear();
        expression(&mut list, b"counter", &[]);
        assert_eq!(said(&list), None);
        assert_eq!(names(&list), Vec::<String>::new());
    }
}
