//! An access control list as the kernel keeps it in `system.posix_acl_access`, and what it grants (acl(5)).

/// An access control list. Rights are those of a mode's class: 4 to read, 2 to write, 1 to enter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acl {
    users: Vec<(u32, u32)>,
    group: u32,
    groups: Vec<(u32, u32)>,
    mask: Option<u32>,
    others: u32,
}

impl Acl {
    /// Version 2: entries of tag, rights and id in little-endian order, behind four octets of version.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        const VERSION: [u8; 4] = [2, 0, 0, 0];
        let entries = bytes.strip_prefix(&VERSION)?;
        let mut acl = Self::default();
        for entry in entries.chunks_exact(8) {
            let tag = u16::from_le_bytes([entry[0], entry[1]]);
            let rights = u32::from(u16::from_le_bytes([entry[2], entry[3]]));
            let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
            match tag {
                0x02 => acl.users.push((id, rights)),
                0x04 => acl.group = rights,
                0x08 => acl.groups.push((id, rights)),
                0x10 => acl.mask = Some(rights),
                0x20 => acl.others = rights,
                _ => {}
            }
        }
        Some(acl)
    }

    /// The access check algorithm, for who is not the owner; `gid` is the file's group.
    pub fn grants(&self, uid: u32, groups: &[u32], gid: u32, wanted: u32) -> bool {
        let mask = self.mask.unwrap_or(7);
        let has = |rights: u32| rights & mask & wanted == wanted;
        if let Some((_, rights)) = self.users.iter().find(|(id, _)| *id == uid) {
            return has(*rights);
        }
        let own = groups.contains(&gid).then_some(self.group);
        let named = self
            .groups
            .iter()
            .filter(|(id, _)| groups.contains(id))
            .map(|(_, rights)| *rights);
        let mut matching = own.into_iter().chain(named).peekable();
        match matching.peek() {
            Some(_) => matching.any(has),
            None => self.others & wanted == wanted,
        }
    }
}
