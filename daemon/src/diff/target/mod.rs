//! The tree that a layer is unpacked into: makes, replaces and hides what entries say, always by
//! descriptor, so that nothing outside the tree is ever touched.

mod hide;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstatat, futimens, makedev, mkdirat, mknodat};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::unistd::{Gid, Uid, fchown, linkat, symlinkat};

use super::fault::Fault;
use super::inodes::Inodes;
use super::metadata::{self, chmod, chown, copy_folder, set_times, time};
use super::names::{self, Meaning};
use super::resolve::{self, Missing, inode};
use super::space::Space;
use super::spool::FolderTimes;
use super::tar::{Data, Entry, Kind};
pub use hide::Hiding;

/// The tree.
#[derive(Debug)]
pub(super) struct Target {
    root: OwnedFd,
    hiding: Hiding,
    /// The trees below this one in an overlay, nearest first: what a folder is like there.
    lower: Vec<OwnedFd>,
    /// The folder of the last entry: the next one is mostly in the same.
    last: Option<(PathBuf, OwnedFd)>,
    /// Whether anything was there before the layer.
    was_empty: bool,
    made: Inodes,
    cleared: Inodes,
    space: Space,
}

/// What [`Target`] does about folders that no entry brought.
struct Implied<'a> {
    lower: &'a [OwnedFd],
    made: &'a mut Inodes,
}

impl Missing for Implied<'_> {
    /// A folder that only a lower layer has gets what it is like there.
    fn made(&mut self, folder: &OwnedFd, path: &Path) -> Result<(), Fault> {
        let told = |error: io::Error| Fault::io(path.display(), error);
        self.made.insert(inode(folder).map_err(told)?);
        for lower in self.lower {
            let flags = libc::O_PATH | libc::O_NOFOLLOW;
            let Ok(original) = sys::fs::open_in_root(lower, path, flags, 0) else {
                continue;
            };
            let original = File::from(original);
            let like = original.metadata().map_err(told)?;
            if like.is_dir() {
                copy_folder(&original, &like, folder).map_err(told)?;
            }
            return Ok(());
        }
        Ok(())
    }
}

impl Target {
    /// The tree at `root`, on those of `lower` (nearest first) where it is one layer of an
    /// overlay.
    pub(super) fn open(
        root: &Path,
        lower: &[PathBuf],
        hiding: Hiding,
        reserve: u64,
    ) -> Result<Self, Fault> {
        let open = |path: &Path| {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            openat(nix::fcntl::AT_FDCWD, path, flags, Mode::empty())
                .map_err(|errno| Fault::at(path, errno))
        };
        let was_empty = std::fs::read_dir(root)
            .map_err(|error| Fault::at(root, error))?
            .next()
            .is_none();
        Ok(Self {
            root: open(root)?,
            hiding,
            lower: lower
                .iter()
                .map(|path| open(path))
                .collect::<Result<_, _>>()?,
            last: None,
            was_empty,
            made: Inodes::default(),
            cleared: Inodes::default(),
            space: Space::new(root, reserve),
        })
    }

    /// Takes back what was unpacked, where nothing was before.
    pub(super) fn undo(&self) {
        if self.was_empty
            && let Err(error) = sys::tree::clear_folder(&self.root)
        {
            log::warn!("what was unpacked of a broken layer: {error}");
        }
    }

    /// Opens the folder `path`, with what is missing of it made.
    fn folder(&mut self, path: &Path) -> Result<OwnedFd, Fault> {
        if let Some((last, folder)) = &self.last
            && last == path
        {
            return folder.try_clone().map_err(|error| Fault::at(path, error));
        }
        let mut implied = Implied {
            lower: &self.lower,
            made: &mut self.made,
        };
        let folder = resolve::folder(&self.root, path, Some(&mut implied))?;
        let kept = folder.try_clone().map_err(|error| Fault::at(path, error))?;
        self.last = Some((path.to_owned(), kept));
        Ok(folder)
    }

