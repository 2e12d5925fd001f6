//! The rules that say where the account of our own processes may connect to.
//!
//! They are for the day on which the front, which reads the Internet's bytes, is somebody else's: landlock
//! lets it connect to the ports of upstreams, these to their addresses alone, loopback ones included. They are about one
//! account and no other. Nothing here looks at what comes in, nor at answers to it: of TCP, first packets alone are judged,
//! without conntrack.
//!
//! | chain | hook | of packets that a socket of that account sends |
//! | --- | --- | --- |
//! | `confine` → `reach` | output, before DNAT | TCP that opens no connection passes, and what opens one to where the configuration leads; a reset for any other, silence for all that is not TCP |

use std::net::{IpAddr, SocketAddr};

use nlink::netlink::nftables::{
    ChainName, CmpOp, Expr, Field, Match, MetaKey, Register, RuleSpec, Value, Verdict,
};

use super::words::{end, is_not_first, rule};
use super::{Base, ChainPlan, Hook};
use crate::firewall::ruleset::{Egress, Settings, Shut};

/// Before DNAT (-100): what is judged is where the process wanted to go.
const PRIORITY: i32 = -110;

/// The names of the chains here, the base chain first.
pub const CONFINERS: [&str; 2] = ["confine", "reach"];

const TCP: u8 = 6;

impl Settings {
    /// The chains that limit the account, in the order they are made; none where it is not limited.
    pub(super) fn confinement(&self) -> Vec<ChainPlan> {
        let [outer, inner] = CONFINERS;
        let Some(egress) = &self.egress else {
            return Vec::new();
        };
        vec![
            ChainPlan {
                name: inner,
                base: None,
                rules: reach_rules(egress),
            },
            ChainPlan {
                name: outer,
                base: Some(Base {
                    hook: Hook::Output,
                    priority: PRIORITY,
                }),
                rules: vec![sent_by(egress.uid, inner)],
            },
        ]
    }
}

fn reach_rules(egress: &Egress) -> Vec<RuleSpec> {
    let is_tcp = vec![Match::eq(Field::L4Proto, TCP)];
    let mut rules = vec![rule([vec![is_not_first()]], [], Verdict::Accept)];
    rules.extend(egress.to.iter().map(|to| {
        let to = destination(to);
        rule([to], [], Verdict::Accept)
    }));
    // A reset: who connects in error, as after a reload, is told at once and does not wait.
    rules.push(end(Shut::Reject, is_tcp));
    rules.push(end(Shut::Drop, Vec::new()));
    rules
}

fn destination(to: &SocketAddr) -> Vec<Match> {
    let field = match to.ip() {
        IpAddr::V4(_) => Field::Ip4Daddr,
        IpAddr::V6(_) => Field::Ip6Daddr,
    };
    vec![
        Match::eq(field, Value::Addr(to.ip())),
        Match::eq(Field::TcpDport, to.port()),
    ]
}

/// `meta skuid 996 goto reach`. A packet that no process sent, such as the kernel's own reset, has no
/// uid, and the rule does not match.
fn sent_by(uid: u32, chain: &'static str) -> RuleSpec {
    let register = Register::R0;
    let load = Expr::Meta {
        dreg: register,
        key: MetaKey::SkUid,
    };
    let compare = Expr::Cmp {
        sreg: register,
        op: CmpOp::Eq,
        data: uid.to_ne_bytes().to_vec(),
    };
    let spec = RuleSpec::new().then(load).then(compare);
    let goto = ChainName::new(chain).map(Verdict::GotoTo).ok();
    goto.into_iter().fold(spec, RuleSpec::then)
}
