//! What every fuzz target asserts. `main.rs` feeds these functions from libFuzzer, and
//! `tests/it/seeds.rs` includes this very file and feeds them the seeds, so that they stay true
//! without a fuzzer.
//!
//! Each takes any bytes, must not panic, and states a property of one parser of untrusted bytes.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use acmegate::cli::hook::answer as hooks;
use acmegate::config::lists::{Lists, Mistake, format};
use acmegate::config::{Accounts, Config, Country, Group, Unchecked};
use acmegate::control::protocol::{
    Ask, ChallengeName, DigestWord, Envelope, Exit, MAX_REQUEST_BYTES, VERSION, parse_request,
};
use acmegate::daemon::parts::orders;
use acmegate::daemon::process as host;
use acmegate::daemon::sandbox::attempt::Attempt;
use acmegate::doctor::dns::issue_value::IssueValue;
use acmegate::doctor::dns::reply::{Datagram, from_stream, of_datagram};
use acmegate::doctor::probe::letsdebug::answer as letsdebug;
use acmegate::doctor::probe::mpic::answer as mpic;
use acmegate::doctor::probe::seen::Outcome;
use acmegate::doctor::probe::told::Told;
use acmegate::doctor::probe::web::understand;
use acmegate::doctor::sites::acl::Acl;
use acmegate::doctor::sites::answer::Answer as SiteAnswer;
use acmegate::firewall::base_chains::{
    Circumstances, IpFamily, Path as Way, Probe, Transport, judge_in, of_rule,
};
use acmegate::firewall::evidence::{Packets, SetAnswer, answers};
use acmegate::firewall::message::{FRAME_BYTES, Frame, Reply, Request as EnforcerRequest};
use acmegate::firewall::record::{entrance_comment, from_comment, to_comment};
use acmegate::front::client_hello::{self, MAX_HELLO_BYTES, Parsed as HelloParsed};
use acmegate::front::forwarded::real_peer;
use acmegate::front::handshake::{Handshake, Misstep};
use acmegate::front::head::{MAX_HEAD_BYTES, Parsed, parse};
use acmegate::gate::allow_list::{AllowList, Entries};
use acmegate::gate::challenge::PREFIX;
use acmegate::gate::command::{Blank, Command, Word};
use acmegate::gate::identifier::{Identifier, MAX_NAME_BYTES, Pattern};
use acmegate::gate::lease::{Entrance, Families, Lease, LeaseName, Scope, Trigger};
use acmegate::gate::site::{Redirect, Site};
use acmegate::gate::tls::{ACME_TLS, Offer, ProxyVersion, TlsDecision};
use acmegate::gate::token::{
    KeyAuthorization, MAX_KEY_AUTHORIZATION_BYTES, MAX_TOKEN_BYTES, MIN_TOKEN_BYTES, Thumbprint,
    Token,
};
use acmegate::gate::window::Windows;
use acmegate::gate::{
    Admission, Decision, Exposure, Gate, Host, Reason, RedirectFor, Request, Verdict,
};
use acmegate::observe::history::message::{
    Answer as HistoryAnswer, Ask as HistoryAsk, MAX_QUESTION_BYTES, Question, decode, encode,
    fitted,
};
use acmegate::proxy_protocol::{self, MAX_V1_BYTES, MAX_V2_BYTES};
use acmegate::runner::message::{Reply as RunnerReply, Request as RunnerRequest};
use acmegate::runner::state as runner_state;
use hickory_net::proto::op::{Message, Query};
use hickory_net::proto::rr::{Name, RecordType};
use tokio::runtime::{Builder, Runtime};

/// A target's name and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target, by the name of its folder of seeds.
pub const TARGETS: &[Target] = &[
    ("head", head),
    ("history", history),
    ("decide", decide),
    ("hello", hello),
    ("proxy", proxy),
    ("token", token),
    ("handshake", handshake),
    ("identifier", identifier),
    ("control", control),
    ("frame", frame),
    ("runner", runner),
    ("state", state),
    ("config", config),
    ("lists", lists),
    ("record", record),
    ("trace", trace),
    ("forwarded", forwarded),
    ("answer", answer),
    ("vantage", vantage),
    ("issue", issue),
    ("process", process),
    ("rule", rule),
    ("dns", dns),
    ("site", site),
    ("acl", acl),
    ("service", service),
    ("hook", hook),
    ("seals", seals),
];

/// Longer inputs are cut at a few places only, or one run would take seconds.
const ALL_CUTS_BYTES: usize = 512;

