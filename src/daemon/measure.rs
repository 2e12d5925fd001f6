//! The metrics of the moment: what every part knows, put together. Nothing is changed here.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::desk::Desk;
use super::now;
use super::tell::tell;
use crate::control::protocol::END_OF_METRICS;
use crate::control::status::{Status, Time};
use crate::firewall::message::List;
use crate::gate::lease::Family;
use crate::gate::window::Windows;
use crate::locked::locked;
use crate::observe::Observer;
use crate::observe::metrics::{Budget, History, Moment, Span, Window};

impl Desk {
    /// The status and the metrics of one moment.
    pub fn tell_all(&self) -> (Status, String) {
        let status = tell(self);
        let moment = moment(self, &status);
        let text = self.observer.metrics().text(&moment, now());
        let text = text.unwrap_or_else(|error| {
            tracing::error!(%error, "the metrics cannot be written; this is a bug");
            String::new()
        });
        (status, text + END_OF_METRICS)
    }
}

fn moment(desk: &Desk, status: &Status) -> Moment {
    let config = desk.config.borrow().clone();
    let health = desk.leases.health();
    let windows = desk.leases.windows().borrow().clone();
    let (now, time) = (now(), status.budget.time.first());
    let ports = status.windows.iter();
    let mut ports: Vec<u16> = ports.map(|window| window.port).collect();
    ports.dedup();
    Moment {
        version: env!("CARGO_PKG_VERSION"),
        started: desk.started,
        mode: config.firewall.mode.as_str(),
        landlock: desk.landlocked.as_str(),
        windows: ports
            .into_iter()
            .flat_map(|port| Family::ALL.map(|family| (port, family)))
            .map(|(port, family)| {
                let until =
                    windows.open_where(|door| door.family == family && door.port == port, now);
                Window {
                    port,
                    family,
                    is_open: until.is_some(),
                }
            })
            .collect(),
        leases: status.leases.len(),
        armed: status.armed.len(),
        connections: desk.observer.counts(),
        held: desk.front.held_connections(),
        installed: health.is_installed,
        owned: health.is_owned,
        reassertions: u64::from(health.gaps),
        waiting: desk.leases.waiting().unwrap_or_default(),
        list_is_whole: health.list == List::Whole,
        ranges: [
            (Family::V4, status.allow.ipv4_ranges),
            (Family::V6, status.allow.ipv6_ranges),
        ],
        list_problems: locked(&desk.list_problems).len(),
        oldest_list: *locked(&desk.oldest_list),
        budget: Budget {
            openings: status.budget.used,
            openings_limit: status.budget.per_hour,
            spans: time.map(spans).unwrap_or_default(),
        },
        pushed: status.pushed,
        problems: status.problems.len(),
        history: status.history.as_ref().map(|history| History {
            windows: history.records,
            octets: history.bytes,
            unsaved: history.unsaved,
            is_failing: !desk.history.health().problems.is_empty(),
        }),
    }
}

/// The first of the times is that of all windows together.
fn spans(time: &Time) -> Vec<Span> {
    let spans = [("day", time.day), ("month", time.month)];
    let spans = spans.map(|(name, share)| Span {
        name,
        used: Duration::from_millis(share.milliseconds),
        limit: share.allowed_milliseconds.map(Duration::from_millis),
    });
    spans.into()
}

/// Counts for how long any window is open. Runs until dropped.
pub async fn watch_exposure(observer: Arc<Observer>, mut windows: watch::Receiver<Arc<Windows>>) {
    loop {
        let now = now();
        let until = windows.borrow_and_update().open_where(|_| true, now);
        observer.metrics().exposed(until.is_some(), now);
        let ended = async {
            match until {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = ended => {}
            changed = windows.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}
