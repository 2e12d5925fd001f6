//! The front's side of the history: what it hands to the historian, and what it hears.
//!
//! Nothing here makes a validation, or a hook, wait for a disk: every question has a deadline, a
//! historian that let one pass is asked nothing more until it has answered, and one that is gone stays
//! gone until a restart, because a sealed front can start nothing. Records that could not be written are
//! kept in memory, the newest ones, and handed over again.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, timeout};

use super::child::reap;
use super::framed;
use crate::locked::locked;
use crate::observe::history::Health;
use crate::observe::history::message::{
    Answer, Ask, Found, MAX_ANSWER_BYTES, MAX_QUESTION_BYTES, Query, Question, Reply, decode,
    fitted,
};
use crate::observe::record::Record;
use crate::observe::report::words::many;

/// How long an answer may take.
pub const DEADLINE: Duration = Duration::from_secs(2);
/// How many questions may wait.
const QUEUE: usize = 64;
/// How many records wait to be written.
const MAX_UNSAVED: usize = 64;
/// How often they are handed over again.
const RETRY: Duration = Duration::from_secs(5);
/// From which length on a message is read by a thread that may take its time.
const LONG_BYTES: usize = 64 * 1024;

/// Why the history has not done, or found, something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryError {
    /// `[report] history = false`.
    Off,
    /// The historian is gone.
    Gone,
    /// It has not answered in time.
    Late,
    /// It could not do it; what it says.
    Failed(String),
    /// It never will: the record is beyond bounds.
    Refused(String),
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("windows are not kept: [report] history = false"),
            Self::Gone => f.write_str(GONE),
            Self::Late => f.write_str(LATE),
            Self::Failed(why) => write!(f, "the history cannot be used: {why}"),
            Self::Refused(why) => write!(f, "the history refuses this record: {why}"),
        }
    }
}

impl std::error::Error for HistoryError {}

const GONE: &str = "the historian is gone, so windows are not kept on disk: `systemctl restart acmegate` starts it again";
const LATE: &str = "the historian does not answer: the disk of [daemon] state_dir is slow or stuck; windows are kept in memory \
                    until it does";

/// How the history is, for `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryHealth {
    /// Whether windows are to be kept at all.
    pub is_on: bool,
    /// How many are kept on disk.
    pub records: u64,
    /// How many octets they take there.
    pub bytes: u64,
    /// When the oldest of them was opened, in milliseconds after 1970.
    pub oldest: Option<u64>,
    /// How many wait in memory to be written.
    pub unsaved: usize,
    /// What is wrong and what to do, each in one line.
    pub problems: Vec<String>,
}

/// The history, as the front has it.
pub struct History {
    questions: Option<mpsc::Sender<Asked>>,
    state: Arc<State>,
}

enum Asked {
    Ask(Box<Ask>, oneshot::Sender<Reply>),
    End,
}

#[derive(Default)]
struct State {
    heard: Mutex<Heard>,
    unsaved: Mutex<Unsaved>,
}

#[derive(Clone, Default)]
struct Heard {
    health: Health,
    is_late: bool,
    is_gone: bool,
}

impl History {
    /// No history: nothing is kept, by the operator's will or because it could not be started.
    pub fn none(is_wanted: bool) -> Self {
        let state = State::default();
        locked(&state.heard).is_gone = is_wanted;
        Self {
            questions: None,
            state: Arc::new(state),
        }
    }

