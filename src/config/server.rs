//! Servers that connections are led to: an address, a port, and how it is told who the peer is.
//!
//! No names, as for upstreams: they would have to be looked up while a visitor waits, and whoever
//! answers that look-up would choose where the connection goes.

use std::net::{IpAddr, SocketAddr};

use toml::Spanned;

use super::error::Problem;
use super::file::{Key, Server as Word, TlsAnswer, TlsAnswerTable, WordOr};
use super::upstream::{is_own, unfit};
use super::value::one_of;
use crate::gate::tls::{ProxyVersion, Server};

/// The port of a server that names none.
const DEFAULT_PORT: u16 = 443;

/// Reads `server`; `listen` are the addresses that would be a loop.
pub(super) fn server(
    key: &Key<Word>,
    listen: &[SocketAddr],
    problems: &mut Vec<Problem>,
) -> Option<Server> {
    let key = key.as_ref()?;
    match key.get_ref() {
        WordOr::Word(text) => {
            let text = Spanned::new(key.span(), text.clone());
            Some(Server {
                address: address(&text, listen, problems)?,
                proxy_protocol: None,
            })
        }
        WordOr::Table(table) => {
            let proxy_protocol = proxy_protocol(&table.proxy_protocol, problems);
            let Some(text) = &table.address else {
                problems.push(
                    Problem::new(key.span(), "a server without its address")
                        .fix("add address = \"127.0.0.1:8443\""),
                );
                return None;
            };
            Some(Server {
                address: address(text, listen, problems)?,
                proxy_protocol,
            })
        }
    }
}

/// Reads `tls_answer`: the responder that answers besides pushed tokens, if one does.
pub(super) fn tls_answer(
    key: &Key<TlsAnswer>,
    listen: &[SocketAddr],
    problems: &mut Vec<Problem>,
) -> Option<Server> {
    let key = key.as_ref()?;
    match key.get_ref() {
        WordOr::Word(word) if word == "pushed" => None,
        WordOr::Word(word) => {
            let fix = match word.parse::<SocketAddr>() {
                Ok(address) => format!("write {{ upstream = \"{address}\" }}"),
                Err(_) => "write \"pushed\", or { upstream = \"127.0.0.1:5001\" }".to_owned(),
            };
            let message = format!("`{word}` is no answer by TLS-ALPN-01");
            problems.push(Problem::new(key.span(), message).fix(fix));
            None
        }
        WordOr::Table(TlsAnswerTable {
            upstream,
            proxy_protocol: version,
        }) => {
            let proxy_protocol = proxy_protocol(version, problems);
            let Some(text) = upstream else {
                problems.push(
                    Problem::new(key.span(), "an answer without its upstream").fix(
                        "add upstream = \"127.0.0.1:5001\", where an ACME client answers by TLS-ALPN-01",
                    ),
                );
                return None;
            };
            Some(Server {
                address: address(text, listen, problems)?,
                proxy_protocol,
            })
        }
    }
}

/// Reads `proxy_protocol`.
pub(super) fn proxy_protocol(
    key: &Key<String>,
    problems: &mut Vec<Problem>,
) -> Option<ProxyVersion> {
    let words = [
        ("off", None),
        ("v1", Some(ProxyVersion::V1)),
        ("v2", Some(ProxyVersion::V2)),
    ];
    one_of(key, "version of the PROXY protocol", &words, problems).flatten()
}

fn address(
    text: &Spanned<String>,
    listen: &[SocketAddr],
    problems: &mut Vec<Problem>,
) -> Option<SocketAddr> {
    let word = text.get_ref().trim();
    let bare = word.trim_matches(['[', ']']).parse::<IpAddr>();
    let address = match (word.parse::<SocketAddr>(), bare) {
        (Ok(address), _) => SocketAddr::new(address.ip().to_canonical(), address.port()),
        (_, Ok(address)) => SocketAddr::new(address.to_canonical(), DEFAULT_PORT),
        _ => {
            let message = format!("`{word}` is not an address with a port");
            let fix = match word.split_once("://") {
                Some(("https" | "http" | "tcp", _)) => "write the address and the port alone",
                _ => "write one such as \"127.0.0.1:8443\" or \"[2001:db8::5]:443\"",
            };
            problems.push(Problem::new(text.span(), message).fix(fix).note(
                "a name would be looked up while a visitor waits, and whoever answers that would choose the server",
            ));
            return None;
        }
    };
    let problem = if let Some(why) = unfit(address.ip()) {
        Problem::new(text.span(), format!("`{}` is {why}", address.ip()))
            .fix("write the server's own address")
    } else if address.port() == 0 {
        Problem::new(text.span(), "there is no port 0").fix("write 1 to 65535")
    } else if let Some(own) = listen.iter().find(|own| is_own(**own, address)) {
        let message = format!("`{address}` is where acmegate listens itself ({own})");
        Problem::new(text.span(), message)
            .fix("write the address or port that the server listens on")
    } else {
        return Some(address);
    };
    problems.push(problem);
    None
}
