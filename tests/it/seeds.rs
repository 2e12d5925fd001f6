//! The fuzz targets, fed with their seeds, with changed ones, and with what fuzzing has found worth keeping: the
//! properties hold. `fuzz/run` feeds them from a fuzzer.

#[path = "../../fuzz/src/targets.rs"]
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use crate::lab::Numbers;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(name)
}

fn names(name: &str) -> BTreeSet<String> {
    fs::read_dir(folder(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn every_target_has_seeds_and_a_line_in_the_table() {
    let targets: BTreeSet<String> = targets::TARGETS
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert_eq!(names("seeds"), targets);
    assert_eq!(names("saved"), targets);
    let table = fs::read_to_string(folder("README.md")).unwrap();
    let told: BTreeSet<String> = table
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()))
        .collect();
    assert_eq!(told, targets);
}

/// The lines of a section of a manifest, without those that say why.
fn section(manifest: &str, name: &str) -> BTreeSet<String> {
    let lines = manifest.lines().skip_while(|line| *line != name).skip(1);
    lines
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_fuzzer_is_built_from_what_the_tests_are_built_from() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    let own = read(root.join("Cargo.toml"));
    let fuzzers = read(folder("Cargo.toml"));
    let wanted = section(&own, "[dependencies]");
    assert!(wanted.len() > 20);
    assert_eq!(section(&fuzzers, "[dependencies]"), wanted);
    // What the tests alone use is no matter, but for the features that they add.
    let names: BTreeSet<&str> = wanted
        .iter()
        .filter_map(|line| line.split(' ').next())
        .collect();
    let mut added = section(&own, "[dev-dependencies]");
    added.retain(|line| {
        line.split(' ')
            .next()
            .is_some_and(|name| names.contains(name))
    });
    assert_eq!(
        section(&fuzzers, "[target.'cfg(all())'.dependencies]"),
        added
    );
    let locked = read(root.join("Cargo.lock"));
    for package in read(folder("Cargo.lock")).split("\n\n").skip(1) {
        let version = package
            .lines()
            .skip(1)
            .take(2)
            .collect::<Vec<_>>()
            .join("\n");
        let is_own = version.starts_with("name = \"acmegate-fuzz\"");
        assert!(is_own || locked.contains(&version), "{version}");
    }
}

/// What a line of a saved corpus stands for; `fuzz/save` wrote it.
fn input(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = line;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend(plain.bytes());
        let (letter, behind) = escape.split_at(1);
        rest = behind;
        bytes.push(match letter {
            "n" => b'\n',
            "r" => b'\r',
            "t" => b'\t',
            "\\" => b'\\',
            "x" => {
                let (digits, behind) = rest.split_at(2);
                rest = behind;
                u8::from_str_radix(digits, 16).unwrap()
            }
            other => panic!("{other}"),
        });
    }
    bytes.extend(rest.bytes());
    bytes
}

#[test]
fn the_properties_hold_for_the_saved_corpus() {
    assert_eq!(input(r"a\x00\\n\n\xff"), b"a\0\\n\n\xff");
    let mut octets = 0;
    for (name, target) in targets::TARGETS {
        let saved = fs::read_to_string(folder("saved").join(name)).unwrap();
        saved.lines().for_each(|line| target(&input(line)));
        octets += saved.len();
    }
    // A repository is no place for more.
    assert!(octets < 500_000, "{octets} octets");
}

#[test]
fn the_properties_hold_for_every_seed_and_for_changed_ones() {
    for (name, target) in targets::TARGETS {
        for entry in fs::read_dir(folder("seeds").join(name)).unwrap() {
            let path = entry.unwrap().path();
            let seed = fs::read(&path).unwrap();
            target(&seed);
            let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
            for _ in 0..200 {
                let mut bytes = seed.clone();
                for _ in 0..=numbers.below(3) {
                    let at = numbers.at(bytes.len() + 1);
                    let byte = numbers.below(256) as u8;
                    match numbers.below(4) {
                        0 if at < bytes.len() => bytes[at] = byte,
                        1 if at < bytes.len() => drop(bytes.remove(at)),
                        2 => bytes.truncate(at),
                        _ => bytes.insert(at, byte),
                    }
                }
                target(&bytes);
            }
        }
    }
}
