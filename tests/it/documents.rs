//! What documents show, against the program: links, commands, configurations, names of files, keys and tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use acmegate::cli::Arguments;
use acmegate::config::lists::Lists;
use acmegate::config::{Accounts, Config, Group, Unchecked};
use acmegate::gate::allow_list::AllowList;
use clap::Parser;
use clap::error::ErrorKind;

const FILE_PAGE: &str = include_str!("../../docs/man/acmegate.toml.5");

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Who knows every account: pages speak of accounts of other hosts.
struct Everybody;

impl Accounts for Everybody {
    fn user(&self, _name: &str) -> Option<u32> {
        Some(1000)
    }

    fn group(&self, _name: &str) -> Option<Group> {
        None
    }
}

/// The lists for other firewalls are configurations, and none of them leaves something open for ever.
#[test]
fn every_list_of_commands_on_the_page_is_read() {
    let page = include_str!("../../docs/commands.md");
    let blocks: Vec<&str> = page
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(blocks.len() > 5, "{}", blocks.len());
    for block in blocks {
        let config = Config::parse(block, "docs/commands.md", &Everybody, &Unchecked);
        let config = config.unwrap_or_else(|error| panic!("{error}"));
        let commands = config.firewall.commands.as_ref();
        assert!(commands.is_some_and(|commands| commands.each().count() == 2));
        let warnings = config.warnings(&AllowList::default());
        assert!(
            !warnings
                .iter()
                .any(|warning| warning.contains("nothing ever closes")),
            "{warnings:?}"
        );
    }
}

#[test]
fn the_page_on_allow_lists_shows_what_is_read() {
    let page = include_str!("../../docs/allow-lists.md");
    let (_, block) = page.split_once("```toml\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let config = Config::parse(block, "docs/allow-lists.md", &Everybody, &Unchecked);
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.warnings(&AllowList::default()), [""; 0]);
    assert_eq!(config.allow.taken_off.prefixes.len(), 2);
    // The names of a directory's lists, as the error for none of them has them.
    let mut allow = config.allow.clone();
    allow.listed.files.clear();
    allow.taken_off.files.clear();
    allow.country_source = vec![root().join("docs")];
    let told = Lists::read(&allow).unwrap_err().to_string();
    let (_, names) = told
        .split_once("there is no list of DE; looked for ")
        .unwrap();
    let (names, _) = names.split_once(", also in upper case").unwrap();
    let (stems, endings) = names.split_once(" ending in ").unwrap();
    let names: Vec<&str> = stems.split(", ").chain(endings.split(", ")).collect();
    assert!(names.len() > 8, "{names:?}");
    let man = FILE_PAGE.replace("\\-", "-");
    for name in names {
        assert!(page.contains(&format!("`{name}`")), "{name}");
        assert!(man.contains(name), "{name}");
    }
}

