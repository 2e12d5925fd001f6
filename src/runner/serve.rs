//! The runner: the one process that executes anything.
//!
//! It keeps a book of its own within bounds that it reads itself, writes down what it is about to
//! open, and closes what has reached its deadline even if the front never says so. When the front
//! goes away, so does it, and ends what is running; the next start closes what is left.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::book::{Book, Claim};
use super::message::{Fault, Health, Reply, Request};
use super::notice::{Notices, State};
use super::program::{self, Failure};
use super::state;
use crate::gate::command::{Commands, Notifier, Opening, Run};
use crate::gate::lease::LeaseName;
use crate::gate::window::Limits;
use crate::wire::{FRAME_BYTES, Frame};

/// How many frames may wait. The front asks one at a time.
const QUEUE: usize = 4;

/// What the runner holds itself to.
#[derive(Clone, Debug)]
pub struct Orders {
    /// What may be run.
    pub commands: Arc<Commands>,
    /// What tells of windows, if anything does.
    pub notifier: Option<Notifier>,
    /// What nobody gets more of.
    pub limits: Limits,
    /// Where it is written down what was opened.
    pub state_file: PathBuf,
}

/// Reads the orders anew; the text of an error goes to the operator.
pub type Reload = Box<dyn FnMut() -> Result<Orders, String>>;

/// The runner's state.
pub struct Runner {
    orders: Orders,
    reload: Reload,
    prepared: Option<Orders>,
    book: Book,
    /// What the state file holds; `None` once it could not be written.
    saved: Option<Vec<Opening>>,
    /// What is wrong with the state file; empty if nothing.
    state: String,
    /// The last failure of a command; empty if there was none.
    failure: String,
    notices: Notices,
    hung_up: watch::Receiver<bool>,
}

/// What a command reads from its standard input.
#[derive(Serialize)]
struct Event<'event> {
    version: u32,
    acmegate: &'static str,
    event: &'static str,
    lease: &'event str,
    ports: &'event [u16],
    families: Vec<String>,
    seconds: u64,
    number: u16,
}

/// A frame, and when it came: the front's patience began then.
type Arrived = (Frame, Instant);

