//! What the exam says of the answers to packets that were let in.

use super::{FORGIVEN, MOST_EVIDENCE, PROVED_ANSWERS_DROPPED, Seen};
use crate::doctor::finding::{Exam, Finding, Severity};
use crate::doctor::path::{End, Step};
use crate::doctor::twin::knock::undecided;

/// What is dropped on its way out, of the packets that passed among so many: a fault as bad as `fault` where more are
/// silenced than a quorum forgives. What nobody can tell is said as not seen.
pub(super) fn finding(
    exam: &mut Exam,
    passed: &[Seen<'_>],
    (port, word): (u16, &str),
    fault: Severity,
    all: usize,
) -> Option<Finding> {
    let unknown = passed.iter().find_map(|one| {
        let reply = one.reply.filter(|reply| undecided(reply).is_some())?;
        Some((one, undecided(reply)?))
    });
    if let Some((one, why)) = unknown {
        exam.not_covered.push(format!(
            "what becomes of the answers from TCP port {port} over {word}: that to {}: {why}",
            one.visit.knock.source
        ));
    }
    let silenced: Vec<&Seen<'_>> = passed.iter().filter(|one| one.is_silenced()).collect();
    let first = silenced.first()?;
    let is_fatal = silenced.len() * FORGIVEN > all;
    let severity = if is_fatal { fault } else { Severity::Doubt };
    let text = format!(
        "first packets get to TCP port {port} over {word} while a window is open, and the answers are dropped on \
         their way out"
    );
    let mut finding = Finding::new(PROVED_ANSWERS_DROPPED, severity, text).at(port);
    for one in silenced.iter().take(MOST_EVIDENCE) {
        finding = finding.seen(evidence(one));
    }
    let culprit = first.reply.and_then(|reply| reply.culprit());
    if let Some(culprit) = culprit {
        finding = finding.remedy(remedy(culprit, answering_port(first), word));
    }
    let knock = &first.visit.knock;
    Some(finding.remedy(format!(
        "the whole path, and the answer's: `acmegate explain {} {} --to {} --in {} --window open`",
        knock.source, knock.port, knock.destination, knock.interface
    )))
}

/// The port that answers, as chains on its way out see it before its address is translated back.
fn answering_port(one: &Seen<'_>) -> u16 {
    match one.fate.end {
        End::Delivered { port, .. } | End::Forwarded { port, .. } => port,
        End::Dropped { .. } | End::Lost(_) => one.visit.knock.port,
    }
}

/// `answer to 23.20.30.40 (North America): dropped by inet filter output: its policy drop`
fn evidence(one: &Seen<'_>) -> String {
    let region = one.visit.region.unwrap_or("on the allow-list");
    let to = format!("answer to {} ({region})", one.visit.knock.source);
    let Some(reply) = one.reply else {
        return to;
    };
    match (&reply.end, reply.culprit()) {
        (End::Dropped { rejects: true }, Some(step)) => format!("{to}: rejected by {step}"),
        (_, Some(step)) => format!("{to}: dropped by {step}"),
        (End::Lost(why), None) => format!("{to}: lost: {why}"),
        (_, None) => format!("{to}: dropped"),
    }
}

/// What to type, in the words of the program that wrote the chain.
fn remedy(culprit: &Step, port: u16, word: &str) -> String {
    let Step { table, chain, .. } = culprit;
    // iptables-nft's own tables, and chains of its hooks.
    let of_iptables = ["ip filter", "ip6 filter", "ip mangle", "ip6 mangle"];
    let is_iptables = of_iptables.contains(&table.as_str())
        && ["OUTPUT", "FORWARD", "POSTROUTING", "PREROUTING"].contains(&chain.as_str());
    let rule = match (is_iptables, table.split_once(' ')) {
        (true, Some((_, table))) => {
            let program = match word {
                "IPv6" => "ip6tables",
                _ => "iptables",
            };
            format!("{program} -t {table} -I {chain} -p tcp --sport {port} -j ACCEPT")
        }
        _ => format!("nft insert rule {table} {chain} tcp sport {port} accept"),
    };
    format!(
        "let answers pass where they are dropped: `{rule}`, and save it; or everything of established connections"
    )
}
