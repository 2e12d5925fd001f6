//! The manual pages against the program: every command, option, choice, default, key, type, bound, exit status and
//! variable, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use acmegate::answer::pushed;
use acmegate::cli::Arguments;
use acmegate::config::{self, Accounts, Config, Group, Problem, Unchecked};
use acmegate::control::protocol::{self, Exit};
use acmegate::daemon::armed;
use acmegate::front::{client_hello, head};
use acmegate::gate::{self, lease, token, window};
use acmegate::observe::record;
use clap::CommandFactory;

const COMMANDS_PAGE: &str = include_str!("../../docs/man/acmegate.1");
const DOCTOR_PAGE: &str = include_str!("../../docs/man/acmegate-doctor.1");
const HOOKS_PAGE: &str = include_str!("../../docs/man/acmegate-hooks.7");
const FILE_PAGE: &str = include_str!("../../docs/man/acmegate.toml.5");
const SAMPLE: &str = include_str!("../../config/acmegate.toml");
/// Those that have commands.
const PAGES: [&str; 3] = [COMMANDS_PAGE, DOCTOR_PAGE, HOOKS_PAGE];
/// Where a section says "as for `acmegate open`", what it means.
const LIKE_OPEN: &str = "As for\n.BR \"acmegate open\"";

/// Text as it is read: without fonts, with plain hyphens.
fn plain(roff: &str) -> String {
    let mut text = roff.replace("\\-", "-").replace("\\e", "\\");
    for font in ["\\fB", "\\fI", "\\fR", "\\fP"] {
        text = text.replace(font, "");
    }
    text
}

/// A section of a page, by its heading.
fn section<'page>(page: &'page str, heading: &str) -> &'page str {
    let (_, section) = page
        .split_once(&format!("\n.SH {heading}\n"))
        .unwrap_or_else(|| panic!("no section {heading}"));
    section.split("\n.SH ").next().unwrap()
}

/// The items of a section by the long options in their heads: the head, and all of the item.
fn items(section: &str) -> BTreeMap<String, (String, String)> {
    let mut found = BTreeMap::new();
    for item in section.split("\n.TP\n").skip(1) {
        let head = plain(item.lines().next().unwrap_or_default());
        for word in head.split([' ', '"']) {
            if let Some(option) = word.strip_prefix("--") {
                found.insert(option.to_owned(), (head.clone(), plain(item)));
            }
        }
    }
    found
}

/// The sections of all commands, by their words.
fn sections() -> BTreeMap<String, &'static str> {
    let mut found = BTreeMap::new();
    for page in PAGES {
        for part in section(page, "COMMANDS")
            .split("\n.SS ")
            .skip_while(|part| !part.contains("acmegate "))
        {
            let part = part.strip_prefix(".SS ").unwrap_or(part);
            let heading = plain(part.lines().next().unwrap());
            if !heading.starts_with("acmegate ") {
                continue;
            }
            // Arguments are written in capitals; what stands before them is the command.
            let words: Vec<&str> = heading
                .split(' ')
                .take_while(|word| !word.starts_with(char::is_uppercase))
                .collect();
            let before = found.insert(words.join(" "), part);
            assert!(before.is_none(), "{heading} stands twice");
        }
    }
    found
}

/// Every command that does something, by its words.
fn commands(command: &clap::Command, path: &str, found: &mut BTreeMap<String, clap::Command>) {
    let visible: Vec<&clap::Command> = command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
        .collect();
    for sub in &visible {
        commands(sub, &format!("{path} {}", sub.get_name()), found);
    }
    if visible.is_empty() {
        found.insert(path.to_owned(), command.clone());
    }
}

fn program() -> (clap::Command, BTreeMap<String, clap::Command>) {
    let mut program = Arguments::command();
    program.build();
    let mut found = BTreeMap::new();
    commands(&program, "acmegate", &mut found);
    (program, found)
}

