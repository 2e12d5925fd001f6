//! The twin's own table: it has every packet traced, and says at the very end who was delivered and who was
//! sent on. Nothing gets past it: no packet is answered, none is tracked, none leaves. Where answers are asked for,
//! `delivered` and `forwarded` accept for as long: then a listener answers, and what it says is
//! heard and ends at the very edge.
//!
//! ```text
//! table netdev acmegate-twin {
//!   chain in { type filter hook ingress devices = { … } priority -2147483648;
//!     meta nftrace set 1
//!     meta l4proto 253 drop
//!   }
//!   chain left { type filter hook egress devices = { … } priority 2147483646; drop }
//! }
//! table inet acmegate-twin {
//!   chain in { type filter hook prerouting priority -2147483648; … the same }
//!   chain out { type filter hook output priority -2147483648; meta nftrace set 1 }
//!   chain delivered { type filter hook input priority 2147483646; drop }
//!   chain forwarded { type filter hook postrouting priority 2147483646; drop }
//! }
//! ```

use std::io;

use super::netlink::{
    NFTABLES, NLM_F_APPEND, NLM_F_CREATE, Order, Socket, generic, put, put_nested, put_text,
};

/// What the tables are called; nobody else's is.
pub const TABLE: &str = "acmegate-twin";
/// Where a packet arrives that would reach a socket.
pub const DELIVERED: &str = "delivered";
/// Where one arrives that goes on to another host.
pub const FORWARDED: &str = "forwarded";
/// Where one arrives that leaves by its interface, after everybody's egress chains.
pub const LEFT: &str = "left";
/// Where packets of this host begin.
const OUT: &str = "out";
/// For experiments (RFC 3692): the protocol of the packet that says that all before it are through.
pub const MARKER: u8 = 253;

const INET: u8 = 1;
const NETDEV: u8 = 5;
const INGRESS: u32 = 0;
const EGRESS: u32 = 1;
const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;
/// Before everybody.
const FIRST: i32 = i32::MIN;
/// After everybody, and before connections are confirmed: each knock is a new one.
const LAST: i32 = i32::MAX - 1;

/// Puts the table into the socket's namespace, at the edge of these interfaces. Whether ingress is traced as well: where
/// the kernel has no such hook it is not.
///
/// # Errors
/// The kernel's.
pub fn install(socket: &mut Socket, interfaces: &[String]) -> io::Result<bool> {
    let first = [set_nftrace(), drop_marker()];
    let mut orders = vec![table(INET)];
    for (name, hook, priority) in [
        ("in", PREROUTING, FIRST),
        (OUT, OUTPUT, FIRST),
        (DELIVERED, INPUT, LAST),
        (FORWARDED, POSTROUTING, LAST),
    ] {
        orders.push(chain(INET, name, hook, priority, &[]));
    }
    orders.extend(
        first
            .iter()
            .map(|expressions| rule(INET, "in", expressions)),
    );
    orders.push(rule(INET, OUT, &set_nftrace()));
    for chain in [DELIVERED, FORWARDED] {
        orders.push(rule(INET, chain, &verdict_of(NF_DROP)));
    }
    commit(socket, &orders)?;
    let mut orders = vec![
        table(NETDEV),
        chain(NETDEV, "in", INGRESS, FIRST, interfaces),
    ];
    orders.extend(
        first
            .iter()
            .map(|expressions| rule(NETDEV, "in", expressions)),
    );
    let ingress = commit(socket, &orders).is_ok();
    let orders = [
        table(NETDEV),
        chain(NETDEV, LEFT, EGRESS, LAST, interfaces),
        rule(NETDEV, LEFT, &verdict_of(NF_DROP)),
    ];
    // Where the kernel has no egress hook (before Linux 5.16) nobody has chains there.
    let _ = commit(socket, &orders);
    Ok(ingress)
}

/// Lets packets reach sockets and leave by routing from now on, so that they are answered.
///
/// # Errors
/// The kernel's.
pub fn answer(socket: &mut Socket) -> io::Result<()> {
    // A chain without a rule tells of no packet's addresses.
    ends(socket, NF_ACCEPT)
}

/// Stops every packet again before it is tracked.
///
/// # Errors
/// The kernel's.
pub fn answer_no_more(socket: &mut Socket) -> io::Result<()> {
    ends(socket, NF_DROP)
}

fn ends(socket: &mut Socket, verdict: u32) -> io::Result<()> {
    let orders = [DELIVERED, FORWARDED].map(|chain| {
        let end = rule(INET, chain, &verdict_of(verdict));
        [flush(chain), end]
    });
    commit(socket, orders.as_flattened())
}

fn commit(socket: &mut Socket, orders: &[Order]) -> io::Result<()> {
    match socket.batch(orders)? {
        Ok(_) => Ok(()),
        Err(refused) => {
            let first = refused.into_iter().next();
            Err(first.map_or_else(|| io::Error::other("refused"), |(_, error)| error))
        }
    }
}

