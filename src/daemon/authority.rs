//! What the control sockets reach: the desk that obeys, and the status that is told. Every request
//! leaves one line in the log.

use std::future::Future;
use std::pin::Pin;

use super::desk::Desk;
use super::now;
use super::tell::tell;
use crate::control::protocol::{Ask, Response};
use crate::control::server::Authority;
use crate::control::status::Status;
use crate::gate::caller::Caller;
use crate::gate::lease::LeaseName;

impl Authority for Desk {
    fn obey(
        &self,
        caller: Caller,
        ask: Ask,
    ) -> Pin<Box<dyn Future<Output = Response> + Send + '_>> {
        Box::pin(async move {
            let verb = word(&ask);
            let response = self.serve(caller, ask).await.unwrap_or_else(Response::from);
            let now = now();
            if caller.uid == 0 || self.observer.may_write_ask(now) {
                tracing::info!(
                    ask = verb,
                    uid = caller.uid,
                    pid = caller.pid,
                    code = response.code,
                    message = %response.message,
                    "control"
                );
            }
            response
        })
    }

    fn withdraw(&self, lease: LeaseName) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            tracing::warn!(%lease, "whoever asked for a lease did not wait for the answer: released");
            if let Err(error) = self.leases.close(&lease).await {
                tracing::error!(%lease, %error, "it could not be released");
            }
        })
    }

    fn status(&self) -> Pin<Box<dyn Future<Output = Status> + Send + '_>> {
        Box::pin(async move { tell(self) })
    }
}

fn word(ask: &Ask) -> &'static str {
    match ask {
        Ask::Open(open) if open.dry_run => "open --dry-run",
        Ask::Open(_) => "open",
        Ask::Close { .. } => "close",
        Ask::AnswerAdd { .. } => "answer add",
        Ask::AnswerRemove { .. } => "answer remove",
        Ask::FirewallApply => "firewall apply",
        Ask::FirewallRemove => "firewall remove",
    }
}
