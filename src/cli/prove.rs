//! `acmegate open --prove`: the world knocks at a copy of the ruleset before a hook believes in its window.
//!
//! What was proved holds for as long as nobody but acmegate changes the ruleset: the daemon says by which generation
//! of it the window was surveyed, and for the same one nothing is tried twice. The note of that is a file beside the
//! daemon's sockets that root alone can have written.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::Failure;
use crate::config::lists::Lists;
use crate::config::{Config, Unchecked};
use crate::control::protocol::{Exit, FamilyName, Open, Response};
use crate::daemon::confine::Account;
use crate::daemon::parts::{self, AnyAccount};
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::twin::{Opening, TwinError, Window, prove_opening};
use crate::firewall::ruleset::{Mode, Settings};
use crate::gate::lease::{Entrance, Families, Interface};

/// How long a twin may take: a hook waits for the daemon for as long.
const PATIENCE: Duration = Duration::from_secs(10);
/// The note's name, in the runtime directory.
const NOTE: &str = "proved.json";
/// As many openings are remembered, each a line of some hundred octets.
const MAX_PROVED: usize = 16;
const MAX_NOTE_BYTES: u64 = 16 * 1024;

/// One opening that was proved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Proved {
    /// This boot of this host.
    boot: String,
    /// This network namespace.
    network: String,
    /// The generation of the ruleset that was surveyed.
    surveyed: u32,
    /// Of what would be installed and of what was opened, SHA-256 in hexadecimal.
    opened: String,
}

/// Proves what was opened, or would be: whether first packets of the whole world get through. The answer is what may
/// still be in the way, a line each.
///
/// # Errors
/// [`Failure`]: something is in the way (78), or nothing could be proved (69, or 77 for want of power).
pub fn prove(
    config: Option<&Path>,
    runtime_dir: &Path,
    open: &Open,
    response: &Response,
) -> Result<Vec<String>, Failure> {
    let config = Config::load_with(config, &AnyAccount, &Unchecked)
        .map_err(|error| Failure::new(Exit::Config, error))?;
    let lists = Lists::read(&config.allow).map_err(|error| Failure::new(Exit::Config, error))?;
    let account = Account::to_be(&config);
    let settings = parts::orders(&config, lists.list(), account).settings;
    let opening = opening(open, response)?;
    let wanted = wanted(&settings, &opening, response);
    if let Some(wanted) = &wanted
        && read(runtime_dir).contains(wanted)
    {
        return Ok(Vec::new());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Os, error))?;
    let (findings, not_carried) = runtime
        .block_on(prove_opening(&settings, &lists.list(), &opening, PATIENCE))
        .map_err(|error| unproved(&error))?;
    if let Some(fault) = findings
        .iter()
        .find(|finding| finding.severity == Severity::Fault)
    {
        return Err(Failure::new(Exit::Config, in_one_line(fault)));
    }
    let doubts: Vec<String> = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Doubt)
        .map(in_one_line)
        .chain(
            not_carried
                .iter()
                .map(|what| format!("not in the twin: {what}")),
        )
        .collect();
    if let Some(wanted) = wanted
        && doubts.is_empty()
    {
        // Without the note it is proved again next time.
        let _ = write(runtime_dir, wanted);
    }
    Ok(doubts)
}

fn opening(open: &Open, response: &Response) -> Result<Opening, Failure> {
    let entrance = match (&open.address, &open.interface) {
        (Some(address), _) => Entrance::Address(*address),
        (None, Some(name)) => {
            let interface = Interface::parse(name);
            let said = || Failure::new(Exit::Data, "that is no interface");
            Entrance::Interface(interface.ok_or_else(said)?)
        }
        (None, None) => Entrance::Any,
    };
    Ok(Opening {
        ports: response.ports.clone(),
        families: Families {
            v4: open.family != Some(FamilyName::Ipv6)
                && !matches!(open.address, Some(IpAddr::V6(_))),
            v6: open.family != Some(FamilyName::Ipv4)
                && !matches!(open.address, Some(IpAddr::V4(_))),
        },
        entrance,
        window: match open.dry_run {
            true => Window::Open,
            false => Window::AsItStands,
        },
    })
}

/// What the note would have to say; `None` where the daemon surveyed nothing.
fn wanted(settings: &Settings, opening: &Opening, response: &Response) -> Option<Proved> {
    let surveyed = response.surveyed?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let network = fs::read_link("/proc/self/ns/net").ok()?;
    let mode = match settings.mode {
        Mode::GateOnly => return None,
        _ => settings.to_nft(),
    };
    let opened = format!(
        "{mode}\n{:?} {:?} {:?}",
        opening.ports, opening.families, opening.entrance
    );
    let opened = digest(&SHA256, opened.as_bytes());
    Some(Proved {
        boot: boot.trim_end().to_owned(),
        network: network.display().to_string(),
        surveyed,
        opened: opened
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
    })
}

/// What was proved before; nothing that anybody but root could have written is believed.
fn read(runtime_dir: &Path) -> Vec<Proved> {
    let file = OpenOptions::new()
        .read(true)
        // The directory is the daemon's account's: no link is followed, and no pipe's other end waited for.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(runtime_dir.join(NOTE));
    let read = |file: File| {
        let about = file.metadata().ok()?;
        let is_roots = about.is_file() && about.uid() == 0 && about.mode() & 0o022 == 0;
        if !is_roots {
            return None;
        }
        let mut text = String::new();
        file.take(MAX_NOTE_BYTES).read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    };
    file.ok().and_then(read).unwrap_or_default()
}

fn write(runtime_dir: &Path, proved: Proved) -> std::io::Result<()> {
    let mut all = read(runtime_dir);
    // What another ruleset was proved for is never asked again.
    all.retain(|known| known.surveyed == proved.surveyed && known.boot == proved.boot);
    all.push(proved);
    let from = all.len().saturating_sub(MAX_PROVED);
    let text = serde_json::to_string(&all[from..])?;
    let aside = runtime_dir.join(format!(".{NOTE}.{}", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&aside)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&aside, runtime_dir.join(NOTE)));
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written
}

fn unproved(error: &TwinError) -> Failure {
    let exit = match error {
        TwinError::NoPower => Exit::NoPerm,
        _ => Exit::Unavailable,
    };
    let ways = error.ways_out().first();
    let way = ways.map_or(String::new(), |way| format!("; to allow it: {way}"));
    Failure::new(
        exit,
        format!("nothing could be proved: {error}{way}; leave --prove away to do without"),
    )
}

/// A finding as a hook says it.
fn in_one_line(finding: &Finding) -> String {
    let seen = finding.evidence.first();
    let seen = seen.map_or(String::new(), |seen| format!(" ({seen})"));
    let remedy = finding.remedy.first();
    let remedy = remedy.map_or(String::new(), |remedy| format!("; {remedy}"));
    format!("{}{seen}{remedy}", finding.finding)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn a_pipe_in_the_notes_place_keeps_no_hook_waiting() {
        let name = format!("acmegate-proved-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        let note = directory.join(NOTE);
        mknodat(CWD, &note, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let (done, is_done) = mpsc::channel();
        let place = directory.clone();
        std::thread::spawn(move || done.send(read(&place)));
        let read = is_done.recv_timeout(Duration::from_secs(10));
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(read, Ok(Vec::new()));
    }
}
