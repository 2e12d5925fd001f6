//! Webroots: whether a directory is there and can be read by the account that will read it.
//!
//! Nothing is opened and nothing is kept: this look is for the operator's error message. What
//! protects the files is the handle that `answer` opens beneath.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};

/// Looks at webroots. An argument, so that checking a file needs no disk.
pub trait Webroots {
    /// Whether the directory exists and `reader` can reach its files.
    ///
    /// # Errors
    /// [`Fault`], naming the first component that fails.
    fn look(&self, webroot: &Path, reader: &Reader) -> Result<(), Fault>;
}

/// The account that will read webroots: `[daemon] user`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Its name, for messages.
    pub name: String,
    /// Its uid, if there is such an account.
    pub uid: Option<u32>,
}

/// The component of a webroot that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not exist.
    Missing(PathBuf),
    /// It is something else than a directory.
    NoDirectory(PathBuf),
    /// The reader may not pass through it.
    NoEntry(PathBuf),
    /// The reader may not list it or open files in it.
    NoReading(PathBuf),
    /// Something else, in the system's words.
    Other(PathBuf, String),
}

/// Looks at the real directories. If the reader is another account than this process, its rights
/// are judged by owner and mode, in doubt in its favour, because its groups are not known here.
#[derive(Clone, Copy, Debug)]
pub struct Disk;

/// Looks at nothing and is content.
#[derive(Clone, Copy, Debug)]
pub struct Unchecked;

impl Webroots for Unchecked {
    fn look(&self, _webroot: &Path, _reader: &Reader) -> Result<(), Fault> {
        Ok(())
    }
}

impl Webroots for Disk {
    fn look(&self, webroot: &Path, reader: &Reader) -> Result<(), Fault> {
        let other = reader
            .uid
            .filter(|uid| *uid != rustix::process::geteuid().as_raw());
        let resolved = match fs::canonicalize(webroot) {
            Ok(resolved) => resolved,
            Err(error) => return unresolved(webroot, &error, other.is_some()),
        };
        let mut parts: Vec<&Path> = resolved.ancestors().collect();
        parts.reverse();
        for part in &parts {
            let metadata = fs::metadata(part)
                .map_err(|error| Fault::Other(part.to_path_buf(), error.to_string()))?;
            if !metadata.is_dir() {
                return Err(Fault::NoDirectory(part.to_path_buf()));
            }
            let is_last = *part == resolved;
            let may = match other {
                Some(0) => true,
                Some(uid) => may_by_mode(&metadata, uid, is_last),
                None => may_myself(part, is_last),
            };
            if !may {
                let fault = if is_last {
                    Fault::NoReading
                } else {
                    Fault::NoEntry
                };
                return Err(fault(part.to_path_buf()));
            }
        }
        Ok(())
    }
}

/// Which component of a path cannot be resolved. What this process may not see, another may.
fn unresolved(webroot: &Path, error: &std::io::Error, for_another: bool) -> Result<(), Fault> {
    let mut parts: Vec<&Path> = webroot.ancestors().collect();
    parts.reverse();
    let mut above = Path::new("/");
    for part in parts {
        match fs::metadata(part) {
            Ok(metadata) if !metadata.is_dir() => {
                return Err(Fault::NoDirectory(part.to_path_buf()));
            }
            Ok(_) => above = part,
            Err(error) => {
                return match error.kind() {
                    ErrorKind::NotFound => Err(Fault::Missing(part.to_path_buf())),
                    ErrorKind::PermissionDenied if for_another => Ok(()),
                    ErrorKind::PermissionDenied => Err(Fault::NoEntry(above.to_path_buf())),
                    _ => Err(Fault::Other(part.to_path_buf(), error.to_string())),
                };
            }
        }
    }
    Err(Fault::Other(webroot.to_path_buf(), error.to_string()))
}

fn may_myself(part: &Path, is_last: bool) -> bool {
    let access = if is_last {
        Access::READ_OK | Access::EXEC_OK
    } else {
        Access::EXEC_OK
    };
    // Only a refusal counts: an old kernel or a seccomp filter may not know the question.
    !matches!(
        rustix::fs::accessat(CWD, part, access, AtFlags::EACCESS),
        Err(rustix::io::Errno::ACCESS)
    )
}

