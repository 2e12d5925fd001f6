//! `acmegate doctor` as a whole: the page that documents it, its parts, its exit status.

use std::collections::BTreeSet;

use acmegate::doctor::finding::Code;
use acmegate::doctor::{daemon, outlook};

const PAGE: &str = include_str!("../../docs/doctor.md");

/// Every exam's codes.
const CODES: &[&[Code]] = &[daemon::configuration::ALL, daemon::ALL, outlook::ALL];

#[test]
fn the_page_has_every_finding_in_its_area_and_no_other() {
    let mut shown = BTreeSet::new();
    for section in PAGE.split("\n## ").skip(1) {
        let area = section.lines().next().unwrap();
        let rows = section
            .split_once("| finding | |")
            .map_or("", |(_, rows)| rows);
        for row in rows.lines().filter_map(|line| line.strip_prefix("| `")) {
            let (code, _) = row.split_once('`').unwrap();
            assert!(
                shown.insert((area.to_owned(), code.to_owned())),
                "{code} stands twice"
            );
        }
    }
    let codes = CODES.iter().flat_map(|codes| codes.iter());
    let known: BTreeSet<(String, String)> = codes
        .map(|code| (code.area.as_str().to_owned(), code.word.to_owned()))
        .collect();
    assert_eq!(shown, known);
}
