//! `acmegate doctor`: will the world get through, before the CA is asked?
//!
//! It examines, and changes nothing. What it exits with says how bad it is: 0, 1 or 2.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::explain;
use super::staging::{self, StagingArgs, unless_ended};
use super::terminal::{Color, plain, print};
use super::{Failure, wall};
use crate::config::lists::Lists;
use crate::config::{Config, Disk};
use crate::control::protocol::Exit;
use crate::daemon::privilege::HostAccounts;
use crate::doctor::case::Case;
use crate::doctor::finding::{Area, Exam, Severity};
use crate::doctor::letter::{self, Letter};
use crate::doctor::twin::Source;
use crate::doctor::{daemon, dns, firewall, listener, outlook, sandbox, sites};
use crate::gate::identifier::{Identifier, Pattern};

/// What is examined, and how it is told.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// What is to be validated: names and addresses [default: those of the sites]
    #[arg(value_name = "NAME", value_parser = identifier)]
    names: Vec<Identifier>,
    /// Only this part; may be repeated [default: all of them]
    #[arg(long, value_name = "PART", value_enum)]
    only: Vec<Part>,
    /// All but this part; may be repeated
    #[arg(long, value_name = "PART", value_enum, conflicts_with = "only")]
    skip: Vec<Part>,
    /// Also whether this system seals the daemon's processes as it should
    #[arg(long)]
    sandbox: bool,
    #[command(flatten)]
    dns: dns::DnsArgs,
    /// A saved ruleset instead of the live one, as nft, iptables-save or ip6tables-save printed it; may be given
    /// several times, and needs no root
    #[arg(long, value_name = "FILE")]
    ruleset: Vec<PathBuf>,
    /// One JSON object instead of text (docs/doctor.md)
    #[arg(long)]
    json: bool,
    /// When the text has colours
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    color: Color,
    #[command(flatten)]
    staging: StagingArgs,
}

/// A part of the examination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What the configuration says
    Configuration,
    /// Whether the gate runs, how it is, and who has the ports
    Daemon,
    /// What the world is told about the names
    Dns,
    /// The ruleset, read rule by rule
    Rules,
    /// A copy of the ruleset that packets are sent to
    Twin,
    /// Each site's answer, tried through the gate with a random token
    Sites,
    /// What could be done better
    Outlook,
    /// The seals of the daemon's processes, tried out; only if asked for
    Sandbox,
}

/// As many names as an order may have.
const MAX_NAMES: usize = 100;

pub fn run(
    config: Option<&Path>,
    runtime_dir: &Path,
    args: &DoctorArgs,
) -> Result<ExitCode, Failure> {
    if args.names.len() > MAX_NAMES {
        let said = format!("at most {MAX_NAMES} names at once: no CA has more in one order");
        return Err(Failure::new(Exit::Usage, said));
    }
    let trial = args.staging.trial()?;
    let source = explain::source(&args.ruleset)?;
    let (exams, names) = match case(config, runtime_dir, args) {
        Ok((case, left_out)) => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(WORKERS)
                .enable_all()
                .build()
                .map_err(|error| Failure::new(Exit::Os, error))?;
            let names = case.names.iter().map(ToString::to_string).collect();
            let exams = runtime.block_on(async {
                let mut exams = unless_ended(examine(&case, args, &source)).await?;
                exams.extend(too_many(left_out));
                if let Some(trial) = trial {
                    let findings = exams.iter().flat_map(|exam| &exam.findings);
                    let worst = findings.map(|finding| finding.severity).max();
                    exams.push(match worst {
                        Some(Severity::Fault) => staging::not_run(),
                        _ => trial.run(runtime_dir).await?,
                    });
                }
                Ok::<_, Failure>(exams)
            });
            // What a resolver or a silent upstream still owes is nothing to wait for.
            runtime.shutdown_background();
            (exams?, names)
        }
        Err(refused) => (vec![*refused], Vec::new()),
    };
    let letter = Letter::of(exams, names, wall());
    let text = match args.json {
        true => letter
            .json()
            .map_err(|error| Failure::new(Exit::Software, error))?,
        false => letter::text(&letter, args.color.paint()),
    };
    print(&text)?;
    Ok(ExitCode::from(letter.exit_code()))
}

