//! Notices: tells somebody of windows that did not go well, by a command of the runner or by a webhook.
//!
//! Whoever has a window's record leaves it here and goes on; one after the other is told, so many an hour,
//! and what is too much is counted and said. Neither who is told nor how long that takes has anything to
//! do with a validation. An event holds what a report holds: no token and no key authorization.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::Request as HttpRequest;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::link::{Link, Running};
use crate::config::{Config, Webhook, When};
use crate::gate::command::Notice;
use crate::gate::lease::LeaseName;
use crate::locked::locked;
use crate::observe::record::Outcome;
use crate::observe::record::Record;
use crate::observe::report::{escape, two_lines};
use crate::runner::message::{MAX_EVENT_BYTES, MAX_PART_BYTES, Reply, Request};

/// The most notifications of an hour: who fails more often has one matter to look at, not more.
pub const MAX_PER_HOUR: usize = 20;
const HOUR: Duration = Duration::from_secs(3600);
/// How many records wait to be told.
const QUEUE: usize = 8;
/// How long a webhook may take, its answer included.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of its answer is read; none of it is looked at but the status.
const MAX_ANSWER_BYTES: usize = 1024;
/// The most fields and octets of its answer's head; hyper takes no less than 8 KiB.
const MAX_FIELDS: usize = 64;
const MAX_BUFFER_BYTES: usize = 8 * 1024;
/// How often the runner is asked whether the command is over.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How long it may take beyond the command's own time: to be killed, and to be asked.
const MARGIN: Duration = Duration::from_secs(10);

/// The front's one place for notices.
pub struct Notices {
    config: watch::Receiver<Arc<Config>>,
    queue: mpsc::Sender<Record>,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    /// When those of the last hour were sent, the oldest first.
    sent: VecDeque<Instant>,
    /// How many were not, since the last one that was.
    unsent: u64,
    /// Why the last one came to nothing.
    problem: Option<String>,
}

/// What is told.
#[derive(Serialize)]
struct Event<'event> {
    version: u32,
    acmegate: &'static str,
    event: &'static str,
    /// How many events before this one were not sent.
    unsent: u64,
    summary: &'event [String],
    /// Not all of the record's sources are told.
    is_shortened: bool,
    record: Option<&'event Record>,
}

impl Notices {
    /// A place without anything, and the queue for [`send_notices`].
    pub fn new(config: watch::Receiver<Arc<Config>>) -> (Self, mpsc::Receiver<Record>) {
        let (queue, to_tell) = mpsc::channel(QUEUE);
        let notices = Self {
            config,
            queue,
            told: Mutex::default(),
        };
        (notices, to_tell)
    }

    /// A window's record is complete. Waits for nothing.
    pub fn window_ended(&self, record: &Record) {
        let is_told = {
            let notify = &self.config.borrow().notify;
            let is_anybody_told = notify.notifier.is_some() || notify.webhook.is_some();
            is_anybody_told && kind(record, notify.when).is_some()
        };
        if is_told && self.queue.try_send(record.clone()).is_err() {
            self.told().unsent += 1;
        }
    }

    /// What is wrong, for the status.
    pub fn problem(&self) -> Option<String> {
        let told = self.told();
        let problem = told.problem.as_ref();
        problem.map(|why| format!("the last notification was not delivered: {why}"))
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        locked(&self.told)
    }
}

impl Told {
    /// Whether one more may be sent now, which then counts; gives how many were not before it.
    fn take(&mut self, now: Instant) -> Option<u64> {
        while self.sent.front().is_some_and(|sent| now - *sent >= HOUR) {
            self.sent.pop_front();
        }
        if self.sent.len() >= MAX_PER_HOUR {
            self.unsent += 1;
            return None;
        }
        self.sent.push_back(now);
        Some(std::mem::take(&mut self.unsent))
    }

    /// When it is to be said how many were not sent.
    fn due(&self, now: Instant) -> Option<Instant> {
        let is_full = self.sent.len() >= MAX_PER_HOUR;
        let free = self
            .sent
            .front()
            .filter(|_| is_full)
            .map(|sent| *sent + HOUR);
        (self.unsent > 0).then(|| free.unwrap_or(now))
    }
}

/// Tells one after the other. Runs until dropped.
pub async fn send_notices(
    notices: Arc<Notices>,
    mut to_tell: mpsc::Receiver<Record>,
    runner: Option<Arc<Link<Running>>>,
) {
    loop {
        let due = notices.told().due(Instant::now());
        let is_due = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let record = tokio::select! {
            biased;
            record = to_tell.recv() => match record {
                Some(record) => Some(record),
                None => return,
            },
            () = is_due => None,
        };
        let unsent = notices.told().take(Instant::now());
        let Some(unsent) = unsent else {
            continue;
        };
        let config = notices.config.borrow().clone();
        let done = tell(&config, runner.as_deref(), record.as_ref(), unsent).await;
        match &done {
            Ok(()) => tracing::info!(
                window = record.as_ref().and_then(|record| record.number),
                lease = record.as_ref().map(|record| record.lease.as_str()),
                "notified"
            ),
            Err(why) => tracing::warn!("a notification was not delivered: {why}"),
        }
        notices.told().problem = done.err();
    }
}