/// A request head: the verdict does not depend on how the bytes were cut into segments, and what is
/// believed of a head says the same when it is written anew.
pub fn head(bytes: &[u8]) {
    let whole = parse(bytes);
    let step = bytes.len().div_ceil(ALL_CUTS_BYTES).max(1);
    for cut in (0..bytes.len()).step_by(step) {
        match parse(&bytes[..cut]) {
            Parsed::NeedMore => assert!(cut < MAX_HEAD_BYTES, "a full buffer decides"),
            settled => assert_eq!(settled, whole, "settled after {cut} bytes"),
        }
    }
    let Parsed::Complete(head) = whole else {
        return;
    };
    assert!(head.length <= bytes.len() && head.length <= MAX_HEAD_BYTES);
    assert!(head.method.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(head.target.bytes().all(|byte| byte.is_ascii_graphic()));
    let fields = match head.host {
        Host::Missing => String::new(),
        Host::Repeated => "Host: a\r\nHost: b\r\n".to_owned(),
        Host::Value(host) => format!("Host: {host}\r\n"),
    };
    let anew = format!("{} {} HTTP/1.1\r\n{fields}\r\n", head.method, head.target);
    match parse(anew.as_bytes()) {
        Parsed::Complete(again) => {
            assert_eq!(
                (again.method, again.target, again.host),
                (head.method, head.target, head.host)
            );
        }
        other => panic!("{anew:?}: {other:?}"),
    }
}

/// The gate behind the reader: a challenge passes byte-exact, a redirect goes to a name of ours.
pub fn decide(bytes: &[u8]) {
    static GATES: LazyLock<[Gate; 3]> = LazyLock::new(|| {
        let site = |identifiers: &[&str], redirect| Site {
            identifiers: identifiers
                .iter()
                .map(|text| Pattern::parse(text).unwrap())
                .collect(),
            is_default: identifiers.is_empty(),
            redirect,
            accounts: Vec::new(),
        };
        let elsewhere = Redirect::To(Identifier::parse("www.example.com").unwrap());
        let own = || {
            vec![
                site(
                    &["example.com", "*.example.com", "192.0.2.1", "2001:db8::1"],
                    Redirect::Asked,
                ),
                site(&["example.net"], Redirect::Off),
            ]
        };
        let gate = |sites| Gate {
            sites,
            allow: AllowList::new(AllowList::local()).into(),
            exposure: Exposure::Windowed,
            redirect_for: RedirectFor::Everybody,
        };
        let mut with_default = own();
        with_default.push(site(&[], elsewhere));
        let mut for_the_list = gate(with_default.clone());
        for_the_list.redirect_for = RedirectFor::AllowList;
        [gate(own()), gate(with_default), for_the_list]
    });
    let Parsed::Complete(head) = parse(bytes) else {
        return;
    };
    let now = Instant::now();
    let windows = open_windows(now);
    let request = Request {
        method: head.method,
        target: head.target,
        host: head.host,
        peer: [192, 0, 2, 1].into(),
        local_port: 80,
    };
    for gate in GATES.iter() {
        match gate.decide(&request, &windows, now) {
            Decision::Challenge(permit) => {
                assert_eq!(head.target, format!("{PREFIX}{}", permit.token().as_str()));
                assert_eq!(Ok(permit.identifier().clone()), asked(head.host));
                let site = &gate.sites[permit.site().0];
                assert!(
                    site.is_default
                        || site
                            .identifiers
                            .iter()
                            .any(|own| own.covers(permit.identifier()))
                );
                assert_eq!(permit.is_covered(), !site.is_default);
                let thumbprint = Thumbprint::parse(&[b'A'; 43]).unwrap();
                let own = KeyAuthorization::new(permit.token().clone(), thumbprint.clone());
                assert_eq!(
                    gate.vouch(&permit, own.clone()).unwrap().to_body(),
                    own.to_body()
                );
                let other = Token::parse(&[b'-'; MIN_TOKEN_BYTES]).unwrap();
                if other != *permit.token() {
                    let foreign = KeyAuthorization::new(other, thumbprint);
                    assert_eq!(
                        gate.vouch(&permit, foreign).err(),
                        Some(Reason::UpstreamLied)
                    );
                }
            }
            Decision::Redirect {
                location,
                identifier,
            } => {
                assert_eq!(
                    gate.redirect_for,
                    RedirectFor::Everybody,
                    "the peer is foreign"
                );
                assert!(location.bytes().all(|byte| byte.is_ascii_graphic()));
                let rest = location.strip_prefix("https://").unwrap();
                let authority = rest.strip_suffix(head.target).unwrap();
                let is_own = gate.sites[0]
                    .identifiers
                    .iter()
                    .any(|own| own.covers(&identifier));
                let expected = match is_own {
                    true => identifier.to_authority(),
                    false => "www.example.com".to_owned(),
                };
                assert_eq!(authority, expected);
                assert!(
                    !head.target.starts_with(PREFIX),
                    "a challenge is never redirected"
                );
            }
            Decision::Refuse { reason, identifier } => {
                assert!(
                    reason
                        .status()
                        .is_some_and(|status| (400..500).contains(&status))
                );
                assert!(identifier.is_none_or(|name| Ok(name) == asked(head.host)));
            }
        }
    }
}

/// A PROXY protocol header: one answer however the bytes are cut, and whom it names is read alike when
/// written anew, by either version.
pub fn proxy(bytes: &[u8]) {
    let whole = proxy_protocol::parse(bytes);
    let step = bytes.len().div_ceil(ALL_CUTS_BYTES).max(1);
    for cut in (0..bytes.len()).step_by(step) {
        match proxy_protocol::parse(&bytes[..cut]) {
            proxy_protocol::Parsed::NeedMore => assert!(cut < MAX_V2_BYTES, "a full one decides"),
            settled => assert_eq!(settled, whole, "settled after {cut} bytes"),
        }
    }
    let proxy_protocol::Parsed::Complete(header) = whole else {
        return;
    };
    let most = match bytes[0] {
        b'P' => MAX_V1_BYTES,
        _ => MAX_V2_BYTES,
    };
    assert!(header.length <= bytes.len() && header.length <= most);
    let Some(ends) = header.ends else {
        return;
    };
    for address in [ends.source.ip(), ends.destination.ip()] {
        assert_eq!(address, address.to_canonical());
    }
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let anew = proxy_protocol::write(version, &ends);
        let again = proxy_protocol::parse(&anew);
        let length = anew.len();
        let ends = header.ends;
        let same = proxy_protocol::Header { ends, length };
        assert_eq!(again, proxy_protocol::Parsed::Complete(same));
    }
}

fn asked(host: Host<'_>) -> Result<Identifier, ()> {
    match host {
        Host::Value(host) => Identifier::from_host(host, 80).map_err(drop),
        Host::Missing | Host::Repeated => Err(()),
    }
}

fn open_windows(now: Instant) -> Windows {
    let mut windows = Windows::default();
    windows.adopt(Lease {
        id: 0,
        name: LeaseName::parse("a").unwrap(),
        holder: None,
        caller: 0,
        trigger: Trigger::Asked,
        scope: Scope {
            ports: vec![80],
            families: Families::BOTH,
            entrance: Entrance::Any,
            identifiers: None,
        },
        deadline: now + Duration::from_secs(60),
    });
    windows
}