/// Exams wait for the kernel, for name servers and for processes; hardly any of them works.
const WORKERS: usize = 2;

async fn examine(case: &Case, args: &DoctorArgs, source: &Source) -> Vec<Exam> {
    let mut exams = Vec::new();
    if args.wants(Part::Configuration) {
        exams.push(daemon::examine_configuration(case));
    }
    let (exam, status) = daemon::examine(case);
    if args.wants(Part::Daemon) {
        exams.push(listener::examine(case).await);
        exams.push(exam);
    }
    // Each of them waits for somebody else.
    let (names, rules, answers) = tokio::join!(
        async {
            match args.wants(Part::Dns) {
                true => {
                    let asked = args.dns.over(&case.config.dns);
                    Some(dns::examine(case, &asked, wall() / 1000).await)
                }
                false => None,
            }
        },
        firewall::examine(
            case,
            source.clone(),
            args.wants(Part::Rules),
            args.wants(Part::Twin),
        ),
        async {
            match args.wants(Part::Sites) {
                true => Some(sites::examine(case).await),
                false => None,
            }
        },
    );
    exams.extend(names);
    exams.extend(rules);
    exams.extend(answers);
    if args.wants(Part::Outlook) {
        let last_month = status
            .as_ref()
            .and_then(|_| outlook::windows_of_a_month(case));
        exams.push(outlook::examine(case, status.as_ref(), last_month, wall()));
    }
    if args.wants(Part::Sandbox) {
        exams.push(sandbox::examine(case).await);
    }
    exams
}

/// The case and how many names are left out of it, or what is the matter with the configuration.
fn case(
    config: Option<&Path>,
    runtime_dir: &Path,
    args: &DoctorArgs,
) -> Result<(Case, usize), Box<Exam>> {
    let config = Config::load_with(config, &HostAccounts, &Disk)
        .map_err(|error| Box::new(daemon::refused_file(&error)))?;
    let lists = Lists::read(&config.allow)
        .map_err(|error| Box::new(daemon::refused(&error.lines().join("\n"))))?;
    let mut names = match args.names.as_slice() {
        [] => names_of(&config),
        names => names.to_vec(),
    };
    let left_out = names.len().saturating_sub(MAX_NAMES);
    names.truncate(MAX_NAMES);
    let case = Case {
        allow: lists.list(),
        runtime_dir: runtime_dir.to_owned(),
        names,
        is_root: rustix::process::geteuid().is_root(),
        config,
    };
    Ok((case, left_out))
}

/// What the sites stand for, one name each: which names a wildcard has nobody can know.
fn names_of(config: &Config) -> Vec<Identifier> {
    let patterns = config.sites.iter().flat_map(|site| &site.gate.identifiers);
    let exact = patterns.filter_map(|pattern| match pattern {
        Pattern::Exact(identifier) => Some(identifier.clone()),
        Pattern::Wildcard(_) => None,
    });
    let mut names: Vec<Identifier> = exact.collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What is said of names that no exam saw.
fn too_many(left_out: usize) -> Option<Exam> {
    (left_out > 0).then(|| Exam {
        not_covered: vec![format!(
            "{left_out} more names of the sites: {MAX_NAMES} are examined at once; name them: `acmegate doctor NAME…`"
        )],
        ..Exam::of(Area::Configuration)
    })
}

/// A name or an address on the command line.
///
/// # Errors
/// One line: why it is none.
pub fn identifier(text: &str) -> Result<Identifier, String> {
    Identifier::parse(text).map_err(|error| plain(&error.to_string()))
}

impl DoctorArgs {
    fn wants(&self, part: Part) -> bool {
        match self.only.as_slice() {
            _ if part == Part::Sandbox && self.sandbox => true,
            [] if part == Part::Sandbox => false,
            [] => !self.skip.contains(&part),
            only => only.contains(&part),
        }
    }
}
