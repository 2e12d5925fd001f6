//! What to do about it: one line for each thing that stopped somebody. It advises what the operator can
//! change on this host, and never to let addresses in: those of validators are unpublished and change.

use std::net::IpAddr;

use super::escape::short;
use super::fate::{Fate, chain, unanswered};
use super::words::{NAME, length};
use crate::observe::record::{Dropped, Record, Visit};

/// Everything worth doing, the most urgent first, each thing once.
pub fn advice(record: &Record) -> Vec<String> {
    let mut all = Vec::new();
    // Who came over IPv4 afterwards got through.
    for gets_through in [false, true] {
        for source in &record.sources {
            if let Some(dropped) = source.dropped.as_ref()
                && source.is_stopped()
                && source.then.is_some() == gets_through
            {
                add(&mut all, about_drop(dropped, source.address, record));
            }
        }
    }
    for line in other_advice(record) {
        add(&mut all, line);
    }
    all
}

/// As [`advice`], without what is to be done about rules.
pub fn other_advice(record: &Record) -> Vec<String> {
    let mut all = Vec::new();
    for visit in record.sources.iter().flat_map(unanswered) {
        add(&mut all, about_refusal(visit));
    }
    if record
        .sources
        .iter()
        .any(|source| Fate::of(source) == Fate::Unreached)
    {
        all.push(
            "see what answers them: output chains, rp_filter, the way back; `ss -ltn` for who listens"
                .to_owned(),
        );
    }
    if record.assessment.was_cut {
        all.push(
            "let the client's post-hook run `acmegate close`, or start it by `acmegate exec`"
                .to_owned(),
        );
    }
    if let Some(end) = record.end.filter(|end| end.late >= 1_000) {
        all.push(format!(
            "it ended {} late: see acmegate's log for what held it up",
            length(end.late)
        ));
    }
    all
}

fn add(all: &mut Vec<String>, line: String) {
    if !all.contains(&line) {
        all.push(line);
    }
}

/// What to do about a rule or a policy.
pub fn about_drop(dropped: &Dropped, address: IpAddr, record: &Record) -> String {
    let ports: Vec<String> = record.ports.iter().take(4).map(u16::to_string).collect();
    let ports = ports.join(", ");
    let at = chain(dropped);
    let has = |word: &str| {
        [
            Some(&dropped.table),
            Some(&dropped.chain),
            dropped.rule.as_ref(),
        ]
        .into_iter()
        .flatten()
        .any(|text| text.to_ascii_lowercase().contains(word))
    };
    if has("f2b") || has("fail2ban") {
        return format!("take the ban off: `fail2ban-client unban {address}`");
    }
    if has("crowdsec") {
        return format!("take the ban off: `cscli decisions delete --ip {address}`");
    }
    let rule = dropped.rule.as_deref().unwrap_or_default();
    if rule.contains("limit rate") || rule.contains("ct count") || rule.contains("hashlimit") {
        return format!(
            "let tcp {ports} past the limit in {at}: validators come all at once, and are not many"
        );
    }
    match dropped.rule {
        Some(_) => format!(
            "let tcp {ports} past that rule of {at}, or use mode `attach` with `chains = [\"{at}\"]`"
        ),
        None => {
            format!("accept tcp {ports} in {at}, or use mode `attach` with `chains = [\"{at}\"]`")
        }
    }
}

/// What to do about a refusal of the gate's.
pub fn about_refusal(visit: &Visit) -> String {
    let name = visit.identifier.as_deref();
    let name = name.map_or_else(|| "the name".to_owned(), |name| short(name, NAME));
    match visit.reason.as_str() {
        "unknown-token" => format!(
            "see that the client announces its token for {name}: hook, webroot, upstream; or it was somebody else's order"
        ),
        "not-covered" => format!("open the window for {name} too: `acmegate open --identifier`"),
        "unknown-host" => format!("name {name} in a [[site]]"),
        "foreign-account" => format!("see `accounts` of {name}: the answer is another account's"),
        "unfit-file" | "webroot-failed" => {
            format!("look into the webroot of {name}: `acmegate config check`")
        }
        "no-answer" => format!("announce an answer by tls-alpn-01 for {name}"),
        "handshake-failed" | "not-handshake" => {
            format!("see that the responder for {name} speaks TLS-ALPN-01")
        }
        "source-limit" | "total-limit" => {
            "raise max_connections_per_source or max_connections".to_owned()
        }
        "peer-gone" | "head-timeout" | "hello-timeout" => {
            "look for what is slow or lossy between them and here".to_owned()
        }
        "window-closed" | "no-lease" | "stopping" => {
            "let the window be open for longer: close it after the validation".to_owned()
        }
        reason if reason.starts_with("upstream-") => {
            format!("see that the inner client for {name} runs and answers in time")
        }
        reason => format!("docs/report.md says what `{}` means", short(reason, 32)),
    }
}
