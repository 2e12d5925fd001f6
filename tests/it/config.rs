//! Every configuration that is shipped or shown: the sample, the good ones, and the gallery of bad
//! ones, each with the error that it is answered with.
//!
//! `ACMEGATE_BLESS=1` writes the expected errors anew; read the difference before it is committed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use acmegate::config::{Accounts, Config, ConfigError, Fault, Group, Reader, Webroots};
use acmegate::gate::allow_list::AllowList;
use proptest::prelude::*;

const SAMPLE: &str = include_str!("../../config/acmegate.toml");

/// A small host: who lives there and which directories it has.
struct Host;

impl Accounts for Host {
    fn user(&self, name: &str) -> Option<u32> {
        match name {
            "root" => Some(0),
            "acmegate" => Some(990),
            "certbot" => Some(991),
            _ => None,
        }
    }

    fn group(&self, name: &str) -> Option<Group> {
        (name == "acme").then(|| Group {
            gid: 980,
            members: vec![991, 1000],
        })
    }
}

impl Webroots for Host {
    fn look(&self, webroot: &Path, _reader: &Reader) -> Result<(), Fault> {
        match webroot.to_str().unwrap_or("") {
            "/var/www/html" | "/srv/www" => Ok(()),
            "/srv/page.html" => Err(Fault::NoDirectory(webroot.to_owned())),
            "/home/alice/www" => Err(Fault::NoEntry(PathBuf::from("/home/alice"))),
            "/srv/closed" => Err(Fault::NoReading(webroot.to_owned())),
            _ => Err(Fault::Missing(webroot.to_owned())),
        }
    }
}

fn parse(text: &str, name: &str) -> Result<Config, ConfigError> {
    Config::parse(text, name, &Host, &Host)
}

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{}", folder.display());
    files
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn every_shipped_and_every_good_file_is_read() {
    for folder in ["config", "config/commands", "tests/data/config/good"] {
        for path in files(folder) {
            let text = fs::read_to_string(&path).unwrap();
            if let Err(error) = parse(&text, &name_of(&path)) {
                panic!("{error}");
            }
        }
    }
}

#[test]
fn every_bad_file_is_answered_with_what_to_write_instead() {
    let bless = std::env::var_os("ACMEGATE_BLESS").is_some();
    let mut wrong = Vec::new();
    for path in files("tests/data/config/bad") {
        let text = fs::read_to_string(&path).unwrap();
        let name = name_of(&path);
        let rendered = match parse(&text, &name) {
            Ok(_) => {
                wrong.push(format!("{name}: accepted"));
                continue;
            }
            Err(error) => error.to_string(),
        };
        let expected = path.with_extension("txt");
        if bless {
            fs::write(&expected, &rendered).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != rendered {
            wrong.push(format!("{name}:\n{rendered}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The sample with every `#key = value` in force.
fn uncommented() -> String {
    let is_setting = |line: &str| {
        line.strip_prefix('#').is_some_and(|rest| {
            rest.starts_with('[')
                || rest.split_once(" = ").is_some_and(|(key, _)| {
                    key.bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                })
        })
    };
    SAMPLE
        .lines()
        .map(|line| if is_setting(line) { &line[1..] } else { line })
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_values_in_the_samples_comments_are_the_defaults() {
    // Sites and grants have no defaults to compare with; they end the file.
    let text = uncommented();
    let tables = &text[..text.find("[[").expect("examples of sites")];
    let written = parse(tables, "acmegate.toml").unwrap();
    assert_eq!(format!("{written:?}"), format!("{:?}", Config::default()));
}

#[test]
fn the_sample_as_shipped_is_the_defaults() {
    let shipped = parse(SAMPLE, "acmegate.toml").unwrap();
    assert_eq!(format!("{shipped:?}"), format!("{:?}", Config::default()));
    assert_eq!(shipped.warnings(&AllowList::default()), [""; 0]);
}

#[test]
fn the_samples_examples_are_good() {
    let all = parse(&uncommented(), "acmegate.toml").unwrap();
    assert!(all.sites.len() >= 4, "{:?}", all.sites);
    assert!(!all.grants.is_empty());
}

#[test]
fn the_sample_shows_every_key() {
    // The keys as the error message for an unknown one lists them.
    let shown: BTreeSet<String> = uncommented()
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(key, _)| key.to_owned())
        .collect();
    for (table, unlisted) in [
        ("[daemon]", &[][..]),
        // These belong to what is not the default, so they are shown in prose.
        ("[http]", &["divert_port"]),
        ("[tls]", &["divert_port", "server"]),
        ("[window]", &[]),
        ("[budget]", &[]),
        ("[firewall]", &["set", "chains"]),
        ("[allow]", &[]),
        ("[proxy]", &[]),
        ("[group.office]", &[]),
        ("[log]", &[]),
        ("[report]", &[]),
        ("[[grant]]", &[]),
        ("[[site]]", &[]),
    ] {
        let error = parse(&format!("{table}\nzzzzzzzzzzzz = 1\n"), "x").unwrap_err();
        let fix = &error.problems()[0].fix;
        let keys: Vec<&str> = fix.split('`').skip(1).step_by(2).collect();
        assert!(!keys.is_empty(), "{fix}");
        for key in keys.into_iter().filter(|key| !unlisted.contains(key)) {
            assert!(shown.contains(key), "{table} {key} is not in the sample");
        }
    }
    for line in [
        "set = \"inet filter acmegate\"",
        "chains = [\"inet filter input\"]",
        "listen = \"divert\"",
        "divert_port = 8402",
        "divert_port = 8403",
        "server = \"127.0.0.1:8443\"",
    ] {
        assert!(SAMPLE.contains(line), "{line}");
    }
}

/// Pieces that are likely to meet a branch.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("\n".to_owned()),
        Just("[[site]]\n".to_owned()),
        Just("[http]\n".to_owned()),
        Just("default = true\n".to_owned()),
        Just("\u{202e}".to_owned()),
        Just("\"".to_owned()),
        Just("= ".to_owned()),
        Just("[".to_owned()),
        Just("{".to_owned()),
        "\\PC{0,3}",
        "[0-9]{1,20}",
    ]
}

proptest! {
    #[test]
    fn no_change_of_the_sample_makes_it_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, piece()), 1..6),
    ) {
        let mut text = uncommented();
        for (at, cut, piece) in changes {
            let start = text.floor_char_boundary(at.index(text.len()));
            let end = text.ceil_char_boundary((start + cut).min(text.len()));
            text.replace_range(start..end, &piece);
        }
        if let Err(error) = parse(&text, "mutant.toml") {
            prop_assert!(!error.problems().is_empty());
            let told = error.to_string();
            prop_assert!(told.starts_with("error: "));
            let is_plain = |c: char| c == '\n' || !(c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c));
            prop_assert!(told.chars().all(is_plain));
        }
    }

    #[test]
    fn no_text_at_all_makes_it_panic(text in "(\\PC|[\\x00-\\x1f])*") {
        if let Err(error) = parse(&text, "noise.toml") {
            let _ = error.to_string();
        }
    }
}