fn long_options(command: &clap::Command) -> BTreeSet<String> {
    command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set())
        .filter_map(|argument| argument.get_long())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_manual_pages_have_every_command_and_option_and_no_other() {
    let (program, commands) = program();
    let global = long_options(&program);
    let shared: BTreeSet<String> = items(&format!("\n{}", section(COMMANDS_PAGE, "OPTIONS")))
        .into_keys()
        .collect();
    assert_eq!(shared, global);

    let expected: BTreeMap<String, BTreeSet<String>> = commands
        .iter()
        .map(|(path, command)| {
            let own = long_options(command).difference(&global).cloned().collect();
            (path.clone(), own)
        })
        .collect();
    let shown: BTreeMap<String, BTreeSet<String>> = sections()
        .into_iter()
        .map(|(path, section)| (path, items(section).into_keys().collect()))
        .collect();
    assert_eq!(shown, expected);
}

/// What stands in angle brackets in the help, the short form, what may be chosen, and what is taken without it.
#[test]
fn the_manual_pages_have_every_value_choice_and_default_of_an_option() {
    let (program, commands) = program();
    let global = long_options(&program);
    let sections = sections();
    let like_open = items(sections["acmegate open"]);
    let mut seen = [0; 4];
    for (path, command) in &commands {
        let section = sections[path];
        let own = items(section);
        let arguments = command
            .get_arguments()
            .filter(|argument| !argument.is_hide_set())
            .filter(|argument| {
                !argument
                    .get_long()
                    .is_some_and(|long| global.contains(long))
            });
        for argument in arguments {
            let (head, item) = match argument.get_long() {
                None => (plain(section), plain(section)),
                Some(long) => {
                    let (head, item) = &own[long];
                    match (section.contains(LIKE_OPEN), like_open.get(long)) {
                        (true, Some((_, as_open))) => (head.clone(), as_open.clone()),
                        _ => (head.clone(), item.clone()),
                    }
                }
            };
            let missing = |what: &str| -> ! { panic!("{path} {argument}: {what} is not told") };
            if let Some(short) = argument.get_short() {
                seen[0] += 1;
                if !head.contains(&format!("-{short}")) {
                    missing("its short form");
                }
            }
            // `--from` has forms of its own, an item each.
            let is_switch = argument
                .get_num_args()
                .is_some_and(|range| !range.takes_values());
            if argument.get_long().is_some() && !is_switch && argument.get_id() != "from" {
                seen[1] += 1;
                let names = argument.get_value_names().unwrap_or_default();
                if names.is_empty() || !names.iter().all(|name| head.contains(name.as_str())) {
                    missing("the name of its value");
                }
            }
            for choice in argument.get_possible_values().iter().filter(|_| !is_switch) {
                seen[2] += 1;
                let is_told = item
                    .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
                    .any(|word| word == choice.get_name());
                if !is_told {
                    missing(choice.get_name());
                }
            }
            for default in argument.get_default_values().iter().filter(|_| !is_switch) {
                seen[3] += 1;
                if !item.contains(default.to_str().unwrap()) {
                    missing(default.to_str().unwrap());
                }
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 1), "{seen:?}");
}

#[test]
fn the_manual_page_has_every_exit_status() {
    let all = [
        Exit::Ok,
        Exit::Usage,
        Exit::Data,
        Exit::Unavailable,
        Exit::Software,
        Exit::Os,
        Exit::TempFail,
        Exit::NoPerm,
        Exit::Config,
    ];
    let shown: Vec<u8> = section(COMMANDS_PAGE, "EXIT STATUS")
        .lines()
        .filter_map(|line| line.strip_prefix(".B "))
        .filter_map(|word| word.parse().ok())
        .collect();
    assert_eq!(shown, all.map(|exit| exit as u8));
}

/// What is built in and somebody may meet, as far as the library shows it.
#[test]
fn the_manual_page_has_the_limits_that_are_built_in() {
    let told = plain(section(COMMANDS_PAGE, "LIMITS"));
    for phrase in [
        format!(
            "{} at once, {} of them others'",
            window::MAX_LEASES,
            window::MAX_LEASES_OF_OTHERS
        ),
        format!("of {} ports at most", lease::MAX_PORTS),
        format!("name of {} octets", lease::MAX_LEASE_NAME_BYTES),
        format!(
            "each ends {} seconds after its holder",
            window::GRACE.as_secs()
        ),
        format!("{} pushed ones", pushed::MAX_ENTRIES),
        format!(
            "for {} hours at most",
            pushed::MAX_LIFETIME.as_secs() / 3600
        ),
        format!(
            "{} to {} octets",
            token::MIN_TOKEN_BYTES,
            token::MAX_TOKEN_BYTES
        ),
        format!("a request of {} KiB", protocol::MAX_REQUEST_BYTES / 1024),
        format!(
            "{} of one account, {} of all but root",
            armed::MAX_ARMED_OF_ONE,
            armed::MAX_ARMED
        ),
        format!("target of {} octets", gate::MAX_TARGET_BYTES),
        format!(
            "{} octets of fields in {} lines",
            head::MAX_FIELDS_BYTES,
            head::MAX_FIELD_LINES
        ),
        format!("ClientHello of {} octets", client_hello::MAX_HELLO_BYTES),
        format!("configuration {} MiB", config::MAX_FILE_BYTES / 1024 / 1024),
        format!("{} sources of a window", record::MAX_SOURCES),
    ] {
        assert!(told.contains(&phrase), "{phrase}: {told}");
    }
}

// --- the environment and files ------------------------------------------------------------------

/// The program's own source, without what tests it.
fn source(directory: &Path, found: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source(&path, found);
        } else if !path.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push_str(text.split("\n#[cfg(test)]").next().unwrap());
        }
    }
}

