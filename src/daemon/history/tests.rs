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
