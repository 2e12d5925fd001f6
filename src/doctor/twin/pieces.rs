//! A saved ruleset in pieces: what one message cannot carry. In a namespace of its own a program may not have as
//! large a message as the ruleset was once loaded by (SO_SNDBUFFORCE), so the frame comes first (tables, chains, sets,
//! all of them empty), and rules and elements follow, a piece at a time. Pure.

use serde_json::{Value, json};

/// How much goes into one piece.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Elements of sets, of which an interval has two.
    pub elements: usize,
    pub rules: usize,
}

impl Room {
    /// For a socket whose buffer may be as large as that (`net.core.wmem_default`).
    pub fn of(buffer: usize) -> Self {
        Self {
            elements: (buffer / 160).clamp(100, 10_000),
            rules: (buffer / 1000).clamp(20, 1000),
        }
    }
}

/// A ruleset in pieces.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    /// What is loaded first.
    pub frame: String,
    /// Then these, one after the other.
    pub rules: Vec<String>,
    /// Elements of the frame's sets, each with the whole frame: to be loaded somewhere else, where a set is never
    /// long, because nft reads what a set of intervals has before it adds to it.
    pub elements: Vec<String>,
}

impl Pieces {
    fn whole(listing: &str) -> Self {
        Self {
            frame: listing.to_owned(),
            ..Self::default()
        }
    }
}

/// What `nft list ruleset` printed. What is not in its form stays in the frame.
pub fn of_nft(listing: &str, room: Room) -> Pieces {
    let (mut frame, mut rules, mut elements) = (String::new(), Vec::new(), Vec::new());
    let (mut table, mut within) = (String::new(), None);
    let mut lines = listing.lines();
    while let Some(line) = lines.next() {
        let text = line.trim();
        let words: Vec<&str> = text.split_whitespace().collect();
        match (words.as_slice(), &within) {
            (["table", family, name, "{", ..], _) => table = format!("{family} {name}"),
            ([kind @ ("chain" | "set" | "map"), name, "{", ..], None) => {
                within = Some(((*kind).to_owned(), format!("{table} {name}")));
            }
            (["}"], Some(_)) => within = None,
            (["flags", ..], Some((kind, _))) if kind != "chain" => {
                // To a set that is constant nothing can be added later.
                let flags = text["flags".len()..].trim().split(',');
                let kept: Vec<&str> = flags.filter(|flag| flag.trim() != "constant").collect();
                if !kept.is_empty() {
                    frame.push_str(&format!("flags {}\n", kept.join(",")));
                }
                continue;
            }
            (["elements", "=", ..], Some((_, place))) => {
                let whole = whole(text, &mut lines);
                let inner = whole.split_once('{').map_or("", |(_, inner)| inner);
                let inner = inner.trim_end().strip_suffix('}').unwrap_or(inner);
                let all = split(inner);
                elements.extend(
                    all.chunks(room.elements)
                        .map(|some| format!("add element {place} {{ {} }}\n", some.join(","))),
                );
                continue;
            }
            ([first, ..], Some((kind, place))) if kind == "chain" && is_rule(first) => {
                rules.push(format!("add rule {place} {}\n", whole(text, &mut lines)));
                continue;
            }
            _ => {}
        }
        frame.push_str(line);
        frame.push('\n');
    }
    let rules = rules.chunks(room.rules).map(<[String]>::concat).collect();
    let elements = elements.into_iter();
    let elements = elements.map(|element: String| [&frame, element.as_str()].concat());
    Pieces {
        elements: elements.collect(),
        rules,
        frame,
    }
}

/// What begins a line of a chain that is no rule: `type filter hook …`, `policy drop;`, `comment "…"`, `}`.
fn is_rule(first: &str) -> bool {
    !matches!(first, "type" | "policy" | "comment" | "flags" | "}") && !first.starts_with('#')
}

/// A line, and those that follow it until its braces are closed.
fn whole<'a>(first: &str, lines: &mut impl Iterator<Item = &'a str>) -> String {
    let mut text = first.to_owned();
    let mut open = depth(first);
    while open > 0 {
        let Some(line) = lines.next() else { break };
        open += depth(line);
        text.push(' ');
        text.push_str(line.trim());
    }
    text
}

fn depth(text: &str) -> i64 {
    let mut depth = 0;
    outside_quotes(text, |_, octet| match octet {
        b'{' => depth += 1,
        b'}' => depth -= 1,
        _ => {}
    });
    depth
}

