//! What the screen shows: a function of the windows, the size and the time. Pure.
//!
//! Open windows come first, each with its newest arrivals on top; below them what ended last. A narrow
//! screen has less of each line, a low one less of the page, which scrolls.

use super::arrival::{Arrival, Mark, arrivals};
use super::line::{Line, Look};
use crate::cli::terminal::{plain, seconds};
use crate::observe::quorum::assess;
use crate::observe::record::{Assessment, Outcome};
use crate::observe::record::{EndedBy, Record};

/// Below so many columns a line has only what matters most.
const NARROW: u16 = 60;
/// From so many columns on an address of IPv6 fits whole.
const WIDE: u16 = 110;

/// What is known, and how it is looked at.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// All open windows, and the last few that ended.
    pub records: Vec<Record>,
    /// Why the daemon does not tell anything at the moment.
    pub lost: Option<String>,
    /// How many lines are scrolled away.
    pub scrolled: usize,
}

impl View {
    /// Every row of a screen of this size, from the top; `now` is in milliseconds after 1970.
    pub fn rows(&mut self, width: u16, height: u16, now: u64) -> Vec<Line> {
        let mut page = self.page(width, now);
        let room = usize::from(height.saturating_sub(2));
        self.scrolled = self.scrolled.min(page.len().saturating_sub(room));
        let below = page.len().saturating_sub(self.scrolled + room);
        page.drain(..self.scrolled);
        page.resize(room, Line::default());
        let mut rows = vec![self.head(width)];
        rows.append(&mut page);
        rows.push(self.foot(below));
        rows.truncate(usize::from(height));
        rows
    }

    fn head(&self, width: u16) -> Line {
        let open = self.records.iter().filter(|one| one.end.is_none()).count();
        let title = match open {
            0 => "acmegate  no window is open".to_owned(),
            1 => "acmegate  1 window is open".to_owned(),
            open => format!("acmegate  {open} windows are open"),
        };
        let mut line = Line::new(title, Look::Bold);
        if let Some(why) = &self.lost {
            let why = match width < NARROW {
                true => "the daemon is gone".to_owned(),
                false => format!("{}; trying again", plain(why)),
            };
            line.push("  ", Look::Plain);
            line.push(why, Look::Bad);
        }
        line
    }

    fn foot(&self, below: usize) -> Line {
        let more = match (self.scrolled, below) {
            (0, 0) => String::new(),
            (above, 0) => format!("  {above} lines above"),
            (0, below) => format!("  {below} lines below"),
            (above, below) => format!("  {above} above, {below} below"),
        };
        Line::new(format!("q leaves, arrows scroll{more}"), Look::Dim)
    }

    fn page(&self, width: u16, now: u64) -> Vec<Line> {
        let mut records: Vec<&Record> = self.records.iter().collect();
        // The newest first; what is open before what ended.
        records.sort_by_key(|one| (one.end.is_some(), std::cmp::Reverse(one.opened_at)));
        let mut page = Vec::new();
        let mut was_open = false;
        for record in records {
            let is_open = record.end.is_none();
            if was_open {
                page.push(Line::default());
            }
            was_open = is_open;
            match is_open {
                true => self.open(record, width, now, &mut page),
                false => page.push(self.ended(record, width, now)),
            }
        }
        page
    }

    fn open(&self, record: &Record, width: u16, now: u64, page: &mut Vec<Line>) {
        let ends = record.opened_at.saturating_add(record.deadline);
        let left = ends.saturating_sub(now);
        let ports: Vec<String> = record.ports.iter().map(u16::to_string).collect();
        let mut head = Line::new("open", Look::Doubtful);
        let what = format!(
            "  {}  tcp {}  {} left",
            plain(&record.lease),
            ports.join(" "),
            seconds(left)
        );
        head.push(what, Look::Plain);
        if width >= NARROW {
            let mut more = format!("  {}", plain(&record.families.join(" ")));
            if let Some(holder) = &record.holder {
                more += &format!("  for {}", plain(holder));
            }
            head.push(more, Look::Plain);
        }
        page.push(head);
        if let Some(identifiers) = record.identifiers.as_ref().filter(|_| width >= NARROW) {
            let names: Vec<String> = identifiers.iter().map(|name| plain(name)).collect();
            page.push(Line::plain(format!("      only {}", names.join(", "))));
        }
        let assessment = assess(record);
        page.push(Line::plain(format!(
            "      {}",
            counts(&assessment, width >= NARROW)
        )));
        let arrivals = arrivals(record);
        let longest = arrivals.iter().map(|arrival| arrival.from.len()).max();
        let most = match width {
            ..NARROW => 16,
            NARROW..WIDE => 24,
            WIDE.. => 39,
        };
        let room = longest.unwrap_or(0).min(most);
        for arrival in arrivals.iter().rev() {
            self.arrival(arrival, room, width, page);
        }
        let more = record.sources.iter().map(|source| source.more_visits);
        let more = more.fold(0, u64::saturating_add);
        if record.more_sources > 0 || more > 0 {
            page.push(Line::plain(format!(
                "      and {more} requests and {} addresses that are only counted",
                record.more_sources
            )));
        }
    }