/// A ClientHello and the gate behind its reader: the verdict does not depend on how segments and
/// records were cut; only an offer of exactly one name is a validation, for a site's own name; and
/// from outside nothing else passes.
pub fn hello(bytes: &[u8]) {
    static GATE: LazyLock<Gate> = LazyLock::new(|| Gate {
        sites: vec![Site {
            identifiers: ["www.example.com", "*.example.net", "192.0.2.1"]
                .iter()
                .map(|text| Pattern::parse(text).unwrap())
                .collect(),
            is_default: false,
            redirect: Redirect::Off,
            accounts: Vec::new(),
        }],
        allow: AllowList::new(AllowList::local()).into(),
        exposure: Exposure::Windowed,
        redirect_for: RedirectFor::Everybody,
    });
    let whole = client_hello::parse(bytes);
    let step = bytes.len().div_ceil(ALL_CUTS_BYTES).max(1);
    for cut in (0..bytes.len()).step_by(step) {
        match client_hello::parse(&bytes[..cut]) {
            HelloParsed::NeedMore => assert!(cut < MAX_HELLO_BYTES, "a full buffer decides"),
            settled => assert_eq!(settled, whole, "settled after {cut} bytes"),
        }
    }
    let HelloParsed::Complete(hello) = whole else {
        return;
    };
    assert!(hello.length <= bytes.len() && hello.length <= MAX_HELLO_BYTES);
    let said = hello.hello();
    let mut message = Vec::new();
    let mut rest = &bytes[..hello.length];
    while let [22, 3, _, high, low, behind @ ..] = rest {
        let (fragment, behind) = behind.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        message.extend(fragment);
        rest = behind;
    }
    for cut in (1..message.len()).step_by(step) {
        let record = |fragment: &[u8]| {
            let length = u16::try_from(fragment.len()).unwrap().to_be_bytes();
            [&[22, 3, 3][..], &length, fragment].concat()
        };
        let split = [record(&message[..cut]), record(&message[cut..])].concat();
        match client_hello::parse(&split) {
            HelloParsed::Complete(again) => assert_eq!(again.hello(), said),
            other => assert!(split.len() > MAX_HELLO_BYTES, "{other:?}"),
        }
    }
    let now = Instant::now();
    let windows = open_windows(now);
    for admission in [Admission::AllowList, Admission::Everybody] {
        match GATE.decide_tls(&said, admission, &windows, now) {
            TlsDecision::Challenge(permit) => {
                assert_eq!((said.offer, said.has_early_data), (Offer::AcmeTls, false));
                assert!(message.windows(10).any(|name| name == ACME_TLS));
                let own = &GATE.sites[permit.site().0].identifiers;
                assert!(own.iter().any(|own| own.covers(permit.identifier())));
            }
            TlsDecision::Pass { .. } => {
                assert_eq!(admission, Admission::AllowList);
                assert_ne!(said.offer, Offer::AcmeTls);
            }
            TlsDecision::Refuse { reason, .. } => assert_eq!(reason.verdict(), Verdict::Drop),
        }
    }
}

/// Tokens, thumbprints and key authorizations: what parses is written back as it came, and no log
/// can hold a whole answer.
pub fn token(bytes: &[u8]) {
    let is_base64url = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    match Token::parse(bytes) {
        Ok(token) => {
            assert_eq!(token.as_str().as_bytes(), bytes);
            assert!((MIN_TOKEN_BYTES..=MAX_TOKEN_BYTES).contains(&bytes.len()));
            assert!(bytes.iter().all(is_base64url));
        }
        Err(_) => assert!(
            !(MIN_TOKEN_BYTES..=MAX_TOKEN_BYTES).contains(&bytes.len())
                || !bytes.iter().all(is_base64url)
        ),
    }
    if let Some(thumbprint) = Thumbprint::parse(bytes) {
        assert_eq!(thumbprint.as_str().as_bytes(), bytes);
    }
    if let Some(answer) = KeyAuthorization::parse(bytes) {
        let body = answer.to_body();
        assert_eq!(body.as_bytes(), bytes.trim_ascii_end());
        assert!(body.len() <= MAX_KEY_AUTHORIZATION_BYTES);
        assert_eq!(
            KeyAuthorization::parse(body.as_bytes()),
            Some(answer.clone())
        );
        // A token may hold the same characters, so what must not be there is the whole answer.
        assert!(!format!("{answer:?}").contains(&body));
    }
}

/// Names and addresses: one spelling for each, and it reads back.
pub fn identifier(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    if let Ok(identifier) = Identifier::parse(text) {
        is_canonical(&identifier);
        match &identifier {
            Identifier::Dns(name) => {
                assert_eq!(
                    name.as_str(),
                    text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase()
                );
            }
            Identifier::Ip(address) => assert_eq!(address.to_string(), text),
        }
    }
    for port in [80, 8080] {
        if let Ok(identifier) = Identifier::from_host(text, port) {
            is_canonical(&identifier);
            let with_port = format!("{}:{port}", identifier.to_authority());
            assert_eq!(Identifier::from_host(&with_port, port), Ok(identifier));
        }
    }
    if let Ok(pattern) = Pattern::parse(text) {
        assert_eq!(Pattern::parse(&pattern.to_string()), Ok(pattern.clone()));
        if let Pattern::Wildcard(base) = &pattern {
            let covers =
                |name: String| Identifier::parse(&name).is_ok_and(|name| pattern.covers(&name));
            let fits = base.as_str().len() + 2 <= MAX_NAME_BYTES;
            assert_eq!(covers(format!("a.{base}")), fits);
            assert!(!covers(base.to_string()) && !covers(format!("a.b.{base}")));
        }
    }
}

fn is_canonical(identifier: &Identifier) {
    let text = identifier.to_string();
    assert_eq!(Identifier::parse(&text).as_ref(), Ok(identifier));
    assert_eq!(
        Identifier::from_host(&identifier.to_authority(), 80).as_ref(),
        Ok(identifier)
    );
    match identifier {
        Identifier::Dns(name) => {
            let is_ldh = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.')
            };
            assert!(name.as_str().bytes().all(is_ldh) && name.as_str().len() <= MAX_NAME_BYTES);
            assert!(
                text.parse::<IpAddr>().is_err(),
                "an address is never taken for a name"
            );
        }
        Identifier::Ip(address) => assert_eq!(text.parse(), Ok(*address)),
    }
}

/// A control request: what is understood, written again, is understood alike.
pub fn control(bytes: &[u8]) {
    if let Ok(envelope) = parse_request(bytes) {
        let line = serde_json::to_vec(&envelope).unwrap();
        assert_eq!(parse_request(&line).unwrap(), envelope);
        assert!(!line.contains(&b'\n'), "one line");
    }
}

