//! Notifications: an event comes in parts, and the configured command reads it whole.
//!
//! The command runs beside everything else, so that no opening or closing waits for it: one at a time, not
//! too often, with a deadline of its own. The front says when, and what is in the event; which program
//! runs, with which words, it does not. Whatever it says, a command reads one line with one JSON object.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::de::IgnoredAny;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::message::{Fault, MAX_EVENT_BYTES};
use super::program::{self, Failure};
use crate::gate::command::{Notice, Notifier, Run};

/// The most notifications of an hour: somewhat more than the front sends
/// ([`crate::daemon::notices::MAX_PER_HOUR`]), whose clock is another.
const MAX_PER_HOUR: usize = 24;
const HOUR: Duration = Duration::from_secs(3600);

/// What is gathered, and what runs.
#[derive(Debug, Default)]
pub struct Notices {
    gathered: Option<Gathered>,
    running: Option<JoinHandle<Result<(), Failure>>>,
    begun: VecDeque<Instant>,
}

#[derive(Debug)]
struct Gathered {
    run: Run,
    timeout: Duration,
    expected: usize,
    event: Vec<u8>,
}

/// How the last notification stands.
pub enum State {
    /// It still runs.
    Running,
    /// It is over, or there was none.
    Over(Result<(), Failure>),
}

impl Notices {
    /// An event of so many octets is about to come.
    ///
    /// # Errors
    /// [`Failure`]: nothing is configured, another one still runs, too many ran, or it is too long.
    pub fn begin(
        &mut self,
        notifier: Option<&Notifier>,
        notice: &Notice,
        bytes: u32,
    ) -> Result<(), Failure> {
        self.gathered = None;
        let no = |fault, text: &str| Err(Failure::new(fault, text));
        let Some(notifier) = notifier else {
            return no(Fault::Bounds, "no command is configured that notifies");
        };
        if self.running.is_some() {
            return no(Fault::Slow, "another notification still runs");
        }
        let expected = usize::try_from(bytes).unwrap_or(usize::MAX);
        if expected == 0 || expected > MAX_EVENT_BYTES {
            return no(Fault::Bounds, "no event has that length");
        }
        let now = Instant::now();
        self.begun.retain(|begun| now - *begun < HOUR);
        if self.begun.len() >= MAX_PER_HOUR {
            return no(Fault::Bounds, "too many notifications in this hour");
        }
        self.gathered = Some(Gathered {
            run: notifier.command.notifies(notice),
            timeout: notifier.timeout,
            expected,
            event: Vec::new(),
        });
        Ok(())
    }

    /// A part of it; with the last one the command starts.
    ///
    /// # Errors
    /// [`Failure`]: it is not the next part, or the whole is no event. Then all of it is forgotten.
    pub fn part(
        &mut self,
        at: u32,
        part: &[u8],
        hung_up: watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        let no = |text: &str| Err(Failure::new(Fault::Bounds, text));
        let Some(mut gathered) = self.gathered.take() else {
            return no("a part of no event");
        };
        let length = gathered.event.len() + part.len();
        let is_next = usize::try_from(at) == Ok(gathered.event.len());
        if !is_next || part.is_empty() || length > gathered.expected {
            return no("not the next part of an event");
        }
        gathered.event.extend_from_slice(part);
        if length < gathered.expected {
            self.gathered = Some(gathered);
            return Ok(());
        }
        let Some(event) = line(gathered.event) else {
            return no("this is no event");
        };
        let begun = Instant::now();
        self.begun.push_back(begun);
        let (run, deadline) = (gathered.run, begun + gathered.timeout);
        self.running = Some(tokio::spawn(async move {
            let done = program::run(&run, &event, deadline, hung_up).await;
            let milliseconds = begun.elapsed().as_millis() as u64;
            match &done {
                Ok(()) => tracing::info!(milliseconds, "notification: done"),
                Err(Failure { text, .. }) => {
                    tracing::warn!(milliseconds, "notification: {text}");
                }
            }
            done
        }));
        Ok(())
    }

