//! The exam of the gate itself: is its configuration good, does it run, and what does it say of itself?
//!
//! It asks the daemon for its status, and nothing else of it. Of a daemon that does not run the listeners' exam
//! tells, which sees why.

use std::path::Path;

use super::case::Case;
use super::finding::{Area, Exam, Finding, Severity};
use crate::config::{Config, ConfigError, Mode};
use crate::control::client::{self, ClientError};
use crate::control::status::{Status, Time};
use crate::daemon::parts::missing_programs;
use crate::observe::report::words::many;

crate::findings! { Daemon:
    /// Something serves its sockets, and does not say how it is.
    SILENT = "silent";
    /// Its own word that something is wrong.
    PROBLEM = "problem";
    /// Our part of the ruleset is not in the kernel.
    NOT_INSTALLED = "not-installed";
    /// It runs with another configuration file than the one that was examined.
    OTHER_FILE = "other-file";
    /// It is of another version than this program.
    OTHER_VERSION = "other-version";
    /// Somebody took our part of the ruleset away, and it was put back.
    TAKEN_AWAY = "taken-away";
    /// No window fits into the budget now.
    BUDGET_SPENT = "budget-spent";
    /// It runs, and nothing is wrong with it.
    RUNS = "runs";
}

/// What the configuration file comes to.
pub mod configuration {
    crate::findings! { Configuration:
        /// The file is refused.
        REFUSED = "configuration-refused";
        /// It says something that is perhaps not meant.
        PERHAPS_NOT_MEANT = "perhaps-not-meant";
        /// It is good.
        GOOD = "configuration-good";
    }
}

/// A configuration, or its lists, that cannot be read: nothing else can be examined by it.
pub fn refused(problem: &str) -> Exam {
    let mut exam = Exam::of(Area::Configuration);
    let mut finding = Finding::new(
        configuration::REFUSED,
        Severity::Fault,
        "the configuration is refused, and acmegate does not start with it",
    );
    finding.evidence = problem.lines().map(str::to_owned).collect();
    finding
        .remedy
        .push("mend it until `acmegate config check` calls it good".to_owned());
    exam.findings.push(finding);
    exam
}

/// The text of a configuration error, line by line.
pub fn refused_file(error: &ConfigError) -> Exam {
    refused(&error.to_string())
}

/// Looks at the checked configuration: what it allows, but perhaps does not mean.
pub fn examine_configuration(case: &Case) -> Exam {
    let mut exam = Exam::of(Area::Configuration);
    let file = file(case.config.source.as_deref());
    exam.looked_at.push(file.clone());
    let missing = missing_programs(&case.config);
    let warnings = case.config.warnings(&case.allow);
    if missing.is_empty() && warnings.is_empty() {
        let said = format!("{file}: good");
        let good = Finding::new(configuration::GOOD, Severity::Fine, said);
        exam.findings.push(good);
    }
    for (severity, said) in missing
        .into_iter()
        .map(|said| (Severity::Doubt, said))
        .chain(warnings.into_iter().map(|said| (Severity::Advice, said)))
    {
        exam.findings.push(Finding::new(
            configuration::PERHAPS_NOT_MEANT,
            severity,
            said,
        ));
    }
    exam
}

/// Asks the daemon how it is, and gives its status to the other exams.
pub fn examine(case: &Case) -> (Exam, Option<Status>) {
    let mut exam = Exam::of(Area::Daemon);
    let socket = format!("the sockets in {}", case.runtime_dir.display());
    exam.looked_at.push(socket);
    match client::status(&case.runtime_dir) {
        Ok(status) => {
            exam.findings = about(&status, &case.config);
            (exam, Some(status))
        }
        Err(ClientError::NotRunning(_)) => (exam, None),
        Err(error @ ClientError::NotPermitted(_)) => {
            exam.not_covered.push(error.to_string());
            (exam, None)
        }
        Err(error) => {
            exam.findings.push(silent(&error));
            (exam, None)
        }
    }
}

fn silent(error: &ClientError) -> Finding {
    Finding::new(
        SILENT,
        Severity::Fault,
        "acmegate does not say how it is",
    )
    .seen(error.to_string())
    .remedy(
        "`systemctl restart acmegate`, which keeps open windows; `journalctl -u acmegate` says what happened",
    )
}

