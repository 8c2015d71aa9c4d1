//! Whether a tree is what its layer makes of it: entry by entry, without unpacking anything.
//!
//! A later entry may stand for the same name as an earlier one, and then the later one counts: what
//! does not fit is only believed at the end. What is in the tree and in no entry is found by a walk
//! over the tree, which for a whole copy (`native`) has the files of the parent as well.

mod rest;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, BufRead};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::makedev;

use super::fault::Fault;
use super::inodes::Inodes;
use super::media::Reading;
use super::names::{self, Meaning};
use super::resolve::{self, Missing, inode};
use super::stream;
use super::tar::{Data, Entry, Kind, Reader};
use super::target::Hiding;

/// So many differences are enough to be sure.
const ENOUGH: usize = 500;
/// The attribute that is compared: nothing else of it decides what a program may do.
const CAPABILITY: &str = "security.capability";

/// The tree of a snapshot.
#[derive(Debug, Clone)]
pub struct Tree {
    /// Where it is.
    pub root: PathBuf,
    /// How it hides what lower layers have.
    pub hiding: Hiding,
    /// The parent's tree, where this one has all files of it too.
    pub copied: Option<PathBuf>,
}

/// Compares `tree` with the layer in `blob`, and answers what is different: the first few hundred
/// paths with what is wrong, none for a tree that is whole. `passed` is told how many bytes of the
/// archive were looked at.
///
/// # Errors
/// A layer that cannot be read; what the kernel refuses.
pub fn compare_blob(
    blob: File,
    reading: Reading,
    tree: &Tree,
    passed: &dyn Fn(u64),
) -> Result<Vec<String>, Fault> {
    std::thread::scope(|scope| {
        let (stream, _) =
            stream::start(scope, blob, reading).map_err(|error| Fault::io("the layer", error))?;
        compare(stream, tree, passed)
    })
}

/// As [`compare_blob`] for an archive that is not compressed.
///
/// # Errors
/// As [`compare_blob`].
pub fn compare(
    archive: impl BufRead,
    tree: &Tree,
    passed: &dyn Fn(u64),
) -> Result<Vec<String>, Fault> {
    let root = File::open(&tree.root).map_err(|error| Fault::at(&tree.root, error))?;
    let mut comparison = Comparison {
        root: root.into(),
        tree,
        seen: Inodes::default(),
        hidden: BTreeSet::new(),
        emptied: BTreeSet::new(),
        wrong: BTreeMap::new(),
    };
    let mut reader = Reader::new(archive);
    while let Some(entry) = reader.next_entry()? {
        comparison.entry(&entry, &mut reader)?;
        passed(entry.size);
        if comparison.wrong.len() >= ENOUGH {
            return Ok(comparison.told());
        }
    }
    comparison.rest()?;
    Ok(comparison.told())
}

struct Comparison<'a> {
    root: OwnedFd,
    tree: &'a Tree,
    /// What entries stand for.
    seen: Inodes,
    /// Names that are deleted, and folders of which all is, where that leaves no mark.
    hidden: BTreeSet<PathBuf>,
    emptied: BTreeSet<PathBuf>,
    /// Paths with what is wrong.
    wrong: BTreeMap<PathBuf, String>,
}

