//! Sites: what each covers, who answers, where visitors are sent.

use std::collections::HashMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::ops::Range;

use toml::Spanned;

use super::error::{Problem, nearest};
use super::file::{self, Answer, AnswerTable, Key, Section, WordOr};
use super::server;
use super::upstream;
use super::value::{directory, word_of};
use super::webroot::{Reader, Webroots};
use super::{Site, Source};
use crate::gate::challenge::ChallengeType;
use crate::gate::identifier::{Identifier, IdentifierError, Pattern};
use crate::gate::site::{self as gate_site, Redirect};
use crate::gate::tls::Server;
use crate::gate::token::{THUMBPRINT_BYTES, Thumbprint};

/// What sites are checked against.
pub(super) struct Around<'a> {
    /// The addresses of `listen`, which no upstream may be.
    pub(super) listen: &'a [SocketAddr],
    /// Looks at webroots,
    pub(super) webroots: &'a dyn Webroots,
    /// with the eyes of this account.
    pub(super) reader: Reader,
}

/// Checks every `[[site]]`.
pub(super) fn sites(
    sections: &[Section<file::Site>],
    around: &Around<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<Site> {
    let mut taken: HashMap<Pattern, (Range<usize>, usize)> = HashMap::new();
    let mut default: Option<Range<usize>> = None;
    let mut sites = Vec::new();
    for (number, section) in sections.iter().enumerate() {
        let site = site(section, around, problems);
        for entry in section.keys.identifiers.iter().flat_map(Spanned::get_ref) {
            let Ok(pattern) = Pattern::parse(entry.get_ref()) else {
                continue;
            };
            match taken.get(&pattern) {
                Some((at, other)) => {
                    let message = if *other == number {
                        format!("`{pattern}` stands in this site twice")
                    } else {
                        format!("`{pattern}` stands in two sites")
                    };
                    let problem = Problem::new(entry.span(), message)
                        .fix("leave it in one place")
                        .also(at.clone(), "it stands here already");
                    problems.push(problem);
                }
                None => {
                    taken.insert(pattern, (entry.span(), number));
                }
            }
        }
        let is_default = section.keys.default.as_ref().filter(|key| *key.get_ref());
        if let (Some(at), None) = (is_default, &section.keys.identifiers) {
            match &default {
                Some(first) => problems.push(
                    Problem::new(at.span(), "a second default site")
                        .fix("leave one of them out")
                        .also(first.clone(), "the first one"),
                ),
                None => default = Some(at.span()),
            }
        }
        sites.push(site);
    }
    sites
}

fn site(section: &Section<file::Site>, around: &Around<'_>, problems: &mut Vec<Problem>) -> Site {
    let keys = &section.keys;
    let before = problems.len();
    let is_default = covers(section, problems);
    let identifiers = patterns(&keys.identifiers, problems);
    let mut accounts: Vec<Thumbprint> = Vec::new();
    for entry in keys.accounts.iter().flat_map(Spanned::get_ref) {
        if let Some(thumbprint) = thumbprint(entry, problems) {
            accounts.push(thumbprint);
        }
    }
    let redirect = redirect(section, is_default, problems);
    let source = match &keys.answer {
        None => Source::Pushed,
        Some(answer) => source(answer, around, problems),
    };
    if problems.len() == before
        && let Some(answer) = &keys.answer
    {
        agree(answer, &source, is_default, &accounts, keys, problems);
    }
    let tls_source = server::tls_answer(&keys.tls_answer, around.listen, problems);
    if let (Some(key), Some(_), true) = (&keys.tls_answer, tls_source, is_default) {
        problems.push(
            Problem::new(key.span(), "a default site cannot have an upstream")
                .fix("give the upstream a site with its own identifiers")
                .note("whatever name a stranger makes up would be carried to the inner host"),
        );
    }
    if let (Some(key), Some(_), Some(named)) = (&keys.tls_answer, tls_source, &keys.accounts)
        && !named.get_ref().is_empty()
    {
        problems.push(
            Problem::new(
                key.span(),
                "whose answers an upstream gives by TLS-ALPN-01 cannot be seen",
            )
            .fix("let a hook push them (tls_answer = \"pushed\"), or leave `accounts` out")
            .also(named.span(), "these would not be looked at")
            .note("in TLS 1.3 the certificate that carries the answer is encrypted"),
        );
    }
    let server = server::server(&keys.server, around.listen, problems);
    Site {
        gate: gate_site::Site {
            identifiers,
            is_default,
            redirect,
            accounts,
        },
        source,
        challenges: challenges(&keys.challenges, problems),
        tls_source,
        server,
    }
}

/// Which challenges the site is validated by; http-01 if it does not say.
fn challenges(key: &Key<Vec<Spanned<String>>>, problems: &mut Vec<Problem>) -> Vec<ChallengeType> {
    let Some(key) = key else {
        return vec![ChallengeType::Http01];
    };
    if key.get_ref().is_empty() {
        problems.push(
            Problem::new(key.span(), "a site that no challenge validates")
                .fix("write [\"http-01\"], or leave it out"),
        );
    }
    let words = ChallengeType::ALL.map(|challenge| (challenge.as_str(), challenge));
    let mut challenges = Vec::new();
    for entry in key.get_ref() {
        match word_of(entry, &words) {
            Ok(challenge) if challenges.contains(&challenge) => {
                let message = format!("`{challenge}` stands here twice");
                problems.push(Problem::new(entry.span(), message).fix("leave one out"));
            }
            Ok(challenge) => challenges.push(challenge),
            Err(fix) => {
                let message = format!("`{}` is no challenge that comes here", entry.get_ref());
                problems.push(Problem::new(entry.span(), message).fix(fix));
            }
        }
    }
    challenges
}

/// Exactly one of `identifiers` and `default = true`; whether it is the latter.
fn covers(section: &Section<file::Site>, problems: &mut Vec<Problem>) -> bool {
    let keys = &section.keys;
    let default = keys.default.as_ref().filter(|key| *key.get_ref());
    match (&keys.identifiers, default) {
        (Some(identifiers), Some(default)) => problems.push(
            Problem::new(
                default.span(),
                "a default site has no identifiers of its own",
            )
            .fix("leave this out, or the identifiers")
            .also(identifiers.span(), "the identifiers")
            .note("the default site stands for every identifier that no other site names"),
        ),
        (Some(identifiers), None) if identifiers.get_ref().is_empty() => problems.push(
            Problem::new(identifiers.span(), "a site without identifiers")
                .fix("name some, such as [\"example.com\"], or write default = true"),
        ),
        (None, None) if section.is_whole => problems.push(
            Problem::new(section.at.clone(), "a site that covers nothing")
                .fix("add identifiers = [\"example.com\"], or default = true"),
        ),
        _ => {}
    }
    default.is_some()
}

/// Reads identifiers and wildcards, for a site or a grant.
pub(super) fn patterns(
    entries: &Key<Vec<Spanned<String>>>,
    problems: &mut Vec<Problem>,
) -> Vec<Pattern> {
    let mut patterns = Vec::new();
    for entry in entries.iter().flat_map(Spanned::get_ref) {
        match Pattern::parse(entry.get_ref()) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => problems.push(not_an_identifier(entry, error)),
        }
    }
    patterns
}

