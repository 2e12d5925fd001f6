//! How things stand at one moment, and as metrics.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, GaugeVec, IntCounter, IntCounterVec, Opts, Registry};

use super::MetricsError;
use crate::gate::Reason;
use crate::gate::lease::Family;

/// How things stand.
#[derive(Clone, Debug)]
pub struct Moment {
    /// The program's version.
    pub version: &'static str,
    /// When the program started.
    pub started: SystemTime,
    /// `[firewall] mode`.
    pub mode: &'static str,
    /// How far landlock restricts the front: `fully`, `partly` or `not`.
    pub landlock: &'static str,
    /// Every guarded port, in both families.
    pub windows: Vec<Window>,
    /// Living leases.
    pub leases: usize,
    /// Armed leases, open or not.
    pub armed: usize,
    /// Connections by reason, each reason once.
    pub connections: Vec<(Reason, u64)>,
    /// Connections that are held now.
    pub held: usize,
    /// Whether our part is in the kernel.
    pub installed: bool,
    /// Whether nobody else can change it.
    pub owned: bool,
    /// How often somebody took it away and it was put back.
    pub reassertions: u64,
    /// How long the enforcer has owed an answer; zero if it owes none.
    pub waiting: Duration,
    /// Whether the kernel has the whole of the allow-list.
    pub list_is_whole: bool,
    /// Ranges of the allow-list, by family.
    pub ranges: [(Family, usize); 2],
    /// Lists that something is wrong with.
    pub list_problems: usize,
    /// When the oldest of the list files was written, where there are any.
    pub oldest_list: Option<SystemTime>,
    /// The budget.
    pub budget: Budget,
    /// Pushed answers that wait for a validation.
    pub pushed: usize,
    /// Problems that the status tells of.
    pub problems: usize,
    /// The history, where there is one.
    pub history: Option<History>,
}

/// A guarded port in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The TCP port.
    pub port: u16,
    /// The family.
    pub family: Family,
    /// Whether the world may come in.
    pub is_open: bool,
}

/// What is used of the budget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Openings of the last hour.
    pub openings: usize,
    /// How many an hour may have.
    pub openings_limit: u32,
    /// Open time.
    pub spans: Vec<Span>,
}

/// Open time of all windows together in a span that ends now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// `day` or `month`.
    pub name: &'static str,
    /// How long windows were open.
    pub used: Duration,
    /// How long they may be; `None` is any.
    pub limit: Option<Duration>,
}

/// The history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// Windows in it.
    pub windows: u64,
    /// Octets that it has on disk.
    pub octets: u64,
    /// Windows that wait in memory to be written.
    pub unsaved: usize,
    /// Whether it cannot be written.
    pub is_failing: bool,
}

impl Moment {
    /// As metrics, beside how long the world could come in so far.
    pub(super) fn families(&self, open_for: Duration) -> Result<Vec<MetricFamily>, MetricsError> {
        let page = Page::default();
        page.gauges(
            "acmegate_build_info",
            "The program's version; always 1.",
            &["version"],
            [([self.version.to_owned()], 1.0)],
        )?;
        page.gauges(
            "acmegate_firewall_info",
            "What the kernel is asked to do, and how far landlock restricts the front; always 1.",
            &["mode", "landlock"],
            [([self.mode.to_owned(), self.landlock.to_owned()], 1.0)],
        )?;
        page.gauge(
            "process_start_time_seconds",
            "When the front started, in seconds after 1970.",
            since_1970(self.started),
        )?;
        self.windows(&page, open_for)?;
        self.connections(&page)?;
        self.firewall(&page)?;
        self.allow_list(&page)?;
        self.budget(&page)?;
        page.gauge(
            "acmegate_pushed_answers",
            "Pushed answers that wait for a validation.",
            number(self.pushed),
        )?;
        page.gauge(
            "acmegate_problems",
            "Problems that `acmegate status` tells of.",
            number(self.problems),
        )?;
        if let Some(history) = &self.history {
            history.write(&page)?;
        }
        Ok(page.0.gather())
    }

    fn windows(&self, page: &Page, open_for: Duration) -> Result<(), MetricsError> {
        page.gauges(
            "acmegate_window_open",
            "Whether a guarded port lets in everybody.",
            &["port", "family"],
            self.windows.iter().map(|window| {
                let labels = [window.port.to_string(), window.family.word().to_owned()];
                (labels, truth(window.is_open))
            }),
        )?;
        let seconds = Counter::new(
            "acmegate_window_open_seconds_total",
            "For how long any window was open; two at once count once.",
        )?;
        seconds.inc_by(open_for.as_secs_f64());
        page.0.register(Box::new(seconds))?;
        page.gauge("acmegate_leases", "Living leases.", number(self.leases))?;
        page.gauge(
            "acmegate_leases_armed",
            "Armed leases, open or not.",
            number(self.armed),
        )
    }