impl Runner {
    /// Obeys the front until it goes away or sends what is no message of ours.
    pub async fn serve(orders: Orders, reload: Reload, front: UnixStream) {
        let (from_front, mut to_front) = front.into_split();
        let (frames_in, mut frames) = mpsc::channel(QUEUE);
        let (hang_up, hung_up) = watch::channel(false);
        let mut runner = Self::recover(orders, reload, hung_up);
        let reading = tokio::spawn(read(from_front, frames_in, hang_up));
        let mut told = Health::default();
        'serving: loop {
            let next = runner.book.next_change();
            let pause = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            let answer = tokio::select! {
                biased;
                arrived = frames.recv() => {
                    let Some((frame, at)) = arrived else { break };
                    let Ok((sequence, request)) = Request::from_frame(&frame) else {
                        tracing::error!("the front sent bytes that are no message of ours: ending");
                        break;
                    };
                    Some(runner.obey(request, at).await.to_frame(sequence))
                }
                () = pause => {
                    runner.work().await;
                    None
                }
            };
            let health = runner.health();
            let unasked = (health != told).then(|| Reply::Health(health.clone()).to_frame(0));
            told = health;
            for frame in unasked.into_iter().chain(answer) {
                if to_front.write_all(&frame).await.is_err() {
                    break 'serving;
                }
            }
        }
        // With it the notice of hanging up goes, and so does what waits for that.
        reading.abort();
        runner.notices.finish().await;
    }

    fn recover(orders: Orders, reload: Reload, hung_up: watch::Receiver<bool>) -> Self {
        let (saved, state) = match state::load(&orders.state_file) {
            Ok(openings) => (openings, String::new()),
            Err(error) => {
                let text = format!(
                    "what commands opened before is not known, look for it yourself: {} cannot be used ({error})",
                    orders.state_file.display()
                );
                tracing::error!("{text}");
                (Vec::new(), text)
            }
        };
        Self {
            book: Book::recover(saved.clone(), &orders.commands),
            saved: Some(saved),
            state,
            orders,
            reload,
            prepared: None,
            failure: String::new(),
            notices: Notices::default(),
            hung_up,
        }
    }

    fn health(&self) -> Health {
        let stuck = self.book.stuck().map(|owed| {
            let next = match owed.due {
                Some(_) => "it is tried again",
                None => "run it yourself",
            };
            format!("a closing command failed, {next}: {}", owed.run)
        });
        Health {
            problem: stuck.unwrap_or_else(|| self.state.clone()),
            failure: self.failure.clone(),
        }
    }

    async fn obey(&mut self, request: Request, at: Instant) -> Reply {
        let done = match request {
            Request::Open { claim, within } => match self.open(claim, at + within).await {
                Ok(number) => return Reply::Opened(Some(number)),
                Err(failure) => Err(failure),
            },
            Request::Settle {
                lease,
                kept,
                within,
            } => {
                self.book.settle(&lease, kept, now());
                match within.is_zero() {
                    // Nobody waits: it is the next thing that is done.
                    true => Ok(()),
                    false => self.close_due(Some(&lease), at + within).await,
                }
            }
            Request::Living { lease, length } => {
                let length = length.min(self.orders.limits.max);
                return Reply::Opened(self.book.living(&lease, length, now()));
            }
            Request::Sweep => {
                let left = self.book.sweep(now());
                if left > 0 {
                    tracing::warn!(
                        openings = left,
                        "closing what commands opened before and no living lease needs"
                    );
                }
                Ok(())
            }
            Request::Prepare => (self.reload)()
                .map(|orders| self.prepared = Some(orders))
                .map_err(|text| Failure::new(Fault::Config, text)),
            Request::Switch => {
                if let Some(orders) = self.prepared.take() {
                    // Another state directory needs a restart, as for everybody.
                    let state_file = self.orders.state_file.clone();
                    self.orders = Orders {
                        state_file,
                        ..orders
                    };
                }
                Ok(())
            }
            Request::CloseAll { within } => {
                self.book.close_all(now());
                self.close_due(None, at + within).await
            }
            Request::Notice { notice, bytes } => {
                let notifier = self.orders.notifier.as_ref();
                self.notices.begin(notifier, &notice, bytes)
            }
            Request::Part { at, part } => self.notices.part(at, &part, self.hung_up.clone()),
            Request::Noticed => match self.notices.state().await {
                State::Running => return Reply::Running,
                State::Over(done) => done,
            },
        };
        match done {
            Ok(()) => Reply::Health(self.health()),
            Err(failure) => Reply::Failed(failure.fault, failure.text),
        }
    }

    /// Opens, after it was written down; what failed half-way is closed again, as soon as nobody
    /// waits.
    async fn open(&mut self, claim: Claim, deadline: Instant) -> Result<u16, Failure> {
        let Orders {
            commands, limits, ..
        } = self.orders.clone();
        let opening = self
            .book
            .open(claim, &commands, &limits, now())
            .map_err(|refusal| Failure::new(Fault::Bounds, refusal.to_string()))?;
        self.save();
        let deadline = deadline.min(Instant::now() + commands.timeout);
        let runs = commands.open.iter();
        for run in runs.flat_map(|command| command.runs(&opening)) {
            if let Err(failure) = self.run("open", &run, &opening, deadline).await {
                self.book.undo(&opening, now());
                self.save();
                return Err(failure);
            }
        }
        Ok(opening.number)
    }

    /// What is to be done without being asked: one closing at a time, so that the front is heard
    /// in between.
    async fn work(&mut self) {
        self.book.expire(now());
        if let Some(owed) = self.book.due(None, now()) {
            let deadline = Instant::now() + owed.commands.timeout;
            let _ = self.close(&owed.run, &owed.opening, deadline).await;
        }
        self.save();
    }

    /// Runs every closing that is due; the first failure is told, and does not keep the others.
    async fn close_due(
        &mut self,
        lease: Option<&LeaseName>,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let mut first = Ok(());
        while let Some(owed) = self.book.due(lease, now()) {
            let deadline = deadline.min(Instant::now() + owed.commands.timeout);
            first = first.and(self.close(&owed.run, &owed.opening, deadline).await);
        }
        self.save();
        first
    }

    async fn close(
        &mut self,
        run: &Run,
        opening: &Opening,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let done = self.run("close", run, opening, deadline).await;
        match done {
            Ok(()) => self.book.closed(run),
            Err(_) => self.book.failed(run, now()),
        }
        done
    }

    async fn run(
        &mut self,
        event: &'static str,
        run: &Run,
        opening: &Opening,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let input = Event {
            version: 1,
            acmegate: env!("CARGO_PKG_VERSION"),
            event,
            lease: opening.lease.as_str(),
            ports: &opening.ports,
            families: state::words(opening.families),
            seconds: opening.seconds,
            number: opening.number,
        };
        let input = serde_json::to_string(&input).unwrap_or_default() + "\n";
        let begun = Instant::now();
        let done = match begun < deadline {
            true => program::run(run, &input, deadline, self.hung_up.clone()).await,
            false => {
                let text = format!("no time was left to run `{}`", run.program.escape_debug());
                Err(Failure::new(Fault::Slow, text))
            }
        };
        let milliseconds = begun.elapsed().as_millis() as u64;
        let (lease, port) = (&opening.lease, run.port);
        match &done {
            Ok(()) => tracing::info!(event, %lease, port, milliseconds, "command: done"),
            Err(Failure { text, .. }) => {
                self.failure = text.clone();
                tracing::warn!(event, %lease, port, milliseconds, "command: {text}");
            }
        }
        done
    }

    /// Writes down what may be open by now. A file that cannot be written stops nothing: it is told, and
    /// tried again at the next occasion.
    fn save(&mut self) {
        let openings = self.book.openings();
        if self.saved.as_ref() == Some(&openings) {
            return;
        }
        let file = &self.orders.state_file;
        self.state = match state::save(file, &openings) {
            Ok(()) => {
                self.saved = Some(openings);
                String::new()
            }
            Err(error) => {
                self.saved = None;
                let text = format!(
                    "a restart would not know what to close: {} cannot be written ({error})",
                    file.display()
                );
                tracing::error!("{text}");
                text
            }
        };
    }
}

