//! What is written: paths, modes and texts, each with the line by which we know it again.

use std::path::Path;

use super::HookClient;
use crate::cli::fingerprint;

/// The line that makes a file ours: this, a version, and a fingerprint of all other lines, by which
/// what any version wrote and nobody changed since is known.
pub const MARKER: &str = "# acmegate install-hooks ";
/// The version of the texts here.
const VERSION: u32 = 1;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookFile {
    /// From the root, without a leading slash.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// All of it, marker included.
    pub text: String,
    /// Whether its directory is there for our sake alone, so that an empty one is litter.
    pub is_directory_ours: bool,
}

impl HookFile {
    /// Whether systemd reads it.
    pub fn is_drop_in(&self) -> bool {
        self.path.ends_with(".conf")
    }

    fn drop_in(unit: &str, body: &str) -> Self {
        Self {
            path: format!("etc/systemd/system/{unit}.d/acmegate.conf"),
            mode: 0o644,
            text: marked("", body),
            is_directory_ours: true,
        }
    }

    fn program(path: &str, body: &str, is_directory_ours: bool) -> Self {
        Self {
            path: path.to_owned(),
            mode: 0o755,
            text: marked("#!/bin/sh\n", body),
            is_directory_ours,
        }
    }
}

/// The files of a client that has hooks of its own.
pub fn of_client(client: HookClient) -> Vec<HookFile> {
    match client {
        HookClient::Certbot => vec![
            HookFile::program(
                "etc/letsencrypt/renewal-hooks/pre/acmegate",
                CERTBOT_PRE,
                false,
            ),
            HookFile::program(
                "etc/letsencrypt/renewal-hooks/post/acmegate",
                CERTBOT_POST,
                false,
            ),
            HookFile::drop_in("certbot.service", CERTBOT_UNIT),
            HookFile::drop_in("snap.certbot.renew.service", CERTBOT_UNIT),
        ],
        HookClient::Dehydrated => vec![HookFile::program(
            "etc/acmegate/hooks/dehydrated-hook",
            DEHYDRATED,
            true,
        )],
        HookClient::Uacme => vec![HookFile::program(
            "etc/acmegate/hooks/uacme-hook",
            UACME,
            true,
        )],
        HookClient::Lego | HookClient::AcmeSh => Vec::new(),
    }
}

/// The drop-in for the unit of a client that has no hooks, or whose hooks are not used.
pub fn around_unit(client: HookClient, unit: &str) -> Vec<HookFile> {
    let name = match client {
        HookClient::AcmeSh => "acme-sh",
        _ => "lego",
    };
    let removal =
        format!("# `acmegate install-hooks {name} --unit {unit} --remove` takes it away.\n");
    vec![HookFile::drop_in(unit, &(removal + AROUND_UNIT))]
}

/// What is left to do once the files are there.
pub fn next_step(client: HookClient) -> &'static str {
    match client {
        HookClient::Certbot => {
            "systemctl daemon-reload; nothing else, every `certbot renew` finds the hooks"
        }
        HookClient::Lego | HookClient::AcmeSh => "systemctl daemon-reload",
        HookClient::Dehydrated => {
            "HOOK=/etc/acmegate/hooks/dehydrated-hook in dehydrated's configuration, and `answer = \"pushed\"` for its sites"
        }
        HookClient::Uacme => {
            "uacme --hook /etc/acmegate/hooks/uacme-hook, and `answer = \"pushed\"` for its sites"
        }
    }
}

/// What somebody must write who has no unit: a crontab is theirs. cron's search path is short, so
/// the lines name `program` by its whole path.
pub fn lines_to_write(client: HookClient, program: &Path) -> String {
    let lines = match client {
        HookClient::AcmeSh => ACME_SH_LINES,
        _ => LEGO_LINES,
    };
    lines.replace("{acmegate}", &program.display().to_string())
}

/// Whether a text carries our marker, and then whether nobody changed it since.
pub fn is_unchanged(text: &str) -> Option<bool> {
    let is_marker = |line: &&str| line.starts_with(MARKER);
    let marker = text.lines().find(is_marker)?;
    let rest: String = text
        .split_inclusive('\n')
        .filter(|line| !is_marker(line))
        .collect();
    let told = marker.strip_prefix(MARKER)?.split_once(' ');
    let told = told.filter(|(version, _)| version.parse::<u32>().is_ok());
    Some(told.is_some_and(|(_, told)| told == mark(&rest)))
}

fn marked(first: &str, body: &str) -> String {
    let mark = mark(&format!("{first}{body}"));
    format!("{first}{MARKER}{VERSION} {mark}\n{body}")
}

fn mark(text: &str) -> String {
    format!("{:016x}", fingerprint(text.as_bytes()))
}

const CERTBOT_PRE: &str = r#"# `acmegate install-hooks certbot --remove` takes this file away.
# Opens the window before certbot asks for a validation, and only when something is due. The lease
# is held by this certbot: it ends 5 s after it, should no post-hook run.
PATH="$PATH:/usr/local/sbin:/usr/local/bin"
exec acmegate open
"#;

const CERTBOT_POST: &str = r#"# `acmegate install-hooks certbot --remove` takes this file away.
# Closes the window when certbot is done, whatever came of it.
PATH="$PATH:/usr/local/sbin:/usr/local/bin"
exec acmegate close
"#;

