use std::fs;
use std::path::Path;
use std::time::Instant;

use super::lists::Lists;
use super::*;
use crate::gate::caller::{Verb, Who};
use crate::gate::identifier::{Identifier, Pattern};
use crate::gate::lease::Lease;
use crate::gate::site::Redirect;
use crate::gate::usage::Allowance;
use crate::gate::window::Windows;
use crate::gate::{Decision, Host, Reason, Request};

/// Nobody lives here but certbot and the group acme.
struct Village;

impl Accounts for Village {
    fn user(&self, name: &str) -> Option<u32> {
        (name == "certbot").then_some(991)
    }

    fn group(&self, name: &str) -> Option<Group> {
        matches!(name, "acme" | "980").then(|| Group {
            gid: 980,
            members: vec![991],
        })
    }
}

fn good(text: &str) -> Config {
    Config::parse(text, "test.toml", &Village, &Unchecked).unwrap()
}

fn bad(text: &str) -> String {
    Config::parse(text, "test.toml", &Village, &Unchecked)
        .unwrap_err()
        .to_string()
}

fn site(text: &str) -> Site {
    let mut config = good(&format!("[[site]]\n{text}"));
    assert_eq!(config.sites.len(), 1);
    config.sites.remove(0)
}

#[test]
fn an_empty_file_is_the_defaults() {
    let (empty, default) = (good(""), Config::default());
    assert_eq!(format!("{empty:?}"), format!("{default:?}"));
    assert_eq!(default.http.listen[0].to_string(), "[::]:80");
    assert_eq!(default.limits().ports, [80]);
    assert_eq!(default.gate(Arc::default()).exposure, Exposure::Windowed);
    assert_eq!(default.warnings(&AllowList::default()), [""; 0]);
}

