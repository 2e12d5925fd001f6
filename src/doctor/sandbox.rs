//! The exam of the seals: does this system hold each of the daemon's processes as it should?
//!
//! It is asked for by name alone, since it is no part of a validation's way. It tries out, in a process of its own
//! (`daemon/sandbox`), and judges: what a seal lets through helps whoever takes a process over, what it keeps from a
//! process's own work fails validations.

use std::path::Path;

use super::case::Case;
use super::finding::{Area, Code, Exam, Finding, Severity};
use crate::daemon::sandbox::{self, ACCOUNT, Attempt};

crate::findings! { Sandbox:
    /// Something is not refused to a sealed process.
    SEAL_LEAKS = "seal-leaks";
    /// A seal keeps a process from its own work.
    SEAL_HINDERS = "seal-hinders";
    /// Our table does not limit the daemon's account, and should.
    ACCOUNT_NOT_LIMITED = "account-not-limited";
    /// Every seal is whole.
    SEALS_HOLD = "seals-hold";
}

/// Puts on every seal and tries what must not work.
pub async fn examine(case: &Case) -> Exam {
    let config = case.config.source.clone();
    let tried = tokio::task::spawn_blocking(move || {
        sandbox::examine(Path::new("/proc/self/exe"), config.as_deref())
    });
    let mut exam = match tried.await {
        Ok(Ok(tried)) => judge(&tried),
        Ok(Err(error)) => not_covered(error),
        Err(_) => not_covered("the check of the seals ended early".to_owned()),
    };
    if !case.is_root {
        let user = &case.config.daemon.user;
        exam.not_covered.push(format!(
            "the seals as `{user}` has them: run as root to have them tried under that account"
        ));
    }
    exam
}

fn not_covered(why: String) -> Exam {
    let mut exam = Exam::of(Area::Sandbox);
    exam.not_covered.push(why);
    exam
}

/// One finding for each thing that was tried and is not as it should be, whichever processes it is true of.
fn judge(tried: &[Attempt]) -> Exam {
    let mut exam = Exam::of(Area::Sandbox);
    let mut processes: Vec<&str> = tried.iter().map(|one| one.process.as_str()).collect();
    processes.dedup();
    let attempts = format!("{} attempts: {}", tried.len(), processes.join(", "));
    exam.looked_at.push(attempts);
    for bad in tried.iter().filter(|one| !one.is_good()) {
        let (code, severity, said) = words(bad);
        let finding = exam.findings.iter_mut().find(|known| known.finding == said);
        let seen = match &bad.answer {
            Some(answer) => format!("{}: {answer}", bad.process),
            None => format!("{}: it works", bad.process),
        };
        match finding {
            Some(known) => known.evidence.push(seen),
            None => {
                let finding = Finding::new(code, severity, said).seen(seen);
                exam.findings.push(finding.remedy(remedy(code)));
            }
        }
    }
    let missing: Vec<&str> = sandbox::processes()
        .filter(|process| !processes.contains(process))
        .collect();
    if !missing.is_empty() {
        let said = format!(
            "the seals of {}: trying them ended early",
            missing.join(", ")
        );
        exam.not_covered.push(said);
    } else if exam.findings.is_empty() {
        let said = "every process is sealed as it should be";
        let whole = Finding::new(SEALS_HOLD, Severity::Fine, said);
        exam.findings.push(whole);
    }
    exam
}

fn words(bad: &Attempt) -> (Code, Severity, String) {
    let what = &bad.what;
    match (bad.process == ACCOUNT, bad.should_work) {
        (true, true) => {
            let said = format!("the daemon's account can not: {what}");
            (ACCOUNT_NOT_LIMITED, Severity::Doubt, said)
        }
        (true, false) => {
            let said = format!("the daemon's account can: {what}");
            (ACCOUNT_NOT_LIMITED, Severity::Doubt, said)
        }
        (false, true) => {
            let said = format!("a seal keeps a process from its work: {what}");
            (SEAL_HINDERS, Severity::Fault, said)
        }
        (false, false) => {
            let said = format!("a sealed process can: {what}");
            (SEAL_LEAKS, Severity::Doubt, said)
        }
    }
}

fn remedy(code: Code) -> &'static str {
    if code == SEAL_LEAKS {
        "`acmegate status --security` says what of a seal is missing: landlock is whole on Linux 6.12 and later; and the file that acmegate \
         reads must not stand beside secrets. `[daemon] require_seals` refuses to start with less"
    } else if code == ACCOUNT_NOT_LIMITED {
        "have acmegate run, with its table in the kernel (`acmegate status`); `[firewall] egress` says whether the account is limited"
    } else {
        "`journalctl -u acmegate` says what the kernel, or a container's own filter of system calls, does not allow"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(process: &str, what: &str, should_work: bool, works: bool) -> Attempt {
        Attempt {
            process: process.to_owned(),
            what: what.to_owned(),
            should_work,
            works,
            answer: (!works).then(|| "Operation not permitted (os error 1)".to_owned()),
        }
    }

    #[test]
    fn what_is_as_it_should_be_is_fine_and_nothing_at_all_is_not() {
        let all = sandbox::processes().map(|process| attempt(process, "mount", false, false));
        let good: Vec<Attempt> = all.collect();
        let exam = judge(&good);
        assert_eq!(exam.findings.len(), 1);
        assert_eq!(exam.findings[0].code, SEALS_HOLD);
        assert_eq!(exam.not_covered, [""; 0]);
        let without_the_last = judge(&good[..good.len() - 1]);
        assert_eq!(without_the_last.findings, []);
        assert_eq!(
            without_the_last.not_covered,
            ["the seals of runner: trying them ended early"]
        );
    }

    #[test]
    fn each_thing_is_told_once_with_every_process_that_it_is_true_of() {
        let tried = [
            attempt("front", "mount", false, true),
            attempt("front", "accept a connection", true, false),
            attempt("reader", "mount", false, true),
            attempt("reader", "list /proc", false, false),
            attempt(ACCOUNT, "send a datagram", false, true),
        ];
        let found: Vec<(Code, Severity, usize)> = judge(&tried)
            .findings
            .iter()
            .map(|finding| (finding.code, finding.severity, finding.evidence.len()))
            .collect();
        assert_eq!(
            found,
            [
                (SEAL_LEAKS, Severity::Doubt, 2),
                (SEAL_HINDERS, Severity::Fault, 1),
                (ACCOUNT_NOT_LIMITED, Severity::Doubt, 1),
            ]
        );
    }
}
