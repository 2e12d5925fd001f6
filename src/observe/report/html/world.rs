//! The five registry regions, roughly where they are, each with the networks that came from there.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::observe::record::{Record, Region};
use crate::observe::report::fate::{Fate, part_of_the_world, registry};
use crate::observe::report::words::many;

/// A region and its panel: left, top, width, height, in a drawing of 340 by 190.
const PANELS: [(Region, u32, u32, u32, u32); 5] = [
    (Region::Arin, 1, 1, 100, 86),
    (Region::Ripe, 109, 1, 120, 86),
    (Region::Apnic, 237, 31, 102, 110),
    (Region::Lacnic, 29, 97, 94, 86),
    (Region::Afrinic, 131, 97, 94, 86),
];

/// Draws it. Where nobody's place is known a sentence says so.
pub fn draw(out: &mut String, record: &Record, number: usize) {
    // Networks, each by the best that became of one of its addresses.
    let mut networks: BTreeMap<&str, (Option<Region>, Fate)> = BTreeMap::new();
    for source in &record.sources {
        let fate = Fate::of(source);
        if matches!(fate, Fate::Stray | Fate::Visitor) || source.then.is_some() {
            continue;
        }
        let region = source.place.as_ref().and_then(|place| place.region);
        let known = networks.entry(&source.network).or_insert((region, fate));
        *known = (known.0.or(region), known.1.min(fate));
    }
    if networks.is_empty() {
        return;
    }
    if networks.values().all(|(region, _)| region.is_none()) {
        out.push_str(
            "<p class=\"faint\">Where these networks are is not known: there is no database of places.</p>\n",
        );
        return;
    }
    let count = |region: Option<Region>, is_answered: bool| {
        let of_region = networks.values().filter(|(known, _)| *known == region);
        of_region
            .filter(|(_, fate)| (*fate == Fate::Answered) == is_answered)
            .count() as u64
    };
    let _ = write!(
        out,
        "<figure>\n<figcaption>Networks by registry region</figcaption>\n<svg class=\"world\" viewBox=\"0 0 340 190\" role=\"img\" aria-labelledby=\"world-{number}\">\n\
         <title id=\"world-{number}\">Networks by region:"
    );
    for (region, ..) in PANELS {
        let (answered, failed) = (count(Some(region), true), count(Some(region), false));
        let _ = write!(
            out,
            " {}: {answered} answered, {failed} not;",
            part_of_the_world(region)
        );
    }
    out.push_str("</title>\n");
    for (region, x, y, width, height) in PANELS {
        let (answered, failed) = (count(Some(region), true), count(Some(region), false));
        let class = match (answered, failed) {
            (_, 1..) => "bad",
            (1.., _) => "good",
            (0, 0) => "",
        };
        let left = x + 8;
        let _ = writeln!(
            out,
            "<rect class=\"region {class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"8\"/>\n\
             <text x=\"{left}\" y=\"{}\">{}</text>\n<text class=\"faint\" x=\"{left}\" y=\"{}\">{}</text>",
            y + 18,
            part_of_the_world(region),
            y + 33,
            registry(region),
        );
        let mut line = y + 54;
        for (count, word, ink) in [(answered, "answered", "good"), (failed, "not", "bad")] {
            if count > 0 {
                let _ = writeln!(
                    out,
                    "<text class=\"{ink}\" x=\"{left}\" y=\"{line}\">{count} {word}</text>"
                );
                line += 16;
            }
        }
    }
    out.push_str("</svg>\n");
    let unknown = count(None, true) + count(None, false);
    if unknown > 0 {
        let _ = writeln!(
            out,
            "<p class=\"faint\">{} of unknown place.</p>",
            many(unknown, "network")
        );
    }
    out.push_str("</figure>\n");
}
