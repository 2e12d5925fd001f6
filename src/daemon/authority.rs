//! What the control sockets reach: the desk that obeys, and the status that is told. Every request
//! leaves one line in the log.

use std::future::Future;
use std::pin::Pin;

use tokio::sync::watch;

use super::desk::Desk;
use super::now;
use crate::control::protocol::{Acquired, Ask, Open, Response};
use crate::control::server::{Arming, Authority};
use crate::control::status::Status;
use crate::gate::caller::{Ask as GateAsk, Caller};

impl Authority for Desk {
    fn obey(
        &self,
        caller: Caller,
        ask: Ask,
        under: Option<String>,
    ) -> Pin<Box<dyn Future<Output = Response> + Send + '_>> {
        Box::pin(async move {
            let verb = word(&ask);
            let served = self.serve(caller, ask, under).await;
            let response = served.unwrap_or_else(Response::from);
            self.write_down(caller, verb, &response);
            response
        })
    }

    fn arm(
        &self,
        caller: Caller,
        open: Open,
    ) -> Pin<Box<dyn Future<Output = Result<Arming, Response>> + Send + '_>> {
        Box::pin(async move {
            let armed = self.arm_lease(caller, open).map_err(Response::from);
            let (Ok(Arming { told: response, .. }) | Err(response)) = &armed;
            self.write_down(caller, "arm", response);
            armed
        })
    }

    fn disarm(&self, arming: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.disarm_lease(arming))
    }

    fn watch(&self, caller: Caller) -> Result<watch::Receiver<u64>, Box<Response>> {
        let permitted = self.permit(caller, GateAsk::Report, "read reports");
        let response = match permitted {
            Ok(()) => Response::done("watching"),
            Err(refused) => refused.into(),
        };
        self.write_down(caller, "watch", &response);
        match response.code {
            0 => Ok(self.recorder.changes()),
            _ => Err(Box::new(response)),
        }
    }

    fn scene(&self) -> Response {
        Desk::scene(self)
    }

    fn told(&self, acquired: &Acquired) {
        self.leases.told(&acquired.lease);
    }

    fn withdraw(&self, acquired: Acquired) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let lease = &acquired.lease;
            match self.leases.withdraw(&acquired).await {
                Ok(true) => {
                    tracing::warn!(%lease, "whoever asked for a lease did not wait for the answer: released");
                }
                Ok(false) => {
                    tracing::info!(%lease, "whoever asked for a lease did not wait for the answer: another has it, or nobody any more");
                }
                Err(error) => {
                    tracing::error!(%lease, %error, "whoever asked for a lease did not wait for the answer, and it could not be released");
                }
            }
        })
    }

    fn status(&self) -> Pin<Box<dyn Future<Output = (Status, String)> + Send + '_>> {
        Box::pin(async move { self.tell_all() })
    }
}

impl Desk {
    /// One line in the log.
    pub(super) fn write_down(&self, caller: Caller, ask: &'static str, response: &Response) {
        if caller.uid == 0 || self.observer.may_write_ask(now()) {
            tracing::info!(
                ask,
                uid = caller.uid,
                pid = caller.pid,
                code = response.code,
                message = %response.message,
                "control"
            );
        }
    }
}

fn word(ask: &Ask) -> &'static str {
    match ask {
        Ask::Open(open) if open.dry_run => "open --dry-run",
        Ask::Open(_) => "open",
        Ask::Arm(_) => "arm",
        Ask::Close { .. } => "close",
        Ask::Report(_) => "report",
        Ask::Watch => "watch",
        Ask::AnswerAdd { .. } => "answer add",
        Ask::AnswerRemove { .. } => "answer remove",
        Ask::FirewallApply => "firewall apply",
        Ask::FirewallRemove => "firewall remove",
    }
}
