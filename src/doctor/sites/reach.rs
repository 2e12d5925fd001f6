//! Whether the gate's front may read a path: owner, groups, mode and access control list of every directory on
//! the way, judged as the kernel judges them (path_resolution(7), acl(5)).
//!
//! It opens no file; what it says is an explanation of what was tried end to end, never a proof.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, User, getgrouplist};

use super::acl::Acl;
use crate::config::quoted;

/// To enter a directory.
const ENTER: u32 = 0o1;
/// To read a file, or to list a directory.
const READ: u32 = 0o4;

/// With whose eyes a path is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Eyes {
    /// What the account is called.
    pub(super) name: String,
    uid: u32,
    /// The group, and the supplementary ones.
    groups: Vec<u32>,
}

impl Eyes {
    /// The running front's, by what the kernel says of it (proc_pid_status(5)); else those of the configured
    /// account.
    pub(super) fn of_front(pid: Option<u32>, user: &str) -> Option<Self> {
        let running = pid
            .and_then(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok())
            .and_then(|status| Self::parse(&status));
        let (uid, groups) = match running {
            Some(found) => found,
            None => Self::configured(user)?,
        };
        let known = User::from_uid(uid.into()).ok().flatten();
        Some(Self {
            name: known.map_or_else(|| user.to_owned(), |user| user.name),
            uid,
            groups,
        })
    }

    fn parse(status: &str) -> Option<(u32, Vec<u32>)> {
        let numbers = |key: &str| -> Option<Vec<u32>> {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace()
                .map(|word| word.parse().ok())
                .collect()
        };
        // Real, effective, saved, and the one that files are looked at with.
        let uid = numbers("Uid:")?.get(3).copied()?;
        let mut groups = vec![numbers("Gid:")?.get(3).copied()?];
        groups.extend(numbers("Groups:")?);
        Some((uid, groups))
    }

    fn configured(user: &str) -> Option<(u32, Vec<u32>)> {
        let found = match user.parse::<u32>() {
            Ok(uid) => User::from_uid(uid.into()),
            Err(_) => User::from_name(user),
        };
        let found = found.ok().flatten()?;
        let name = std::ffi::CString::new(found.name).ok()?;
        let groups = getgrouplist(&name, found.gid).unwrap_or_else(|_| vec![found.gid]);
        Some((
            found.uid.as_raw(),
            groups.into_iter().map(Gid::as_raw).collect(),
        ))
    }

    fn may(&self, inode: &Inode, wanted: u32) -> bool {
        if self.uid == inode.uid {
            return inode.mode >> 6 & wanted == wanted;
        }
        let of_group = |mode: u32| self.groups.contains(&inode.gid).then_some(mode >> 3 & 7);
        match &inode.acl {
            Some(acl) => acl.grants(self.uid, &self.groups, inode.gid, wanted),
            None => of_group(inode.mode).unwrap_or(inode.mode & 7) & wanted == wanted,
        }
    }
}

/// What the kernel judges by.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Inode {
    uid: u32,
    gid: u32,
    mode: u32,
    acl: Option<Acl>,
}

/// The first thing on a path that is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Barrier {
    /// Which one.
    pub(super) path: PathBuf,
    /// What the rights are now, as in `drwx------ root root`.
    pub(super) rights: String,
    is_directory: bool,
    gid: u32,
    /// Whether it is of that very account, whose own rights are the owner's then, whatever others have.
    is_own: bool,
    /// Whether its group might do it.
    group_may: bool,
}

impl Barrier {
    /// What is to be typed, the narrowest first.
    pub(super) fn ways_out(&self, eyes: &Eyes) -> Vec<String> {
        let path = quoted(&self.path);
        let right = if self.is_directory { "x" } else { "r" };
        let name = &eyes.name;
        if self.is_own {
            return vec![format!("`chmod u+{right} {path}`")];
        }
        let mut ways = vec![format!("`setfacl -m u:{name}:{right} {path}`")];
        if self.group_may
            && let Some(group) = group_name(self.gid)
        {
            ways.push(format!(
                "or `usermod -aG {group} {name}`, then `systemctl restart acmegate`"
            ));
        }
        ways.push(format!("or `chmod o+{right} {path}`"));
        ways
    }
}

/// The first component of `path` that these eyes may not pass, up from the root; `None` if there is none. A file at the
/// end must be readable. Root has no more eyes than others: the front has given up every capability.
pub(super) fn barrier(path: &Path, eyes: &Eyes) -> Option<Barrier> {
    let resolved = fs::canonicalize(path).ok()?;
    let mut parts: Vec<&Path> = resolved.ancestors().collect();
    parts.reverse();
    parts.into_iter().find_map(|part| {
        let metadata = fs::metadata(part).ok()?;
        let inode = Inode {
            uid: metadata.uid(),
            gid: metadata.gid(),
            mode: metadata.mode(),
            acl: acl(part),
        };
        let wanted = if metadata.is_dir() { ENTER } else { READ };
        (!eyes.may(&inode, wanted)).then(|| Barrier {
            path: part.to_owned(),
            rights: rights(&metadata),
            is_directory: metadata.is_dir(),
            gid: inode.gid,
            is_own: inode.uid == eyes.uid,
            group_may: inode.mode >> 3 & wanted == wanted,
        })
    })
}

