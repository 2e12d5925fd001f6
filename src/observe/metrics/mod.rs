//! Metrics, in the text format of Prometheus (version 0.0.4), of which docs/metrics.md has every one.
//!
//! What happens is counted here, as it happens, by atomic numbers alone; what merely stands so at a
//! moment is in [`Moment`] and written beside it. Whoever asks may be anybody: no address, identifier,
//! lease name or token is in any metric, and every label's value is of a list that this program has.

mod moment;

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

pub use self::moment::{Budget, History, Moment, Span, Window};
use super::book::Draft;
use super::record::Outcome;
use super::record::{EndedBy, Record, Why};
use crate::gate::challenge::ChallengeType;
use crate::locked::locked;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
    TextEncoder,
};

/// A name, a help text or a label that Prometheus does not take: our own fault.
pub use prometheus::Error as MetricsError;

/// What the text is, for whoever asks by HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// From a file in memory to an upstream's deadline.
const ANSWERS: [f64; 11] = [
    0.0001, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0,
];
/// From a renewal of one name to the longest window there is.
const WINDOWS: [f64; 9] = [5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 3600.0, 86_400.0];
/// CAs come from five networks or so; more is a second CA, or a crowd.
const NETWORKS: [f64; 10] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 24.0];

const WHYS: [Why; 3] = [Why::Asked, Why::Token, Why::Adopted];
const ENDS: [EndedBy; 8] = [
    EndedBy::Close,
    EndedBy::Early,
    EndedBy::HolderGone,
    EndedBy::Deadline,
    EndedBy::Removed,
    EndedBy::Reload,
    EndedBy::Stop,
    EndedBy::Unwatched,
];
/// Those of windows that ended.
const OUTCOMES: [Outcome; 5] = [
    Outcome::Quiet,
    Outcome::Answered,
    Outcome::Tolerated,
    Outcome::Doubtful,
    Outcome::Failed,
];

/// What is counted.
pub struct Metrics {
    registry: Registry,
    opened: IntCounterVec,
    ended: IntCounterVec,
    duration: Histogram,
    networks: Histogram,
    networks_answered: IntCounter,
    networks_dropped: IntCounter,
    packets: IntCounter,
    incomplete: IntCounter,
    http_answers: Histogram,
    tls_answers: Histogram,
    exposure: Mutex<Exposure>,
}

/// For how long the world could come in, two windows at once counted once.
#[derive(Debug, Default)]
struct Exposure {
    before: Duration,
    since: Option<Instant>,
}