/// Reads whole frames, and tells at once when the front is gone.
async fn read(
    mut from: OwnedReadHalf,
    frames: mpsc::Sender<Arrived>,
    hang_up: watch::Sender<bool>,
) {
    loop {
        let mut frame: Frame = [0; FRAME_BYTES];
        let read = from.read_exact(&mut frame).await;
        if read.is_err() || frames.send((frame, Instant::now())).await.is_err() {
            hang_up.send_replace(true);
            return;
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// What a caller of the runner adds to the time that it gives, so that a program that has to be
/// killed is still answered for.
pub const MARGIN: Duration = program::TERMINATION.saturating_add(Duration::from_millis(500));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::command::Command;
    use crate::gate::lease::{Families, Trigger};
    use crate::gate::usage::TimeLimits;
    use crate::gate::window::Budget;

    #[tokio::test]
    async fn what_could_not_be_written_down_is_written_as_soon_as_it_can_be() {
        let directory = std::env::temp_dir().join(format!("acmegate-late-{}", std::process::id()));
        let orders = Orders {
            commands: Arc::new(Commands {
                open: None,
                close: Some(Command::new("true".to_owned(), Vec::new())),
                timeout: Duration::from_secs(5),
                net_admin: false,
            }),
            notifier: None,
            limits: Limits {
                ports: vec![80],
                max: Duration::from_secs(600),
                budget: Budget {
                    per_hour: 50,
                    per_caller: 20,
                    reserve: 10,
                    time: TimeLimits::default(),
                },
            },
            state_file: directory.join(state::FILE),
        };
        let (_front, hung_up) = watch::channel(false);
        let reload: Reload = Box::new(|| Err("nothing to read".to_owned()));
        let mut runner = Runner::recover(orders, reload, hung_up);
        let claim = Claim {
            lease: LeaseName::parse("a").unwrap(),
            caller: 0,
            trigger: Trigger::Asked,
            ports: vec![80],
            families: Families::BOTH,
            length: Duration::from_secs(60),
        };
        runner
            .open(claim, Instant::now() + Duration::from_secs(5))
            .await
            .unwrap();
        assert!(runner.health().problem.contains("cannot be written"));
        std::fs::create_dir(&directory).unwrap();
        runner.work().await;
        let written = state::load(&directory.join(state::FILE)).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(written, runner.book.openings());
        assert_eq!((written.len(), runner.health().problem.as_str()), (1, ""));
    }
}
