//! The user of a process: numbers, or names looked up in the container's own files. These may be
//! anything, links that lead outside included, so they are opened as the container would see them.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use oci_spec::runtime::{User, UserBuilder};

use crate::error::{Error, Result};

/// A file of names that is longer is not read to its end.
const LONGEST_FILE: u64 = 4 << 20;

/// Finds `USER[:GROUP]`, each a name or a number, in the root file system. A user that is known
/// there comes with its groups.
///
/// # Errors
/// A name that is not known, or files that cannot be read.
pub(crate) fn find_user(rootfs: &Path, text: &str) -> Result<User> {
    let refuse = |why: &str| Error::said(format!("user {text}: {why}"));
    let read = |file: &str| {
        read_inside(rootfs, file)
            .map_err(|cause| Error::io(format!("user {text}: {file} of the container"), cause))
    };
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let number: Option<u32> = user.parse().ok();
    let passwd = read("etc/passwd")?;
    let entry = passwd
        .lines()
        .map(Passwd::parse)
        .find_map(|entry| entry.filter(|entry| entry.name == user || Some(entry.uid) == number));
    let uid = entry.as_ref().map(|entry| entry.uid).or(number);
    let uid = uid.ok_or_else(|| refuse("the container's /etc/passwd knows no such user"))?;
    let groups = read("etc/group")?;
    let groups: Vec<Group<'_>> = groups.lines().filter_map(Group::parse).collect();
    let gid = match group {
        None => entry.as_ref().map_or(0, |entry| entry.gid),
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => groups
                .iter()
                .find(|known| known.name == group)
                .map(|known| known.gid)
                .ok_or_else(|| refuse("the container's /etc/group knows no such group"))?,
        },
    };
    let mut more = Vec::new();
    if let (Some(entry), None) = (&entry, group) {
        let of_user = groups.iter().filter(|group| group.has(entry.name));
        more.extend(of_user.map(|group| group.gid).filter(|&other| other != gid));
    }
    let built = UserBuilder::default()
        .uid(uid)
        .gid(gid)
        .additional_gids(more)
        .build();
    built.map_err(|error| refuse(&error.to_string()))
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

impl<'a> Passwd<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Self { name, uid, gid })
    }
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> Group<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        let members = fields.next().unwrap_or_default();
        Some(Self { name, gid, members })
    }

    fn has(&self, user: &str) -> bool {
        self.members.split(',').any(|member| member == user)
    }
}

/// A file of a root file system, empty if there is none; links are followed inside only.
fn read_inside(rootfs: &Path, file: &str) -> io::Result<String> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC;
    let folder = open(rootfs, flags, Mode::empty())?;
    // Without O_NONBLOCK a FIFO of that name would hold us up.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let opened = match openat2(&folder, file, how) {
        Ok(opened) => File::from(opened),
        Err(nix::Error::ENOENT | nix::Error::ENOTDIR) => return Ok(String::new()),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    opened.take(LONGEST_FILE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn users_are_found_in_the_containers_files_only() {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc");
        fs::create_dir(&etc).unwrap();
        fs::write(
            etc.join("passwd"),
            "root:x:0:0::/:/bin/sh\nbroken\napp:x:1000:1001::/:\n",
        )
        .unwrap();
        fs::write(etc.join("group"), "app:x:1001:\nlog:x:7:root,app\n").unwrap();
        let ids = |text: &str| {
            find_user(root.path(), text).map(|user| {
                let more = user.additional_gids().clone().unwrap_or_default();
                (user.uid(), user.gid(), more)
            })
        };
        assert_eq!(ids("app").unwrap(), (1000, 1001, vec![7]));
        assert_eq!(ids("1000").unwrap(), (1000, 1001, vec![7]));
        assert_eq!(ids("5").unwrap(), (5, 0, vec![]));
        assert_eq!(ids("5:6").unwrap(), (5, 6, vec![]));
        assert_eq!(ids("app:log").unwrap(), (1000, 7, vec![]));
        for text in ["nobody", "", "-1", "app:none", "99999999999"] {
            ids(text).unwrap_err();
        }
        // A link out of the root leads to the root's own file.
        fs::write(root.path().join("other"), "app:x:5:5::/:\n").unwrap();
        fs::remove_file(etc.join("passwd")).unwrap();
        std::os::unix::fs::symlink("../../../other", etc.join("passwd")).unwrap();
        assert_eq!(ids("app").unwrap().0, 5);
        fs::remove_file(etc.join("passwd")).unwrap();
        nix::unistd::mkfifo(&etc.join("passwd"), Mode::S_IRWXU).unwrap();
        ids("app").unwrap_err();
    }
}
