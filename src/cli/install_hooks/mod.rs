//! `acmegate install-hooks CLIENT`: puts our hook files where a client or its unit finds them.
//!
//! It writes files of its own and nothing else: no crontab and no client's configuration is edited,
//! nothing is executed, and no file that is not ours is replaced or removed.

mod files;
mod place;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use self::files::HookFile;
use self::place::Found;
use super::Failure;
use super::terminal::{complain, print, say};
use crate::control::protocol::Exit;
use crate::gate::lease::LeaseName;

/// Whose hooks, and what is done with them.
#[derive(Debug, Args)]
pub struct InstallHooksArgs {
    /// The ACME client
    #[arg(value_enum)]
    client: HookClient,
    /// Show what would be written and where, and write nothing
    #[arg(long, conflicts_with = "remove")]
    print: bool,
    /// Take away what was written, and nothing else
    #[arg(long)]
    remove: bool,
    /// The systemd service that runs the client, for lego and acme.sh
    #[arg(long, value_name = "NAME")]
    unit: Option<String>,
    /// Write below this directory, such as an image's [default: /]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

/// A client that has hook files, or a unit to put some beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HookClient {
    /// renewal-hooks, and drop-ins for the units of Debian and of the snap
    Certbot,
    /// A program for HOOK
    Dehydrated,
    /// A program for --hook
    Uacme,
    /// A drop-in for --unit, or the cron line to write
    Lego,
    /// A drop-in for --unit, or the lines to write
    AcmeSh,
}

pub fn run(args: &InstallHooksArgs) -> Result<ExitCode, Failure> {
    let unit = args.unit.as_deref().map(service).transpose()?;
    let has_unit = matches!(args.client, HookClient::Lego | HookClient::AcmeSh);
    let files = match (has_unit, unit) {
        (true, Some(unit)) => files::around_unit(args.client, &unit),
        (true, None) if args.remove => {
            return Err(usage(
                "--remove needs --unit NAME: without a unit nothing was written",
            ));
        }
        (true, None) => {
            let own = std::env::current_exe().unwrap_or_else(|_| "/usr/bin/acmegate".into());
            return print(&files::lines_to_write(args.client, &own));
        }
        (false, Some(_)) => {
            return Err(usage(
                "--unit is for lego and acme-sh: this client has hooks of its own, which open only when something is due",
            ));
        }
        (false, None) => files::of_client(args.client),
    };
    let root = args.root.as_deref().unwrap_or(Path::new("/"));
    if !root.is_dir() {
        let message = format!("{} is no directory", root.display());
        return Err(Failure::new(Exit::Data, message));
    }
    match (args.print, args.remove) {
        (true, _) => show(root, &files)?,
        (_, true) => return remove(root, &files),
        (false, false) => write(root, &files, args.client)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The name of a service, as systemd has it, that a lease can be named after.
fn service(name: &str) -> Result<String, Failure> {
    let stem = name.strip_suffix(".service").unwrap_or(name);
    // A template has no name before it has an instance.
    let example = match stem.ends_with('@') {
        true => format!("{stem}1"),
        false => stem.to_owned(),
    };
    let has_other_suffix = stem.ends_with(".timer") || stem.ends_with(".socket");
    if LeaseName::parse(&example).is_none() || stem.starts_with('.') || has_other_suffix {
        return Err(usage(&format!(
            "--unit {}: the name of a service, of at most 40 letters, digits and . _ : @ + -",
            name.escape_debug()
        )));
    }
    Ok(format!("{stem}.service"))
}

fn usage(message: &str) -> Failure {
    Failure::new(Exit::Usage, message)
}

fn show(root: &Path, files: &[HookFile]) -> Result<(), Failure> {
    for file in files {
        let path = place::below(root, file)?;
        let state = match place::look(&path, file)? {
            Found::Absent => "would be written",
            Found::Same => "is there already",
            Found::Ours => "would be updated",
            Found::Changed | Found::Foreign => "is there and is not ours: it would be refused",
        };
        print(&format!(
            "==> {} (mode {:04o}) {state}\n{}\n",
            path.display(),
            file.mode,
            file.text
        ))?;
    }
    Ok(())
}

/// All or none: everything is looked at before anything is written.
fn write(root: &Path, files: &[HookFile], client: HookClient) -> Result<(), Failure> {
    let mut found = Vec::new();
    for file in files {
        let path = place::below(root, file)?;
        let state = place::look(&path, file)?;
        if let Some(why) = refusal(state) {
            return Err(Failure::new(
                Exit::Config,
                format!(
                    "{} {why}; nothing was written. Move it away and run this again, or keep it and add to it what `acmegate install-hooks … --print` shows",
                    path.display()
                ),
            ));
        }
        found.push((path, state));
    }
    let mut is_new = false;
    for (file, (path, state)) in files.iter().zip(found) {
        match state {
            Found::Same => say(format_args!("unchanged: {}", path.display())),
            Found::Ours => {
                place::replace(&path, file)?;
                say(format_args!("updated: {}", path.display()));
                is_new = true;
            }
            _ => {
                place::create(&path, file)?;
                say(format_args!("written: {}", path.display()));
                is_new = true;
            }
        }
    }
    if is_new {
        say(format_args!("next: {}", files::next_step(client)));
    }
    Ok(())
}

fn refusal(found: Found) -> Option<&'static str> {
    match found {
        Found::Changed => Some("was changed since acmegate wrote it"),
        Found::Foreign => Some("is not acmegate's"),
        Found::Absent | Found::Same | Found::Ours => None,
    }
}

/// Whatever is ours goes; whatever is not stays, and is told.
fn remove(root: &Path, files: &[HookFile]) -> Result<ExitCode, Failure> {
    let (mut code, mut has_removed_unit) = (ExitCode::SUCCESS, false);
    for file in files {
        let path = place::below(root, file)?;
        let found = place::look(&path, file)?;
        match (found, refusal(found)) {
            (Found::Absent, _) => say(format_args!("not there: {}", path.display())),
            (_, Some(why)) => {
                complain(format_args!(
                    "acmegate: left alone: {} {why}; remove it yourself if it is of no use",
                    path.display()
                ));
                code = ExitCode::from(Exit::Config as u8);
            }
            (_, None) => {
                place::remove(&path, file)?;
                say(format_args!("removed: {}", path.display()));
                has_removed_unit |= file.is_drop_in();
            }
        }
    }
    if has_removed_unit {
        say(format_args!("next: systemctl daemon-reload"));
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_a_service_and_no_path() {
        let of = |name: &str| service(name).ok();
        assert_eq!(of("lego"), Some("lego.service".to_owned()));
        assert_eq!(of("lego.service"), Some("lego.service".to_owned()));
        assert_eq!(of("lego@.service"), Some("lego@.service".to_owned()));
        assert_eq!(of("a.b@c.d.service"), Some("a.b@c.d.service".to_owned()));
        let long = "a".repeat(41);
        for wrong in [
            "",
            ".service",
            "..",
            "../x",
            "a/b",
            "a b",
            "a\nb",
            "lego.timer",
            "%i",
            &long,
        ] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