/// Frames between front and enforcer: exactly one frame for each message.
pub fn frame(bytes: &[u8]) {
    let mut frame: Frame = [0; FRAME_BYTES];
    let length = bytes.len().min(FRAME_BYTES);
    frame[..length].copy_from_slice(&bytes[..length]);
    if let Ok((sequence, request)) = EnforcerRequest::from_frame(&frame) {
        assert_eq!(request.to_frame(sequence), frame);
    }
    if let Ok((sequence, reply)) = Reply::from_frame(&frame) {
        assert_eq!(reply.to_frame(sequence), frame);
    }
}

/// What the kernel says of sets and traced packets: read the same way again, and bounded.
pub fn trace(bytes: &[u8]) {
    let drops = Packets::default().read(bytes);
    assert_eq!(Packets::default().read(bytes), drops);
    for drop in drops {
        assert_eq!(drop.source, drop.source.to_canonical());
        let (table, chain) = (&drop.place.table, &drop.place.chain);
        assert!((drop.place.family, table.as_str()) != (1, "acmegate"));
        // An octet that is no text becomes a character of three.
        assert!(table.len() <= 3 * 255 && chain.len() <= 3 * 255);
    }
    let read = answers(bytes, 1);
    assert!(read.len() <= bytes.len());
    for answer in read {
        if let SetAnswer::Element(element) = answer {
            assert_eq!(element.source, element.source.to_canonical());
        }
    }
}

/// Frames between front and runner: exactly one frame for each message.
pub fn runner(bytes: &[u8]) {
    let mut frame: Frame = [0; FRAME_BYTES];
    let length = bytes.len().min(FRAME_BYTES);
    frame[..length].copy_from_slice(&bytes[..length]);
    if let Ok((sequence, request)) = RunnerRequest::from_frame(&frame) {
        assert_eq!(request.to_frame(sequence), frame);
    }
    if let Ok((sequence, reply)) = RunnerReply::from_frame(&frame) {
        assert_eq!(reply.to_frame(sequence), frame);
    }
}

/// What front and historian say to each other: it reads back when written again, and a record that is
/// handed over fits, with nobody lost who is not counted.
pub fn history(bytes: &[u8]) {
    if let Ok(answer) = decode::<HistoryAnswer>(bytes) {
        let again = encode(&answer, usize::MAX).unwrap();
        assert_eq!(decode::<HistoryAnswer>(&again[4..]), Ok(answer));
    }
    let Ok(question) = decode::<Question>(bytes) else {
        return;
    };
    let again = encode(&question, usize::MAX).unwrap();
    assert_eq!(decode::<Question>(&again[4..]), Ok(question.clone()));
    let HistoryAsk::Store(record) = question.ask else {
        return;
    };
    let came = record.more_sources.checked_add(record.sources.len() as u64);
    let (Some(came), Some(record)) = (came, fitted(*record)) else {
        return;
    };
    assert_eq!(record.more_sources + record.sources.len() as u64, came);
    let ask = HistoryAsk::Store(Box::new(record));
    let question = Question { id: u64::MAX, ask };
    assert!(encode(&question, MAX_QUESTION_BYTES).is_some());
}

/// What commands opened, as it survives: what is read of it is written and read alike, and fills
/// blanks with nothing but what they are for.
pub fn state(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let Ok(openings) = runner_state::parse(text) else {
        return;
    };
    assert_eq!(
        runner_state::parse(&runner_state::render(&openings)).unwrap(),
        openings
    );
    let word = |text: &str| Word::parse(text, &Blank::OF_OPENINGS).unwrap();
    let words = ["{port}", "{seconds}", "{lease}", "{family}", "{number}"];
    let command = Command::new("x".to_owned(), words.map(word).to_vec());
    for run in openings.iter().flat_map(|opening| command.runs(opening)) {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:@+-".contains(&byte);
        assert_eq!(run.program, "x");
        assert!(run.arguments.iter().all(|word| word.bytes().all(plain)));
    }
}

struct Everybody;

impl Accounts for Everybody {
    fn user(&self, _name: &str) -> Option<u32> {
        Some(990)
    }

    fn group(&self, _name: &str) -> Option<Group> {
        Some(Group {
            gid: 980,
            members: vec![991],
        })
    }
}

/// A configuration: refused in words fit for a terminal, or good for everything that is made of it.
pub fn config(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    match Config::parse(text, "fuzz.toml", &Everybody, &Unchecked) {
        Err(error) => {
            assert!(!error.problems().is_empty());
            let told = error.to_string();
            assert!(told.starts_with("error: "));
            let moves = |c: char| {
                c.is_control()
                    || ('\u{202a}'..='\u{202e}').contains(&c)
                    || ('\u{2066}'..='\u{2069}').contains(&c)
            };
            assert!(!told.chars().any(|c| c != '\n' && moves(c)), "{told:?}");
        }
        Ok(config) => {
            let limits = config.limits();
            assert!(limits.ports.len() <= 4 && limits.max <= Duration::from_secs(24 * 3600));
            assert!(limits.budget.reserve < limits.budget.per_hour);
            assert_eq!(config.gate_sites().len(), config.sites.len());
            assert!(
                config
                    .sites
                    .iter()
                    .filter(|site| site.gate.is_default)
                    .count()
                    <= 1
            );
            assert!(config.daemon.state_dir.starts_with(Path::new("/")));
            // The files that it names are this host's, and none of ours.
            let mut written = config.allow.clone();
            for named in [&mut written.listed, &mut written.taken_off] {
                named.files.clear();
                named.countries.clear();
            }
            let list = Lists::read(&written).unwrap().list();
            let rules = orders(&config, list.clone(), None).settings.to_nft();
            assert_eq!(rules.matches('{').count(), rules.matches('}').count());
            drop(config.warnings(&list));
            if let Some(commands) = &config.firewall.commands {
                assert!(commands.each().count() > 0);
                assert!(commands.timeout <= Duration::from_secs(7));
            }
        }
    }
}