impl Metrics {
    /// Metrics of which each stands at nothing: a series that begins with its first event hides that
    /// event from whoever looks for changes.
    ///
    /// # Errors
    /// [`MetricsError`], for a name of ours that is none.
    pub fn new() -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, MetricsError>(counter)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, MetricsError>(counters)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let histogram = Histogram::with_opts(options)?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, MetricsError>(histogram)
        };
        let answers = HistogramVec::new(
            HistogramOpts::new(
                "acmegate_answer_duration_seconds",
                "How long answers to validations took, from accept to the last octet.",
            )
            .buckets(ANSWERS.to_vec()),
            &["challenge"],
        )?;
        registry.register(Box::new(answers.clone()))?;
        let of = |challenge: ChallengeType| {
            answers.get_metric_with_label_values(&[&challenge.to_string()])
        };
        let opened = counters(
            "acmegate_windows_opened_total",
            "Windows that were opened, by what for.",
            &["why"],
        )?;
        for why in WHYS {
            opened.get_metric_with_label_values(&[why_word(why)])?;
        }
        let ended = counters(
            "acmegate_windows_ended_total",
            "Windows that ended, by what ended them and what they came to.",
            &["ended_by", "outcome"],
        )?;
        for end in ENDS {
            for outcome in OUTCOMES {
                ended.get_metric_with_label_values(&[end_word(end), outcome.word()])?;
            }
        }
        Ok(Self {
            opened,
            ended,
            duration: histogram(
                "acmegate_window_duration_seconds",
                "How long windows were open, each by itself.",
                &WINDOWS,
            )?,
            networks: histogram(
                "acmegate_window_networks",
                "How many networks of validators came in a window.",
                &NETWORKS,
            )?,
            networks_answered: counter(
                "acmegate_networks_answered_total",
                "Networks of validators that were answered, counted in each window.",
            )?,
            networks_dropped: counter(
                "acmegate_networks_dropped_total",
                "Networks whose packets came in a window and were dropped on this host.",
            )?,
            packets: counter(
                "acmegate_evidence_packets_total",
                "First packets of connections that the kernel counted in windows.",
            )?,
            incomplete: counter(
                "acmegate_windows_evidence_incomplete_total",
                "Windows of which the kernel did not keep all that it saw.",
            )?,
            http_answers: of(ChallengeType::Http01)?,
            tls_answers: of(ChallengeType::TlsAlpn01)?,
            exposure: Mutex::default(),
            registry,
        })
    }

    /// A validation was answered, so long after its connection was accepted.
    pub fn answered(&self, challenge: ChallengeType, took: Duration) {
        let answers = match challenge {
            ChallengeType::Http01 => &self.http_answers,
            ChallengeType::TlsAlpn01 => &self.tls_answers,
        };
        answers.observe(took.as_secs_f64());
    }

    /// The book of records has changed so far. To be told of each draft, in whatever order.
    pub fn follow(&self, draft: &Draft) {
        if draft.is_new {
            self.window_opened(draft.record.why);
        }
        if draft.is_complete {
            self.window_ended(&draft.record);
        }
    }

    fn window_opened(&self, why: Why) {
        self.opened.with_label_values(&[why_word(why)]).inc();
    }

    /// A window ended, and this is all that is known of it.
    fn window_ended(&self, record: &Record) {
        let Some(end) = record.end else {
            return;
        };
        let assessment = &record.assessment;
        let words = [end_word(end.by), assessment.outcome.word()];
        self.ended.with_label_values(&words).inc();
        self.duration
            .observe(Duration::from_millis(end.at).as_secs_f64());
        self.networks.observe(f64::from(assessment.networks));
        self.networks_answered
            .inc_by(u64::from(assessment.answered));
        self.networks_dropped.inc_by(u64::from(assessment.dropped));
        self.packets.inc_by(record.evidence.packets);
        self.incomplete
            .inc_by(u64::from(record.evidence.incomplete.is_some()));
    }

    /// From now on any window is open, or none is.
    pub fn exposed(&self, is_open: bool, now: Instant) {
        let mut exposure = self.exposure();
        if let Some(since) = exposure.since.take() {
            exposure.before += now.saturating_duration_since(since);
        }
        exposure.since = is_open.then_some(now);
    }

    /// Everything as text: what was counted, and how things stand.
    ///
    /// # Errors
    /// [`MetricsError`], for a name of ours that is none.
    pub fn text(&self, moment: &Moment, now: Instant) -> Result<String, MetricsError> {
        let open_for = {
            let exposure = self.exposure();
            let since = exposure.since;
            exposure.before + since.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
        };
        let mut families = moment.families(open_for)?;
        families.extend(self.registry.gather());
        families.sort_by(|one, other| one.name().cmp(other.name()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn exposure(&self) -> MutexGuard<'_, Exposure> {
        locked(&self.exposure)
    }
}

fn why_word(why: Why) -> &'static str {
    match why {
        Why::Asked => "asked",
        Why::Token => "token",
        Why::Adopted => "adopted",
    }
}

fn end_word(end: EndedBy) -> &'static str {
    match end {
        EndedBy::Close => "close",
        EndedBy::Early => "early",
        EndedBy::HolderGone => "holder-gone",
        EndedBy::Deadline => "deadline",
        EndedBy::Removed => "removed",
        EndedBy::Reload => "reload",
        EndedBy::Stop => "stop",
        EndedBy::Unwatched => "unwatched",
    }
}

#[cfg(test)]
mod tests;
