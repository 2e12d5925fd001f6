//! What the enforcer has read for it: a million ranges take a while, in which windows open and close.
//!
//! Who reads is another thread, which has no power; nothing here opens a file.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::Orders;

/// What is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// Everything: the operator asks.
    Configuration,
    /// The lists of the configuration that counts: they changed.
    Lists,
}

/// What was read; the text of an error goes to the operator.
pub type Answer = Result<Orders, String>;

/// Who reads.
pub trait Reader {
    /// Begins to read; what was asked before is answered before.
    fn read(&mut self, what: Read) -> oneshot::Receiver<Answer>;
    /// The configuration that was read last counts from now on.
    fn accept(&mut self);
}

/// One reading at a time, and what is to be read after it.
pub(super) struct Readings {
    reader: Box<dyn Reader>,
    under_way: Option<(Read, oneshot::Receiver<Answer>)>,
    next: VecDeque<Read>,
}

impl Readings {
    pub(super) fn by(reader: Box<dyn Reader>) -> Self {
        Self {
            reader,
            under_way: None,
            next: VecDeque::new(),
        }
    }

    /// Has it read, after what is under way. What waits already is not asked for twice: it will see
    /// what there is then.
    pub(super) fn ask(&mut self, what: Read) {
        if self.under_way.is_none() {
            self.under_way = Some((what, self.reader.read(what)));
        } else if !self.next.contains(&what) {
            self.next.push_back(what);
        }
    }

    /// Whether anything is being read.
    pub(super) fn are_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// The next answer; never, while nothing is read. May be dropped and asked again.
    pub(super) async fn answer(&mut self) -> (Read, Answer) {
        let Some((what, answer)) = &mut self.under_way else {
            return std::future::pending().await;
        };
        let what = *what;
        let answer = answer.await;
        self.under_way = None;
        if let Some(next) = self.next.pop_front() {
            self.ask(next);
        }
        let gone = "the thread that reads the configuration is gone: restart acmegate";
        (what, answer.unwrap_or_else(|_| Err(gone.to_owned())))
    }

    /// The configuration that was read last counts from now on. Lists that are being read meanwhile are those of the
    /// one before: they are read anew.
    pub(super) fn accept(&mut self) {
        self.reader.accept();
        if let Some((Read::Lists, answer)) = &mut self.under_way {
            *answer = self.reader.read(Read::Lists);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    type Question = (Read, oneshot::Sender<Answer>);

    /// Whose answers the test gives.
    #[derive(Clone, Default)]
    struct Asked(Arc<Mutex<Vec<Question>>>);

    impl Reader for Asked {
        fn read(&mut self, what: Read) -> oneshot::Receiver<Answer> {
            let (send, answer) = oneshot::channel();
            self.0.lock().unwrap().push((what, send));
            answer
        }

        fn accept(&mut self) {}
    }

    impl Asked {
        fn say(&self, text: &str) -> Read {
            let (what, answer) = self.0.lock().unwrap().remove(0);
            // Nobody waits for what is out of date.
            drop(answer.send(Err(text.to_owned())));
            what
        }
    }

    #[tokio::test]
    async fn lists_that_were_asked_for_before_a_configuration_counted_are_read_by_that_one() {
        let asked = Asked::default();
        let mut readings = Readings::by(Box::new(asked.clone()));
        readings.ask(Read::Lists);
        readings.accept();
        assert_eq!(asked.say("by the old one"), Read::Lists);
        assert!(readings.are_under_way());
        assert_eq!(asked.say("by the new one"), Read::Lists);
        let (what, answer) = readings.answer().await;
        assert_eq!(
            (what, answer.unwrap_err().as_str()),
            (Read::Lists, "by the new one")
        );
        assert!(!readings.are_under_way());
    }
}
