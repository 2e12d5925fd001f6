//! The front's end of a socket pair: one question at a time, each with a deadline. The same for
//! every process beside it; what is said there is a [`Dialogue`].

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::firewall::message::{Health, Reply, Request};
use crate::gate::event::Evidence;
use crate::runner::message as runner;
use crate::wire::{FRAME_BYTES, Frame, Malformed};

/// How many questions may wait.
const QUEUE: usize = 64;
/// How much that was seen may wait: twice what the enforcer keeps of sources.
const EVIDENCE_QUEUE: usize = 2048;

/// What is said over a socket pair.
pub trait Dialogue: 'static {
    /// What the front asks.
    type Request: Send + 'static;
    /// What it is answered.
    type Reply: Send + 'static;
    /// What is also told unasked.
    type Health: Clone + Default + Send + Sync + 'static;
    /// What is told unasked of what is seen.
    type Evidence: Send + 'static;
    /// How long an answer may take.
    const DEADLINE: Duration;

    /// Renders a question.
    fn to_frame(request: &Self::Request, sequence: u32) -> Frame;
    /// Reads an answer and the number of its question; 0 if it comes unasked.
    ///
    /// # Errors
    /// [`Malformed`].
    fn from_frame(frame: &Frame) -> Result<(u32, Self::Reply), Malformed>;
    /// Whether more answers to the same question follow.
    fn goes_on(reply: &Self::Reply) -> bool;
    /// What may come unasked.
    fn unasked(reply: Self::Reply) -> Option<Unasked<Self>>;
    /// Says in what is told next that so much of it was lost here; `false` if it cannot say that.
    fn note_lost(evidence: &mut Self::Evidence, lost: u64) -> bool;
}

/// What comes unasked.
#[derive(Debug)]
pub enum Unasked<D: Dialogue + ?Sized> {
    /// How things stand.
    Health(D::Health),
    /// What was seen.
    Evidence(D::Evidence),
}

/// With the enforcer.
#[derive(Clone, Copy, Debug)]
pub struct Enforcing;

impl Dialogue for Enforcing {
    type Request = Request;
    type Reply = Reply;
    type Health = Health;
    type Evidence = Evidence;
    /// Its slowest work, filling a long allow-list at its first start, takes seconds; opening a window
    /// takes microseconds.
    const DEADLINE: Duration = Duration::from_secs(60);

    fn to_frame(request: &Request, sequence: u32) -> Frame {
        request.to_frame(sequence)
    }

    fn from_frame(frame: &Frame) -> Result<(u32, Reply), Malformed> {
        Reply::from_frame(frame)
    }

    fn goes_on(reply: &Reply) -> bool {
        !reply.is_last()
    }

    fn unasked(reply: Reply) -> Option<Unasked<Self>> {
        match reply {
            Reply::Health(health) => Some(Unasked::Health(health)),
            Reply::Sighted(sighting) => Some(Unasked::Evidence(Evidence::Sighted(sighting))),
            Reply::Tallied(tally) => Some(Unasked::Evidence(Evidence::Tallied(tally))),
            _ => None,
        }
    }

    fn note_lost(evidence: &mut Evidence, lost: u64) -> bool {
        let Evidence::Tallied(tally) = evidence else {
            return false;
        };
        let why = format!("{lost} sightings came faster than they were taken in");
        tally.incomplete = Some(match tally.incomplete.take() {
            None => why,
            Some(earlier) => format!("{earlier}; {why}"),
        });
        true
    }
}

/// With the runner.
#[derive(Clone, Copy, Debug)]
pub struct Running;

impl Dialogue for Running {
    type Request = runner::Request;
    type Reply = runner::Reply;
    type Health = runner::Health;
    type Evidence = Infallible;
    /// A closing of its own may be under way, and then comes what was asked: 8 s each at most.
    const DEADLINE: Duration = Duration::from_secs(30);

    fn to_frame(request: &runner::Request, sequence: u32) -> Frame {
        request.to_frame(sequence)
    }

    fn from_frame(frame: &Frame) -> Result<(u32, runner::Reply), Malformed> {
        runner::Reply::from_frame(frame)
    }