/// A list, of prefixes and of countries: it is read to ranges that are the same when they are written
/// as a plain list, or refused in one line that is fit for a terminal and says what to do.
pub fn lists(bytes: &[u8]) {
    let told = |mistake: Mistake| {
        assert!(!mistake.fix.is_empty());
        let line = mistake.of(Path::new("/lists/fuzz"));
        assert!(line.starts_with("/lists/fuzz:"), "{line:?}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
    };
    match format::prefixes(bytes) {
        Ok(entries) => reads_back(entries),
        Err(mistake) => told(mistake),
    }
    let wanted: BTreeSet<Country> = ["CH", "LI"]
        .iter()
        .filter_map(|code| Country::parse(code).ok())
        .collect();
    match format::countries(bytes, &wanted) {
        Ok(found) => {
            for (country, entries) in found {
                assert!(wanted.contains(&country));
                reads_back(entries);
            }
        }
        Err(mistake) => told(mistake),
    }
}

fn reads_back(entries: Entries) {
    let list = AllowList::from_entries(entries, Entries::default());
    let v4 = list.v4().as_slice().iter().map(|(first, last)| {
        format!(
            "{}-{}\n",
            Ipv4Addr::from_bits(*first),
            Ipv4Addr::from_bits(*last)
        )
    });
    // What a range of IPv6 begins or ends with may be written as IPv4, and is not understood so.
    let is_plain = |bits: u128| Ipv6Addr::from_bits(bits).to_ipv4_mapped().is_none();
    let v6 = list.v6().as_slice().iter();
    if !v6
        .clone()
        .all(|(first, last)| is_plain(*first) && is_plain(*last))
    {
        return;
    }
    let v6 = v6.map(|(first, last)| {
        format!(
            "{} - {} # both\r\n",
            Ipv6Addr::from_bits(*first),
            Ipv6Addr::from_bits(*last)
        )
    });
    let written: String = v4.chain(v6).collect();
    let again = format::prefixes(written.as_bytes()).unwrap();
    assert_eq!(AllowList::from_entries(again, Entries::default()), list);
}

/// The comment of a lease's element: whatever stands there, what is read of it is written and read
/// alike from then on, and fits where it came from.
pub fn record(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    // What stands behind a line end is the second element's.
    let (text, entrance) = match text.split_once('\n') {
        Some((text, entrance)) => (text, Some(entrance)),
        None => (text, None),
    };
    let deadline = Instant::now();
    if let Some(lease) = from_comment(text, entrance, deadline) {
        let comment = to_comment(&lease);
        let entrance = entrance_comment(&lease.scope.entrance);
        assert!(comment.len() <= 127, "{comment}");
        assert!(entrance.as_ref().is_none_or(|text| text.len() <= 127));
        let back = from_comment(&comment, entrance.as_deref(), deadline);
        assert_eq!(back, Some(lease));
    }
}

/// A handshake, as chunks of both sides (one octet, odd for the server; two of length; the bytes):
/// the same passes however the bytes are cut; whole records pass, in order, and of the peer's
/// encrypted ones no more than a Finished and an alert.
pub fn handshake(bytes: &[u8]) {
    let flights = flights(bytes);
    let whole = exchange(&flights, usize::MAX);
    assert_eq!(whole, exchange(&flights, 1));
    let [to_server, to_peer, ..] = &whole;
    for (passed, is_server) in [(to_server, false), (to_peer, true)] {
        let said: Vec<u8> = flights
            .iter()
            .filter(|(by_server, _)| *by_server == is_server)
            .flat_map(|(_, bytes)| bytes.iter().copied())
            .collect();
        let (mut rest, mut encrypted) = (passed.as_slice(), Vec::new());
        while let [kind, 3, _, high, low, behind @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            assert!((20..=23).contains(kind) && (1..=16_640).contains(&length));
            if *kind == 23 {
                encrypted.push(length);
            }
            rest = &behind[length..];
        }
        assert!(rest.is_empty(), "half a record");
        // Of the server's, what comes after the handshake is left out; of the peer's nothing is.
        if !is_server {
            assert!(said.starts_with(passed));
            assert!(matches!(
                encrypted.as_slice(),
                [] | [11 | 19] | [45 | 53 | 69] | [45, 11] | [53 | 69, 19]
            ));
        }
        assert!(encrypted.iter().sum::<usize>() <= 16 * 1024);
    }
}

type Flights<'a> = Vec<(bool, &'a [u8])>;

fn flights(mut bytes: &[u8]) -> Flights<'_> {
    let mut flights = Vec::new();
    while let [who, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (flight, behind) = rest.split_at(length.min(rest.len()));
        flights.push((who & 1 == 1, flight));
        bytes = behind;
    }
    flights
}

/// What passed to the server and to the peer, and how it ended.
fn exchange(flights: &Flights<'_>, step: usize) -> [Vec<u8>; 3] {
    let mut handshake = Handshake::new();
    let (mut to_server, mut to_peer) = (Vec::new(), Vec::new());
    let mut hear = |is_server: bool, part: &[u8]| -> Result<bool, Misstep> {
        match is_server {
            false => handshake.hear_peer(part, &mut to_server)?,
            true => handshake.hear_server(part, &mut to_peer)?,
        }
        Ok(handshake.is_complete())
    };
    let mut end = Ok(false);
    for (is_server, bytes) in flights {
        for part in bytes.chunks(step) {
            if end.is_ok() {
                end = hear(*is_server, part);
            }
        }
    }
    [to_server, to_peer, format!("{end:?}").into_bytes()]
}