    /// How the last one stands; told once when it is over.
    pub async fn state(&mut self) -> State {
        match self.running.take() {
            Some(running) if !running.is_finished() => {
                self.running = Some(running);
                State::Running
            }
            Some(running) => State::Over(ended(running).await),
            None => State::Over(Ok(())),
        }
    }

    /// Waits for what still runs, which ends when the front has hung up.
    pub async fn finish(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = ended(running).await;
        }
    }
}

async fn ended(running: JoinHandle<Result<(), Failure>>) -> Result<(), Failure> {
    running
        .await
        .unwrap_or_else(|error| Err(Failure::new(Fault::Failed, error.to_string())))
}

/// One line of text that is a JSON object, with its line end.
fn line(event: Vec<u8>) -> Option<String> {
    let mut text = String::from_utf8(event).ok()?;
    let is_object = serde_json::from_str::<BTreeMap<String, IgnoredAny>>(&text).is_ok();
    if !is_object || text.contains(char::is_control) {
        return None;
    }
    text.push('\n');
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::command::Command;

    fn notifier(program: &str) -> Notifier {
        Notifier {
            command: Command::new(program.to_owned(), Vec::new()),
            timeout: Duration::from_secs(20),
        }
    }

    fn fault(done: Result<(), Failure>) -> Option<Fault> {
        done.err().map(|failure| failure.fault)
    }

    #[tokio::test]
    async fn an_event_is_gathered_in_its_order_alone() {
        let (_front, hung_up) = watch::channel(false);
        let (mut notices, cat) = (Notices::default(), notifier("cat"));
        let begin = |notices: &mut Notices, bytes| {
            fault(notices.begin(Some(&cat), &Notice::default(), bytes))
        };
        let bounds = Some(Fault::Bounds);
        assert_eq!(fault(notices.part(0, b"{}", hung_up.clone())), bounds);
        assert_eq!(fault(notices.begin(None, &Notice::default(), 2)), bounds);
        for bytes in [0, MAX_EVENT_BYTES as u32 + 1, u32::MAX] {
            assert_eq!(begin(&mut notices, bytes), bounds);
        }
        for (at, part) in [(1, &b"{}"[..]), (0, b""), (0, b"{}{}{"), (u32::MAX, b"{}")] {
            assert_eq!(begin(&mut notices, 4), None);
            assert_eq!(fault(notices.part(at, part, hung_up.clone())), bounds);
            let next = notices.part(0, b"{\"a\"", hung_up.clone());
            assert_eq!(fault(next), bounds, "all of it is forgotten");
        }
        // Something else than one line with one object.
        for wrong in ["[1]", "{}{}", "{\"a\":1", "{\n}", "{\"a\":\"\u{85}\"}"] {
            assert_eq!(begin(&mut notices, wrong.len() as u32), None);
            let part = notices.part(0, wrong.as_bytes(), hung_up.clone());
            assert_eq!(fault(part), bounds, "{wrong}");
        }
        assert!(notices.running.is_none() && notices.begun.is_empty());
        assert_eq!(begin(&mut notices, 7), None);
        for (at, part) in [(0, &b"{\"a\""[..]), (4, b":1}")] {
            assert_eq!(fault(notices.part(at, part, hung_up.clone())), None);
        }
        assert_eq!(begin(&mut notices, 2), Some(Fault::Slow), "one at a time");
        notices.finish().await;
        assert_eq!(begin(&mut notices, 2), None);
    }

    #[tokio::test]
    async fn so_many_run_in_an_hour_and_no_more() {
        let (_front, hung_up) = watch::channel(false);
        let (mut notices, nothing) = (Notices::default(), notifier("true"));
        for _ in 0..MAX_PER_HOUR {
            let begun = notices.begin(Some(&nothing), &Notice::default(), 2);
            assert_eq!(fault(begun), None);
            assert_eq!(fault(notices.part(0, b"{}", hung_up.clone())), None);
            notices.finish().await;
        }
        let begun = notices.begin(Some(&nothing), &Notice::default(), 2);
        assert_eq!(fault(begun), Some(Fault::Bounds));
    }
}