    fn goes_on(_reply: &runner::Reply) -> bool {
        false
    }

    fn unasked(reply: runner::Reply) -> Option<Unasked<Self>> {
        match reply {
            runner::Reply::Health(health) => Some(Unasked::Health(health)),
            _ => None,
        }
    }

    fn note_lost(evidence: &mut Infallible, _lost: u64) -> bool {
        match *evidence {}
    }
}

/// A process beside the front is gone, or no longer makes sense: the daemon must end, and the kernel
/// closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "a process of the daemon is gone; open windows close in the kernel, by themselves",
        )
    }
}

impl std::error::Error for Lost {}

type Question<D> = (
    <D as Dialogue>::Request,
    oneshot::Sender<Vec<<D as Dialogue>::Reply>>,
);

/// Asks a process beside the front.
pub struct Link<D: Dialogue> {
    questions: mpsc::Sender<Question<D>>,
    health: Arc<watch::Sender<D::Health>>,
    asked_at: watch::Receiver<Option<Instant>>,
}

impl<D: Dialogue> Link<D> {
    /// A link over `stream`, what is told unasked of what is seen, and the future that carries it: when
    /// that ends, the process is lost.
    pub fn new(
        stream: UnixStream,
    ) -> (
        Self,
        mpsc::Receiver<D::Evidence>,
        impl Future<Output = Lost> + Send,
    ) {
        let (questions, asked) = mpsc::channel(QUEUE);
        let health = Arc::new(watch::Sender::new(D::Health::default()));
        let (asking, asked_at) = watch::channel(None);
        let (evidence, seen) = mpsc::channel(EVIDENCE_QUEUE);
        let unasked = Hearing {
            health: Arc::clone(&health),
            evidence,
            lost: 0,
        };
        let carried = carry::<D>(stream, asked, unasked, asking);
        let link = Self {
            questions,
            health,
            asked_at,
        };
        (link, seen, carried)
    }

    /// Asks, and waits for every reply to it; the last one is the verdict.
    ///
    /// # Errors
    /// [`Lost`].
    pub async fn ask(&self, request: D::Request) -> Result<Vec<D::Reply>, Lost> {
        let (reply, replies) = oneshot::channel();
        self.questions
            .send((request, reply))
            .await
            .map_err(|_| Lost)?;
        replies.await.map_err(|_| Lost)
    }

    /// Takes over what an answer said of how things stand.
    pub fn note_health(&self, health: D::Health) {
        self.health.send_replace(health);
    }

    /// Waits until it told that things stand so.
    ///
    /// # Errors
    /// [`Lost`].
    pub async fn wait_for(&self, is_so: impl Fn(&D::Health) -> bool) -> Result<(), Lost> {
        let mut health = self.health.subscribe();
        tokio::select! {
            told = health.wait_for(is_so) => told.map(drop).map_err(|_| Lost),
            () = self.questions.closed() => Err(Lost),
        }
    }

    /// How long the process has owed an answer, if it owes one.
    pub fn waiting(&self) -> Option<Duration> {
        self.asked_at.borrow().map(|since| since.elapsed())
    }

    /// How things stand, as last told.
    pub fn health(&self) -> D::Health {
        self.health.borrow().clone()
    }
}