const CERTBOT_UNIT: &str = "\
# `acmegate install-hooks certbot --remove` takes this file away.
#
# The window is opened and closed by /etc/letsencrypt/renewal-hooks, only when something is due.
# But certbot goes on when a pre-hook fails, and the failed validation counts at the CA; systemd
# does not go on when ExecStartPre= fails. So this asks beforehand whether a window could be
# opened, and opens none. With acmegate down or a chain in the way nothing is tried and the unit
# fails, for all to see: behind a shut port the renewal would fail as well, and the next run comes
# before the certificate ends. Where every certificate is validated by dns-01, remove this file.
#
# ExecStopPost= has nothing to close: the lease of a pre-hook is named after certbot's process and
# held by it, so it ends 5 s after certbot, also after a crash, and at the latest with [window] max.
[Unit]
After=acmegate.service

[Service]
ExecStartPre=acmegate open --dry-run --quiet
";

const AROUND_UNIT: &str = "\
#
# The window is open while the unit runs. Neither command is a child of the client, so the lease
# has no holder and a name that both know, the unit's own (%N). It ends with ExecStopPost=, which
# systemd runs however the client ended, a crash or a failed start included; and at the latest
# with [window] max, by the kernel. A run must not be longer than that.
# If ExecStartPre= fails (acmegate is down, or a chain is in the way) the client is not started and
# the unit fails, for all to see: behind a shut port its validation would fail as well, and count at
# the CA. A failing ExecStopPost= means nothing: what is left open closes by itself.
# `+`: as root, whatever User= says, so that the account needs no [[grant]].
[Unit]
After=acmegate.service

[Service]
ExecStartPre=+acmegate open --quiet --lease %N
ExecStopPost=-+acmegate close --quiet --lease %N
";

const DEHYDRATED: &str = r#"# `acmegate install-hooks dehydrated --remove` takes this file away.
# For HOOK= of dehydrated's configuration. Opens at the start, pushes each token, withdraws it, and
# closes at the end; handlers that are none of these do nothing.
PATH="$PATH:/usr/local/sbin:/usr/local/bin"
exec acmegate hook dehydrated "$@"
"#;

const UACME: &str = r#"# `acmegate install-hooks uacme --remove` takes this file away.
# For `uacme --hook`. Pushes the token and opens, closes and withdraws; declines dns-01.
PATH="$PATH:/usr/local/sbin:/usr/local/bin"
exec acmegate hook uacme "$@"
"#;

const LEGO_LINES: &str = "\
Nothing is written: acmegate edits no crontab.
lego 5 has hooks of its own:
    lego run … --pre-hook=\"acmegate hook lego pre\" --post-hook=\"acmegate hook lego post\"
lego 4 has none before the order. If a systemd service runs it:
    acmegate install-hooks lego --unit NAME.service
If cron does, change its line, here for /etc/crontab, to:
    17 3 * * *  root  {acmegate} open --lease lego && { lego … renew; r=$?; {acmegate} close --lease lego; exit $r; }
";

const ACME_SH_LINES: &str = "\
Nothing is written: acmegate edits no crontab.
acme.sh keeps hooks that were given with --issue, and its cron line uses them:
    acme.sh --issue … --pre-hook \"{acmegate} open\" --post-hook \"{acmegate} close\"
To leave certificates that were issued without them as they are, and if a systemd service runs acme.sh:
    acmegate install-hooks acme-sh --unit NAME.service
If cron does, change its line to:
    17 3 * * *  {acmegate} open --lease acme-sh && { \"$HOME\"/.acme.sh/acme.sh --cron; r=$?; {acmegate} close --lease acme-sh; exit $r; }
";

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<HookFile> {
        let mut all = around_unit(HookClient::Lego, "lego.service");
        all.extend(around_unit(HookClient::AcmeSh, "acme-sh.service"));
        for client in [
            HookClient::Certbot,
            HookClient::Dehydrated,
            HookClient::Uacme,
        ] {
            all.extend(of_client(client));
        }
        all
    }

    #[test]
    fn what_we_write_is_known_as_ours_and_unchanged() {
        for file in all() {
            assert_eq!(is_unchanged(&file.text), Some(true), "{}", file.path);
            assert_eq!(file.text.matches(MARKER).count(), 1, "{}", file.path);
            let begins_well = file.is_drop_in() || file.text.starts_with("#!/bin/sh\n# acmegate");
            assert!(begins_well, "{}", file.path);
        }
    }

    #[test]
    fn as_people_read_them() {
        let all: Vec<String> = all()
            .iter()
            .map(|file| format!("/{} {:04o}\n{}", file.path, file.mode, file.text))
            .collect();
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn any_change_is_seen() {
        for file in all() {
            for (at, _) in file.text.char_indices().filter(|(at, _)| at % 7 == 0) {
                let mut text = file.text.clone();
                text.insert(at, 'x');
                assert_ne!(is_unchanged(&text), Some(true), "{} at {at}", file.path);
            }
            let twice = format!("{}{MARKER}1 0\n", file.text);
            assert_ne!(is_unchanged(&(twice + "rm -r /\n")), Some(true));
        }
        assert_eq!(is_unchanged("#!/bin/sh\nexec acmegate open\n"), None);
    }
}
