//! What waits in memory.

use super::*;

fn window(lease: &str, opened_at: u64) -> Record {
    Record {
        lease: lease.to_owned(),
        opened_at,
        ..Record::default()
    }
}

#[test]
fn of_a_window_the_newest_record_waits() {
    let mut unsaved = Unsaved::default();
    let first = window("a", 1);
    let newer = Record {
        renewals: 1,
        ..first.clone()
    };
    unsaved.put(first.clone());
    unsaved.put(window("b", 1));
    unsaved.put(newer.clone());
    assert_eq!(unsaved.waiting, [window("b", 1), newer.clone()]);
    // An answer to the older one says nothing about the newer.
    unsaved.saved(&first);
    assert_eq!(unsaved.waiting.len(), 2);
    unsaved.saved(&newer);
    assert_eq!(unsaved.waiting, [window("b", 1)]);
}

#[test]
fn the_newest_windows_wait_and_the_others_are_counted() {
    let mut unsaved = Unsaved::default();
    for number in 0..100 {
        unsaved.put(window("a", number));
    }
    assert_eq!(unsaved.waiting.len(), MAX_UNSAVED);
    assert_eq!(unsaved.lost, 36);
    assert_eq!(unsaved.waiting[0].opened_at, 36);
}

#[tokio::test]
async fn who_wanted_none_is_told_so_and_who_could_not_have_one_too() {
    let off = History::none(false);
    assert_eq!(off.store(&window("a", 1)).await, Err(HistoryError::Off));
    assert_eq!(off.query(&Query::Last).await, Err(HistoryError::Off));
    assert_eq!(off.health(), HistoryHealth::default());
    let gone = History::none(true);
    assert_eq!(gone.store(&window("a", 1)).await, Err(HistoryError::Gone));
    assert_eq!(gone.health().problems, [GONE]);
    assert!(gone.health().is_on);
}

/// The historian's end: answers one question, and says what is wrong with it all the same.
async fn answer(front: &mut UnixStream, question: Question, problem: &str) {
    let reply = match question.ask {
        Ask::Store(record) => Reply::Stored(record),
        _ => Reply::Done,
    };
    let health = Health {
        problems: vec![problem.to_owned()],
        ..Health::default()
    };
    let answer = Answer {
        id: question.id,
        health,
        reply,
    };
    framed::write(front, &answer, MAX_ANSWER_BYTES)
        .await
        .unwrap();
}

async fn next(front: &mut UnixStream) -> Question {
    let message = framed::read(front, MAX_QUESTION_BYTES).await.unwrap();
    decode(&message).unwrap()
}

#[tokio::test]
async fn what_stays_wrong_is_looked_at_now_and_then_and_not_all_the_time() {
    let (ours, theirs) = StdUnixStream::pair().unwrap();
    for end in [&ours, &theirs] {
        end.set_nonblocking(true).unwrap();
    }
    let child = std::process::Command::new("true").spawn().unwrap();
    let (history, carrying) = History::new(ours, child).unwrap();
    let mut front = UnixStream::from_std(theirs).unwrap();
    let history = Arc::new(history);
    let carrying = tokio::spawn(carrying);
    let storing = tokio::spawn({
        let history = Arc::clone(&history);
        async move { history.store(&window("a", 1)).await }
    });
    // The record may be handed over twice: by whoever stores it, and as one that waits.
    loop {
        let question = next(&mut front).await;
        let is_stored = matches!(question.ask, Ask::Store(_));
        answer(&mut front, question, "a database is missing").await;
        if is_stored {
            break;
        }
    }
    storing.await.unwrap().unwrap();
    let mut looks = 0;
    let looking = async {
        loop {
            let question = next(&mut front).await;
            looks += 1;
            answer(&mut front, question, "a database is missing").await;
        }
    };
    let _ = timeout(RETRY / 5, looking).await;
    assert!(looks <= 2, "{looks} questions in a fifth of the pause");
    drop(front);
    carrying.await.unwrap();
}

#[test]
fn a_late_historian_is_asked_again_even_if_nothing_waits() {
    let state = State::default();
    assert_eq!(again(&state), None);
    locked(&state.heard).is_late = true;
    assert_eq!(again(&state), Some(Ask::Look));
}
