//! A webroot: the file is made as the ACME client makes it, and asked for through the front. If it does not come, what is
//! in the way is looked for in the order in which the front meets it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::ask::Door;
use super::reach::{Eyes, barrier};
use super::{
    ANSWER_REFUSED, Outcome, Trial, WEBROOT_LINK, WEBROOT_REPLACED, WEBROOT_UNREADABLE,
    WEBROOT_UNWRITABLE, hidden, said, token,
};
use crate::config::quoted;
use crate::doctor::finding::{Exam, Finding, Severity};

/// Tries it at every door.
pub(super) async fn examine(trial: &Trial<'_>, webroot: &Path, doors: &[Door], exam: &mut Exam) {
    let answer = match token::random(trial.site.gate.accounts.first()) {
        Ok(answer) => answer,
        Err(error) => {
            exam.not_covered.push(format!("what sites answer: {error}"));
            return;
        }
    };
    let placed = match token::place(webroot, &answer) {
        Ok(placed) => placed,
        Err((path, error)) => {
            match not_placed(trial, &path, error) {
                Ok(finding) => exam.findings.push(finding),
                Err(why) => exam.not_covered.push(why),
            }
            return;
        }
    };
    let mut answered = Vec::new();
    for door in doors {
        match trial.ask(*door, &answer).await {
            Outcome::Answered => answered.push(door.address.to_string()),
            Outcome::NotCovered(why) => exam.not_covered.push(why),
            Outcome::Wrong(finding) => {
                exam.findings.push(*finding);
                return;
            }
            Outcome::Refused(refused) => {
                let finding = explain(trial, webroot, placed.path());
                exam.findings.push(finding.seen(format!(
                    "{}: {}",
                    trial.asked(*door),
                    said(&refused)
                )));
                return;
            }
        }
    }
    if answered.is_empty() {
        return;
    }
    exam.findings.push(trial.answers(&answered));
    // It has a handle of the directory from its start; whether it could open it again is another question.
    if let Some(finding) = unreadable(trial, webroot, Severity::Doubt) {
        exam.findings.push(
            finding
                .seen("the running gate still reads it, by a handle that it opened at its start"),
        );
    }
}

/// Why the file could not be made.
fn not_placed(trial: &Trial<'_>, path: &Path, error: Errno) -> Result<Finding, String> {
    let shown = path.display();
    match error {
        Errno::ACCESS | Errno::PERM if !trial.case.is_root => Err(format!(
            "whether the gate reads {shown}: this user may not write there; run as root, or as the ACME client's user"
        )),
        Errno::LOOP | Errno::NOTDIR => Ok(trial
            .finding(
                WEBROOT_LINK,
                Severity::Fault,
                format!("{shown} is a symbolic link or no directory, and the gate follows no link in a webroot"),
            )
            .seen("what the gate says of such a file is `unfit-file` or `unknown-token`, status 404")
            .remedy(format!(
                "put the directory itself there, or write the directory that the link leads to as `webroot`: `readlink -f {}`",
                quoted(path)
            ))),
        Errno::NOENT => Ok(trial
            .finding(WEBROOT_REPLACED, Severity::Fault, format!("{shown} does not exist"))
            .seen("it was there when acmegate started, or acmegate would not have started")
            .remedy(format!("`mkdir -p {}`, then `systemctl restart acmegate`", quoted(path)))),
        error => Ok(trial
            .finding(
                WEBROOT_UNWRITABLE,
                Severity::Doubt,
                format!("no file can be made in {shown}: {error}"),
            )
            .remedy("see that the ACME client can write there: `df`, `mount`, its own log")),
    }
}

/// Why the front does not answer a file that is there.
fn explain(trial: &Trial<'_>, webroot: &Path, file: &Path) -> Finding {
    if let Some(finding) = replaced(trial, webroot) {
        return finding;
    }
    if let Some(finding) = hidden::from_the_front(trial, webroot, file) {
        return finding;
    }
    if let Some(finding) = unreadable(trial, file, Severity::Fault) {
        return finding;
    }
    trial
        .finding(
            ANSWER_REFUSED,
            Severity::Fault,
            format!("the gate does not answer a file that is there: {}", file.display()),
        )
        .remedy("`systemctl reload acmegate` if the configuration was changed; `acmegate watch` shows the reason while this is tried again")
}

fn unreadable(trial: &Trial<'_>, path: &Path, severity: Severity) -> Option<Finding> {
    let eyes = Eyes::of_front(trial.front, &trial.case.config.daemon.user)?;
    let barrier = barrier(path, &eyes)?;
    let finding = trial
        .finding(
            WEBROOT_UNREADABLE,
            severity,
            format!(
                "{}, as whom the gate runs, may not pass {}",
                eyes.name,
                barrier.path.display()
            ),
        )
        .seen(format!("{} {}", barrier.rights, barrier.path.display()));
    Some(
        barrier
            .ways_out(&eyes)
            .into_iter()
            .fold(finding, Finding::remedy),
    )
}

/// The front has a handle of a directory that is no longer the one of that name.
fn replaced(trial: &Trial<'_>, webroot: &Path) -> Option<Finding> {
    let front = trial.front?;
    let own = fs::metadata(webroot).ok()?;
    let resolved = fs::canonicalize(webroot).ok()?;
    let handles = fs::read_dir(format!("/proc/{front}/fd")).ok()?.flatten();
    // A handle's name follows the directory, and ends like this once it is gone.
    let deleted = PathBuf::from(format!("{} (deleted)", resolved.display()));
    let mut was_seen = None;
    for handle in handles {
        let Ok(target) = fs::read_link(handle.path()) else {
            continue;
        };
        let opened = fs::metadata(handle.path()).ok();
        match opened {
            Some(opened) if opened.dev() == own.dev() && opened.ino() == own.ino() => return None,
            Some(opened) if opened.is_dir() && target == deleted => was_seen = Some(target),
            _ => {}
        }
    }
    let seen = was_seen?;
    Some(
        trial
            .finding(
                WEBROOT_REPLACED,
                Severity::Fault,
                format!(
                    "{} was removed and made anew since the gate opened it",
                    webroot.display()
                ),
            )
            .seen(format!("the front (pid {front}) holds {}", seen.display()))
            .remedy("`systemctl restart acmegate`; a webroot must stay, what is beneath may come and go"),
    )
}
