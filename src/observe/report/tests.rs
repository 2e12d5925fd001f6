use super::*;
use crate::observe::quorum::assess;

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
    let mut record: Record = serde_json::from_str(text).unwrap();
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
