//! What the desk tells of windows: records of now and of the history, and how a client says it went.
//!
//! Records hold peers' addresses, so they are for root, and for whom a grant names.

use std::time::Duration;

use super::desk::Desk;
use super::history::HistoryError;
use super::recorder::wall;
use super::refused::Refused;
use super::words::{identifier, lease_name};
use crate::control::protocol::{Exit, MAX_RESPONSE_BYTES, Opaque, ReportWord, Response, SaidWord};
use crate::gate::caller::{Ask as GateAsk, Caller};
use crate::gate::lease::LeaseName;
use crate::observe::history::message::{Found, Query};
use crate::observe::record::{MAX_SAID, Record, Said};
use crate::observe::report::two_lines;

/// How long a hook waits for a disk.
const A_MOMENT: Duration = Duration::from_secs(1);
/// How many records of open and past windows whoever watches is told.
const WATCHED: usize = 16;
/// How much of an answer is records, in octets; the rest of it is a few words.
const MAX_TOLD_BYTES: usize = MAX_RESPONSE_BYTES as usize - 64 * 1024;

impl Desk {
    /// The records that are asked for.
    pub(super) async fn report(
        &self,
        caller: Caller,
        which: ReportWord,
    ) -> Result<Response, Refused> {
        self.permit(caller, GateAsk::Report, "read reports")?;
        let (records, left_off) = self.records(&which).await?;
        if records.is_empty() && which.since.is_none() {
            return Err(Refused::new(Exit::Unavailable, nothing(&which)));
        }
        let (mut response, too_much) = told(&records);
        let left_off = left_off.saturating_add(too_much);
        if left_off > 0 {
            response.warnings.push(format!(
                "{left_off} older windows are left off, for one answer has no room for them: nothing of them is \
                 counted, and what is told as new may not be; a shorter time tells all of it"
            ));
        }
        Ok(response)
    }

    /// The records, and how many older ones the history has left off. What is here is newer than what
    /// the history has of the same windows.
    async fn records(&self, which: &ReportWord) -> Result<(Vec<Record>, u64), Refused> {
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
            return Ok((vec![last], 0));
        }
        let found = match self.history.query(&query).await {
            Ok(found) => found,
            Err(HistoryError::Off) => Found::default(),
            Err(error) => return Err(Refused::new(Exit::TempFail, error.to_string())),
        };
        let is_here = |record: &Record| {
            here.iter().any(|own| {
                (own.opened_at, &own.lease, own.caller)
                    == (record.opened_at, &record.lease, record.caller)
            })
        };
        let mut records = found.records;
        records.retain(|record| !is_here(record));
        records.extend(here);
        records.sort_by_key(|record| record.opened_at);
        Ok((records, found.left_off))
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
        told(&all[all.len().saturating_sub(WATCHED)..]).0
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

/// An answer that whoever asked can read whole, and how many of the oldest have no room in it.
fn told(records: &[Record]) -> (Response, u64) {
    let mut report = Vec::new();
    let mut bytes = 0;
    for record in records.iter().rev() {
        let Ok(written) = Opaque::of(record) else {
            continue;
        };
        bytes += written.bytes() + 1;
        if bytes > MAX_TOLD_BYTES {
            break;
        }
        report.push(written);
    }
    let left_off = (records.len() - report.len()) as u64;
    report.reverse();
    let response = Response {
        report,
        ..Response::done("")
    };
    (response, left_off)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_can_be_read_whole_and_keeps_the_newest() {
        let record = |opened_at| Record {
            opened_at,
            beside: vec!["x".repeat(1000); 1000],
            ..Record::default()
        };
        let records: Vec<Record> = (1..=12).map(record).collect();
        let (response, left_off) = told(&records);
        let bytes = serde_json::to_vec(&response).unwrap().len() as u64;
        assert!(bytes < MAX_RESPONSE_BYTES, "{bytes}");
        let kept = response.report.len();
        assert_eq!((kept, left_off), (8, 4));
        let opened_at = |told: &Opaque| told.read::<Record>().unwrap().opened_at;
        let opened: Vec<_> = response.report.iter().map(opened_at).collect();
        assert_eq!(opened, [5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(told(&records[..3]).1, 0);
    }
}