/// The repository's own Markdown files.
fn documents(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            documents(&path, found);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

#[test]
fn every_relative_link_of_a_document_leads_somewhere() {
    let mut found = Vec::new();
    documents(&root(), &mut found);
    assert!(found.len() > 5, "{found:?}");
    let mut broken = Vec::new();
    for document in found {
        let text = fs::read_to_string(&document).unwrap();
        let targets = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let leads_to = match path {
                "" => document.clone(),
                path => document.parent().unwrap().join(path),
            };
            let has_anchor = || {
                let text = fs::read_to_string(&leads_to).unwrap_or_default();
                anchor.is_empty() || text.lines().filter_map(heading).any(|own| own == anchor)
            };
            if !leads_to.exists() || !has_anchor() {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// The anchor that a heading gets.
fn heading(line: &str) -> Option<String> {
    let text = line.trim_start_matches('#').strip_prefix(' ')?;
    line.starts_with('#').then(|| {
        text.to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    })
}

/// Whether they do what is said of them is what `tests/netns/managers` asks.
#[test]
fn every_configuration_in_the_firewalls_document_is_one() {
    let text = include_str!("../../docs/firewalls.md");
    let mut sections = text.split("\n## ");
    sections.next();
    let mut count = 0;
    for section in sections {
        let title = section.lines().next().unwrap();
        let blocks: Vec<&str> = section
            .split("```toml\n")
            .skip(1)
            .map(|rest| rest.split("```").next().unwrap())
            .collect();
        assert!(!blocks.is_empty(), "{title} says what and not how");
        for block in blocks {
            let parsed = Config::parse(block, title, &Everybody, &Unchecked);
            let config = parsed.unwrap_or_else(|error| panic!("{title}: {error}"));
            let mode = format!("mode = {:?}", config.firewall.mode.as_str());
            assert!(block.contains(&mode), "{title}: what is shown is {mode}");
            count += 1;
        }
    }
    assert!(count >= 8, "{count}");
}

/// All Markdown files with their texts.
fn texts() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    documents(&root(), &mut found);
    found
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect()
}

/// Blocks of code of one of these languages.
fn blocks<'text>(text: &'text str, languages: &[&str]) -> Vec<&'text str> {
    let mut found = Vec::new();
    for (at, part) in text.split("```").enumerate() {
        let (language, block) = part.split_once('\n').unwrap_or((part, ""));
        if at % 2 == 1 && languages.contains(&language) {
            found.push(block);
        }
    }
    found
}

#[test]
fn every_configuration_in_a_document_is_one() {
    let mut count = 0;
    for (path, text) in texts() {
        for block in blocks(&text, &["toml"]) {
            let parsed = Config::parse(block, &path.display().to_string(), &Everybody, &Unchecked);
            parsed.unwrap_or_else(|error| panic!("{error}"));
            count += 1;
        }
    }
    assert!(count > 25, "{count}");
}

/// A command line as a shell would part it, up to the first word that is for the shell.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => words.last_mut().unwrap().push(c),
            (None, '"' | '\'') => quote = Some(c),
            (None, '|' | '&' | ';' | '>' | '<' | '#' | ')') => break,
            (None, c) if c.is_whitespace() => words.push(String::new()),
            (None, c) => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// What a reader would type: no option and no command that the program does not have.
#[test]
fn every_command_in_a_document_is_one() {
    let mut count = 0;
    // Modules speak of `a|b`.
    for (path, text) in texts()
        .into_iter()
        .filter(|(path, _)| !path.ends_with("modules.md"))
    {
        let joined = text.replace("\\\n", " ");
        // On a terminal only what stands behind a prompt was typed.
        let on_terminals = blocks(&joined, &["console"])
            .into_iter()
            .flat_map(str::lines);
        let on_terminals =
            on_terminals.filter_map(|line| line.trim_start().strip_prefix(['#', '$']));
        let in_scripts = blocks(&joined, &["sh"]).into_iter().flat_map(str::lines);
        let outside: Vec<&str> = joined.split("```").step_by(2).collect();
        let spans = outside
            .iter()
            .flat_map(|part| part.split('`').skip(1).step_by(2));
        let spans = spans.filter(|span| !span.contains('…'));
        for line in on_terminals.chain(in_scripts).chain(spans) {
            let line = line.trim();
            let line = line
                .strip_prefix("cargo run --release -- ")
                .map_or_else(|| line.to_owned(), |rest| format!("acmegate {rest}"));
            if !line.starts_with("acmegate ") {
                continue;
            }
            // Hooks on a client's command line stand in quotes, and are spans of their own elsewhere.
            let words: Vec<String> = words(&line)
                .into_iter()
                .map(|word| word.trim_end_matches(',').to_owned())
                .filter(|word| !word.contains(['[', ']']) && word != "…")
                .collect();
            count += 1;
            let Err(error) = Arguments::try_parse_from(&words) else {
                continue;
            };
            // In capitals stands what the reader puts there.
            let is_blank = |word: &String| word.chars().all(|c| c.is_ascii_uppercase());
            let is_wrong = match error.kind() {
                ErrorKind::UnknownArgument => true,
                ErrorKind::InvalidSubcommand => !words.iter().any(is_blank),
                _ => false,
            };
            assert!(!is_wrong, "{}: `{line}`: {error}", path.display());
        }
    }
    assert!(count > 80, "{count}");
}

/// Everything below a directory, by its path from the root.
fn tree(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let own = path.strip_prefix(root()).unwrap();
        found.insert(own.to_str().unwrap().to_owned());
        if path.is_dir() {
            tree(&path, found);
        }
    }
}