/// Tells of one window, or of nothing but how many were not told, by every way at once.
async fn tell(
    config: &Config,
    runner: Option<&Link<Running>>,
    record: Option<&Record>,
    unsent: u64,
) -> Result<(), String> {
    let notify = &config.notify;
    let event = match record {
        Some(record) => {
            let kind = kind(record, notify.when).unwrap_or("window");
            event(kind, unsent, Some(record))
        }
        None => event("unsent", unsent, None),
    };
    let by_command = async {
        match (&notify.notifier, runner) {
            (None, _) => Ok(()),
            (Some(_), None) => Err("[notify] command needs a restart".to_owned()),
            (Some(notifier), Some(runner)) => {
                let notice = Notice {
                    window: record.and_then(|record| record.number),
                    lease: record.and_then(|record| LeaseName::parse(&record.lease)),
                };
                let run = run(runner, notice, event.as_bytes());
                let limit = notifier.timeout + MARGIN;
                let late = |_| Err("the runner does not say what became of the command".to_owned());
                timeout(limit, run).await.unwrap_or_else(late)
            }
        }
    };
    let by_webhook = async {
        match &notify.webhook {
            None => Ok(()),
            Some(webhook) => {
                let posted = timeout(WEBHOOK_TIMEOUT, post(webhook, &event)).await;
                let late = |_| Err("no whole answer within five seconds".to_owned());
                let posted = posted.unwrap_or_else(late);
                posted.map_err(|why| format!("webhook {}: {why}", webhook.address))
            }
        }
    };
    match tokio::join!(by_command, by_webhook) {
        (Err(one), Err(other)) => Err(format!("{one}; {other}")),
        (one, other) => one.and(other),
    }
}

/// As what a window is told, if it is.
fn kind(record: &Record, when: When) -> Option<&'static str> {
    let assessment = &record.assessment;
    let has_failed = matches!(assessment.outcome, Outcome::Failed | Outcome::Doubtful);
    match () {
        () if when.failed && has_failed => Some("failed"),
        () if when.dropped && assessment.dropped > 0 => Some("dropped"),
        () if when.cut && assessment.was_cut => Some("cut"),
        () if when.always => Some("window"),
        () => None,
    }
}

/// One line of JSON in ASCII, of at most [`MAX_EVENT_BYTES`]: what is too long loses sources.
fn event(event: &'static str, unsent: u64, record: Option<&Record>) -> String {
    let summary = record.map_or_else(
        || {
            vec![format!(
                "{unsent} more notifications were not sent: so many an hour are"
            )]
        },
        |record| two_lines(record).to_vec(),
    );
    let mut record = record.cloned();
    let mut is_shortened = false;
    loop {
        let whole = Event {
            version: 1,
            acmegate: env!("CARGO_PKG_VERSION"),
            event,
            unsent,
            summary: &summary,
            is_shortened,
            record: record.as_ref(),
        };
        // Numbers and text: nothing in it can fail to be written.
        let text = escape::json(&serde_json::to_string(&whole).unwrap_or_default());
        match &mut record {
            Some(record) if text.len() > MAX_EVENT_BYTES && !record.sources.is_empty() => {
                let kept = record.sources.len() / 2;
                record.more_sources += (record.sources.len() - kept) as u64;
                record.sources.truncate(kept);
                is_shortened = true;
            }
            Some(_) if text.len() > MAX_EVENT_BYTES => record = None,
            _ => return text,
        }
    }
}

/// Has the runner run the command, and waits for its end.
async fn run(runner: &Link<Running>, notice: Notice, event: &[u8]) -> Result<(), String> {
    let bytes = u32::try_from(event.len()).unwrap_or(u32::MAX);
    ask(runner, Request::Notice { notice, bytes }).await?;
    for (at, part) in event.chunks(MAX_PART_BYTES).enumerate() {
        let at = u32::try_from(at * MAX_PART_BYTES).unwrap_or(u32::MAX);
        let part = part.to_vec();
        ask(runner, Request::Part { at, part }).await?;
    }
    while ask(runner, Request::Noticed).await? {
        sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// Whether a command still runs.
async fn ask(runner: &Link<Running>, request: Request) -> Result<bool, String> {
    let replies = runner.ask(request).await;
    match replies.map_err(|lost| lost.to_string())?.pop() {
        Some(Reply::Running) => Ok(true),
        Some(Reply::Failed(_, why)) => Err(why),
        _ => Ok(false),
    }
}

/// Posts an event; anything but a status of 200 to 299 is a failure.
async fn post(webhook: &Webhook, event: &str) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let stream = TcpStream::connect(webhook.address)
        .await
        .map_err(|error| format!("connect: {error}"))?;
    let request = HttpRequest::post(&webhook.path)
        .header(HOST, webhook.address.to_string())
        .header(USER_AGENT, "acmegate")
        .header(CONTENT_TYPE, "application/json")
        .header(CONNECTION, "close")
        .body(Full::new(Bytes::copy_from_slice(event.as_bytes())))
        .map_err(|error| failed(&error))?;
    let (mut sender, connection) = http1::Builder::new()
        .max_headers(MAX_FIELDS)
        .max_buf_size(MAX_BUFFER_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    let mut exchange = pin!(async {
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| failed(&error))?;
        let status = response.status();
        // So that a server that is still writing sees no reset; what it says is nobody's matter.
        let _ = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await;
        match status.is_success() {
            true => Ok(()),
            false => Err(format!("status {}", status.as_u16())),
        }
    });
    tokio::select! {
        biased;
        done = exchange.as_mut() => done,
        // The connection may end before its last octets were looked at.
        _ = pin!(connection) => exchange.await,
    }
}

#[cfg(test)]
mod tests;