    /// Makes what an entry says; its data comes from `data`. Answers the times to set at the end,
    /// for a folder.
    pub(super) fn place(
        &mut self,
        entry: &Entry,
        data: &mut dyn Data,
    ) -> Result<Option<FolderTimes>, Fault> {
        let path = names::clean(&entry.path)?;
        let Some((parent, name)) = names::split(&path) else {
            // The tree itself: as it is.
            return Ok(None);
        };
        let meaning = names::meaning(name)?;
        if meaning == Meaning::Nothing {
            return Ok(None);
        }
        self.space.take_inode(&self.root)?;
        let folder = self.folder(parent)?;
        match meaning {
            Meaning::Nothing => return Ok(None),
            Meaning::Opaque => {
                self.hide_all(&folder, &path)?;
                return Ok(None);
            }
            Meaning::Whiteout(hidden) => {
                self.hide(&folder, hidden, entry)?;
                return Ok(None);
            }
            Meaning::Plain => {}
        }
        let told = |error: io::Error| Fault::io(path.display(), error);
        let accessed = entry.accessed.unwrap_or_default().max(entry.modified);
        match entry.kind {
            Kind::Regular => {
                let mut file = self.make(&folder, name, &path, |folder, name| {
                    let flags = OFlag::O_CREAT
                        | OFlag::O_EXCL
                        | OFlag::O_WRONLY
                        | OFlag::O_NOFOLLOW
                        | OFlag::O_CLOEXEC;
                    openat(folder, name, flags, Mode::S_IRUSR | Mode::S_IWUSR).map(File::from)
                })?;
                self.write(&mut file, entry, data)?;
                fchown(
                    &file,
                    Some(Uid::from_raw(entry.uid)),
                    Some(Gid::from_raw(entry.gid)),
                )
                .map_err(|errno| told(errno.into()))?;
                metadata::set_attributes(&file, entry)?;
                fchmod(&file, Mode::from_bits_truncate(entry.mode))
                    .and_then(|()| futimens(&file, &time(accessed), &time(entry.modified)))
                    .map_err(|errno| told(errno.into()))?;
                if !self.was_empty {
                    self.made.insert(inode(&file).map_err(told)?);
                }
                return Ok(None);
            }
            Kind::Folder => self.make_folder(&folder, name, &path)?,
            Kind::Symlink => {
                self.make(&folder, name, &path, |folder, name| {
                    symlinkat(OsStr::from_bytes(&entry.link), folder, name)
                })?;
            }
            Kind::Link => {
                let (from, original) = self.link_target(entry)?;
                self.make(&folder, name, &path, |folder, name| {
                    linkat(&from, original.as_os_str(), folder, name, AtFlags::empty())
                })?;
            }
            Kind::Char | Kind::Block | Kind::Fifo => {
                let kind = match entry.kind {
                    Kind::Char => SFlag::S_IFCHR,
                    Kind::Block => SFlag::S_IFBLK,
                    _ => SFlag::S_IFIFO,
                };
                let device = makedev(entry.device.0.into(), entry.device.1.into());
                let made = self.make(&folder, name, &path, |folder, name| {
                    mknodat(folder, name, kind, Mode::S_IRUSR | Mode::S_IWUSR, device)
                });
                made.map_err(|fault| match fault {
                    Fault::Io(_, error) if error.raw_os_error() == Some(libc::EPERM) => {
                        let what = "a device cannot be made here, in a user namespace for instance";
                        Fault::layer(&entry.path, what)
                    }
                    other => other,
                })?;
            }
        }
        let made =
            sys::fs::open_beneath(&folder, Path::new(name), libc::O_PATH | libc::O_NOFOLLOW, 0)
                .map_err(told)?;
        if !self.was_empty || entry.kind == Kind::Folder {
            self.made.insert(inode(&made).map_err(told)?);
        }
        chown(&made, entry.uid, entry.gid).map_err(told)?;
        metadata::set_attributes(&made, entry)?;
        let is_symlink = File::from(made.try_clone().map_err(told)?)
            .metadata()
            .map_err(told)?
            .is_symlink();
        if !is_symlink {
            chmod(&made, entry.mode).map_err(told)?;
        }
        if entry.kind == Kind::Folder {
            self.last = Some((path.clone(), made));
            return Ok(Some(FolderTimes {
                path,
                accessed,
                modified: entry.modified,
            }));
        }
        utimensat(
            &folder,
            name,
            &time(accessed),
            &time(entry.modified),
            UtimensatFlags::NoFollowSymlink,
        )
        .map_err(|errno| told(errno.into()))?;
        Ok(None)
    }

