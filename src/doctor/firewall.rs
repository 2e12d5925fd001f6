//! The firewall, examined twice: read rule by rule, and by packets that are sent to a copy of it.
//!
//! What the packets prove takes the place of what the reading judges; the reading knows what packets cannot show: limits
//! for many perspectives at once, the time of day, flowtables, whose chain it is.

use super::case::Case;
use super::finding::{Area, Code, Exam};
use super::{reading, twin};

/// What packets prove, if any were sent.
const PROVED: &[Code] = &[
    reading::DROPPED,
    reading::ONE_FAMILY,
    reading::ONE_INTERFACE,
    reading::NOT_UNDERSTOOD,
    reading::OPEN_WITHOUT_WINDOW,
    reading::PASSES,
];

/// Examines the live ruleset, or a saved one of which only packets can tell.
pub async fn examine(case: &Case, source: twin::Source) -> Vec<Exam> {
    let is_live = source == twin::Source::Live;
    let (read, mut tried) = tokio::join!(
        async {
            match is_live {
                true => reading::examine(case).await,
                false => Exam::of(Area::Firewall),
            }
        },
        twin::examine(case, source)
    );
    let mut read = read;
    if !tried.findings.is_empty() {
        read.findings
            .retain(|finding| !PROVED.contains(&finding.code));
    }
    // The reading follows a translated packet, and knows whether acmegate waits for it.
    if read
        .findings
        .iter()
        .any(|finding| finding.code == reading::SENT_ELSEWHERE)
    {
        tried
            .findings
            .retain(|finding| finding.code != twin::PROVED_ELSEWHERE);
    }
    vec![tried, read]
}