/// By owner bits for the owner; for everybody else by the more generous of group and others, as
/// group membership and access control lists (whose mask stands in the group bits) are unknown.
fn may_by_mode(metadata: &fs::Metadata, uid: u32, is_last: bool) -> bool {
    let wanted = if is_last { 0o5 } else { 0o1 };
    let mode = metadata.mode();
    let granted = if metadata.uid() == uid {
        [mode >> 6, mode >> 6]
    } else {
        [mode >> 3, mode]
    };
    granted.iter().any(|bits| bits & wanted == wanted)
}

/// What ProtectHome= hides (systemd.exec(5)).
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

/// Whether the unit's `ProtectHome=` is about this path.
pub fn is_in_a_home(path: &Path) -> bool {
    HOMES.iter().any(|home| path.starts_with(home))
}

/// What to type to show a webroot to the service, where the unit hides it: the webroot alone, for reading.
pub fn drop_in_for(webroot: &Path) -> String {
    // systemd splits at blanks, and a colon separates the places outside and inside.
    let path = webroot.to_string_lossy();
    let path = path.replace('\\', "\\\\").replace('"', "\\\"");
    let path = path.replace(':', "\\:").replace('%', "%%");
    let homes = match is_in_a_home(webroot) {
        true => "`ProtectHome=tmpfs`, ",
        false => "",
    };
    format!(
        "`systemctl edit acmegate` with the lines `[Service]`, {homes}`BindReadOnlyPaths=\"{path}\"`, then restart it"
    )
}

impl Fault {
    /// What is wrong with a webroot, and what to do about it.
    pub(super) fn explain(&self, webroot: &Path, reader: &Reader) -> (String, String) {
        let (message, fix) = self.by_itself(reader);
        let (Self::Missing(part) | Self::NoEntry(part) | Self::NoReading(part)) = self else {
            return (message, fix);
        };
        if !is_in_a_home(webroot) {
            return (message, fix);
        }
        let shown = drop_in_for(webroot);
        // Hidden, a home is a directory that nobody may enter; its own mode is rarely so.
        let fix = match HOMES.iter().any(|home| part == Path::new(home)) {
            true => format!("ProtectHome= of the unit hides it: {shown}"),
            false => format!("{fix}; and where ProtectHome= of the unit hides it: {shown}"),
        };
        (message, fix)
    }

    fn by_itself(&self, reader: &Reader) -> (String, String) {
        let name = &reader.name;
        match self {
            Self::Missing(path) => (
                format!("`{}` does not exist", path.display()),
                if path.starts_with("/tmp") || path.starts_with("/var/tmp") {
                    // PrivateTmp=, as our unit has it: made on the host it would still not be there.
                    "a service has a /tmp of its own: name a directory elsewhere".to_owned()
                } else {
                    format!("create it: mkdir -p {}", quoted(path))
                },
            ),
            Self::NoDirectory(path) => (
                format!("`{}` is not a directory", path.display()),
                "name the directory that holds .well-known".to_owned(),
            ),
            Self::NoEntry(path) => {
                let quoted = quoted(path);
                (
                    format!("`{name}` may not pass through `{}`", path.display()),
                    format!("chmod o+x {quoted}, or setfacl -m u:{name}:x {quoted}"),
                )
            }
            Self::NoReading(path) => {
                let quoted = quoted(path);
                (
                    format!("`{name}` may not read `{}`", path.display()),
                    format!("chmod o+rx {quoted}, or setfacl -m u:{name}:rx {quoted}"),
                )
            }
            Self::Other(path, why) => (
                format!("`{}` cannot be looked at: {why}", path.display()),
                "name a directory that can be read".to_owned(),
            ),
        }
    }
}

/// A path as a shell takes it: commands are there to be pasted, and the file may be a stranger's.
pub fn quoted(path: &Path) -> String {
    let path = path.to_string_lossy();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if path.bytes().all(is_plain) {
        return path.into_owned();
    }
    format!("'{}'", path.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests;