fn about(status: &Status, config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for problem in &status.problems {
        findings.push(Finding::new(PROBLEM, Severity::Doubt, problem.clone()));
    }
    let firewall = &status.firewall;
    if !firewall.installed && config.firewall.mode != Mode::GateOnly && firewall.mode != "gate-only"
    {
        findings.push(
            Finding::new(
                NOT_INSTALLED,
                Severity::Fault,
                "acmegate's part of the ruleset is not in the kernel: nothing opens",
            )
            .seen("`acmegate status` says: NOT in the kernel")
            .remedy("`acmegate firewall apply`; `journalctl -u acmegate` says who took it away"),
        );
    }
    if firewall.gaps > 0 {
        let times = match firewall.gaps {
            1 => "once".to_owned(),
            gaps => format!("{gaps} times"),
        };
        let said = format!(
            "somebody took acmegate's part of the ruleset away {times} since it was started, and it was put back"
        );
        findings.push(Finding::new(TAKEN_AWAY, Severity::Doubt, said).remedy(
            "have that program reload its own table instead of `nft flush ruleset`; \
                 `journalctl -u acmegate` says when it was",
        ));
    }
    let [running, examined] = [
        status.config.as_deref().map(Path::new),
        config.source.as_deref(),
    ]
    .map(file);
    if running != examined {
        let said = format!("acmegate runs with {running}, and what was examined is {examined}");
        findings.push(
            Finding::new(OTHER_FILE, Severity::Doubt, said)
                .remedy("name the same file to both, by --config"),
        );
    }
    let own = env!("CARGO_PKG_VERSION");
    if status.program != own {
        let said = format!(
            "acmegate {} runs, and this program is {own}",
            status.program
        );
        findings.push(
            Finding::new(OTHER_VERSION, Severity::Doubt, said)
                .remedy("`systemctl restart acmegate`, which keeps open windows"),
        );
    }
    findings.extend(status.budget.time.iter().filter_map(spent));
    let budget = &status.budget;
    if budget.used as u64 >= u64::from(budget.per_hour) {
        let said = format!(
            "{} windows were opened in the last hour, which is all that `[budget] per_hour` allows: the next is refused",
            budget.used
        );
        findings.push(Finding::new(BUDGET_SPENT, Severity::Fault, said).remedy(
            "find what opens so often (`acmegate report --since 1h`), wait, or allow more",
        ));
    }
    if findings.is_empty() {
        let said = format!("acmegate {own} runs with {running}");
        findings.push(Finding::new(RUNS, Severity::Fine, said));
    }
    findings
}

/// What is used up, if the next window does not fit.
fn spent(time: &Time) -> Option<Finding> {
    let wait = match time.fits_in_milliseconds {
        Some(0) => return None,
        Some(wait) => format!(
            "again in {} at the latest",
            many(wait.div_ceil(60_000), "minute")
        ),
        None => "never, for `[window] max` alone is longer".to_owned(),
    };
    let (of, severity) = match (time.of.as_str(), &time.name) {
        ("all", _) => ("windows".to_owned(), Severity::Fault),
        (of, Some(name)) => (format!("windows of the {of} {name}"), Severity::Doubt),
        (of, None) => (format!("windows of one {of}"), Severity::Doubt),
    };
    let said =
        format!("{of} were open for as long as `[budget]` allows: a longest one fits {wait}");
    Some(Finding::new(BUDGET_SPENT, severity, said).remedy(
        "see `acmegate status`, ask for shorter windows (`--for`), or allow more in `[budget]`",
    ))
}

fn file(path: Option<&Path>) -> String {
    match path {
        Some(path) => path.display().to_string(),
        None => "the built-in defaults".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::status::{Budget, Firewall, Share};

    fn well() -> Status {
        Status {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            firewall: Firewall {
                mode: "guard".to_owned(),
                installed: true,
                owned: true,
                landlock: "fully".to_owned(),
                ..Firewall::default()
            },
            budget: Budget {
                per_hour: 120,
                ..Budget::default()
            },
            ..Status::default()
        }
    }

    fn words(status: &Status) -> Vec<(&'static str, Severity)> {
        let findings = about(status, &Config::default());
        let words = findings
            .iter()
            .map(|finding| (finding.code.word, finding.severity));
        words.collect()
    }

    #[test]
    fn a_daemon_that_is_well_is_fine() {
        assert_eq!(words(&well()), [("runs", Severity::Fine)]);
    }

    #[test]
    fn everything_that_it_says_of_itself_is_passed_on() {
        let mut status = well();
        status.problems = vec!["the history cannot be written".to_owned()];
        status.firewall.installed = false;
        status.firewall.gaps = 2;
        status.config = Some("/srv/other.toml".to_owned());
        status.program = "0.0.9".to_owned();
        status.budget.used = 120;
        let share = Share {
            milliseconds: 28_800_000,
            allowed_milliseconds: Some(28_800_000),
        };
        status.budget.time = vec![Time {
            of: "all".to_owned(),
            name: None,
            caller: None,
            day: share,
            month: share,
            fits_in_milliseconds: Some(61_000),
        }];
        assert_eq!(
            words(&status),
            [
                ("problem", Severity::Doubt),
                ("not-installed", Severity::Fault),
                ("taken-away", Severity::Doubt),
                ("other-file", Severity::Doubt),
                ("other-version", Severity::Doubt),
                ("budget-spent", Severity::Fault),
                ("budget-spent", Severity::Fault),
            ]
        );
    }
}
