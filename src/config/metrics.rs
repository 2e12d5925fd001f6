//! `[metrics]`: where figures are shown to whoever asks on this host.

use std::net::SocketAddr;

use toml::Spanned;

use super::error::Problem;
use super::file::{self, Listen, Section};
use super::listen::{self, overlap};
use super::{Http, Metrics, Tls};

/// Checks `[metrics]`, beside the checked listeners of the gate.
pub(super) fn metrics(
    section: &Section<file::Metrics>,
    http: &Http,
    tls: &Tls,
    problems: &mut Vec<Problem>,
) -> Metrics {
    let Some(key) = &section.keys.listen else {
        return Metrics::default();
    };
    let entries = match key.get_ref() {
        Listen::Addresses(entries) => entries.clone(),
        Listen::Word(word) if word.parse::<SocketAddr>().is_ok() => {
            vec![Spanned::new(key.span(), word.clone())]
        }
        Listen::Word(word) => {
            let message = format!("`{word}` is not an address with a port");
            let fix = "write one such as \"127.0.0.1:9402\", or [] for nowhere";
            problems.push(Problem::new(key.span(), message).fix(fix));
            return Metrics::default();
        }
    };
    let listen = listen::addresses(&entries, listen::METRICS, problems);
    for entry in &entries {
        let Ok(address) = entry.get_ref().parse::<SocketAddr>() else {
            continue;
        };
        if !address.ip().is_loopback() {
            let port = address.port();
            let message = format!("`{address}` is not of this host alone");
            problems.push(
                Problem::new(entry.span(), message)
                    .fix(format!("write \"127.0.0.1:{port}\" or \"[::1]:{port}\""))
                    .note(
                        "whoever is to read the metrics from elsewhere needs a server in front that knows \
                         who may: figures tell when a port is open",
                    ),
            );
        }
        let others = http.listen.iter().chain(&tls.listen);
        if let Some(other) = others.into_iter().find(|other| overlap(**other, address)) {
            let message = format!("`{address}` and `{other}`, where the gate listens, are one");
            problems.push(Problem::new(entry.span(), message).fix("choose another port"));
        }
    }
    Metrics { listen }
}
