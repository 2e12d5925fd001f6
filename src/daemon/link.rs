//! The front's end of the socket pair: one question at a time, each with a deadline.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::firewall::message::{FRAME_BYTES, Frame, Health, Reply, Request};

/// How long the enforcer may take. Its slowest work, filling a long allow-list at a reload, takes
/// seconds; opening a window takes microseconds.
const DEADLINE: Duration = Duration::from_secs(60);
/// How many questions may wait.
const QUEUE: usize = 64;

/// The enforcer is gone, or no longer makes sense: the daemon must end, and the kernel closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the enforcer is gone; open windows close in the kernel, by themselves")
    }
}

impl std::error::Error for Lost {}

type Question = (Request, oneshot::Sender<Vec<Reply>>);

/// Asks the enforcer.
#[derive(Clone, Debug)]
pub struct Link {
    questions: mpsc::Sender<Question>,
    health: Arc<watch::Sender<Health>>,
    asked_at: watch::Receiver<Option<Instant>>,
}

impl Link {
    /// A link over `stream`, and the future that carries it: when that ends, the enforcer is lost.
    pub fn new(stream: UnixStream) -> (Self, impl Future<Output = Lost> + Send) {
        let (questions, asked) = mpsc::channel(QUEUE);
        let health = Arc::new(watch::Sender::new(Health::default()));
        let (asking, asked_at) = watch::channel(None);
        let carried = carry(stream, asked, Arc::clone(&health), asking);
        let link = Self {
            questions,
            health,
            asked_at,
        };
        (link, carried)
    }

    /// Asks, and waits for every reply to it; the last one is the verdict.
    ///
    /// # Errors
    /// [`Lost`].
    pub async fn ask(&self, request: Request) -> Result<Vec<Reply>, Lost> {
        let (reply, replies) = oneshot::channel();
        self.questions
            .send((request, reply))
            .await
            .map_err(|_| Lost)?;
        replies.await.map_err(|_| Lost)
    }

    /// Takes over what an answer said of the kernel.
    pub fn note_health(&self, health: Health) {
        self.health.send_replace(health);
    }

    /// How long the enforcer has owed an answer, if it owes one.
    pub fn waiting(&self) -> Option<Duration> {
        self.asked_at.borrow().map(|since| since.elapsed())
    }

    /// How the kernel stands, as last told.
    pub fn health(&self) -> Health {
        self.health.borrow().clone()
    }
}

async fn carry(
    stream: UnixStream,
    mut questions: mpsc::Receiver<Question>,
    health: Arc<watch::Sender<Health>>,
    asking: watch::Sender<Option<Instant>>,
) -> Lost {
    let (mut from, mut to) = stream.into_split();
    let (frames_in, mut frames) = mpsc::channel::<Frame>(QUEUE);
    // Reading whole frames must not be cut short by a question coming in between.
    let reading = async move {
        loop {
            let mut frame: Frame = [0; FRAME_BYTES];
            if from.read_exact(&mut frame).await.is_err() || frames_in.send(frame).await.is_err() {
                return Lost;
            }
        }
    };
    let answering = async move {
        let mut sequence: u32 = 0;
        loop {
            tokio::select! {
                question = questions.recv() => {
                    let Some((request, reply)) = question else { return Lost };
                    // 0 is the number of what comes unasked.
                    sequence = sequence.checked_add(1).unwrap_or(1);
                    asking.send_replace(Some(Instant::now()));
                    if to.write_all(&request.to_frame(sequence)).await.is_err() {
                        return Lost;
                    }
                    let gathered = tokio::time::timeout(DEADLINE, gather(&mut frames, sequence, &health));
                    let Ok(Some(replies)) = gathered.await else { return Lost };
                    asking.send_replace(None);
                    // Who asked may have gone away meanwhile.
                    let _ = reply.send(replies);
                }
                frame = frames.recv() => {
                    let Some(frame) = frame else { return Lost };
                    if !is_unasked(&frame, &health) {
                        return Lost;
                    }
                }
            }
        }
    };
    tokio::select! {
        lost = reading => lost,
        lost = answering => lost,
    }
}

async fn gather(
    frames: &mut mpsc::Receiver<Frame>,
    sequence: u32,
    health: &watch::Sender<Health>,
) -> Option<Vec<Reply>> {
    let mut replies = Vec::new();
    loop {
        let frame = frames.recv().await?;
        match Reply::from_frame(&frame).ok()? {
            (own, reply) if own == sequence => {
                let goes_on = matches!(reply, Reply::Lease(_) | Reply::Opening { .. });
                replies.push(reply);
                if !goes_on {
                    return Some(replies);
                }
            }
            _ if is_unasked(&frame, health) => {}
            _ => return None,
        }
    }
}

fn is_unasked(frame: &Frame, health: &watch::Sender<Health>) -> bool {
    match Reply::from_frame(frame) {
        Ok((0, Reply::Health(told))) => {
            health.send_replace(told);
            true
        }
        _ => false,
    }
}
