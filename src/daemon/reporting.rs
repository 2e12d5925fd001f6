//! What the desk tells of windows: records of now and of the history, and how a client says it went.
//!
//! Records hold peers' addresses, so they are for root, and for whom a grant names.

use std::time::Duration;

use super::desk::Desk;
use super::history::HistoryError;
use super::recorder::wall;
use super::refused::Refused;
use super::words::{identifier, lease_name};
use crate::control::protocol::{Exit, ReportWord, Response, SaidWord};
use crate::gate::caller::{Ask as GateAsk, Caller};
use crate::gate::lease::LeaseName;
use crate::observe::history::message::Query;
use crate::observe::record::{MAX_SAID, Record, Said};
use crate::observe::report::two_lines;

/// How long a hook waits for a disk.
const A_MOMENT: Duration = Duration::from_secs(1);
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

    /// What is here is newer than what the history has of the same windows.
    async fn records(&self, which: &ReportWord) -> Result<Vec<Record>, Refused> {
        let mut here = self.recorder.all();
        let query = match (which.number, &which.lease, which.since) {
            (Some(number), ..) => {
                here.retain(|record| record.number == Some(number));
                Query::Number(number)
            }
            (_, Some(lease), _) => {
                let lease = lease_name(lease)?;
                here.retain(|record| record.lease == lease.as_str());
                Query::LastOf(lease.to_string())
            }
            (.., Some(since)) => {
                let from = wall().saturating_sub(since);
                here.retain(|record| record.opened_at >= from);
                Query::Since(from)
            }
            _ => Query::Last,
        };
        if which.since.is_none()
            && let Some(last) = here.pop()
        {
            return Ok(vec![last]);
        }
        let found = match self.history.query(&query).await {
            Ok(found) => found.records,
            Err(HistoryError::Off) => Vec::new(),
            Err(error) => return Err(Refused::new(Exit::TempFail, error.to_string())),
        };
        let is_here = |record: &Record| {
            here.iter().any(|own| {
                (own.opened_at, &own.lease, own.caller)
                    == (record.opened_at, &record.lease, record.caller)
            })
        };
        let mut records: Vec<Record> = found;
        records.retain(|record| !is_here(record));
        records.extend(here);
        records.sort_by_key(|record| record.opened_at);
        Ok(records)
    }

    /// What a hook says of the window that it closed. That is on disk by then, unless the disk is slow:
    /// no hook waits for it longer than a moment.
    pub(super) async fn closing_words(&self, name: &LeaseName) -> Option<[String; 2]> {
        self.recorder.take_evidence();
        let _ = tokio::time::timeout(A_MOMENT, self.recorder.hand_on_changed_of(name)).await;
        self.recorder.last_of(name).as_ref().map(two_lines)
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