    fn arrival(&self, arrival: &Arrival, room: usize, width: u16, page: &mut Vec<Line>) {
        let (sign, look) = match arrival.mark {
            Mark::Good => ('+', Look::Good),
            Mark::Bad => ('!', Look::Bad),
            Mark::Plain => ('-', Look::Dim),
        };
        let since = format!("{}.{:03}", arrival.at / 1000, arrival.at % 1000);
        let from = cut(&arrival.from, room);
        let start = match width < NARROW {
            true => format!("{sign} {from:room$} "),
            false => format!(
                "  {sign} {since:>8} s  {from:room$}  {:2}  ",
                arrival.country
            ),
        };
        let mut line = Line::plain(start);
        line.push(arrival.word.clone(), look);
        let has_room = line.width() + 2 + arrival.more.len() <= usize::from(width);
        // Why somebody failed is what this is looked at for: it gets a line of its own.
        let own = (arrival.mark == Mark::Bad && !has_room)
            .then(|| Line::plain(format!("      {}", arrival.more)));
        if own.is_none() && width >= NARROW {
            line.push(format!("  {}", arrival.more), Look::Plain);
        }
        page.push(line);
        page.extend(own);
    }

    fn ended(&self, record: &Record, width: u16, now: u64) -> Line {
        let assessment = &record.assessment;
        let (word, look) = match assessment.outcome {
            Outcome::Open | Outcome::Quiet => ("quiet", Look::Plain),
            Outcome::Answered => ("answered", Look::Good),
            Outcome::Tolerated => ("tolerated", Look::Doubtful),
            Outcome::Doubtful => ("doubtful", Look::Bad),
            Outcome::Failed => ("failed", Look::Bad),
        };
        let (at, by) = record
            .end
            .map_or((0, EndedBy::Close), |end| (end.at, end.by));
        let ago = seconds(now.saturating_sub(record.opened_at.saturating_add(at)));
        let mut line = Line::new(format!("{word:9}"), look);
        line.push(
            format!("  {}  {ago} ago", plain(&record.lease)),
            Look::Plain,
        );
        if width >= NARROW {
            let how = format!(
                ", was open {}{}  {}",
                seconds(at),
                ended_by(by),
                counts(assessment, width >= WIDE)
            );
            line.push(how, Look::Plain);
        }
        line
    }
}

/// What ended a window, where that is worth a word.
pub fn ended_by(by: EndedBy) -> &'static str {
    match by {
        EndedBy::Close => "",
        EndedBy::Early => ", closed early",
        EndedBy::HolderGone => ", its holder died",
        EndedBy::Deadline => ", cut by its deadline",
        EndedBy::Removed => ", firewall removed",
        EndedBy::Reload => ", by a reload",
        EndedBy::Stop => ", acmegate stopped",
        EndedBy::Unwatched => ", unwatched",
    }
}

/// The arithmetic of a window.
pub fn counts(assessment: &Assessment, is_long: bool) -> String {
    let Assessment {
        networks,
        answered,
        dropped,
        needed,
        ..
    } = *assessment;
    match is_long {
        true => format!(
            "networks: {networks} came, {answered} answered, {dropped} dropped here; {needed} needed"
        ),
        false => format!("{answered} of {networks} answered, {dropped} dropped"),
    }
}

/// At most so many columns of text that has one column for each character.
fn cut(text: &str, room: usize) -> String {
    match text.chars().count() <= room {
        true => text.to_owned(),
        false => text
            .chars()
            .take(room.saturating_sub(1))
            .chain(['…'])
            .collect(),
    }
}

#[cfg(test)]
pub(super) mod tests;