    fn connections(&self, page: &Page) -> Result<(), MetricsError> {
        let counted = IntCounterVec::new(
            Opts::new(
                "acmegate_connections_total",
                "Connections that ended, by the gate's verdict and its reason.",
            ),
            &["verdict", "reason"],
        )?;
        for (reason, count) in &self.connections {
            let verdict = reason.verdict().to_string();
            let labels = [verdict.as_str(), reason.word()];
            counted
                .get_metric_with_label_values(&labels)?
                .inc_by(*count);
        }
        page.0.register(Box::new(counted))?;
        page.gauge(
            "acmegate_connections_held",
            "Connections that are held now: those that could not be answered at once.",
            number(self.held),
        )
    }

    fn firewall(&self, page: &Page) -> Result<(), MetricsError> {
        page.gauge(
            "acmegate_firewall_installed",
            "Whether acmegate's part is in the kernel; 0 in mode gate-only.",
            truth(self.installed),
        )?;
        page.gauge(
            "acmegate_firewall_owned",
            "Whether nobody else can change acmegate's table.",
            truth(self.owned),
        )?;
        let reassertions = IntCounter::new(
            "acmegate_firewall_reassertions_total",
            "How often somebody took acmegate's part away and it was put back.",
        )?;
        reassertions.inc_by(self.reassertions);
        page.0.register(Box::new(reassertions))?;
        page.gauge(
            "acmegate_enforcer_waiting_seconds",
            "How long the process that may change the firewall has owed an answer; 0 if it owes none.",
            self.waiting.as_secs_f64(),
        )
    }

    fn allow_list(&self, page: &Page) -> Result<(), MetricsError> {
        page.gauges(
            "acmegate_allow_list_ranges",
            "Ranges of addresses on the allow-list.",
            &["family"],
            self.ranges
                .map(|(family, count)| ([family.word().to_owned()], number(count))),
        )?;
        page.gauge(
            "acmegate_allow_list_installed",
            "Whether the kernel has the whole of the allow-list.",
            truth(self.list_is_whole),
        )?;
        page.gauge(
            "acmegate_allow_list_problems",
            "Lists of the allow-list that something is wrong with.",
            number(self.list_problems),
        )?;
        match self.oldest_list {
            Some(written) => page.gauge(
                "acmegate_allow_list_oldest_timestamp_seconds",
                "When the oldest file of the allow-list was written, in seconds after 1970.",
                since_1970(written),
            ),
            None => Ok(()),
        }
    }

    fn budget(&self, page: &Page) -> Result<(), MetricsError> {
        let budget = &self.budget;
        page.gauge(
            "acmegate_budget_used_openings",
            "Openings of the last hour.",
            number(budget.openings),
        )?;
        page.gauge(
            "acmegate_budget_limit_openings",
            "How many openings an hour may have.",
            f64::from(budget.openings_limit),
        )?;
        let of = |span: &Span, length: Duration| ([span.name.to_owned()], length.as_secs_f64());
        page.gauges(
            "acmegate_budget_used_seconds",
            "For how long windows were open in the span that ends now.",
            &["span"],
            budget.spans.iter().map(|span| of(span, span.used)),
        )?;
        page.gauges(
            "acmegate_budget_limit_seconds",
            "For how long windows may be open in a span; absent where that is not limited.",
            &["span"],
            budget
                .spans
                .iter()
                .filter_map(|span| Some(of(span, span.limit?))),
        )
    }
}

impl History {
    fn write(&self, page: &Page) -> Result<(), MetricsError> {
        page.gauge(
            "acmegate_history_windows",
            "Windows in the history.",
            count(self.windows),
        )?;
        page.gauge(
            "acmegate_history_size_bytes",
            "What the history takes on disk.",
            count(self.octets),
        )?;
        page.gauge(
            "acmegate_history_unsaved_windows",
            "Windows that wait in memory to be written to the history.",
            number(self.unsaved),
        )?;
        page.gauge(
            "acmegate_history_failing",
            "Whether the history cannot be written.",
            truth(self.is_failing),
        )
    }
}

/// What is written at one moment.
#[derive(Default)]
struct Page(Registry);

impl Page {
    fn gauge(&self, name: &str, help: &str, value: f64) -> Result<(), MetricsError> {
        let gauge = Gauge::new(name, help)?;
        gauge.set(value);
        self.0.register(Box::new(gauge))
    }

    fn gauges<const LABELS: usize>(
        &self,
        name: &str,
        help: &str,
        labels: &[&str; LABELS],
        values: impl IntoIterator<Item = ([String; LABELS], f64)>,
    ) -> Result<(), MetricsError> {
        let gauges = GaugeVec::new(Opts::new(name, help), labels)?;
        for (labels, value) in values {
            gauges.get_metric_with_label_values(&labels)?.set(value);
        }
        self.0.register(Box::new(gauges))
    }
}

fn truth(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

/// Exact up to 2^53.
fn count(of: u64) -> f64 {
    of as f64
}

fn number(of: usize) -> f64 {
    of as f64
}

fn since_1970(at: SystemTime) -> f64 {
    let since = at.duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}