    /// With a historian that was started; the future is to be run until it ends.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub fn new(
        historian: StdUnixStream,
        child: Child,
    ) -> io::Result<(Self, impl Future<Output = ()> + Send + 'static)> {
        let historian = UnixStream::from_std(historian)?;
        let (questions, asked) = mpsc::channel(QUEUE);
        let state = Arc::new(State::default());
        let carrying = carry(historian, child, asked, Arc::clone(&state));
        let history = Self {
            questions: Some(questions),
            state,
        };
        Ok((history, carrying))
    }

    /// Keeps a record: a new one if it has no number, else what became of that one. It comes back with
    /// its number and with the places of its sources, and is on disk then.
    ///
    /// # Errors
    /// [`HistoryError`]; but for `Off` and `Refused` the record waits in memory and is written as soon as
    /// it can be. It may be given again meanwhile, without a number: it is known by lease, caller and
    /// opening.
    pub async fn store(&self, record: &Record) -> Result<Record, HistoryError> {
        if self.questions.is_none() {
            return Err(self.missing());
        }
        let Some(record) = fitted(record.clone()) else {
            return Err(HistoryError::Refused("it is too long".to_owned()));
        };
        locked(&self.state.unsaved).put(record.clone());
        match self.ask(Ask::Store(Box::new(record))).await? {
            Reply::Stored(record) => Ok(*record),
            other => Err(failure(other)),
        }
    }

    /// Looks records up, the oldest first. What is still open is found as it was last stored.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub async fn query(&self, which: &Query) -> Result<Found, HistoryError> {
        match self.ask(Ask::Query(which.clone())).await? {
            Reply::Found(found) => Ok(found),
            other => Err(failure(other)),
        }
    }

    /// Ends every record that is still open but those of these numbers: nobody watches them any more.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub async fn settle(&self, going_on: &[u64]) -> Result<(), HistoryError> {
        self.done(Ask::Settle(going_on.to_vec())).await
    }

    /// Has the historian read its configuration again.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub async fn reload(&self) -> Result<(), HistoryError> {
        self.done(Ask::Reload).await
    }

    /// How it is, by what was last heard.
    pub fn health(&self) -> HistoryHealth {
        let heard = locked(&self.state.heard).clone();
        let unsaved = locked(&self.state.unsaved);
        let mut problems = heard.health.problems;
        if heard.is_gone {
            problems = vec![GONE.to_owned()];
        } else if heard.is_late {
            problems.push(LATE.to_owned());
        }
        if unsaved.lost > 0 {
            problems.push(format!(
                "{} could not be kept and will be in no report",
                many(unsaved.lost, "window")
            ));
        }
        HistoryHealth {
            is_on: self.questions.is_some() || heard.is_gone,
            records: heard.health.records,
            bytes: heard.health.bytes,
            oldest: heard.health.oldest,
            unsaved: unsaved.waiting.len(),
            problems,
        }
    }

    /// Hands over what could not be written before, for the last time, and lets the historian end. Takes
    /// no longer than one question.
    pub async fn finish(&self) {
        let Some(questions) = &self.questions else {
            return;
        };
        let waiting = locked(&self.state.unsaved).waiting.clone();
        let handing_over = async {
            for waiting in waiting {
                if self.ask(Ask::Store(Box::new(waiting))).await.is_err() {
                    return;
                }
            }
        };
        let _ = timeout(DEADLINE, handing_over).await;
        let _ = questions.try_send(Asked::End);
    }

    async fn done(&self, ask: Ask) -> Result<(), HistoryError> {
        match self.ask(ask).await? {
            Reply::Done => Ok(()),
            other => Err(failure(other)),
        }
    }

    async fn ask(&self, ask: Ask) -> Result<Reply, HistoryError> {
        let questions = self.questions.as_ref().ok_or_else(|| self.missing())?;
        let Heard {
            is_late, is_gone, ..
        } = *locked(&self.state.heard);
        match (is_gone, is_late) {
            (true, _) => return Err(HistoryError::Gone),
            (_, true) => return Err(HistoryError::Late),
            _ => {}
        }
        let (reply, answer) = oneshot::channel();
        // A full queue is one that nobody works off.
        questions
            .try_send(Asked::Ask(Box::new(ask), reply))
            .map_err(|_| HistoryError::Late)?;
        match timeout(DEADLINE, answer).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(HistoryError::Gone),
            Err(_) => {
                // The next one does not wait as well; any answer lifts it.
                locked(&self.state.heard).is_late = true;
                Err(HistoryError::Late)
            }
        }
    }

    fn missing(&self) -> HistoryError {
        match locked(&self.state.heard).is_gone {
            true => HistoryError::Gone,
            false => HistoryError::Off,
        }
    }
}

/// Records that are not known to be on disk, the oldest first.
#[derive(Default)]
struct Unsaved {
    waiting: VecDeque<Record>,
    /// How many had to make room for newer ones.
    lost: u64,
}

impl Unsaved {
    /// Keeps one, in the place of what is waiting of the same window.
    fn put(&mut self, record: Record) {
        self.waiting.retain(|own| !is_same_window(own, &record));
        if self.waiting.len() == MAX_UNSAVED {
            self.waiting.pop_front();
            self.lost += 1;
        }
        self.waiting.push_back(record);
    }

    /// Forgets one, unless something newer of its window came meanwhile.
    fn saved(&mut self, record: &Record) {
        self.waiting.retain(|own| own != record);
    }
}

fn is_same_window(one: &Record, other: &Record) -> bool {
    let key = |record: &Record| (record.opened_at, record.caller);
    key(one) == key(other) && one.lease == other.lease
}