impl Comparison<'_> {
    fn told(self) -> Vec<String> {
        let one = |(path, what): (PathBuf, String)| format!("{} {what}", path.display());
        self.wrong.into_iter().map(one).collect()
    }

    fn entry(&mut self, entry: &Entry, data: &mut dyn Data) -> Result<(), Fault> {
        let path = names::clean(&entry.path)?;
        let Some((parent, name)) = names::split(&path) else {
            return Ok(());
        };
        let meaning = names::meaning(name)?;
        if meaning == Meaning::Nothing {
            return Ok(());
        }
        let folder = match resolve::folder(&self.root, parent, None::<&mut dyn Missing>) {
            Ok(folder) => folder,
            Err(Fault::Layer(_)) => {
                self.wrong.insert(path, "is not there".to_owned());
                return Ok(());
            }
            Err(fault) => return Err(fault),
        };
        let told = |error: io::Error| Fault::at(&path, error);
        self.seen.insert(inode(&folder).map_err(told)?);
        let what = match meaning {
            Meaning::Nothing => None,
            Meaning::Plain => {
                if entry.kind != Kind::Folder {
                    // What stood here before it is gone, with all that was in it.
                    self.clear_below(&path);
                }
                let what = self.plain(&folder, name, entry, data)?;
                self.settle(path, what);
                return Ok(());
            }
            Meaning::Opaque => match self.tree.hiding {
                Hiding::Deletion => {
                    self.emptied.insert(parent.to_owned());
                    None
                }
                Hiding::Overlay(class) => {
                    let mark = format!("{class}overlay.opaque");
                    let mark = sys::xattr::get(&folder, OsStr::new(&mark)).map_err(told)?;
                    (mark.as_deref() != Some(b"y")).then(|| "is not opaque".to_owned())
                }
            },
            Meaning::Whiteout(hidden) => match self.tree.hiding {
                Hiding::Deletion => {
                    self.hidden.insert(parent.join(hidden));
                    None
                }
                Hiding::Overlay(_) => match look(&folder, hidden).map_err(told)? {
                    Some((_, there)) => {
                        self.seen.insert(there.ino());
                        None
                    }
                    None => Some("is not hidden".to_owned()),
                },
            },
        };
        self.settle(path, what);
        Ok(())
    }

    fn settle(&mut self, path: PathBuf, what: Option<String>) {
        match what {
            Some(what) => drop(self.wrong.insert(path, what)),
            None => drop(self.wrong.remove(&path)),
        }
    }

    fn clear_below(&mut self, path: &Path) {
        if !self.wrong.is_empty() {
            self.wrong
                .retain(|wrong, _| wrong == path || !wrong.starts_with(path));
        }
    }

    /// What is wrong with what an entry stands for, if anything is.
    fn plain(
        &mut self,
        folder: &OwnedFd,
        name: &OsStr,
        entry: &Entry,
        data: &mut dyn Data,
    ) -> Result<Option<String>, Fault> {
        let told = |error: io::Error| Fault::io(String::from_utf8_lossy(&entry.path), error);
        let Some((file, there)) = look(folder, name).map_err(told)? else {
            return Ok(Some("is not there".to_owned()));
        };
        self.seen.insert(there.ino());
        let kind = there.file_type();
        let fits = match entry.kind {
            Kind::Regular => kind.is_file(),
            Kind::Folder => kind.is_dir(),
            Kind::Symlink => kind.is_symlink(),
            Kind::Char => kind.is_char_device(),
            Kind::Block => kind.is_block_device(),
            Kind::Fifo => kind.is_fifo(),
            Kind::Link => return self.link(entry, &there),
        };
        if !fits {
            return Ok(Some("is something else".to_owned()));
        }
        if kind.is_file() && there.len() != entry.size {
            let (has, wanted) = (there.len(), entry.size);
            return Ok(Some(format!("has {has} of {wanted} bytes")));
        }
        if (there.uid(), there.gid()) != (entry.uid, entry.gid)
            || !kind.is_symlink() && there.mode() & 0o7777 != entry.mode & 0o7777
        {
            return Ok(Some("has another owner or mode".to_owned()));
        }
        if there.mtime() != super::metadata::time(entry.modified).tv_sec() {
            return Ok(Some("has another time".to_owned()));
        }
        match entry.kind {
            Kind::Char | Kind::Block => {
                let (major, minor) = entry.device;
                if there.rdev() != makedev(major.into(), minor.into()) {
                    return Ok(Some("is another device".to_owned()));
                }
            }
            Kind::Symlink => {
                let target = nix::fcntl::readlinkat(&file, c"");
                let target = target.map_err(|errno| told(errno.into()))?;
                if target.as_bytes() != entry.link {
                    return Ok(Some("leads elsewhere".to_owned()));
                }
            }
            Kind::Regular => {
                let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
                let open = sys::fs::open_beneath(folder, Path::new(name), flags, 0);
                if let Some(what) = data_differs(&File::from(open.map_err(told)?), entry, data)? {
                    return Ok(Some(what));
                }
            }
            _ => {}
        }
        let wanted = entry
            .attributes
            .iter()
            .find(|(name, _)| name == CAPABILITY.as_bytes());
        if let Some((_, wanted)) = wanted {
            let found = sys::xattr::get(&file, OsStr::new(CAPABILITY)).map_err(told)?;
            if found.as_ref() != Some(wanted) {
                return Ok(Some("has other capabilities".to_owned()));
            }
        }
        Ok(None)
    }

    fn link(&self, entry: &Entry, there: &Metadata) -> Result<Option<String>, Fault> {
        let path = names::clean(&entry.link)?;
        let original = names::split(&path).and_then(|(parent, name)| {
            let folder = resolve::folder(&self.root, parent, None::<&mut dyn Missing>).ok()?;
            Some(look(&folder, name).ok()??.1)
        });
        let is_it = original.is_some_and(|original| original.ino() == there.ino());
        Ok((!is_it).then(|| format!("is not the same file as {}", path.display())))
    }
}

/// What is at `name`, held by descriptor.
fn look(folder: &OwnedFd, name: &OsStr) -> io::Result<Option<(File, Metadata)>> {
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    match sys::fs::open_beneath(folder, Path::new(name), flags, 0) {
        Ok(file) => {
            let file = File::from(file);
            let there = file.metadata()?;
            Ok(Some((file, there)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Compares what a file has with the data of its entry; the holes of a sparse one are taken as they are.
fn data_differs(file: &File, entry: &Entry, data: &mut dyn Data) -> Result<Option<String>, Fault> {
    let whole = [super::tar::Extent {
        offset: 0,
        length: entry.size,
    }];
    let extents = entry.extents.as_deref().unwrap_or(&whole);
    let mut extents = extents.iter().filter(|extent| extent.length > 0);
    let (mut at, mut left, mut wrong) = (0, 0, None);
    let mut buffer = Vec::new();
    data.each(&mut |mut chunk| {
        while !chunk.is_empty() && wrong.is_none() {
            if left == 0 {
                let Some(extent) = extents.next() else {
                    return Ok(());
                };
                (at, left) = (extent.offset, extent.length);
            }
            let count = usize::try_from(left).map_or(chunk.len(), |n| n.min(chunk.len()));
            buffer.resize(count, 0);
            match file.read_exact_at(&mut buffer, at) {
                Ok(()) if buffer == chunk[..count] => {}
                Ok(()) => wrong = Some(format!("has other data from byte {at} on")),
                Err(error) => wrong = Some(format!("cannot be read: {error}")),
            }
            at += count as u64;
            left -= count as u64;
            chunk = &chunk[count..];
        }
        Ok(())
    })?;
    Ok(wrong)
}
