//! The front's lists: read at a start, at a reload, and when they changed on disk.
//!
//! Front and enforcer read the same files, each for itself; nothing but "read again" passes between
//! them. What is wrong with a list is told by the front until it is mended; the last good one counts.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::time::MissedTickBehavior;

use super::desk::Desk;
use crate::config::lists::{ListError, Lists, Look, Trust};
use crate::config::{Allow, Config};
use crate::front::Rules;
use crate::gate::Gate;
use crate::locked::locked;

/// How often list files are looked at, with one stat(2) for each: they change once a day or a week, and
/// who has just replaced one does not want to look at the status for longer.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What the front has read.
pub struct FrontLists {
    lists: Mutex<Lists>,
}

impl FrontLists {
    /// Lists as they were read at the start.
    pub fn new(lists: Lists) -> Self {
        Self {
            lists: Mutex::new(lists),
        }
    }

    /// Nobody else reads or follows until this is dropped.
    pub async fn turn(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().await
    }
}

/// Reads again, in a thread that may take its time.
///
/// # Errors
/// What [`Lists::refresh`] says.
pub async fn refreshed(lists: &Lists, allow: &Allow, trust: Trust) -> Result<Lists, String> {
    let (lists, allow) = (lists.clone(), allow.clone());
    let read = tokio::task::spawn_blocking(move || lists.refresh(&allow, trust)).await;
    match read {
        Ok(read) => read.map_err(|error: ListError| error.to_string()),
        Err(error) => Err(format!("the lists could not be read: {error}")),
    }
}

/// Follows the list files for as long as the front serves.
pub async fn watch_lists(
    held: Arc<FrontLists>,
    desk: Arc<Desk>,
    config: watch::Receiver<Arc<Config>>,
    rules: watch::Sender<Arc<Rules>>,
) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<Look> = None;
    loop {
        looks.tick().await;
        let mut lists = held.turn().await;
        before = match lists.has_changed() {
            // Somebody may be writing yet: what has been quiet from one look to the next is whole.
            true => match (before, lists.look()) {
                (Some(before), look) if before == look => {
                    let allow = config.borrow().allow.clone();
                    follow(&mut lists, &allow, &desk, &rules).await;
                    None
                }
                (_, look) => Some(look),
            },
            false => None,
        };
    }
}

/// Reads what has changed, and follows it.
///
/// The gate goes first, and the kernel when it is ready. A packet passes only where both let it, so
/// whoever was taken off the list is refused as soon as that is known, and whoever was added is
/// refused by nobody once the kernel lets them come. Were the kernel first, its peers would meet a
/// gate that does not know them. If the enforcer cannot read what this process could, the kernel keeps
/// the list before, which again admits nobody whom the gate would not.
async fn follow(lists: &mut Lists, allow: &Allow, desk: &Desk, rules: &watch::Sender<Arc<Rules>>) {
    match refreshed(lists, allow, Trust::Careful).await {
        Ok(read) => {
            let is_other = *read.list() != *lists.list();
            *lists = read;
            desk.tell_of_lists(lists);
            if is_other {
                use_list(rules, lists);
                tracing::info!("a list changed on disk: the allow-list is another");
            }
        }
        Err(error) => tracing::error!("the lists cannot be read, those before stay: {error}"),
    }
    // Lost: then the daemon ends, and says so elsewhere.
    let _ = desk.leases.refresh_lists().await;
}

fn use_list(rules: &watch::Sender<Arc<Rules>>, lists: &Lists) {
    rules.send_modify(|rules| {
        let gate = Gate {
            allow: lists.list(),
            ..rules.gate.clone()
        };
        *rules = Arc::new(Rules {
            gate,
            ..Rules::clone(rules)
        });
    });
}

impl Desk {
    /// How old lists are and what is wrong with them, in place of what was; each new line is logged.
    pub fn tell_of_lists(&self, lists: &Lists) {
        *locked(&self.oldest_list) = lists.oldest();
        let problems = lists.problems();
        let mut told = locked(&self.list_problems);
        for problem in problems.iter().filter(|problem| !told.contains(problem)) {
            tracing::warn!("{problem}");
        }
        *told = problems;
    }
}
