//! What is different in one tree from another, name by name in order, folders before what is in
//! them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::fault::Fault;

/// One difference.
#[derive(Debug)]
pub enum Change<'a> {
    /// It is new, or not as it was, or the folder of something that is.
    Present(&'a Metadata),
    /// It is not there any more.
    Gone,
}

type Visit<'a> = dyn FnMut(&Path, Change<'_>) -> Result<(), Fault> + 'a;
type Inode = (u64, u64);
type Attributes = BTreeMap<OsString, Vec<u8>>;

/// Calls `visit` for every name in which the tree `right` differs from `left`, relative to both.
///
/// A name of a file with several names counts as different when any of them does: in a layer they
/// are only names of one file when all are there. The roots themselves are not compared.
///
/// # Errors
/// What cannot be read, and what `visit` answers.
pub fn changes(left: &Path, right: &Path, visit: &mut Visit<'_>) -> Result<(), Fault> {
    let (left_links, right_links) = (Links::of(left)?, Links::of(right)?);
    let mut touched = HashSet::new();
    let mut walk = Walk {
        left,
        right,
        left_links: &left_links,
        right_links: &right_links,
        touched: &HashSet::new(),
        pending: Vec::new(),
    };
    if !right_links.names.is_empty() {
        walk.folder(Path::new(""), true, &mut |_, change| {
            if let Change::Present(metadata) = change
                && is_linked(metadata)
            {
                touched.insert((metadata.dev(), metadata.ino()));
            }
            Ok(())
        })?;
    }
    walk.touched = &touched;
    walk.folder(Path::new(""), true, visit)
}

fn is_linked(metadata: &Metadata) -> bool {
    !metadata.is_dir() && metadata.nlink() > 1
}

/// Which names are names of one file.
#[derive(Debug, Default)]
struct Links {
    names: HashMap<Inode, BTreeSet<PathBuf>>,
}

impl Links {
    fn of(root: &Path) -> Result<Self, Fault> {
        let mut links = Self::default();
        let mut waiting = vec![PathBuf::new()];
        while let Some(folder) = waiting.pop() {
            for name in names(&root.join(&folder))? {
                let path = folder.join(name);
                let metadata = look(&root.join(&path))?;
                if metadata.is_dir() {
                    waiting.push(path);
                } else if is_linked(&metadata) {
                    let inode = (metadata.dev(), metadata.ino());
                    links.names.entry(inode).or_default().insert(path);
                }
            }
        }
        Ok(links)
    }

    fn others(&self, metadata: &Metadata) -> Option<&BTreeSet<PathBuf>> {
        self.names
            .get(&(metadata.dev(), metadata.ino()))
            .filter(|names| names.len() > 1)
    }
}

struct Walk<'a> {
    left: &'a Path,
    right: &'a Path,
    left_links: &'a Links,
    right_links: &'a Links,
    /// Files with several names of which one is different.
    touched: &'a HashSet<Inode>,
    /// Folders above that were not told of yet, the outermost first.
    pending: Vec<(PathBuf, Metadata)>,
}