#[test]
fn an_error_shows_the_line_and_what_to_write() {
    assert_eq!(
        bad("\n\n[http]\nlisen = [\"[::]:80\"]\n"),
        "error: unknown key `lisen`
  --> test.toml:4:1
   |
 4 | lisen = [\"[::]:80\"]
   | ^^^^^ did you mean `listen`?
"
    );
}

#[test]
fn every_problem_is_told_in_the_order_of_the_file() {
    let error = Config::parse(
        "[window]\nmax = 10\n[http]\nlisen = 1\nredirect_status = 5\n[log]\nlevel = \"x\"\n",
        "test.toml",
        &Village,
        &Unchecked,
    )
    .unwrap_err();
    let places: Vec<_> = error
        .problems()
        .iter()
        .filter_map(|problem| error.place(problem))
        .collect();
    assert_eq!(places, [(2, 7), (4, 1), (5, 19), (7, 9)]);
    assert_eq!(error.exit_code(), 78);
}

#[test]
fn a_wrong_value_causes_no_second_error_elsewhere() {
    for text in [
        "[http]\nlisten = 80\n",
        "[http]\nlisten = [\"x\"]\n",
        "[firewall]\nmode = 5\nset = \"inet filter acmegate\"\n",
        "[firewall]\nmode = \"set\"\nset = 5\n",
        "[firewall]\nmode = \"sett\"\nset = \"inet filter acmegate\"\n",
        "[budget]\nper_hour = \"x\"\nreserve = 3000\n",
        "[[site]]\nidentifiers = 5\n",
        "[[site]]\ndefault = 5\n",
        "[[site]]\nidentifiers = [\"a.test\"]\nanswer = { webrot = \"/x\" }\n",
        "[[grant]]\nuser = true\nmay = [\"open\"]\n",
        "[[grant]]\nuser = \"certbot\"\nmay = 5\n",
        "[[grant]]\nuser = \"certbot\"\nmay = [\"answer\"]\nidentifiers = 5\n",
        "site = 5\n",
        "[report]\nmax_bytes = 64\n",
        "[report]\nmax_bytes = \"1MiB\"\n",
        "[report]\nmax_bytes = \"64MB\"\n",
        "[report]\nkeep = \"1h\"\n",
        "[report]\ndatabases = [\"x.mmdb\"]\n",
        "[dns]\nresolvers = [\"dns.example\"]\n",
        "[dns]\nresolvers = [\"0.0.0.0\"]\n",
        "[dns]\nresolvers = [\"192.0.2.53:0\"]\n",
        "[dns]\nresolvers = [\"::1\", \"::2\", \"::3\", \"::4\", \"::5\"]\n",
        "[dns]\npublic = [\"127.0.0.1\"]\n",
        "[dns]\npublic = [\"192.0.2.0/24\"]\n",
        "[dns]\nissuers = [\"Let's Encrypt\"]\n",
        "[dns]\naccounts = [\"12345\"]\n",
        "[dns]\naccounts = [\"https://a.test/1; policy=wildcard\"]\n",
        "[dns]\npersist = [\"192.0.2.1\"]\n",
        "[dns]\npersist = [\"a..test\"]\n",
        "[dns]\ntrust_anchor = \"root.key\"\n",
        "[dns]\nresolver = [\"::1\"]\n",
    ] {
        assert_eq!(bad(text).matches("error: ").count(), 1, "{}", bad(text));
    }
}

#[test]
fn what_the_dns_is_asked_is_read() {
    let config = good(
        "[dns]\nresolvers = [\"192.0.2.53\", \"[2001:db8::53]:5353\"]\npublic = [\"203.0.113.7\"]\n\
         issuers = [\"LetsEncrypt.org.\"]\naccounts = [\"https://a.test/acct/1\"]\n\
         persist = [\"a.test\", \"*.a.test\"]\ntrust_anchor = \"/etc/root.key\"\n",
    );
    let resolvers: Vec<String> = config
        .dns
        .resolvers
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(resolvers, ["192.0.2.53:53", "[2001:db8::53]:5353"]);
    assert_eq!(
        config.dns.public,
        ["203.0.113.7".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(config.dns.issuers, ["letsencrypt.org"]);
    assert_eq!(config.dns.accounts, ["https://a.test/acct/1"]);
    assert_eq!(config.dns.persist.len(), 2);
    assert_eq!(config.dns.trust_anchor, Some("/etc/root.key".into()));
    assert_eq!(good("").dns, Dns::default());
}

#[test]
fn ports_are_those_of_the_listeners_unless_named() {
    let config = good("[http]\nlisten = [\"[::]:81\", \"192.0.2.1:80\", \"[::]:0\"]\n");
    assert_eq!(config.firewall.ports, [80, 81]);
    let config = good("[http]\nlisten = []\n[firewall]\nports = [443, 80]\n");
    assert_eq!(config.firewall.ports, [443, 80]);
    let config = good("[http]\nlisten = []\n[firewall]\nmode = \"gate-only\"\n");
    assert_eq!(config.firewall.ports, [0; 0]);
    assert_eq!(config.gate(Arc::default()).exposure, Exposure::Open);
    assert!(bad("[http]\nlisten = [\"[::]:0\"]\n").contains("no port to open or shut"));
}

#[test]
fn a_small_total_bounds_one_source_too() {
    let http = good("[http]\nmax_connections = 100\n").http;
    assert_eq!(http.max_connections_per_source, 100);
}

#[test]
fn a_mark_is_one_bit_in_any_notation() {
    for (text, mark) in [
        ("\"0x08000000\"", 0x0800_0000),
        ("0x100", 0x100),
        ("256", 256),
        ("\"256\"", 256),
        ("0x80000000", 0x8000_0000),
    ] {
        let config = good(&format!("[firewall]\nmark = {text}\n"));
        assert_eq!(config.firewall.mark, mark, "{text}");
    }
    for text in [
        "0",
        "3",
        "-1",
        "0x100000000",
        "\"\"",
        "\"0x\"",
        "\"0x+1\"",
        "\"x\"",
    ] {
        let told = bad(&format!("[firewall]\nmark = {text}\n"));
        assert!(told.contains("write one bit: "), "{told}");
    }
}

#[test]
fn a_set_has_family_table_and_name() {
    let config = good("[firewall]\nmode = \"set\"\nset = \"ip6  my-filter acme.gate\"\n");
    let Mode::Set(set) = config.firewall.mode else {
        panic!("{:?}", config.firewall.mode);
    };
    assert_eq!(set.to_string(), "ip6 my-filter acme.gate");
    for name in ["a;b", "{", "1st", "\u{e9}"] {
        let told = bad(&format!(
            "[firewall]\nmode = \"set\"\nset = \"inet {name} x\"\n"
        ));
        assert!(told.contains("is no name of nftables"), "{told}");
    }
}

#[test]
fn a_grant_is_for_a_name_or_a_number() {
    let grant = |text: &str| good(&format!("[[grant]]\n{text}\n")).grants.remove(0);
    let uid_7 = Who::User(7);
    assert_eq!(grant("user = \"7\"\nmay = [\"open\"]").who, uid_7);
    assert_eq!(grant("user = 7\nmay = [\"open\"]").who, uid_7);
    assert_eq!(
        grant("user = \"certbot\"\nmay = [\"close\", \"answer\"]\nidentifiers = [\"*.a.test\"]"),
        Grant {
            who: Who::User(991),
            may: vec![Verb::Close, Verb::Answer],
            identifiers: vec![Pattern::parse("*.a.test").unwrap()],
        }
    );
    let acme = Who::Group {
        gid: 980,
        members: vec![991],
    };
    assert_eq!(grant("group = \"acme\"\nmay = [\"open\"]").who, acme);
    assert_eq!(grant("group = \"980\"\nmay = [\"open\"]").who, acme);
    let unknown = Who::Group {
        gid: 5,
        members: Vec::new(),
    };
    assert_eq!(grant("group = 5\nmay = [\"open\"]").who, unknown);
    for nobody in ["-1", "4294967295", "\"4294967296\"", "\"+7\"", "\"\""] {
        let told = bad(&format!("[[grant]]\nuser = {nobody}\nmay = [\"open\"]\n"));
        assert!(told.contains("there is no account"), "{told}");
    }
}

#[test]
fn a_site_says_where_answers_and_visitors_go() {
    let plain = site("identifiers = [\"a.test\"]\n");
    assert_eq!(plain.source, Source::Pushed);
    assert_eq!(plain.gate.redirect, Redirect::Asked);
    assert!(plain.gate.accounts.is_empty());
    let rich = site(
        "identifiers = [\"a.test\"]\nanswer = { webroot = \"/srv/www\" }\nredirect = \"B.test.\"\naccounts = [\"nP1qzpXGymHBrUEepNY9HCsQk7K8KhOypzEt62jcerQ\"]\n",
    );
    assert_eq!(rich.source, Source::Webroot(PathBuf::from("/srv/www")));
    let b = Identifier::parse("b.test").unwrap();
    assert_eq!(rich.gate.redirect, Redirect::To(b));
    assert_eq!(rich.gate.accounts.len(), 1);
    let off = site("default = true\nredirect = \"off\"\n");
    assert_eq!(off.gate.redirect, Redirect::Off);
    assert!(off.gate.is_default && off.gate.identifiers.is_empty());
}

#[test]
fn webroots_are_looked_at_with_the_eyes_of_the_daemons_account() {
    struct Eyes;

    impl Webroots for Eyes {
        fn look(&self, webroot: &Path, reader: &Reader) -> Result<(), Fault> {
            assert_eq!(webroot, Path::new("/srv/www"));
            assert_eq!((reader.name.as_str(), reader.uid), ("certbot", Some(991)));
            Err(Fault::NoReading(webroot.to_owned()))
        }
    }

    let text = "[daemon]\nuser = \"certbot\"\n[[site]]\nidentifiers = [\"a.test\"]\nanswer = { webroot = \"/srv/www\" }\n";
    let told = Config::parse(text, "test.toml", &Village, &Eyes).unwrap_err();
    assert!(
        told.to_string()
            .contains("`certbot` may not read `/srv/www`"),
        "{told}"
    );
}

#[test]
fn the_built_in_site_follows_the_state_directory_and_redirects_nobody() {
    let config = good("[daemon]\nstate_dir = \"/srv/state\"\n");
    let webroot = PathBuf::from("/srv/state/webroot");
    assert_eq!(config.sites[0].source, Source::Webroot(webroot));
    let request = Request {
        method: "GET",
        target: "/",
        host: Host::Value("evil.test"),
        peer: [192, 0, 2, 1].into(),
        local_port: 80,
    };
    let decision =
        config
            .gate(Arc::default())
            .decide(&request, &Windows::default(), Instant::now());
    assert!(matches!(
        decision,
        Decision::Refuse {
            reason: Reason::UnknownHost,
            ..
        }
    ));
}

#[test]
fn limits_are_what_the_enforcer_holds_leases_to() {
    let config = good("[window]\nmax = \"1m\"\n[budget]\nper_hour = 2\nreserve = 1\n");
    let limits = config.limits();
    assert_eq!(limits.max, Duration::from_secs(60));
    assert_eq!((limits.budget.per_hour, limits.budget.reserve), (2, 1));
    let now = Instant::now();
    let lease = Lease {
        id: 0,
        name: crate::gate::lease::LeaseName::parse("x").unwrap(),
        holder: None,
        caller: 0,
        trigger: crate::gate::lease::Trigger::Asked,
        scope: crate::gate::lease::Scope {
            ports: vec![80],
            families: crate::gate::lease::Families::BOTH,
            entrance: crate::gate::lease::Entrance::Any,
            identifiers: None,
        },
        deadline: now + limits.max,
    };
    assert!(Windows::default().acquire(lease, &limits, now).is_ok());
}

#[test]
fn open_time_is_limited_as_it_is_written() {
    let time = |text: &str| good(text).budget.time;
    let hours = |hours: u64| Some(Duration::from_secs(hours * 3600));
    let default = time("");
    assert_eq!(
        (default.total.day, default.total.month),
        (hours(8), hours(120))
    );
    assert_eq!(default.lease, Allowance::default());
    assert_eq!(default.identifier, Allowance::default());
    // A window that may be longer than the default is meant to be opened.
    assert_eq!(time("[window]\nmax = \"9h\"\n").total.day, hours(9));
    let time = time(
        "[budget]\nday = \"unlimited\"\nmonth = \"1h\"\nlease_day = \"2h\"\nlease_month = \"3h\"\n\
         identifier_day = \"4h\"\nidentifier_month = \"5h\"\n",
    );
    for (allowance, day, month) in [
        (time.total, None, hours(1)),
        (time.lease, hours(2), hours(3)),
        (time.identifier, hours(4), hours(5)),
    ] {
        assert_eq!((allowance.day, allowance.month), (day, month));
    }
}

#[test]
fn so_many_failures_are_allowed_as_are_written() {
    let failures = |text: &str| good(text).failures_per_hour;
    assert_eq!(failures(""), Some(4));
    assert_eq!(failures("[budget]\nfailures_per_hour = 100\n"), Some(100));
    assert_eq!(
        failures("[budget]\nfailures_per_hour = \"unlimited\"\n"),
        None
    );
}

#[test]
fn the_allow_list_is_local_and_what_is_written() {
    let list = |text: &str| Lists::read(&good(text).allow).unwrap().list();
    let outside = "192.0.2.7".parse().unwrap();
    let inside = "10.0.0.1".parse().unwrap();
    let both = list("[allow]\nprefixes = [\"192.0.2.7\"]\n");
    assert!(both.contains(outside) && both.contains(inside));
    let written = list("[allow]\nlocal = false\nprefixes = [\"192.0.2.0/24\"]\n");
    assert!(written.contains(outside) && !written.contains(inside));
}

#[test]
fn what_is_perhaps_not_meant_is_said() {
    for (text, warning) in [
        (
            "[allow]\nprefixes = [\"0.0.0.0/1\", \"128.0.0.0/1\", \"::/0\"]\n",
            "holds the whole Internet",
        ),
        (
            "[allow]\nprefixes = [\"0.0.0.0/0\"]\n",
            "holds every IPv4 address",
        ),
        (
            "[group.office]\nprefixes = [\"192.0.2.0/24\"]\n",
            "[group.office] is not on the allow-list",
        ),
        (
            "[allow]\ncountry_source = \"/srv/countries.mmdb\"\n",
            "country_source without countries",
        ),
        ("[http]\nlisten = [\"[::]:8080\"]\n", "do not hold 80"),
        (
            "[http]\nlisten = [\"[::]:80\", \"[::]:81\"]\n[firewall]\nports = [80]\n",
            "port 81 of [http] listen",
        ),
        ("[daemon]\nuser = 0\n", "user is root"),
        (
            "[http]\nmax_connections_per_source = 10\n",
            "many names at once",
        ),
        (
            "[budget]\nidentifier_month = \"599s\"\n",
            "[budget] identifier_month is shorter than [window] max",
        ),
        (
            "[window]\nmax = \"1h\"\n[budget]\nday = \"59m\"\n",
            "[budget] day is shorter than [window] max",
        ),
        (
            "[[site]]\nidentifiers = [\"a.test\"]\nanswer = { upstream = \"http://10.0.0.5\" }\n",
            "a.test: whatever ACME account",
        ),
        (
            "[firewall]\nopen_command = [\"x\", \"{port}\"]\n",
            "nothing ever closes what it opens",
        ),
        (
            "[firewall]\nopen_command = [\"x\"]\nclose_command = [\"y\"]\n",
            "while acmegate is down nothing closes",
        ),
        (
            "[firewall]\nclose_command = [\"y\"]\n",
            "close_command without an open_command",
        ),
        (
            "[http]\nlisten = \"divert\"\n[firewall]\nports = [80, 443]\n",
            "which answers http-01 alone",
        ),
        (
            "[[site]]\nidentifiers = [\"a.test\"]\nchallenges = [\"http-01\", \"tls-alpn-01\"]\n",
            "[tls] does not listen: nothing answers it",
        ),
        (
            "[http]\nlisten = []\n[firewall]\nports = [80, 443]\n",
            "shows whatever listens there to the whole world",
        ),
        (
            "[http]\nlisten = []\n[tls]\nlisten = \"divert\"\n[firewall]\nports = [8443]\n",
            "do not hold 443: [tls] listen = \"divert\" gets nobody",
        ),
        (
            "[http]\nlisten = []\n[tls]\nlisten = [\"[::]:443\"]\nserver = \"192.0.2.5\"\n",
            "visitors of the sites pass through acmegate",
        ),
        (
            "[proxy]\nprotocol_from = [\"10.0.0.0/24\"]\nheaders_from = [\"10.0.0.2\"]\n",
            "[proxy] 10.0.0.0/24 of protocol_from is in headers_from too (10.0.0.2/32)",
        ),
        (
            "[proxy]\nprotocol_from = [\"203.0.113.2\"]\n",
            "protocol_from: 203.0.113.2/32 is not on the allow-list",
        ),
        (
            "[proxy]\nheaders_from = [\"2001:db8::2\"]\n",
            "headers_from: 2001:db8::2/128 is not on the allow-list",
        ),
        (
            "[http]\nlisten = \"divert\"\n[proxy]\nprotocol_from = [\"10.0.0.2\", \"203.0.113.2\"]\n",
            "protocol_from: 10.0.0.2/32 is on the allow-list, which listen",
        ),
    ] {
        let config = good(text);
        let warnings = config.warnings(&Lists::read(&config.allow).unwrap().list());
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains(warning), "{warnings:?}");
    }
}

#[test]
fn visitors_that_are_led_nowhere_are_warned_of_unless_a_server_is_named() {
    let listens = "[http]\nlisten = []\n[tls]\nlisten = [\"[::]:443\"]\n";
    for (text, is_warned_of) in [
        ("", true),
        ("server = \"192.0.2.5\"\n", false),
        (
            "[[site]]\nidentifiers = [\"a.test\"]\nserver = \"192.0.2.5\"\n",
            false,
        ),
    ] {
        let warnings = good(&format!("{listens}{text}")).warnings(&AllowList::default());
        let mut warnings = warnings.iter();
        let is_there = warnings.any(|warning| warning.contains("led nowhere"));
        assert_eq!(is_there, is_warned_of, "{text}");
    }
}

#[test]
fn balancers_that_are_let_in_where_they_must_be_are_warned_of_nowhere() {
    for text in [
        "[proxy]\nprotocol_from = [\"10.0.0.2\"]\nheaders_from = [\"10.0.0.3\", \"fd00::/64\"]\n",
        "[proxy]\nprotocol_from = [\"203.0.113.2\"]\n[firewall]\nmode = \"gate-only\"\n",
        "[http]\nlisten = \"divert\"\n[proxy]\nprotocol_from = [\"203.0.113.2\"]\n",
        "[http]\nlisten = []\n[firewall]\nports = [80]\n[proxy]\nheaders_from = [\"203.0.113.2\"]\n",
    ] {
        let config = good(text);
        let warnings = config.warnings(&Lists::read(&config.allow).unwrap().list());
        assert_eq!(warnings, [""; 0], "{text}");
    }
}

#[test]
fn commands_are_read_as_they_are_written() {
    let config =
        good("[firewall]\nopen_command = [\"fw\", \"-p{port}\", \"{{{lease}}}\", \"{seconds}\"]\n");
    assert_eq!(config.warnings(&AllowList::default()), [""; 0]);
    let commands = config.firewall.commands.unwrap();
    let open = commands.open.unwrap();
    assert_eq!(open.to_string(), "fw -p{port} {{{lease}}} {seconds}");
    assert_eq!((open.program(), commands.close), ("fw", None));
    assert_eq!(commands.timeout, Duration::from_secs(5));
    assert!(!commands.net_admin);
    let none = good("[firewall]\nopen_command = []\nclose_command = []\n");
    assert_eq!(none.firewall.commands, None);
}

/// Writes a file of its own, and removes it.
fn load(name: &str, bytes: &[u8]) -> Result<Config, ConfigError> {
    let path = std::env::temp_dir().join(format!("acmegate-{}-{name}", std::process::id()));
    fs::write(&path, bytes).unwrap();
    let loaded = Config::load(Some(&path), &Village);
    fs::remove_file(&path).unwrap();
    if let Ok(config) = &loaded {
        assert_eq!(config.source, Some(path));
    }
    loaded
}

#[test]
fn a_file_is_read_and_remembered() {
    let config = load("good.toml", b"[window]\nmax = \"5m\"\n").unwrap();
    assert_eq!(config.window.max, Duration::from_secs(300));
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let missing = Path::new("/nonexistent/acmegate.toml");
    assert_eq!(
        Config::load(Some(missing), &Village)
            .unwrap_err()
            .to_string(),
        "error: there is no such file
  --> /nonexistent/acmegate.toml
   = name another, or none: without a file the built-in defaults work
"
    );
    let told = |path| {
        let refused = Config::load(Some(Path::new(path)), &Village).unwrap_err();
        refused.to_string()
    };
    assert!(told("/").contains("this is no regular file"));
    assert!(told("/etc/passwd/acmegate.toml").contains("the file cannot be read: "));
}

#[test]
fn a_file_that_is_no_text_or_too_large_is_refused() {
    let told = load("latin1.toml", b"# one\n# gr\xfcn\n").unwrap_err();
    assert!(
        told.to_string().contains("not UTF-8 text (line 2)"),
        "{told}"
    );
    let limit = usize::try_from(MAX_FILE_BYTES).unwrap();
    assert!(load("limit.toml", &vec![b'#'; limit]).is_ok());
    let told = load("large.toml", &vec![b'#'; limit + 1]).unwrap_err();
    assert!(told.to_string().contains("larger than 1 MiB"), "{told}");
}