/// Fields that a believed proxy passed on: whatever a peer wrote into them, nobody is taken for it but whom the proxy
/// saw, and whom the proxy names is found.
pub fn forwarded(bytes: &[u8]) {
    static PROXIES: LazyLock<AllowList> = LazyLock::new(|| {
        AllowList::new(["10.0.0.0/24", "2001:db8:1::/48"].map(|prefix| prefix.parse().unwrap()))
    });
    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    if let Ok(peer) = real_peer(bytes, &PROXIES) {
        assert_eq!(peer, peer.to_canonical());
        assert!(!PROXIES.contains(peer));
    }
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    // What a peer writes is one field's value, for the proxy that appends to it; lines of its own are other fields.
    let value = text.replace(['\r', '\n'], " ");
    let told = |fields: String| real_peer(fields.as_bytes(), &PROXIES);
    let list = format!("X-Forwarded-For: {value}, 192.0.2.1");
    assert_eq!(told(list.clone()), Ok(PEER));
    assert_eq!(
        told(format!("{list}\r\nX-Forwarded-For: 10.0.0.2")),
        Ok(PEER)
    );
    for appended in ["for=192.0.2.1", "for=192.0.2.1;proto=http, for=10.0.0.2"] {
        let told = told(format!("Forwarded: {value}, {appended}"));
        assert!(told.is_err() || told == Ok(PEER), "{told:?}");
    }
    let above = format!("Forwarded: {value}\r\nForwarded: for=192.0.2.1");
    assert_eq!(told(above), Ok(PEER));
    // The proxy writes the one kind and passes the other on.
    for both in [
        format!("Forwarded: {value}\r\nX-Forwarded-For: 192.0.2.1"),
        format!("X-Forwarded-For: {value}\r\nForwarded: for=192.0.2.1"),
    ] {
        let told = told(both);
        assert!(told.is_err() || told == Ok(PEER), "{told:?}");
    }
}

/// What a service of the web answers: none is taken for whole that says it is longer; what was understood says the
/// same when it is written anew.
pub fn answer(bytes: &[u8]) {
    let Some((status, body)) = understand(bytes) else {
        return;
    };
    assert!(body.len() <= bytes.len());
    let length = body.len();
    let head = format!("HTTP/1.1 {status} \r\nContent-Length: {length}\r\n\r\n");
    let anew = [head.as_bytes(), &body].concat();
    assert_eq!(understand(&anew), Some((status, body.clone())));
    assert_eq!(understand(&anew[..anew.len() - 1]), None);
    let head = format!("HTTP/1.1 {status} \r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut chunked = head.into_bytes();
    for chunk in body.chunks(7) {
        chunked.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        chunked.extend(chunk);
        chunked.extend(b"\r\n");
    }
    let most = chunked.len();
    chunked.extend(b"0\r\n\r\n");
    assert_eq!(understand(&chunked), Some((status, body)));
    assert_eq!(understand(&chunked[..most]), None);
}

/// What a vantage point prints: lines without the mark say nothing, and of the others little is kept, however much
/// comes.
pub fn vantage(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let at = Instant::now();
    let mut told = Told::new("m");
    let mut unmarked = Told::new("no line begins so");
    for line in text.lines() {
        told.line(line, at);
        unmarked.line(line, at);
    }
    assert_eq!(format!("{unmarked:?}"), {
        let mut empty = Told::new("no line begins so");
        text.lines().for_each(|_| empty.line("", at));
        format!("{empty:?}")
    });
    let is_short = |text: &str| text.chars().count() <= 200;
    let answers = told
        .servers
        .iter()
        .filter_map(|(_, server)| server.answer.as_deref());
    assert!(answers.into_iter().all(is_short));
    assert!(
        told.servers
            .iter()
            .all(|(_, server)| is_short(&server.name))
    );
    assert!(told.own.len() <= 128 && told.servers.len() <= 128);
    assert!(told.own.iter().all(|own| *own == own.to_canonical()));
    for number in 0..3 {
        for fetch in told.fetches(number, "token.thumbprint") {
            match fetch.outcome {
                Outcome::Broken(why) | Outcome::Silent(why) => assert!(is_short(&why)),
                Outcome::Answered { matches, .. } => {
                    // What matches was told, octet for octet.
                    let octets = "74 6f 6b 65 6e 2e 74 68 75 6d 62 70 72 69 6e 74";
                    let is_told = octets.split(' ').all(|octet| {
                        text.to_ascii_lowercase()
                            .contains(octet.trim_start_matches('0'))
                    });
                    assert!(!matches || is_told);
                }
            }
        }
    }
}

/// What a CAA or dns-persist-01 record says: read alike when it is written anew, and nothing in it but plain text.
pub fn issue(bytes: &[u8]) {
    let Some(value) = IssueValue::parse(bytes) else {
        return;
    };
    let is_plain = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b';')
    };
    assert!(is_plain(&value.issuer));
    let mut anew = value.issuer.clone();
    for (tag, text) in &value.parameters {
        assert!(is_plain(tag) && is_plain(text) && !tag.contains('='));
        assert_eq!(*tag, tag.to_ascii_lowercase());
        anew += &format!("; {tag}={text}");
    }
    assert_eq!(IssueValue::parse(anew.as_bytes()), Some(value.clone()));
    assert_eq!(
        IssueValue::parse(format!("{anew};").as_bytes()),
        Some(value)
    );
}

/// A process whose name and arguments somebody chose: it is read whole, and is nobody else.
pub fn process(bytes: &[u8]) {
    if let Some(read) = host::parse(7, &String::from_utf8_lossy(bytes), bytes) {
        assert_eq!(read.pid, 7);
        assert!(read.arguments.iter().all(|word| !word.contains('\0')));
    }
    // The kernel keeps 15 octets of a name.
    let name = String::from_utf8_lossy(&bytes[..bytes.len().min(15)]);
    let rest: Vec<String> = (5..=52).map(|field| field.to_string()).collect();
    let stat = format!("7 ({name}) S 4 {}", rest.join(" "));
    let read = host::parse(7, &stat, b"a\0b\0").unwrap();
    assert_eq!((read.parent, read.start_ticks), (4, 22));
    assert_eq!(read.command, name);
    assert_eq!(read.arguments, ["a", "b"]);
}

/// A rule of somebody else's, as the kernel dumps it: judged alike each time, and dropped is a packet only by that rule.
pub fn rule(bytes: &[u8]) {
    let ruleset = of_rule(bytes);
    for family in [IpFamily::V4, IpFamily::V6] {
        for (transport, over_limits) in [(Transport::Tcp, false), (Transport::Udp, true)] {
            let probe = Probe {
                family,
                port: 80,
                interface: "eth0".to_owned(),
                ifindex: Some(2),
                destination: None,
                mark: 0,
                is_untracked: false,
                ct_mark: 0,
                accepted_sets: Vec::new(),
            };
            let circumstances = Circumstances {
                transport,
                over_limits,
                ..Circumstances::default()
            };
            let judged = || judge_in(&ruleset, &probe, &["acmegate"], &circumstances).path;
            let way = judged();
            assert_eq!(judged(), way);
            match way {
                Way::Drops(culprit) => assert_eq!(culprit.place.rule, Some(1)),
                Way::Passes { doubts } => assert!(doubts.len() <= 16),
            }
        }
    }
}