fn acl(path: &Path) -> Option<Acl> {
    let mut bytes = [0u8; 4096];
    let length = rustix::fs::getxattr(path, "system.posix_acl_access", &mut bytes).ok()?;
    Acl::parse(bytes.get(..length)?)
}

/// As ls(1) shows it.
fn rights(metadata: &fs::Metadata) -> String {
    let mode = metadata.mode();
    let kind = if metadata.is_dir() { 'd' } else { '-' };
    let bits: String = (0..9)
        .map(|at| match mode & (0o400 >> at) {
            0 => '-',
            _ => ['r', 'w', 'x'][at % 3],
        })
        .collect();
    let user = User::from_uid(metadata.uid().into()).ok().flatten();
    let user = user.map_or_else(|| metadata.uid().to_string(), |user| user.name);
    let group = group_name(metadata.gid()).unwrap_or_else(|| metadata.gid().to_string());
    format!("{kind}{bits} {user} {group}")
}

fn group_name(gid: u32) -> Option<String> {
    let group = nix::unistd::Group::from_gid(gid.into()).ok().flatten()?;
    Some(group.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eyes(uid: u32, groups: &[u32]) -> Eyes {
        Eyes {
            name: "acmegate".to_owned(),
            uid,
            groups: groups.to_vec(),
        }
    }

    fn inode(mode: u32, acl: Option<Acl>) -> Inode {
        Inode {
            uid: 0,
            gid: 33,
            mode,
            acl,
        }
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        // A group that may not is worse off than everybody else.
        assert!(!eyes(990, &[33]).may(&inode(0o705, None), ENTER));
        assert!(eyes(990, &[990]).may(&inode(0o705, None), ENTER));
        assert!(eyes(990, &[990, 33]).may(&inode(0o710, None), ENTER));
        assert!(!eyes(0, &[0]).may(&inode(0o077, None), ENTER));
        assert!(!eyes(990, &[990]).may(&inode(0o711, None), READ));
    }

    #[test]
    fn an_access_control_list_is_read_as_acl_5_has_it() {
        let entry = |tag: u16, rights: u16, id: u32| {
            [
                &tag.to_le_bytes()[..],
                &rights.to_le_bytes(),
                &id.to_le_bytes(),
            ]
            .concat()
        };
        let none = u32::MAX;
        let bytes = [
            vec![2, 0, 0, 0],
            entry(0x01, 7, none),
            entry(0x02, 1, 990),
            entry(0x02, 7, 991),
            entry(0x04, 0, none),
            entry(0x08, 5, 50),
            entry(0x10, 1, none),
            entry(0x20, 0, none),
        ]
        .concat();
        let with = |mode| inode(mode, Acl::parse(&bytes));
        assert!(eyes(990, &[990]).may(&with(0o710), ENTER));
        // The mask holds for all but the owner and others.
        assert!(!eyes(991, &[991]).may(&with(0o710), READ));
        assert!(eyes(992, &[50]).may(&with(0o710), ENTER));
        assert!(!eyes(993, &[993]).may(&with(0o710), ENTER));
        assert_eq!(Acl::parse(b"\x01\0\0\0"), None);
    }

    #[test]
    fn the_kernels_word_on_a_process_is_read() {
        let status = "Name:\tx\nUid:\t1\t2\t3\t990\nGid:\t1\t2\t3\t991\nGroups:\t5 33 \n";
        assert_eq!(Eyes::parse(status), Some((990, vec![991, 5, 33])));
        assert_eq!(Eyes::parse("Name:\tx\n"), None);
    }

    #[test]
    fn ways_out_name_path_and_right() {
        let mut barrier = Barrier {
            path: PathBuf::from("/home/alice smith"),
            rights: "drwx------ alice alice".to_owned(),
            is_directory: true,
            gid: 0,
            is_own: false,
            group_may: true,
        };
        assert_eq!(
            barrier.ways_out(&eyes(990, &[])),
            [
                "`setfacl -m u:acmegate:x '/home/alice smith'`",
                "or `usermod -aG root acmegate`, then `systemctl restart acmegate`",
                "or `chmod o+x '/home/alice smith'`"
            ]
        );
        barrier.is_own = true;
        assert_eq!(
            barrier.ways_out(&eyes(990, &[])),
            ["`chmod u+x '/home/alice smith'`"]
        );
    }
}
