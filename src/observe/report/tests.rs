use proptest::prelude::*;

use super::since::{Account, Budget, Summary};
use super::*;
use crate::observe::quorum::assess;
use crate::observe::record::{Place, Said};

/// What a window is like, by name; the records that the documents show as well.
pub const EXAMPLES: [(&str, &str); 11] = [
    (
        "fine",
        include_str!("../../../tests/data/records/fine.json"),
    ),
    ("six", include_str!("../../../tests/data/records/six.json")),
    (
        "tolerated",
        include_str!("../../../tests/data/records/tolerated.json"),
    ),
    (
        "quiet",
        include_str!("../../../tests/data/records/quiet.json"),
    ),
    ("cut", include_str!("../../../tests/data/records/cut.json")),
    (
        "incomplete",
        include_str!("../../../tests/data/records/incomplete.json"),
    ),
    (
        "flood",
        include_str!("../../../tests/data/records/flood.json"),
    ),
    (
        "open",
        include_str!("../../../tests/data/records/open.json"),
    ),
    (
        "names",
        include_str!("../../../tests/data/records/names.json"),
    ),
    ("tls", include_str!("../../../tests/data/records/tls.json")),
    (
        "unseen",
        include_str!("../../../tests/data/records/unseen.json"),
    ),
];

const BARE: Paint = Paint { is_on: false };

pub fn example(name: &str) -> Record {
    let (_, text) = EXAMPLES.iter().find(|(known, _)| *known == name).unwrap();
    serde_json::from_str(text).unwrap()
}

#[test]
fn the_examples_come_to_what_they_say() {
    for (name, _) in EXAMPLES {
        let record = example(name);
        assert_eq!(
            serde_json::to_string(&record.assessment).unwrap(),
            serde_json::to_string(&assess(&record)).unwrap(),
            "{name}"
        );
    }
}

/// A record whose every text is this one.
pub fn hostile(text: &str) -> Record {
    let mut record = example("six");
    let text = text.to_owned();
    record.lease.clone_from(&text);
    record.holder = Some(text.clone());
    record.entrance = Some(text.clone());
    record.families = vec![text.clone(); 3];
    record.identifiers = Some(vec![text.clone(); 20]);
    record.beside = vec![text.clone(); 20];
    record.evidence.incomplete = Some(text.clone());
    record.failed = vec![text.clone(); 20];
    record.said = Some(Said {
        renewed: vec![text.clone(); 20],
        failed: vec![text.clone(); 20],
    });
    for source in &mut record.sources {
        source.network.clone_from(&text);
        source.place = Some(Place {
            country: Some(text.clone()),
            organization: Some(text.clone()),
            ..Place::default()
        });
        if let Some(dropped) = &mut source.dropped {
            dropped.table.clone_from(&text);
            dropped.chain.clone_from(&text);
            dropped.rule = dropped.rule.as_ref().map(|_| text.clone());
        }
        for visit in &mut source.visits {
            let is_answer = visit.is_answer();
            visit.identifier = Some(text.clone());
            visit.detail = Some(text.clone());
            visit.token = Some(text.clone());
            visit.verdict.clone_from(&text);
            if !is_answer {
                visit.reason.clone_from(&text);
            }
        }
    }
    record.assessment = assess(&record);
    record
}

#[test]
fn as_people_read_it() {
    for (name, _) in EXAMPLES {
        let record = example(name);
        let [first, second] = two_lines(&record);
        let shown = format!("{first}\n{second}\n\n{}", text(&record, BARE));
        insta::assert_snapshot!(name, shown);
    }
}

/// Escape sequences of colours, which are ours.
fn without_colours(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_once('m').unwrap();
        assert!(
            ["[32", "[31;1", "[33", "[2", "[0"].contains(&code),
            "{code:?}"
        );
        out.push_str(rest);
    }
    out
}

#[test]
fn colours_add_nothing_but_colours() {
    for (name, _) in EXAMPLES {
        let record = example(name);
        let coloured = text(&record, Paint { is_on: true });
        assert!(coloured.contains("\u{1b}["), "{name}");
        assert_eq!(without_colours(&coloured), text(&record, BARE), "{name}");
    }
}

#[test]
fn one_screen_is_80_columns_and_not_much_longer() {
    for (name, _) in EXAMPLES {
        let shown = text(&example(name), BARE);
        assert!(
            shown.lines().all(|line| line.chars().count() <= 80),
            "{name}:\n{shown}"
        );
        assert!(
            shown.lines().count() <= 60,
            "{name}: {}",
            shown.lines().count()
        );
    }
}

#[test]
fn what_is_fine_is_said_in_the_first_line_and_nothing_else_is_called_so() {
    for (name, _) in EXAMPLES {
        let record = example(name);
        let is_fine = matches!(name, "fine" | "quiet");
        let [first, _] = two_lines(&record);
        assert_eq!(first.contains("nothing wrong"), is_fine, "{name}: {first}");
        let screen = text(&record, BARE);
        let (line, _) = screen.split_once("\n\n").unwrap();
        assert_eq!(line.contains("nothing wrong"), is_fine, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn hostile_texts_move_no_terminal(nasty in "(?s)(<script>|\u{1b}\\[2J|\u{202e}|\u{9b}|\r|\n|\u{5d0}|`|.){0,300}") {
        let record = hostile(&nasty);
        let lines = two_lines(&record);
        prop_assert!(lines.iter().all(|line| line.chars().count() <= MAX_LINE));
        let many = Summary::of(&[record.clone(), record.clone()], u64::MAX, 0, &[Budget {
            of: Account::Identifier(nasty.clone()),
            used: u64::MAX,
            allowed: Some(u64::MAX),
        }]);
        let shown = [lines.join("\n"), text(&record, BARE), many.text(BARE)];
        for shown in shown {
            for line in shown.lines() {
                prop_assert_eq!(escape::plain(line), line);
            }
        }
        prop_assert!(text(&record, BARE).lines().all(|line| line.chars().count() <= 80));
    }
}

#[test]
fn spaces_before_the_first_word_leave_room_for_it() {
    for spaces in [0, 2, 34, 35, 36, 69, 70, 71, 300] {
        let text = format!("{}{} end", " ".repeat(spaces), "word".repeat(30));
        let lines = wrap(&text, 70);
        assert!(lines.iter().all(|line| line.len() <= 70), "{lines:?}");
        assert!(lines.concat().ends_with("end"), "{lines:?}");
        let indent = " ".repeat(spaces.min(35));
        assert!(lines.iter().all(|line| line.starts_with(&indent)));
    }
}