    /// Makes `name` by `work`; what is there already goes first.
    fn make<T>(
        &mut self,
        folder: &OwnedFd,
        name: &OsStr,
        path: &Path,
        work: impl Fn(&OwnedFd, &OsStr) -> nix::Result<T>,
    ) -> Result<T, Fault> {
        match work(folder, name) {
            Err(Errno::EEXIST) => {
                self.remove(folder, name)?;
                work(folder, name)
            }
            other => other,
        }
        .map_err(|errno| Fault::at(path, errno))
    }

    fn remove(&mut self, folder: &OwnedFd, name: &OsStr) -> Result<(), Fault> {
        // It may have been the folder that the last entry is in, or on the way there.
        self.last = None;
        sys::tree::remove_tree(folder, Path::new(name))
            .map_err(|error| Fault::io(name.display(), error))
    }

    /// A folder that is there already stays, with what is in it.
    fn make_folder(&mut self, folder: &OwnedFd, name: &OsStr, path: &Path) -> Result<(), Fault> {
        let told = |errno: Errno| Fault::at(path, errno);
        match mkdirat(folder, name, Mode::S_IRWXU) {
            Err(Errno::EEXIST) => {}
            other => return other.map_err(told),
        }
        let there = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(told)?;
        if is(&there, SFlag::S_IFDIR) {
            return Ok(());
        }
        self.remove(folder, name)?;
        mkdirat(folder, name, Mode::S_IRWXU).map_err(told)?;
        // It stood for a folder of a lower layer that is gone: this is another one.
        if let Hiding::Overlay(_) = self.hiding
            && is(&there, SFlag::S_IFCHR)
            && there.st_rdev == 0
        {
            let made =
                sys::fs::open_beneath(folder, Path::new(name), libc::O_PATH | libc::O_NOFOLLOW, 0)
                    .map_err(|error| Fault::at(path, error))?;
            self.mark_opaque(&made, path)?;
        }
        Ok(())
    }

    fn link_target(&mut self, entry: &Entry) -> Result<(OwnedFd, PathBuf), Fault> {
        let path = names::clean(&entry.link).map_err(|fault| {
            Fault::layer(&entry.path, format_args!("is a hard link out: {fault}"))
        })?;
        let Some((parent, name)) = names::split(&path) else {
            return Err(Fault::layer(
                &entry.path,
                "is a hard link to the layer's root",
            ));
        };
        let folder = resolve::folder(&self.root, parent, None::<&mut dyn Missing>)
            .map_err(|fault| Fault::layer(&entry.path, format_args!("is a hard link: {fault}")))?;
        match fstatat(&folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => Ok((folder, PathBuf::from(name))),
            Err(Errno::ENOENT) => Err(Fault::layer(
                &entry.path,
                format_args!("is a hard link to {}, which is not there", path.display()),
            )),
            Err(errno) => Err(Fault::at(&path, errno)),
        }
    }

    fn write(&mut self, file: &mut File, entry: &Entry, data: &mut dyn Data) -> Result<(), Fault> {
        let told = |error: io::Error| Fault::io(String::from_utf8_lossy(&entry.path), error);
        let (space, root) = (&mut self.space, &self.root);
        let Some(extents) = &entry.extents else {
            return data.each(&mut |chunk| {
                space.take(root, chunk.len() as u64)?;
                file.write_all(chunk).map_err(told)
            });
        };
        let mut extents = extents.iter().filter(|extent| extent.length > 0);
        let mut left = 0;
        data.each(&mut |mut chunk| {
            space.take(root, chunk.len() as u64)?;
            while !chunk.is_empty() {
                if left == 0 {
                    let Some(extent) = extents.next() else {
                        return Ok(());
                    };
                    left = extent.length;
                    file.seek(SeekFrom::Start(extent.offset)).map_err(told)?;
                }
                let count = usize::try_from(left).map_or(chunk.len(), |n| n.min(chunk.len()));
                file.write_all(&chunk[..count]).map_err(told)?;
                left -= count as u64;
                chunk = &chunk[count..];
            }
            Ok(())
        })?;
        file.set_len(entry.size).map_err(told)
    }

    /// Sets the times of a folder, unless something else is there by now.
    pub(super) fn set_folder_times(&self, times: &FolderTimes) -> Result<(), Fault> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        match sys::fs::open_staying_beneath(&self.root, &times.path, flags) {
            Ok(folder) => set_times(&folder, &time(times.accessed), &time(times.modified))
                .map_err(|error| Fault::at(&times.path, error)),
            Err(_) => Ok(()),
        }
    }
}

fn is(stat: &FileStat, kind: SFlag) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == kind.bits()
}