fn table(family: u8) -> Order {
    let mut body = generic(family);
    put_text(&mut body, 1, TABLE.as_bytes());
    order(0, NLM_F_CREATE, body)
}

fn chain(family: u8, name: &str, hook: u32, priority: i32, devices: &[String]) -> Order {
    const NFTA_CHAIN_NAME: u16 = 3;
    const NFTA_CHAIN_HOOK: u16 = 4;
    const NFTA_CHAIN_TYPE: u16 = 7;
    const NFTA_HOOK_DEVS: u16 = 4;
    const NFTA_DEVICE_NAME: u16 = 1;
    let mut body = generic(family);
    put_text(&mut body, 1, TABLE.as_bytes());
    put_text(&mut body, NFTA_CHAIN_NAME, name.as_bytes());
    let mut hooked = Vec::new();
    put(&mut hooked, 1, &hook.to_be_bytes());
    put(&mut hooked, 2, &priority.to_be_bytes());
    if !devices.is_empty() {
        let mut names = Vec::new();
        for device in devices {
            put_text(&mut names, NFTA_DEVICE_NAME, device.as_bytes());
        }
        put_nested(&mut hooked, NFTA_HOOK_DEVS, &names);
    }
    put_nested(&mut body, NFTA_CHAIN_HOOK, &hooked);
    put_text(&mut body, NFTA_CHAIN_TYPE, b"filter");
    order(3, NLM_F_CREATE, body)
}

fn rule(family: u8, chain: &str, expressions: &[u8]) -> Order {
    let mut body = generic(family);
    put_text(&mut body, 1, TABLE.as_bytes());
    put_text(&mut body, 2, chain.as_bytes());
    put_nested(&mut body, 4, expressions);
    order(6, NLM_F_CREATE | NLM_F_APPEND, body)
}

/// Takes away all rules of a chain.
fn flush(chain: &str) -> Order {
    const DELRULE: u16 = 8;
    let mut body = generic(INET);
    put_text(&mut body, 1, TABLE.as_bytes());
    put_text(&mut body, 2, chain.as_bytes());
    order(DELRULE, 0, body)
}

fn order(kind: u16, flags: u16, body: Vec<u8>) -> Order {
    Order {
        kind: NFTABLES | kind,
        flags,
        body,
    }
}

const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
/// `NFT_REG32_00`.
const REGISTER: u32 = 8;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;

/// `meta nftrace set 1`.
fn set_nftrace() -> Vec<u8> {
    const NFT_META_NFTRACE: u32 = 12;
    const NFTA_META_SREG: u16 = 3;
    let mut list = immediate(REGISTER, NFTA_DATA_VALUE, &[1]);
    let mut meta = Vec::new();
    put(&mut meta, 2, &NFT_META_NFTRACE.to_be_bytes());
    put(&mut meta, NFTA_META_SREG, &REGISTER.to_be_bytes());
    expression(&mut list, b"meta", &meta);
    list
}

/// `meta l4proto 253 drop`.
fn drop_marker() -> Vec<u8> {
    const NFT_META_L4PROTO: u32 = 16;
    let mut list = Vec::new();
    let mut meta = Vec::new();
    put(&mut meta, 1, &REGISTER.to_be_bytes());
    put(&mut meta, 2, &NFT_META_L4PROTO.to_be_bytes());
    expression(&mut list, b"meta", &meta);
    let mut data = Vec::new();
    put(&mut data, NFTA_DATA_VALUE, &[MARKER]);
    let mut compare = Vec::new();
    put(&mut compare, 1, &REGISTER.to_be_bytes());
    put(&mut compare, 2, &0_u32.to_be_bytes());
    put_nested(&mut compare, 3, &data);
    expression(&mut list, b"cmp", &compare);
    list.extend(verdict_of(NF_DROP));
    list
}

/// `drop` or `accept`.
fn verdict_of(code: u32) -> Vec<u8> {
    const NFT_REG_VERDICT: u32 = 0;
    const NFTA_VERDICT_CODE: u16 = 1;
    let mut verdict = Vec::new();
    put(&mut verdict, NFTA_VERDICT_CODE, &code.to_be_bytes());
    immediate(NFT_REG_VERDICT, NFTA_DATA_VERDICT, &verdict)
}

fn immediate(register: u32, kind: u16, value: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    match kind {
        NFTA_DATA_VERDICT => put_nested(&mut data, kind, value),
        _ => put(&mut data, kind, value),
    }
    let mut attributes = Vec::new();
    put(&mut attributes, 1, &register.to_be_bytes());
    put_nested(&mut attributes, 2, &data);
    let mut list = Vec::new();
    expression(&mut list, b"immediate", &attributes);
    list
}

fn expression(list: &mut Vec<u8>, name: &[u8], data: &[u8]) {
    let mut expression = Vec::new();
    put_text(&mut expression, 1, name);
    put_nested(&mut expression, 2, data);
    put_nested(list, 1, &expression);
}
