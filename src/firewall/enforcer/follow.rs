//! Follows what was read: another configuration when the front wants it, other lists at once, and in
//! both cases bounds that what stands already is held to.

use super::{Answer, Enforcer, Orders, Read, now};
use crate::firewall::message::Reply;
use crate::firewall::ruleset::Mode;
use crate::gate::lease::Lease;

impl Enforcer {
    pub(super) fn read(&mut self, what: Read) {
        self.readings.ask(what);
        self.health.is_reading = true;
    }

    /// What was read: a configuration is kept until the front wants it followed, lists are followed
    /// at once.
    pub(super) async fn take_up(&mut self, what: Read, answer: Answer) {
        self.health.is_reading = self.readings.are_under_way();
        match (what, answer) {
            (Read::Configuration, answer) => self.prepared = Some(answer),
            (Read::Lists, Ok(orders)) => self.want_list(orders.settings.allow).await,
            (Read::Lists, Err(error)) => {
                tracing::error!("the allow-list cannot be read, the one before stays: {error}");
            }
        }
    }

    /// Follows what was read last.
    pub(super) async fn reload(&mut self) -> Result<(), Reply> {
        let prepared = self.prepared.take();
        let prepared =
            prepared.unwrap_or_else(|| Err("nothing was read that could be followed".to_owned()));
        let orders = prepared.map_err(Reply::Failed)?;
        if !orders.settings.can_follow(&self.orders.settings) {
            return Err(Reply::Failed(
                "[firewall] mode, set, mark and owner, and listen = \"divert\" of [http] and [tls], need a restart; the \
                 old configuration stays"
                    .to_owned(),
            ));
        }
        self.readings.accept();
        let wanted = orders.settings.allow.clone();
        self.orders = Orders {
            settings: (orders.settings).with_allow(self.orders.settings.allow.clone()),
            ..orders
        };
        // Without power over the kernel there is nothing that could be looked for.
        if self.orders.settings.mode != Mode::GateOnly {
            self.sweep().await;
        }
        self.hold_to_limits().await;
        // The new orders stand. If the kernel cannot follow them, that is told as it is told at any
        // other time: a refusal would leave the front with the old ones.
        if let Err(error) = self.assert().await {
            tracing::error!(%error, "the firewall is not as it should be: shut");
        }
        self.want_list(wanted).await;
        self.fill_if_short().await;
        Ok(())
    }

    /// Takes our rules out of chains that the orders do not name.
    pub(super) async fn sweep(&self) {
        if let Err(error) = self.kernel.sweep(&self.orders.settings).await {
            tracing::warn!(%error, "rules of an earlier configuration are left in other chains");
        }
    }

    /// Ends leases of ports that the orders do not name, and cuts those that are too long: what
    /// the kernel kept may be from other orders.
    pub(super) async fn hold_to_limits(&mut self) {
        let limits = &self.orders.limits;
        let now = now();
        let longest = now + limits.max;
        let is_named = |lease: &Lease| {
            let mut ports = lease.scope.ports.iter();
            ports.all(|port| limits.ports.contains(port))
        };
        let (kept, gone): (Vec<_>, Vec<_>) = self.windows.leases().cloned().partition(is_named);
        for lease in kept.into_iter().filter(|lease| lease.deadline > longest) {
            self.windows.shorten(&lease.name, longest, now);
        }
        self.end(gone).await;
    }

    /// Ends leases, in the kernel too, where one that stayed would be adopted at the next start.
    async fn end(&mut self, leases: Vec<Lease>) {
        for lease in leases {
            let before = self.windows.clone();
            self.windows.release(&lease.name, now());
            let settings = &self.orders.settings;
            let written = self
                .kernel
                .write(settings, &before, &self.windows, &lease, now())
                .await;
            if let Err(error) = written {
                tracing::warn!(%error, lease = %lease.name, "a lease ended, but not in the kernel yet");
            }
        }
    }
}
