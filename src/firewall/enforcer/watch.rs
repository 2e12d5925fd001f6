//! Keeps what is ours in the kernel, whatever somebody else does there; stops where that has become a
//! fight.

use super::{Enforcer, now};
use crate::firewall::error::KernelError;
use crate::firewall::events::Committed;
use crate::firewall::netlink::Ensured;
use crate::firewall::ruleset::Mode;
use crate::firewall::{fight, inspect};

impl Enforcer {
    /// Makes sure that everything of ours is in the kernel, with the time that is left.
    pub(super) async fn assert(&mut self) -> Result<Ensured, KernelError> {
        self.windows.expire(now());
        if self.is_withdrawn || self.orders.settings.mode == Mode::GateOnly {
            return Ok(Ensured::Untouched);
        }
        let mut done = self.ensure().await;
        let settings = &self.orders.settings;
        if done.is_ok() {
            // The time that is left now: making sure may have taken a while, and nothing shuts later for that.
            let written = self.kernel.write_all(settings, &self.windows, now()).await;
            done = written.and(done);
        }
        self.health.is_installed = done.is_ok();
        self.health.is_owned = self.kernel.is_owned();
        self.health.note = done
            .as_ref()
            .err()
            .map(ToString::to_string)
            .unwrap_or_default();
        self.survey.still_stands(self.kernel.connection()).await;
        self.tell_list();
        done
    }

    /// Makes sure that our table is in the kernel, if need be without its long list, which then is on
    /// its way.
    pub(super) async fn ensure(&mut self) -> Result<Ensured, KernelError> {
        let settings = &self.orders.settings;
        let done = self.kernel.ensure(settings, &self.windows, now()).await?;
        if done == Ensured::Shortened {
            self.shorten_list();
        }
        // What was on its way when the table was lost is so again.
        if self.kernel.progress().is_some() && self.fill_at.is_none() {
            self.fill_at = Some(now());
        }
        Ok(done)
    }

    /// Somebody changed the ruleset: if that took something of ours away, it comes back at once,
    /// or after a truce.
    pub(super) async fn look_after(&mut self, by: &Committed) {
        if self.is_withdrawn || self.orders.settings.mode == Mode::GateOnly {
            return;
        }
        let now = now();
        self.windows.expire(now);
        let settings = &self.orders.settings;
        // What only our socket can change needs no look; a busy host changes its own rules often.
        let is_sealed_off = self.kernel.is_owned() && settings.mode == Mode::Guard;
        if is_sealed_off && self.health.is_installed {
            return;
        }
        let nft = self.kernel.connection();
        let is_anyones = !self.kernel.is_owned();
        // Lists are known by their names and never read back, so one that was touched is made anew.
        let is_touched = by.touched_our_elements && is_anyones;
        let mut intact = self.health.is_installed
            && !is_touched
            && matches!(inspect::is_current(nft, settings).await, Ok(true))
            && matches!(
                inspect::foreign_is_current(nft, settings, &self.windows, now).await,
                Ok(true)
            );
        // What nobody heard of is no more than noise where all else stands; the doors are made anew.
        if intact && by.were_lost && is_anyones {
            intact = (self.kernel.rewrite(settings, &self.windows, now).await).is_ok();
        }
        if intact {
            return;
        }
        if is_touched {
            self.kernel.distrust();
        }
        self.restore(&by.name).await;
    }

    /// Puts our part back that `by` took away, unless that has become a fight.
    pub(super) async fn restore(&mut self, by: &str) {
        let was_installed = self.health.is_installed;
        if was_installed {
            // Whoever took it away before: it was back since, perhaps because somebody opened.
            self.lost_to = None;
        }
        let is_new = self.lost_to.is_none();
        let next = self.fight.next_attempt(now());
        if next > now() {
            let is_first = self.truce.replace(next).is_none();
            if is_first || was_installed {
                self.health.is_installed = false;
                self.health.note = fight::words(by);
            }
            if is_first {
                tracing::error!("{}", self.health.note);
            }
            self.lost_to = Some(by.to_owned());
            return;
        }
        if was_installed || !is_new {
            self.fight.note(now());
        }
        match self.assert().await {
            Ok(_) if was_installed || !is_new => {
                self.health.gaps += 1;
                let by = self.lost_to.take().unwrap_or_else(|| by.to_owned());
                tracing::warn!(
                    by,
                    gaps = self.health.gaps,
                    "our part of the ruleset was taken away and is back"
                );
            }
            Ok(_) => tracing::info!("the firewall is as it should be again"),
            Err(error) => {
                // A reload has a moment in which a chain is not there: its end brings us back.
                if was_installed && is_new {
                    tracing::error!(by, %error, "our part of the ruleset was taken away: shut");
                    self.lost_to = Some(by.to_owned());
                }
            }
        }
    }

    /// The end of a truce.
    pub(super) async fn try_again(&mut self) {
        self.truce = None;
        if let Some(by) = self.lost_to.clone().filter(|_| !self.is_withdrawn) {
            self.restore(&by).await;
        }
    }
}
