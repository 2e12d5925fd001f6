//! Where there is no terminal: one plain line for each event, from what changed between two looks. Pure.

use std::collections::BTreeMap;

use super::arrival::{Arrival, Mark, arrivals};
use super::view::{counts, ended_by};
use crate::cli::terminal::{plain, seconds};
use crate::observe::record::Record;

/// A window, as long as it has no number: a lease, and when it was opened.
type Key = (String, u64);

/// What was told already.
#[derive(Debug, Default)]
pub struct Told {
    windows: BTreeMap<Key, OfWindow>,
    is_first: bool,
}

#[derive(Clone, Debug, Default)]
struct OfWindow {
    arrivals: Vec<Arrival>,
    has_ended: bool,
}

impl Told {
    /// Nothing was.
    pub fn new() -> Self {
        Self {
            windows: BTreeMap::new(),
            is_first: true,
        }
    }

    /// The lines for what is new in these windows. What had ended before anybody looked is not news.
    pub fn news(&mut self, records: &[Record]) -> Vec<String> {
        let mut lines = Vec::new();
        let is_first = std::mem::take(&mut self.is_first);
        let mut records: Vec<&Record> = records.iter().collect();
        records.sort_by_key(|record| record.opened_at);
        let mut windows = BTreeMap::new();
        for record in records {
            let key = (record.lease.clone(), record.opened_at);
            let mut told = self.windows.remove(&key);
            if told.is_none() && is_first && record.end.is_some() {
                told = Some(OfWindow {
                    arrivals: arrivals(record),
                    has_ended: true,
                });
            }
            let told = told.unwrap_or_else(|| {
                lines.push(opened(record));
                OfWindow::default()
            });
            windows.insert(key, of_window(record, told, &mut lines));
        }
        // What is no longer among the last few is not told again either.
        self.windows = windows;
        lines
    }
}

fn of_window(record: &Record, told: OfWindow, lines: &mut Vec<String>) -> OfWindow {
    let arrivals = arrivals(record);
    let mut known = told.arrivals;
    for arrival in &arrivals {
        // What merely grows, as the number of its packets, is no news.
        let is_same = |own: &Arrival| {
            (own.at, &own.from, &own.word) == (arrival.at, &arrival.from, &arrival.word)
        };
        match known.iter().position(is_same) {
            Some(at) => drop(known.swap_remove(at)),
            None => lines.push(came(record, arrival)),
        }
    }
    if record.end.is_some() && !told.has_ended {
        lines.push(ended(record));
    }
    OfWindow {
        arrivals,
        has_ended: record.end.is_some(),
    }
}

fn opened(record: &Record) -> String {
    let ports: Vec<String> = record.ports.iter().map(u16::to_string).collect();
    let only = record
        .identifiers
        .as_ref()
        .map_or_else(String::new, |names| {
            let names: Vec<String> = names.iter().map(|name| plain(name)).collect();
            format!(", only {}", names.join(", "))
        });
    format!(
        "{} open: tcp {} for {}, {} at most{only}",
        plain(&record.lease),
        ports.join(", "),
        plain(&record.families.join(" and ")),
        seconds(record.deadline)
    )
}

fn came(record: &Record, arrival: &Arrival) -> String {
    let sign = match arrival.mark {
        Mark::Good => "+",
        Mark::Bad => "!",
        Mark::Plain => "-",
    };
    let country = match arrival.country.as_str() {
        "" => String::new(),
        country => format!(" ({country})"),
    };
    let line = format!(
        "{} {sign} {}.{:03} s {}{country}: {}  {}",
        plain(&record.lease),
        arrival.at / 1000,
        arrival.at % 1000,
        arrival.from,
        arrival.word,
        arrival.more
    );
    line.trim_end().to_owned()
}

fn ended(record: &Record) -> String {
    let end = record.end.map_or_else(String::new, |end| {
        format!("after {}{}", seconds(end.at), ended_by(end.by))
    });
    format!(
        "{} shut {end}; {}",
        plain(&record.lease),
        counts(&record.assessment, true)
    )
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::observe::record::Assessment;
    use crate::observe::record::{End, EndedBy};

    fn window() -> Record {
        Record {
            opened_at: 1_000,
            deadline: 600_000,
            ..super::super::view::tests::window("certbot-812")
        }
    }

    #[test]
    fn each_event_is_told_once() {
        let mut told = Told::new();
        let mut record = window();
        let all = std::mem::take(&mut record.sources);
        assert_eq!(
            told.news(std::slice::from_ref(&record)),
            ["certbot-812 open: tcp 80 for ipv4 and ipv6, 10m at most"]
        );
        assert_eq!(told.news(std::slice::from_ref(&record)), [""; 0]);
        record.sources = all;
        let lines = told.news(std::slice::from_ref(&record));
        assert_eq!(lines.len(), arrivals(&record).len(), "{lines:#?}");
        assert_eq!(told.news(std::slice::from_ref(&record)), [""; 0]);
        record.end = Some(End {
            by: EndedBy::Deadline,
            at: 14_000,
            late: 0,
        });
        record.assessment = Assessment {
            networks: 3,
            answered: 2,
            needed: 4,
            dropped: 1,
            ..Assessment::default()
        };
        assert_eq!(
            told.news(std::slice::from_ref(&record)),
            [
                "certbot-812 shut after 14s, cut by its deadline; networks: 3 came, 2 answered, 1 dropped here; 4 needed"
            ]
        );
        assert_eq!(told.news(std::slice::from_ref(&record)), [""; 0]);
        assert_eq!(told.news(&[]), [""; 0]);
        assert!(told.windows.is_empty(), "nothing is kept of what is gone");
    }

    #[test]
    fn what_had_ended_before_is_no_news_and_what_ends_between_two_looks_is() {
        let mut record = window();
        record.end = Some(End {
            by: EndedBy::Close,
            at: 1,
            late: 0,
        });
        let mut told = Told::new();
        assert_eq!(told.news(std::slice::from_ref(&record)), [""; 0]);
        let other = Record {
            lease: "short".to_owned(),
            ..record.clone()
        };
        let lines = told.news(&[record, other]);
        assert!(lines.len() > 2 && lines.iter().all(|line| line.starts_with("short ")));
    }

    #[test]
    fn what_a_peer_chose_moves_no_cursor() {
        let mut record = window();
        record.lease = "\u{1b}[2J\u{202e}".to_owned();
        record.families = vec!["\u{1b}[2J".to_owned()];
        for source in &mut record.sources {
            source.address = IpAddr::from([192, 0, 2, 1]);
            for visit in &mut source.visits {
                visit.identifier = Some("<script>\u{1b}]0;x\u{7}\u{202e}".to_owned());
                visit.detail = Some("\u{85}\n\r\u{2066}".to_owned());
                visit.reason = "\u{9b}31m".to_owned();
            }
        }
        for line in Told::new().news(&[record]) {
            let is_hostile = |c: char| c.is_control() || !plain(&c.to_string()).starts_with(c);
            assert!(!line.chars().any(is_hostile), "{line:?}");
        }
    }
}