/// Carries questions to the historian and answers back, one at a time, until either end is gone.
async fn carry(
    historian: UnixStream,
    child: Child,
    mut asked: mpsc::Receiver<Asked>,
    state: Arc<State>,
) {
    let (mut from, mut to) = historian.into_split();
    let mut retry = tokio::time::interval(RETRY);
    // What could not be asked for a while is asked once.
    retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut id = 0;
    // Where one that waited could be written, the next can.
    let mut catches_up = false;
    // The first look says how it is.
    let mut next = Some((Ask::Look, None));
    let ended = loop {
        let (ask, reply) = match next.take() {
            Some(first) => first,
            None => tokio::select! {
                biased;
                asked = asked.recv() => match asked {
                    Some(Asked::Ask(ask, reply)) => (*ask, Some(reply)),
                    Some(Asked::End) | None => break None,
                },
                error = unasked(&from) => break Some(error),
                () = turn(catches_up, &mut retry) => {
                    let ask = again(&state);
                    // What is only looked at has no next one, and may stay wrong for days.
                    catches_up &= matches!(ask, Some(Ask::Store(_)));
                    match ask {
                        Some(ask) => (ask, None),
                        None => continue,
                    }
                },
            },
        };
        // Who asked has not waited; a record of his is among those that are handed over again.
        if reply.as_ref().is_some_and(oneshot::Sender::is_closed) {
            continue;
        }
        id += 1;
        let question = Question { id, ask };
        let exchange = async {
            framed::write(&mut to, &question, MAX_QUESTION_BYTES).await?;
            let answer = answer(framed::read(&mut from, MAX_ANSWER_BYTES).await?).await?;
            match answer.id == id {
                true => Ok(answer),
                false => Err(io::Error::from(io::ErrorKind::InvalidData)),
            }
        };
        tokio::pin!(exchange);
        let answered = match timeout(DEADLINE, &mut exchange).await {
            Ok(answered) => answered,
            Err(_) => {
                locked(&state.heard).is_late = true;
                tracing::error!("{LATE}");
                exchange.await
            }
        };
        let Answer {
            health,
            reply: heard,
            ..
        } = match answered {
            Ok(answer) => answer,
            Err(error) => break Some(error),
        };
        note(&state, health);
        catches_up = match heard {
            Reply::Stored(_) | Reply::Refused(_) => true,
            Reply::Failed(_) => false,
            Reply::Found(_) | Reply::Done => catches_up,
        };
        if let (Ask::Store(record), Reply::Stored(_) | Reply::Refused(_)) = (&question.ask, &heard)
        {
            locked(&state.unsaved).saved(record);
        }
        if let Some(reply) = reply {
            // Who asked may have gone away meanwhile.
            let _ = reply.send(heard);
        }
    };
    drop((from, to));
    if let Some(error) = ended {
        locked(&state.heard).is_gone = true;
        let status = reap(child).await;
        let how = status.map_or_else(|| error.to_string(), |status| status.to_string());
        tracing::error!("{GONE} ({how})");
    } else {
        reap(child).await;
    }
}

/// Waits until the historian is gone, or says something that nobody asked.
async fn unasked(from: &OwnedReadHalf) -> io::Error {
    loop {
        if let Err(error) = from.readable().await {
            return error;
        }
        match from.try_read(&mut [0]) {
            Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
            Ok(_) => return io::ErrorKind::InvalidData.into(),
            // It was an answer that has been read since.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return error,
        }
    }
}

/// When something is handed over again: now, or in a while.
async fn turn(is_now: bool, retry: &mut tokio::time::Interval) {
    if !is_now {
        retry.tick().await;
    }
}

/// What is to be handed over again.
fn again(state: &State) -> Option<Ask> {
    let oldest = locked(&state.unsaved).waiting.front().cloned();
    if let Some(record) = oldest {
        return Some(Ask::Store(Box::new(record)));
    }
    let heard = locked(&state.heard);
    // What is wrong may have become right; and only an answer lifts that it was late.
    (heard.is_late || !heard.health.problems.is_empty()).then_some(Ask::Look)
}

/// Reads an answer; a long one beside the threads that serve.
async fn answer(message: Vec<u8>) -> io::Result<Answer> {
    let answer = match message.len() < LONG_BYTES {
        true => decode(&message),
        false => tokio::task::spawn_blocking(move || decode(&message))
            .await
            .map_err(io::Error::other)?,
    };
    answer.map_err(|_| io::ErrorKind::InvalidData.into())
}

fn note(state: &State, health: Health) {
    let mut heard = locked(&state.heard);
    for problem in &health.problems {
        if !heard.health.problems.contains(problem) {
            tracing::warn!("{problem}");
        }
    }
    heard.health = health;
    heard.is_late = false;
}

fn failure(reply: Reply) -> HistoryError {
    match reply {
        Reply::Failed(why) => HistoryError::Failed(why),
        Reply::Refused(why) => HistoryError::Refused(why),
        Reply::Stored(_) | Reply::Found(_) | Reply::Done => {
            HistoryError::Failed("its answer is none to what was asked".to_owned())
        }
    }
}

#[cfg(test)]
mod tests;