async fn carry<D: Dialogue>(
    stream: UnixStream,
    mut questions: mpsc::Receiver<Question<D>>,
    mut hearing: Hearing<D>,
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
                    if to.write_all(&D::to_frame(&request, sequence)).await.is_err() {
                        return Lost;
                    }
                    let gathered = tokio::time::timeout(D::DEADLINE, gather::<D>(&mut frames, sequence, &mut hearing));
                    let Ok(Some(replies)) = gathered.await else { return Lost };
                    asking.send_replace(None);
                    // Who asked may have gone away meanwhile.
                    let _ = reply.send(replies);
                }
                frame = frames.recv() => {
                    let Some(frame) = frame else { return Lost };
                    if !hearing.takes(&frame) {
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

async fn gather<D: Dialogue>(
    frames: &mut mpsc::Receiver<Frame>,
    sequence: u32,
    hearing: &mut Hearing<D>,
) -> Option<Vec<D::Reply>> {
    let mut replies = Vec::new();
    loop {
        let frame = frames.recv().await?;
        match D::from_frame(&frame).ok()? {
            (own, reply) if own == sequence => {
                let goes_on = D::goes_on(&reply);
                replies.push(reply);
                if !goes_on {
                    return Some(replies);
                }
            }
            _ if hearing.takes(&frame) => {}
            _ => return None,
        }
    }
}

/// Where what comes unasked goes.
struct Hearing<D: Dialogue> {
    health: Arc<watch::Sender<D::Health>>,
    evidence: mpsc::Sender<D::Evidence>,
    /// How much of that did not fit and was not told of yet.
    lost: u64,
}

impl<D: Dialogue> Hearing<D> {
    /// Whether the frame may come unasked; then it is passed on. Nothing waits for who takes it in.
    fn takes(&mut self, frame: &Frame) -> bool {
        let Ok((0, reply)) = D::from_frame(frame) else {
            return false;
        };
        match D::unasked(reply) {
            Some(Unasked::Health(told)) => {
                self.health.send_replace(told);
                true
            }
            Some(Unasked::Evidence(mut seen)) => {
                let is_said = self.lost > 0 && D::note_lost(&mut seen, self.lost);
                match self.evidence.try_send(seen) {
                    Ok(()) if is_said => self.lost = 0,
                    Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
                    Err(mpsc::error::TrySendError::Full(_)) => self.lost += 1,
                }
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::event::{Sight, Sighting, Tally};

    fn sighted() -> Evidence {
        Evidence::Sighted(Sighting {
            source: [192, 0, 2, 1].into(),
            port: 80,
            sight: Sight::Reached,
        })
    }

    async fn tell(enforcer: &mut UnixStream, evidence: Evidence) {
        let reply = match evidence {
            Evidence::Sighted(sighting) => Reply::Sighted(sighting),
            Evidence::Tallied(tally) => Reply::Tallied(tally),
        };
        enforcer.write_all(&reply.to_frame(0)).await.unwrap();
    }

    async fn answer(enforcer: &mut UnixStream) {
        let mut frame: Frame = [0; FRAME_BYTES];
        enforcer.read_exact(&mut frame).await.unwrap();
        let (sequence, _) = Request::from_frame(&frame).unwrap();
        let health = Reply::Health(Health::default()).to_frame(sequence);
        enforcer.write_all(&health).await.unwrap();
    }

    #[tokio::test]
    async fn evidence_keeps_no_answer_waiting_and_what_did_not_fit_is_said() {
        const MORE: usize = 7;
        let (front, mut enforcer) = UnixStream::pair().unwrap();
        let (link, mut evidence, carried) = Link::<Enforcing>::new(front);
        let carried = tokio::spawn(carried);
        let enforcing = async {
            for _ in 0..EVIDENCE_QUEUE + MORE {
                tell(&mut enforcer, sighted()).await;
            }
            answer(&mut enforcer).await;
        };
        let (replies, ()) = tokio::join!(link.ask(Request::Snapshot), enforcing);
        assert_eq!(replies, Ok(vec![Reply::Health(Health::default())]));
        for _ in 0..EVIDENCE_QUEUE {
            assert_eq!(evidence.recv().await, Some(sighted()));
        }
        for _ in 0..2 {
            tell(&mut enforcer, Evidence::Tallied(Tally::default())).await;
        }
        let Some(Evidence::Tallied(tally)) = evidence.recv().await else {
            panic!()
        };
        let why = tally.incomplete.unwrap();
        assert_eq!(why, "7 sightings came faster than they were taken in");
        let next = evidence.recv().await;
        assert_eq!(next, Some(Evidence::Tallied(Tally::default())), "said once");
        drop(enforcer);
        assert_eq!(carried.await.unwrap(), Lost);
    }

    #[tokio::test]
    async fn whatever_else_comes_unasked_is_the_end() {
        let (front, mut enforcer) = UnixStream::pair().unwrap();
        let (_link, _evidence, carried) = Link::<Enforcing>::new(front);
        let frame = Reply::Failed(String::new()).to_frame(0);
        enforcer.write_all(&frame).await.unwrap();
        assert_eq!(carried.await, Lost);
    }
}
