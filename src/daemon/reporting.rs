//! What the desk tells of windows: records of now and of the history, and how a client says it went.
//!
//! Records hold peers' addresses, so they are for root, and for whom a grant names.

use super::desk::Desk;
use super::refused::Refused;
use super::words::{identifier, lease_name};
use crate::control::protocol::{Exit, ReportWord, Response, SaidWord};
use crate::gate::caller::{Ask as GateAsk, Caller};
use crate::observe::record::{MAX_SAID, Record, Said};

/// How many records of open and past windows whoever watches is told.
const WATCHED: usize = 16;

impl Desk {
    /// The records that are asked for.
    pub(super) async fn report(
        &self,
        caller: Caller,
        which: ReportWord,
    ) -> Result<Response, Refused> {
        self.permit(caller, GateAsk::Report, "read reports")?;
        let records = self.records(&which).await?;
        if records.is_empty() && which.since.is_none() {
            return Err(Refused::new(Exit::Unavailable, nothing(&which)));
        }
        Ok(told(&records))
    }

    async fn records(&self, which: &ReportWord) -> Result<Vec<Record>, Refused> {
        let lease = which.lease.as_deref().map(lease_name).transpose()?;
        let mut here = self.recorder.all();
        if let Some(number) = which.number {
            here.retain(|record| record.number == Some(number));
        }
        if let Some(lease) = &lease {
            here.retain(|record| record.lease == lease.as_str());
        }
        if let (None, Some(last)) = (which.since, here.pop()) {
            return Ok(vec![last]);
        }
        Ok(here)
    }

    /// What whoever watches sees at this moment.
    pub(super) fn scene(&self) -> Response {
        let all = self.recorder.all();
        told(&all[all.len().saturating_sub(WATCHED)..])
    }

    /// Writes down how the client of a lease says that it went.
    ///
    /// # Errors
    /// None of what is no identifier: a post-hook must close in any case, and that is left out.
    pub(super) fn note_said(&self, lease: &str, said: Option<SaidWord>) -> Result<(), Refused> {
        let Some(said) = said else { return Ok(()) };
        let names = |texts: Vec<String>| -> Vec<String> {
            let names = texts.iter().filter_map(|text| identifier(text).ok());
            names.take(MAX_SAID).map(|name| name.to_string()).collect()
        };
        let said = Said {
            renewed: names(said.renewed),
            failed: names(said.failed),
        };
        self.recorder.said(&lease_name(lease)?, said);
        Ok(())
    }
}

fn told(records: &[Record]) -> Response {
    let values = records
        .iter()
        .filter_map(|record| serde_json::to_value(record).ok());
    Response {
        report: values.collect(),
        ..Response::done("")
    }
}

fn nothing(which: &ReportWord) -> String {
    match which {
        ReportWord {
            number: Some(number),
            ..
        } => format!(
            "there is no record of window {number}: `acmegate report --since 90d` lists those that are kept"
        ),
        ReportWord {
            lease: Some(lease), ..
        } => format!("there is no record of a window of lease {lease}"),
        _ => "no window has been opened that was recorded".to_owned(),
    }
}