/// What a DNS server sends: an answer has the question's number and the response's bit, it reads back when written
/// anew, and by a stream it is the same, whole or not at all.
pub fn dns(bytes: &[u8]) {
    thread_local! {
        static RUNTIME: Runtime = Builder::new_current_thread().build().unwrap();
        static ASKED: Message = {
            let name = Name::from_ascii("www.a.test.").unwrap();
            let mut asked = Message::query();
            asked.metadata.id = 0x1234;
            asked.add_query(Query::query(name, RecordType::CAA));
            asked
        };
    }
    let asked = ASKED.with(Message::clone);
    let by_stream = |octets: &[u8]| RUNTIME.with(|one| one.block_on(from_stream(octets, &asked)));
    let answer = match of_datagram(bytes, &asked) {
        Datagram::Answer(answer) => {
            assert_eq!(bytes[..2], [0x12, 0x34]);
            assert_eq!(bytes[2] & 0x80, 0x80, "a question");
            let anew = answer.to_vec().map(|anew| of_datagram(&anew, &asked));
            if let Ok(anew) = anew {
                assert_eq!(anew, Datagram::Answer(answer.clone()));
            }
            Some(*answer)
        }
        Datagram::Garbage => {
            assert_eq!(bytes[..2], [0x12, 0x34]);
            None
        }
        Datagram::Stray => None,
    };
    let Ok(length) = u16::try_from(bytes.len()) else {
        return;
    };
    let framed = [&length.to_be_bytes()[..], bytes, b"\0\x01\0"].concat();
    assert_eq!(by_stream(&framed).unwrap(), answer);
    let whole = bytes.len() + 2;
    for cut in (0..whole).step_by(whole.div_ceil(ALL_CUTS_BYTES)) {
        let error = by_stream(&framed[..cut]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }
}

/// What is heard of a site: the same status, fields and content that httparse finds, however much of the content came.
pub fn site(bytes: &[u8]) {
    let heard = SiteAnswer::parse(bytes);
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    let parsed = head.parse(bytes);
    let has_bare_ends = || {
        let text = String::from_utf8_lossy(bytes).replace("\r\n", "");
        text.contains(['\r', '\n']) || bytes.starts_with(b"\r\n")
    };
    if let (Ok(httparse::Status::Complete(length)), Some(status @ 100..)) = (parsed, head.code)
        && !has_bare_ends()
    {
        let Some(heard) = &heard else {
            panic!("not heard: {status}");
        };
        assert_eq!(
            (heard.status, heard.content.as_slice()),
            (status, &bytes[length..])
        );
        for field in head.headers.iter() {
            let first = head
                .headers
                .iter()
                .find(|one| one.name.eq_ignore_ascii_case(field.name));
            if let Some(Ok(value)) = first.map(|first| str::from_utf8(first.value)) {
                assert_eq!(heard.field(field.name), Some(value.trim()));
            }
        }
    }
    let Some(heard) = heard else {
        return;
    };
    assert!((100..=999).contains(&heard.status));
    let head = bytes.len() - heard.content.len();
    assert_eq!(SiteAnswer::parse(&bytes[..head - 1]), None);
    let bare = SiteAnswer::parse(&bytes[..head]).unwrap();
    assert_eq!((bare.status, &bare.fields), (heard.status, &heard.fields));
    let anew = format!("HTTP/1.0 {}\r\n{}\r\n\r\n", heard.status, heard.fields);
    let anew = [anew.as_bytes(), &heard.content].concat();
    if !heard.fields.is_empty() {
        assert_eq!(SiteAnswer::parse(&anew), Some(heard));
    }
}

/// An access control list: where the kernel would have it, it grants what acl(5) says, read once more.
pub fn acl(bytes: &[u8]) {
    let [uid, gid, second, wanted, list @ ..] = bytes else {
        return;
    };
    let (uid, gid, wanted) = (u32::from(*uid), u32::from(*gid), u32::from(*wanted) & 7);
    let groups = [gid, u32::from(*second)];
    let Some(acl) = Acl::parse(list) else {
        assert!(!list.starts_with(&[2, 0, 0, 0]));
        return;
    };
    let number = |octets: &[u8]| {
        octets
            .iter()
            .rev()
            .fold(0, |sum, octet| sum << 8 | u32::from(*octet))
    };
    let entries = list[4..].chunks_exact(8);
    let entries: Vec<[u32; 3]> = entries
        .map(|entry| {
            [
                number(&entry[..2]),
                number(&entry[2..4]),
                number(&entry[4..]),
            ]
        })
        .collect();
    let of = |tag: u32| entries.iter().filter(move |entry| entry[0] == tag);
    let named = |tag: u32| of(tag).map(|entry| entry[2]).collect::<BTreeSet<u32>>();
    // posix_acl_valid() of the kernel, but for the order.
    let is_valid = entries.iter().all(|entry| entry[1] <= 7)
        && [0x01, 0x04, 0x20].iter().all(|tag| of(*tag).count() == 1)
        && of(0x10).count() <= 1
        && [0x02, 0x08]
            .iter()
            .all(|tag| named(*tag).len() == of(*tag).count())
        && (of(0x10).count() == 1 || named(0x02).len() + named(0x08).len() == 0);
    // Another group than the file's.
    let owner_group = 3;
    let granted = acl.grants(uid, &groups, owner_group, wanted);
    if !is_valid {
        return;
    }
    let mask = of(0x10).map(|entry| entry[1]).next().unwrap_or(7);
    let may = |rights: u32, mask: u32| (0..3).all(|bit| wanted & 1 << bit & !(rights & mask) == 0);
    let user = of(0x02).find(|entry| entry[2] == uid);
    let of_groups: Vec<u32> = of(0x04)
        .filter(|_| groups.contains(&owner_group))
        .chain(of(0x08).filter(|entry| groups.contains(&entry[2])))
        .map(|entry| entry[1])
        .collect();
    let expected = match (user, of_groups.is_empty()) {
        (Some(user), _) => may(user[1], mask),
        (None, false) => of_groups.iter().any(|rights| may(*rights, mask)),
        (None, true) => of(0x20).any(|entry| may(entry[1], 7)),
    };
    assert_eq!(granted, expected);
}

/// JSON of the two services that a probe asks: little is kept however much comes, and it says the same when somebody
/// else wrote it anew.
pub fn service(bytes: &[u8]) {
    // Of what is passed over serde_json asks for less than for a value.
    let anew = serde_json::from_slice::<serde_json::Value>(bytes).map(|value| value.to_string());
    let is_short = |text: &str, most: usize| text.chars().count() <= most;
    let vantages = |octets: &[u8]| {
        let answer = mpic::Answer::parse(octets).ok()?;
        let valid = answer.is_valid;
        let told = answer.perspectives().into_iter();
        let told: Vec<_> = told
            .map(|(code, checked)| (code, checked.has_passed(), checked.outcome(), checked.why()))
            .collect();
        Some((valid, told))
    };
    if let Some((valid, told)) = vantages(bytes) {
        assert!(told.len() <= mpic::MAX_PERSPECTIVES);
        for (code, has_passed, outcome, why) in &told {
            assert!(is_short(code, mpic::MAX_TEXT) && is_short(why, mpic::MAX_TEXT));
            match outcome {
                Outcome::Answered { matches, .. } => assert_eq!(matches, has_passed),
                Outcome::Silent(said) => assert!(!has_passed && said == why),
                Outcome::Broken(_) => panic!("it tells of no connection"),
            }
        }
        if let Ok(anew) = &anew {
            assert_eq!(vantages(anew.as_bytes()), Some((valid, told)));
        }
    }
    let state = |octets: &[u8]| {
        let test: letsdebug::Test = serde_json::from_slice(octets).ok()?;
        Some(test.state("a.test"))
    };
    let Some(told) = state(bytes) else {
        return;
    };
    match &told {
        Err(why) => assert!(is_short(why, letsdebug::MAX_TEXT + 20)),
        Ok(letsdebug::State::Running) => {}
        Ok(letsdebug::State::Over(problems)) => {
            assert!(problems.len() <= letsdebug::MAX_PROBLEMS);
            for problem in problems {
                let texts = [&problem.name, &problem.explanation, &problem.detail];
                assert!(texts.iter().all(|text| is_short(text, letsdebug::MAX_TEXT)));
            }
        }
    }
    if let Ok(anew) = anew {
        assert_eq!(state(anew.as_bytes()), Some(told));
    }
}

/// What a client gives its hook for a challenge: an answer that the daemon is asked to give just so, in a request that
/// has room for it; or one line fit for a terminal, and whose fault.
pub fn hook(bytes: &[u8]) {
    // No argument holds a nought.
    let mut words = bytes.split(|byte| *byte == 0).map(OsStr::from_bytes);
    let (token, value) = (words.next().unwrap(), words.next().unwrap_or_default());
    let answer = match hooks::either_of(token, "VALUE", value) {
        Ok(answer) => answer,
        Err(unfit) => {
            assert!(matches!(unfit.exit, Exit::Usage | Exit::Data));
            assert!(!unfit.message.chars().any(char::is_control));
            return;
        }
    };
    assert_eq!(Some(answer.token()), token.to_str());
    let value = value.to_str().unwrap();
    let (key_authorization, digest) = match &answer {
        hooks::Answer::Http01(given) => {
            assert_eq!(*given, value);
            assert!(given.strip_prefix(answer.token()).unwrap().starts_with('.'));
            assert_eq!(hooks::key_authorization("VALUE", value), Ok(answer.clone()));
            (Some(value.to_owned()), None)
        }
        hooks::Answer::TlsAlpn01 { token, sha256 } => {
            assert_eq!(in_hexadecimal(sha256), value.to_ascii_lowercase());
            let (token, sha256) = ((*token).to_owned(), sha256.clone());
            (None, Some(DigestWord { token, sha256 }))
        }
    };
    assert_eq!(
        answer.challenge() == ChallengeName::TlsAlpn01,
        digest.is_some()
    );
    let envelope = Envelope {
        version: VERSION,
        ask: Ask::AnswerAdd {
            challenge: answer.challenge(),
            identifier: "a".repeat(MAX_NAME_BYTES),
            key_authorization,
            digest,
            milliseconds: None,
        },
        under: None,
    };
    let line = serde_json::to_vec(&envelope).unwrap();
    assert!(line.len() < MAX_REQUEST_BYTES);
    assert_eq!(parse_request(&line).unwrap(), envelope);
}

/// Base64url as octets in hexadecimal, colons between them.
fn in_hexadecimal(base64url: &str) -> String {
    let digits = base64url.bytes().map(|byte| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'-' => 62,
        _ => 63,
    });
    let bits: Vec<u8> = digits
        .flat_map(|digit| (0..6).rev().map(move |bit| digit >> bit & 1))
        .collect();
    let octets = bits.chunks_exact(8);
    let octets = octets.map(|bits| bits.iter().fold(0u8, |octet, bit| octet << 1 | bit));
    let octets: Vec<String> = octets.map(|octet| format!("{octet:02x}")).collect();
    octets.join(":")
}

/// What the check of the seals tells on its two streams: read alike when written anew, or one short line.
pub fn seals(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (said, complained) = text.split_once('\0').unwrap_or((&text, ""));
    match Attempt::read(said, complained) {
        Ok(tried) => {
            let anew = serde_json::to_string(&tried).unwrap();
            assert_eq!(Attempt::read(&anew, ""), Ok(tried.clone()));
            for one in &tried {
                let is_told_bad = ["DOES NOT WORK", "NOT REFUSED"]
                    .iter()
                    .any(|word| one.to_string().contains(word));
                assert!(is_told_bad || one.is_good());
            }
        }
        Err(why) => {
            assert!(!why.chars().any(char::is_control));
            assert!(why.chars().count() < 400);
        }
    }
}