/// `seal.rs`, `rules/confine.rs`: files of the source, by the end of their path.
#[test]
fn every_source_file_that_a_document_names_is_there() {
    let mut files = BTreeSet::new();
    for directory in ["src", "tests", "fuzz/src", "bench"] {
        tree(&root().join(directory), &mut files);
    }
    let mut count = 0;
    for (path, text) in texts() {
        for span in text.split('`').skip(1).step_by(2) {
            let is_file = span.ends_with(".rs") && !span.contains([' ', '\n']);
            let is_folder = span.starts_with("src/") && !span.contains([' ', '\n', '*']);
            if !is_file && !is_folder {
                continue;
            }
            let name = span.trim_end_matches('/');
            let is_there = files
                .iter()
                .any(|file| file == name || file.ends_with(&format!("/{name}")));
            assert!(is_there, "{}: `{span}`", path.display());
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

/// A link with a test's name for its text leads to the file of that test.
#[test]
fn every_test_that_a_document_names_is_there() {
    let mut count = 0;
    for (path, text) in texts() {
        for part in text.split("[`").skip(1) {
            let Some((name, rest)) = part.split_once("`](") else {
                continue;
            };
            let target = rest.split(')').next().unwrap();
            let is_test = target.ends_with(".rs")
                && name
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if !is_test {
                continue;
            }
            let file = path.parent().unwrap().join(target);
            let text =
                fs::read_to_string(&file).unwrap_or_else(|error| panic!("{target}: {error}"));
            assert!(
                text.contains(&format!("fn {name}()")),
                "{}: {name}",
                path.display()
            );
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

/// `[window] max` and its like: each names a key that acmegate.toml(5) has in that table.
#[test]
fn every_key_that_a_document_names_is_there() {
    let page = FILE_PAGE.replace("\\-", "-");
    let mut count = 0;
    for (path, text) in texts() {
        // Of versions that were, and of tables of others.
        if path.ends_with("CHANGELOG.md") {
            continue;
        }
        for span in text.split('`').skip(1).step_by(2) {
            let Some((table, key)) = span.split_once("] ") else {
                continue;
            };
            let key = key.split(' ').next().unwrap();
            let is_key = table.starts_with('[')
                && !key.is_empty()
                && key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            if !is_key {
                continue;
            }
            let heading = format!("\n.SH {table}]\n");
            let (_, section) = page
                .split_once(&heading)
                .unwrap_or_else(|| panic!("{}: `{span}`", path.display()));
            let section = section.split("\n.SH ").next().unwrap();
            assert!(
                section.contains(&format!("\\fB{key}\\fR = ")),
                "{}: `{span}`",
                path.display()
            );
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

#[test]
fn the_page_of_modules_has_what_they_say_of_themselves() {
    let output = Command::new(root().join("tests/list-modules"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let page = include_str!("../../docs/modules.md");
    let now = String::from_utf8(output.stdout).unwrap();
    let changed: Vec<&str> = now
        .lines()
        .filter(|line| !page.lines().any(|old| old == *line))
        .collect();
    assert!(
        now == page,
        "`tests/list-modules > docs/modules.md`: {changed:#?}"
    );
}

/// Every chain that a section has its reader attach to stands in a test that the section names.
#[test]
fn every_chain_of_a_firewall_is_one_that_a_test_attaches_to() {
    let text = include_str!("../../docs/firewalls.md");
    let mut count = 0;
    for section in text.split("\n## ").skip(1) {
        let links = section
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        let tests: String = links
            .filter(|target| target.ends_with(".rs"))
            .map(|target| fs::read_to_string(root().join("docs").join(target)).unwrap())
            .collect();
        for block in blocks(section, &["toml"]) {
            let lines = block.lines().filter(|line| line.starts_with("chains = "));
            for chain in lines.flat_map(|line| line.split('"').skip(1).step_by(2)) {
                assert!(tests.contains(chain), "{chain}");
                count += 1;
            }
        }
    }
    assert!(count >= 10, "{count}");
}