/// What commas separate.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut from) = (Vec::new(), 0);
    outside_quotes(text, |at, octet| {
        if octet == b',' {
            parts.push(&text[from..at]);
            from = at + 1;
        }
    });
    parts.push(&text[from..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

fn outside_quotes(text: &str, mut each: impl FnMut(usize, u8)) {
    let mut is_quoted = false;
    for (at, octet) in text.bytes().enumerate() {
        match octet {
            b'"' => is_quoted = !is_quoted,
            _ if !is_quoted => each(at, octet),
            _ => {}
        }
    }
}

/// What `nft -j list ruleset` printed, in the order in which it can be loaded.
pub fn of_json(listing: &str, room: Room) -> Pieces {
    let Ok(Value::Object(mut document)) = serde_json::from_str(listing) else {
        return Pieces::whole(listing);
    };
    let Some(Value::Array(objects)) = document.remove("nftables") else {
        return Pieces::whole(listing);
    };
    let (mut frame, mut rules, mut elements) = (Vec::new(), Vec::new(), Vec::new());
    for mut object in objects {
        if object.get("rule").is_some() {
            rules.push(object);
            continue;
        }
        for kind in ["set", "map"] {
            let Some(Value::Object(set)) = object.get_mut(kind) else {
                continue;
            };
            match set.get_mut("flags") {
                Some(Value::Array(flags)) => flags.retain(|flag| flag != "constant"),
                // One alone.
                Some(flag) if flag == "constant" => {
                    set.remove("flags");
                }
                _ => {}
            }
            let Some(Value::Array(all)) = set.remove("elem") else {
                continue;
            };
            elements.extend(all.chunks(room.elements).map(|some| {
                json!({"element": {"family": set.get("family"), "table": set.get("table"),
                    "name": set.get("name"), "elem": some}})
            }));
        }
        frame.push(object);
    }
    if rules.len() <= room.rules {
        // nft does not print that a set is filled by rules, and finds it out only when it gets both at once.
        frame.append(&mut rules);
    }
    let text = |objects: &[Value]| json!({ "nftables": objects }).to_string();
    let with_frame = |element: Value| text(&[frame.as_slice(), &[element]].concat());
    Pieces {
        rules: rules.chunks(room.rules).map(text).collect(),
        elements: elements.into_iter().map(with_frame).collect(),
        frame: text(&frame),
    }
}

/// What iptables-save or ip6tables-save printed; all but the frame goes to a program that flushes nothing.
pub fn of_iptables(listing: &str, room: Room) -> Pieces {
    let mut pieces = Pieces::default();
    let mut table = "";
    let mut rules: Vec<&str> = Vec::new();
    for line in listing.lines() {
        match line.as_bytes().first() {
            Some(b'*') => table = line,
            Some(b'-' | b'[') => {
                rules.push(line);
                continue;
            }
            _ => {}
        }
        pieces.frame.push_str(line);
        pieces.frame.push('\n');
        if line.trim() == "COMMIT" {
            pieces.rules.extend(
                rules
                    .chunks(room.rules)
                    .map(|some| format!("{table}\n{}\nCOMMIT\n", some.join("\n"))),
            );
            rules.clear();
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room {
        elements: 2,
        rules: 1,
    };

    #[test]
    fn nothing_of_a_listing_is_lost() {
        let listing = "table inet f {\n\tset s {\n\t\ttype ipv4_addr\n\t\tflags constant,interval\n\t\telements = { 10.0.0.0/8 comment \"a, }\",\n\t\t\t     11.0.0.0/8,\n\t\t\t     12.0.0.0/8 }\n\t}\n\n\tchain in {\n\t\ttype filter hook input priority filter; policy drop;\n\t\tip saddr @s drop\n\t\ttcp dport { 22,\n\t\t\t80 } accept\n\t}\n}\n";
        let pieces = of_nft(listing, ROOM);
        assert_eq!(
            pieces.frame,
            "table inet f {\n\tset s {\n\t\ttype ipv4_addr\nflags interval\n\t}\n\n\tchain in {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n}\n"
        );
        assert_eq!(
            pieces.rules,
            [
                "add rule inet f in ip saddr @s drop\n",
                "add rule inet f in tcp dport { 22, 80 } accept\n",
            ]
        );
        let elements = pieces.elements.iter();
        let elements: Vec<_> = elements
            .map(|piece| piece.strip_prefix(&pieces.frame))
            .collect();
        assert_eq!(
            elements,
            [
                Some("add element inet f s {  10.0.0.0/8 comment \"a, }\", 11.0.0.0/8 }\n"),
                Some("add element inet f s {  12.0.0.0/8  }\n"),
            ]
        );
    }

    #[test]
    fn json_comes_in_pieces_too() {
        let listing = r#"{"nftables": [{"table": {"family": "inet", "name": "f"}},
            {"set": {"family": "inet", "name": "s", "table": "f", "type": "ipv4_addr", "elem": [1, 2, 3]}},
            {"rule": {"chain": "a"}}, {"rule": {"chain": "b"}}]}"#;
        let pieces = of_json(listing, ROOM);
        assert_eq!((pieces.rules.len(), pieces.elements.len()), (2, 2));
        assert!(!pieces.frame.contains("elem") && !pieces.frame.contains("rule"));
        assert!(pieces.rules[1].contains("\"b\""), "{pieces:?}");
        assert!(pieces.elements[1].contains("[3]"), "{pieces:?}");
        let wide = of_json(listing, Room { rules: 2, ..ROOM });
        assert!(wide.frame.contains("\"b\"") && wide.rules.is_empty());
    }

    #[test]
    fn no_set_stays_constant_however_its_flags_are_written() {
        // nft writes one flag alone without a list since 1.1.4.
        for flags in [
            r#""constant""#,
            r#"["constant"]"#,
            r#"["constant", "interval"]"#,
        ] {
            let set = format!(
                r#"{{"set": {{"family": "inet", "name": "s", "table": "f", "flags": {flags}, "elem": [1]}}}}"#
            );
            let pieces = of_json(&format!(r#"{{"nftables": [{set}]}}"#), ROOM);
            assert!(!pieces.frame.contains("constant"), "{pieces:?}");
        }
        let other = r#"{"nftables": [{"set": {"flags": "interval"}}]}"#;
        assert!(of_json(other, ROOM).frame.contains("interval"));
    }

    #[test]
    fn rules_of_iptables_follow_their_chains() {
        let listing = "*nat\n:A - [0:0]\n[1:2] -A A -j RETURN\nCOMMIT\n*filter\n-A X -j B\n-A X -j C\nCOMMIT\n";
        let pieces = of_iptables(listing, ROOM);
        assert_eq!(pieces.frame, "*nat\n:A - [0:0]\nCOMMIT\n*filter\nCOMMIT\n");
        assert_eq!(
            pieces.rules,
            [
                "*nat\n[1:2] -A A -j RETURN\nCOMMIT\n",
                "*filter\n-A X -j B\nCOMMIT\n",
                "*filter\n-A X -j C\nCOMMIT\n",
            ]
        );
    }
}
