//! Brings a changed allow-list into the kernel, portion by portion between whatever else there is to do.
//!
//! The list that stands goes on to count until the new one is whole. Where nothing stands, because
//! somebody took the table away, a short list stands at once and of a long one the local networks;
//! nobody else passes before it is whole.

use std::time::Duration;

use super::{Enforcer, now};
use crate::firewall::allow::Listed;
use crate::firewall::error::KernelError;
use crate::firewall::message::List;
use crate::firewall::ruleset::Mode;

/// After what the kernel is asked again that refused a list: it may have been short of memory.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// After what it is asked again that had lost a set: whose doing that was is on its way as an event.
const LOST_FOR: Duration = Duration::from_millis(200);

impl Enforcer {
    /// The newest list, which stands or is on its way.
    pub(super) fn wanted_list(&self) -> Listed {
        let on_its_way = self.kernel.list_on_its_way();
        on_its_way.unwrap_or(&self.orders.settings.allow).clone()
    }

    /// From now on this list is wanted; what is on its way and is another one is given up.
    pub(super) async fn want_list(&mut self, list: Listed) {
        let is_asked = self.orders.settings.mode != Mode::GateOnly;
        if list == self.orders.settings.allow || !is_asked {
            self.orders.settings.allow = list;
            self.kernel.end_list();
            self.sweep_lists().await;
            self.fill_at = None;
        } else if self.kernel.list_on_its_way() != Some(&list) || self.list_refused.is_some() {
            self.kernel.begin_list(list);
            self.fill_at = Some(now());
        }
        self.list_refused = None;
        self.tell_list();
    }

    /// Takes the lists away that nothing reads: of an enforcer that was killed, or given up.
    pub(super) async fn sweep_lists(&mut self) {
        if self.is_withdrawn || !self.health.is_installed {
            return;
        }
        match self.kernel.sweep_lists(&self.orders.settings).await {
            Ok(false) => {}
            Ok(true) => {
                self.survey.still_stands(self.kernel.connection()).await;
            }
            Err(error) => {
                tracing::warn!(%error, "an allow-list that nothing reads is left in the kernel");
            }
        }
    }

    /// A table was made without its long list, which is now on its way.
    pub(super) fn shorten_list(&mut self) {
        let wanted = self.wanted_list();
        let stands = self.orders.settings.allow.at_once();
        self.orders.settings.allow = stands;
        if wanted == self.orders.settings.allow {
            self.kernel.end_list();
            self.fill_at = None;
        } else {
            self.kernel.begin_list(wanted);
            self.fill_at = Some(now());
        }
    }

    /// Writes one portion; after the last one the rules read the new list, and the old one goes.
    pub(super) async fn fill_on(&mut self) {
        self.fill_at = None;
        if self.is_withdrawn {
            return;
        }
        let filled = self.kernel.fill_on(&self.orders.settings).await;
        if filled.is_ok() {
            self.survey.still_stands(self.kernel.connection()).await;
        }
        match filled {
            Ok(false) => {
                self.list_refused = None;
                self.fill_at = Some(now());
            }
            Ok(true) => {
                self.list_refused = None;
                self.orders.settings.allow = self.wanted_list();
                self.kernel.end_list();
                match self.assert().await {
                    Ok(_) => tracing::info!("the allow-list in the kernel is the newest one"),
                    Err(error) => tracing::error!(%error, "the new allow-list cannot be used yet"),
                }
            }
            Err(KernelError::Refused(_, error)) if error.is_not_found() => {
                self.kernel.begin_list(self.wanted_list());
                self.fill_at = Some(now() + LOST_FOR);
            }
            Err(error) => {
                let errno = match &error {
                    KernelError::Refused(_, error) => error.errno().unwrap_or_default(),
                    _ => 0,
                };
                tracing::error!(%error, "the kernel does not take the allow-list; the one before stays");
                self.kernel.begin_list(self.wanted_list());
                self.list_refused = Some(errno.unsigned_abs());
                self.fill_at = Some(now() + REFUSED_FOR);
            }
        }
        self.tell_list();
    }

    /// Waits for a short list, so that who asked for it finds it there.
    pub(super) async fn fill_if_short(&mut self) {
        while self.wanted_list().is_short() && self.fill_at.is_some_and(|at| at <= now()) {
            self.fill_on().await;
        }
    }

    /// Keeps what the front is told of it up to date.
    pub(super) fn tell_list(&mut self) {
        self.health.list = match (self.kernel.progress(), self.list_refused) {
            (None, _) => List::Whole,
            (Some(_), Some(errno)) => List::Refused { errno },
            (Some(progress), None) => List::Filling {
                percent: (progress.done * 100)
                    .checked_div(progress.of)
                    .and_then(|percent| u8::try_from(percent).ok())
                    .unwrap_or_default(),
                ranges: u32::try_from(progress.of).unwrap_or(u32::MAX),
            },
        };
    }
}