/// The words of the heads of a section's items.
fn heads(section: &str) -> BTreeSet<String> {
    format!("\n{section}")
        .split("\n.TP\n")
        .skip(1)
        .flat_map(|item| {
            let head = plain(item.lines().next().unwrap_or_default());
            let words = head.split([' ', '"', ',']).skip(1).map(str::to_owned);
            words.filter(|word| !word.is_empty()).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn the_manual_pages_have_every_variable_that_is_read_and_no_other() {
    let mut text = String::new();
    source(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut text,
    );
    let shown: BTreeSet<String> = PAGES
        .iter()
        .flat_map(|page| heads(section(page, "ENVIRONMENT")))
        .collect();
    // What is read by its name, directly or by a constant's.
    let mut read = BTreeSet::new();
    for way in ["env::var(", "env::var_os("] {
        for call in text.split(way).skip(1) {
            let argument = call.split(')').next().unwrap().trim();
            let literal = match argument.strip_prefix('"') {
                Some(literal) => literal.split('"').next(),
                None => text
                    .split(&format!("const {argument}: &str = \""))
                    .nth(1)
                    .and_then(|rest| rest.split('"').next()),
            };
            read.extend(literal.map(str::to_owned));
        }
    }
    assert!(read.len() > 8, "{read:?}");
    let untold: Vec<&String> = read.difference(&shown).collect();
    assert_eq!(untold, [""; 0], "read and not told");
    // Some are read by systemd's library, or out of a list of names.
    let unread: Vec<&String> = shown
        .iter()
        .filter(|name| !name.starts_with("LISTEN_"))
        .filter(|name| !text.contains(&format!("\"{name}\"")))
        .collect();
    assert_eq!(unread, [""; 0], "told and not read");
}

#[test]
fn the_manual_pages_name_files_that_the_program_makes() {
    let mut text = String::new();
    source(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut text,
    );
    let mut count = 0;
    for page in PAGES {
        for line in section(page, "FILES").lines() {
            for word in plain(line).split([' ', '"']) {
                let is_path = word.starts_with("/run/") || word.starts_with("/var/lib/");
                let Some(name) = word.rsplit('/').next().filter(|_| is_path) else {
                    continue;
                };
                assert!(text.contains(&format!("{name}\"")), "{word}");
                count += 1;
            }
        }
    }
    assert!(count >= 5, "{count}");
}

/// Every page can be formatted, has a heading of this version, and names pages that there are.
#[test]
fn the_manual_pages_are_formatted_without_a_warning() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/man");
    let pages: Vec<String> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(pages.len(), PAGES.len() + 1, "{pages:?}");
    for page in &pages {
        let output = Command::new("groff")
            .args(["-man", "-Tutf8", "-ww", "-z"])
            .arg(directory.join(page))
            .output()
            .unwrap_or_else(|error| panic!("groff (Debian package groff-base): {error}"));
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && told.is_empty(), "{page}: {told}");

        let text = plain(&fs::read_to_string(directory.join(page)).unwrap());
        let (name, number) = page.rsplit_once('.').unwrap();
        let heading = text.lines().find(|line| line.starts_with(".TH ")).unwrap();
        assert!(
            heading.starts_with(&format!(".TH {} {number} ", name.to_uppercase())),
            "{heading}"
        );
        let version = format!("\"acmegate {}\"", env!("CARGO_PKG_VERSION"));
        assert!(heading.contains(&version), "{heading}");
        for part in text.split(".BR acmegate").skip(1) {
            let Some((rest, number)) = part.split_once(" (") else {
                continue;
            };
            if rest.contains('\n') {
                continue;
            }
            let other = format!("acmegate{rest}.{}", &number[..1]);
            assert!(pages.contains(&other), "{page} names {other}");
        }
    }
}

// --- the configuration file ------------------------------------------------------------------------

/// What acmegate.toml(5) says of one key.
struct Told {
    /// Its type, with bounds and words.
    kind: String,
    /// `None` where it says there is none.
    default: Option<String>,
}

/// Keys by table, as acmegate.toml(5) shows them.
fn documented() -> BTreeMap<String, BTreeMap<String, Told>> {
    let mut tables = BTreeMap::new();
    for section in FILE_PAGE.split("\n.SH ").skip(1) {
        let table = section.lines().next().unwrap();
        if !table.starts_with('[') {
            continue;
        }
        let lines: Vec<&str> = section.lines().collect();
        let mut keys = BTreeMap::new();
        for (at, line) in lines.iter().enumerate() {
            if !(line.starts_with("\\fB") && line.contains("\\fR = \\fI")) {
                continue;
            }
            let line = plain(line);
            assert!(
                [".TP", ".TQ"].contains(&lines[at - 1]),
                "{table} {line} begins no item"
            );
            let next = lines.get(at + 1).copied().unwrap_or(".TP");
            assert_ne!(next, ".TP", "{table} {line} says nothing");
            let (key, rest) = line.split_once(" = ").unwrap();
            let (kind, default) = match rest.rsplit_once(", default ") {
                Some((kind, default)) => (kind, Some(default.to_owned())),
                None => (rest.strip_suffix(", no default").expect(&line), None),
            };
            let kind = kind.to_owned();
            keys.insert(key.to_owned(), Told { kind, default });
        }
        tables.insert(table.to_owned(), keys);
    }
    tables
}

struct Nobody;

impl Accounts for Nobody {
    fn user(&self, _name: &str) -> Option<u32> {
        None
    }

    fn group(&self, _name: &str) -> Option<Group> {
        None
    }
}

fn problems(text: &str) -> Vec<Problem> {
    match Config::parse(text, "x", &Nobody, &Unchecked) {
        Ok(_) => Vec::new(),
        Err(error) => error.problems().to_vec(),
    }
}

/// The words in backticks of the first error's fix.
fn listed(text: &str) -> BTreeSet<String> {
    let fix = problems(text)[0].fix.clone();
    fix.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_manual_page_of_the_file_has_every_table_and_key_and_no_other() {
    let documented = documented();
    let fix = problems("[zzzzzzzzzzzz]\n")[0].fix.clone();
    let (_, tables) = fix.split_once("the tables are ").expect(&fix);
    let tables: BTreeSet<&str> = tables.split(", ").collect();
    let shown: BTreeSet<&str> = documented.keys().map(String::as_str).collect();
    assert_eq!(shown, tables);
    for (table, keys) in documented {
        let shown: BTreeSet<String> = keys.into_keys().collect();
        assert_eq!(
            shown,
            listed(&format!("{table}\nzzzzzzzzzzzz = 1\n")),
            "{table}"
        );
    }
}

/// Wrong values are answered with what would be right: the same must stand on the page.
#[test]
fn the_manual_page_of_the_file_has_every_type_bound_and_word() {
    let (mut bounds, mut words, mut types) = (0, 0, 0);
    for (table, keys) in documented() {
        for (key, Told { kind, .. }) in keys {
            let mut ranges = BTreeSet::new();
            for wrong in ["\"zzzzzzzzzzzz\"", "987654321", "\"99999d\"", "-1", "true"] {
                for problem in problems(&format!("{table}\n{key} = {wrong}\n")) {
                    if !problem.message.starts_with(&format!("`{key}`"))
                        && !problem.message.starts_with("`zzzzzzzzzzzz`")
                    {
                        continue;
                    }
                    let said = format!(
                        "{table} {key} = {kind}: {}, {}",
                        problem.message, problem.fix
                    );
                    if let Some(known) = problem.fix.strip_prefix("write one of ") {
                        words += 1;
                        for word in known.split(", ").filter(|word| word.starts_with('"')) {
                            assert!(kind.contains(word), "{said}");
                        }
                    }
                    let range = problem.fix.strip_prefix("write ").filter(|fix| {
                        fix.starts_with(|c: char| c.is_ascii_digit()) && fix.contains(" to ")
                    });
                    let range = range.and_then(|range| range.split(", ").next());
                    ranges.extend(range.map(str::to_owned));
                    let expected = problem.message.split("expected ").nth(1);
                    let Some(expected) = expected.and_then(|rest| rest.split(", found").next())
                    else {
                        continue;
                    };
                    types += 1;
                    match expected {
                        "true or false" => assert_eq!(kind, expected, "{said}"),
                        "an array" => assert!(kind.contains("array"), "{said}"),
                        "a whole number" => {
                            assert!(
                                kind.contains(|c: char| c.is_ascii_digit()) || kind == "port",
                                "{said}"
                            );
                        }
                        "text" => {
                            assert!(!kind.contains("array") && kind != "true or false", "{said}");
                        }
                        _ => {}
                    }
                }
            }
            // A bound that is another key's value is that key's default here.
            let kind = kind.replace(" to max_connections", " to 4096");
            let told: BTreeSet<String> = kind
                .split(", ")
                .filter(|part| {
                    part.starts_with(|c: char| c.is_ascii_digit()) && part.contains(" to ")
                })
                .map(str::to_owned)
                .collect();
            bounds += told.len();
            assert_eq!(told, ranges, "{table} {key} = {kind}");
        }
    }
    assert!(
        bounds > 20 && words > 7 && types > 50,
        "{bounds} {words} {types}"
    );
}

#[test]
fn the_manual_page_of_the_file_says_the_samples_defaults() {
    let documented = documented();
    let mut table = String::new();
    let mut compared = 0;
    // What follows the first double bracket are examples.
    for line in SAMPLE.lines().take_while(|line| !line.starts_with("#[[")) {
        if line.starts_with('[') {
            table = line.to_owned();
        }
        let Some((key, value)) = line
            .strip_prefix('#')
            .and_then(|line| line.split_once(" = "))
        else {
            continue;
        };
        if key.starts_with(' ') {
            continue;
        }
        let shown = documented[&table][key].default.as_deref();
        assert_eq!(shown, Some(value), "{table} {key}");
        compared += 1;
    }
    let with_default = documented
        .iter()
        .filter(|(table, _)| !table.starts_with("[["));
    let with_default =
        with_default.flat_map(|(_, keys)| keys.values().filter_map(|told| told.default.as_ref()));
    assert_eq!(compared, with_default.count());
    // Those of sites stand in prose there.
    for (key, value) in [
        ("answer", "\"pushed\""),
        ("redirect", "\"asked\""),
        ("accounts", "[]"),
        ("challenges", "[\"http-01\"]"),
    ] {
        assert_eq!(
            documented["[[site]]"][key].default.as_deref(),
            Some(value),
            "{key}"
        );
        assert!(SAMPLE.contains(&format!("{value} (default)")), "{key}");
    }
}