impl Walk<'_> {
    /// Goes through a folder of `right`, and of `left` if it `was` one there.
    fn folder(&mut self, path: &Path, was: bool, visit: &mut Visit<'_>) -> Result<(), Fault> {
        let mut all: BTreeMap<OsString, (bool, bool)> = BTreeMap::new();
        if was {
            for name in names(&self.left.join(path))? {
                all.entry(name).or_default().0 = true;
            }
        }
        for name in names(&self.right.join(path))? {
            all.entry(name).or_default().1 = true;
        }
        for (name, (in_left, in_right)) in all {
            let path = path.join(name);
            if !in_right {
                self.tell_pending(visit)?;
                visit(&path, Change::Gone)?;
                continue;
            }
            let now = look(&self.right.join(&path))?;
            let before = if in_left {
                Some(look(&self.left.join(&path))?)
            } else {
                None
            };
            let differs = match &before {
                None => true,
                Some(before) => self.differs(&path, before, &now)?,
            };
            if now.is_dir() {
                let was = before.is_some_and(|before| before.is_dir());
                self.pending.push((path.clone(), now));
                if differs {
                    self.tell_pending(visit)?;
                }
                self.folder(&path, was, visit)?;
                // Still there if nothing below it was told of.
                self.pending.pop_if(|(pending, _)| *pending == path);
            } else if differs {
                self.tell_pending(visit)?;
                visit(&path, Change::Present(&now))?;
            }
        }
        Ok(())
    }

    fn tell_pending(&mut self, visit: &mut Visit<'_>) -> Result<(), Fault> {
        for (path, metadata) in self.pending.drain(..) {
            visit(&path, Change::Present(&metadata))?;
        }
        Ok(())
    }

    fn differs(&self, path: &Path, before: &Metadata, now: &Metadata) -> Result<bool, Fault> {
        let is_file = !now.is_dir();
        if before.mode() != now.mode()
            || (before.uid(), before.gid()) != (now.uid(), now.gid())
            || (before.mtime(), before.mtime_nsec()) != (now.mtime(), now.mtime_nsec())
            || (is_file && before.len() != now.len())
            || (is_device(now) && before.rdev() != now.rdev())
        {
            return Ok(true);
        }
        if is_linked(now) || is_linked(before) {
            let is_touched = self.touched.contains(&(now.dev(), now.ino()));
            if is_touched || self.left_links.others(before) != self.right_links.others(now) {
                return Ok(true);
            }
        }
        let (left, right) = (self.left.join(path), self.right.join(path));
        if attributes(&left)? != attributes(&right)? {
            return Ok(true);
        }
        if now.is_symlink() {
            let read = |path: &Path| fs::read_link(path).map_err(|error| Fault::at(path, error));
            return Ok(read(&left)? != read(&right)?);
        }
        // A time in whole seconds may have been set by hand, and says nothing about the data.
        if now.is_file() && now.mtime_nsec() == 0 {
            let same = same_data(&left, &right).map_err(|error| Fault::at(&right, error))?;
            return Ok(!same);
        }
        Ok(false)
    }
}

fn is_device(metadata: &Metadata) -> bool {
    let kind = metadata.file_type();
    kind.is_char_device() || kind.is_block_device()
}

fn look(path: &Path) -> Result<Metadata, Fault> {
    fs::symlink_metadata(path).map_err(|error| Fault::at(path, error))
}

/// The names in a folder, but for sockets, which are nothing without their listener.
fn names(folder: &Path) -> Result<Vec<OsString>, Fault> {
    let told = |error| Fault::at(folder, error);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(told)? {
        let entry = entry.map_err(told)?;
        if !entry.file_type().map_err(told)?.is_socket() {
            names.push(entry.file_name());
        }
    }
    Ok(names)
}

/// The attributes that a layer tells of: those of users, capabilities and access lists. The
/// others are the host's.
pub(super) fn attributes(path: &Path) -> Result<Attributes, Fault> {
    let told = |error: io::Error| Fault::at(path, error);
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
        .open(path)
        .map_err(told)?;
    let mut found = Attributes::new();
    for name in sys::xattr::list(&file).map_err(told)? {
        if is_told(&name)
            && let Some(value) = sys::xattr::get(&file, &name).map_err(told)?
        {
            found.insert(name, value);
        }
    }
    Ok(found)
}

fn is_told(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name == b"security.capability"
        || name.starts_with(b"system.posix_acl_")
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

fn same_data(left: &Path, right: &Path) -> io::Result<bool> {
    let open = |path: &Path| Ok::<_, io::Error>(BufReader::new(File::open(path)?).bytes());
    let (mut left, mut right) = (open(left)?, open(right)?);
    loop {
        match (left.next().transpose()?, right.next().transpose()?) {
            (None, None) => return Ok(true),
            (a, b) if a != b => return Ok(false),
            _ => {}
        }
    }
}