fn not_an_identifier(entry: &Spanned<String>, error: IdentifierError) -> Problem {
    let text = entry.get_ref();
    let fix = if text == "*" {
        "for every identifier write default = true".to_owned()
    } else if text.contains("://") || text.contains('/') {
        "write the name alone, without a scheme or a path".to_owned()
    } else if let Ok(address) = text.trim_matches(['[', ']']).parse::<Ipv6Addr>() {
        format!("write \"{address}\"")
    } else if text.contains(':') {
        "write the name or address alone, without a port".to_owned()
    } else if !text.is_ascii() {
        "write the name as DNS has it: xn--…".to_owned()
    } else if text.strip_prefix("*.").unwrap_or(text).contains('*') {
        "a wildcard is one whole label in front: *.example.com".to_owned()
    } else if text.starts_with("*.") && error == IdentifierError::Address {
        "there are no wildcards of addresses".to_owned()
    } else {
        error.to_string()
    };
    Problem::new(entry.span(), format!("`{text}` is not an identifier")).fix(fix)
}

fn redirect(
    section: &Section<file::Site>,
    is_default: bool,
    problems: &mut Vec<Problem>,
) -> Redirect {
    let Some(key) = &section.keys.redirect else {
        // For a default site the gate reads this as nowhere.
        return Redirect::Asked;
    };
    match key.get_ref().as_str() {
        "off" => Redirect::Off,
        "asked" => {
            if is_default {
                problems.push(
                    Problem::new(key.span(), "a default site cannot redirect to the asked name")
                        .fix("name one: redirect = \"www.example.com\", or leave it out")
                        .note("it is asked for names that only the visitor has spoken; that would be an open redirect"),
                );
            }
            Redirect::Asked
        }
        text => match Identifier::parse(text) {
            Ok(_) if !text.contains('.') && nearest(text, ["asked", "off"]).is_some() => {
                let meant = nearest(text, ["asked", "off"]).unwrap_or("asked");
                let message = format!("`{text}` is no place to redirect to");
                let fix = format!("did you mean \"{meant}\"?");
                problems.push(Problem::new(key.span(), message).fix(fix));
                Redirect::Asked
            }
            Ok(identifier) => Redirect::To(identifier),
            Err(error) => {
                let mut problem = not_an_identifier(key, error);
                problem.message = format!("`{text}` is no place to redirect to");
                if text.starts_with('*') {
                    problem.fix = "write \"asked\", \"off\", or one name".to_owned();
                }
                problems.push(problem);
                Redirect::Asked
            }
        },
    }
}

fn source(answer: &Spanned<Answer>, around: &Around<'_>, problems: &mut Vec<Problem>) -> Source {
    let table = match answer.get_ref() {
        WordOr::Word(word) if word == "pushed" => return Source::Pushed,
        WordOr::Word(word) => {
            let message = format!("`{word}` is no answer");
            problems.push(Problem::new(answer.span(), message).fix(instead_of(word)));
            return Source::Pushed;
        }
        WordOr::Table(table) => table,
    };
    let proxy_protocol = server::proxy_protocol(&table.proxy_protocol, problems);
    if let (Some(key), None) = (&table.proxy_protocol, &table.upstream) {
        let message = "`proxy_protocol` is for an upstream";
        problems.push(Problem::new(key.span(), message).fix("leave it out"));
    }
    match table {
        AnswerTable {
            webroot: Some(key),
            upstream: None,
            thumbprint: None,
            ..
        } => {
            let before = problems.len();
            let webroot = directory(key, "webroot", problems);
            if problems.len() == before
                && let Err(fault) = around.webroots.look(&webroot, &around.reader)
            {
                let (message, fix) = fault.explain(&webroot, &around.reader);
                problems.push(Problem::new(key.span(), message).fix(fix));
            }
            Source::Webroot(webroot)
        }
        AnswerTable {
            webroot: None,
            upstream: Some(key),
            thumbprint: None,
            ..
        } => match upstream::parse(key.get_ref(), around.listen) {
            Ok(address) => Source::Upstream(Server {
                address,
                proxy_protocol,
            }),
            Err(wrong) => {
                let problem = Problem::new(key.span(), wrong.message).fix(wrong.fix);
                problems.push(match wrong.note {
                    Some(note) => problem.note(note),
                    None => problem,
                });
                Source::Pushed
            }
        },
        AnswerTable {
            webroot: None,
            upstream: None,
            thumbprint: Some(key),
            ..
        } => thumbprint(key, problems).map_or(Source::Pushed, Source::Thumbprint),
        AnswerTable {
            webroot: None,
            upstream: None,
            thumbprint: None,
            ..
        } => {
            // An unknown key has been taken out and reported; then the table is not really empty.
            let is_reported = problems.iter().any(|problem| {
                problem.at.as_ref().is_some_and(|at| {
                    at.start >= answer.span().start && at.end <= answer.span().end
                })
            });
            if !is_reported {
                let fix = "write \"pushed\", or one of webroot, upstream and thumbprint";
                problems.push(Problem::new(answer.span(), "an empty answer").fix(fix));
            }
            Source::Pushed
        }
        _ => {
            let message = "a site has one answer besides pushed tokens, not several";
            let fix = "leave one of webroot, upstream and thumbprint";
            problems.push(Problem::new(answer.span(), message).fix(fix));
            Source::Pushed
        }
    }
}

fn instead_of(word: &str) -> String {
    if word.starts_with('/') {
        format!("write {{ webroot = \"{word}\" }}")
    } else if word.contains("://") {
        format!("write {{ upstream = \"{word}\" }}")
    } else if Thumbprint::parse(word.as_bytes()).is_some() {
        format!("write {{ thumbprint = \"{word}\" }}")
    } else if ["webroot", "upstream", "thumbprint"].contains(&word) {
        format!("write {{ {word} = \"…\" }}")
    } else if nearest(word, ["pushed"]).is_some() {
        "did you mean \"pushed\"?".to_owned()
    } else {
        "write \"pushed\", or a table with webroot, upstream or thumbprint".to_owned()
    }
}

fn thumbprint(key: &Spanned<String>, problems: &mut Vec<Problem>) -> Option<Thumbprint> {
    let thumbprint = Thumbprint::parse(key.get_ref().as_bytes());
    if thumbprint.is_none() {
        let count = key.get_ref().chars().count();
        let (message, fix) = if count == THUMBPRINT_BYTES {
            let message = "a thumbprint holds only A-Z a-z 0-9 - and _";
            (message.to_owned(), "write it in base64url (RFC 7638)")
        } else {
            let message = format!("a thumbprint has {THUMBPRINT_BYTES} characters, not {count}");
            (
                message,
                "`acmegate status` shows those that were seen, ready to paste",
            )
        };
        problems.push(Problem::new(key.span(), message).fix(fix));
    }
    thumbprint
}

/// What a site says in two places must go together.
fn agree(
    answer: &Spanned<Answer>,
    source: &Source,
    is_default: bool,
    accounts: &[Thumbprint],
    keys: &file::Site,
    problems: &mut Vec<Problem>,
) {
    if is_default && matches!(source, Source::Upstream(_)) {
        problems.push(
            Problem::new(answer.span(), "a default site cannot have an upstream")
                .fix("give the upstream a site with its own identifiers")
                .note("whatever name a stranger makes up would be carried to the inner host"),
        );
    }
    if let (Source::Thumbprint(own), Some(named)) = (source, &keys.accounts)
        && !accounts.is_empty()
        && !accounts.contains(own)
    {
        problems.push(
            Problem::new(
                answer.span(),
                "this account is not among the site's accounts",
            )
            .fix("add it there, or leave `accounts` out")
            .also(named.span(), "every answer would be refused by this"),
        );
    }
}
