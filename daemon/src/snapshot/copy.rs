//! Copies a tree with everything that belongs to it: owners, modes, times, attributes, hard
//! links, devices and holes. For `native`, which starts each snapshot with its parent's files.

use std::collections::HashMap;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Whence, lseek64};

/// Where the copy of an inode with several names is.
type Links = HashMap<(u64, u64), PathBuf>;

/// Copies the tree `from` into the empty folder `to`, which gets the metadata of `from` too.
///
/// # Errors
/// The first thing that cannot be copied, with its path.
pub fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    copy_children(from, to, &mut Links::new())?;
    copy_metadata(from, to, &metadata)
}

fn copy_children(from: &Path, to: &Path, links: &mut Links) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        copy_entry(&source, &target, links).map_err(|error| {
            io::Error::new(error.kind(), format!("copy {}: {error}", source.display()))
        })?;
    }
    Ok(())
}

fn copy_entry(from: &Path, to: &Path, links: &mut Links) -> io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    let kind = metadata.file_type();
    if !kind.is_dir() && metadata.nlink() > 1 {
        let inode = (metadata.dev(), metadata.ino());
        if let Some(first) = links.get(&inode) {
            return fs::hard_link(first, to);
        }
        links.insert(inode, to.to_owned());
    }
    if kind.is_dir() {
        fs::create_dir(to)?;
        copy_children(from, to, links)?;
    } else if kind.is_file() {
        copy_data(from, to, &metadata)?;
    } else if kind.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from)?, to)?;
    } else {
        let kind = if kind.is_char_device() {
            SFlag::S_IFCHR
        } else if kind.is_block_device() {
            SFlag::S_IFBLK
        } else if kind.is_fifo() {
            SFlag::S_IFIFO
        } else {
            // A socket without its listener is nothing to anybody.
            return Ok(());
        };
        mknod(to, kind, Mode::S_IRUSR, metadata.rdev())?;
    }
    copy_metadata(from, to, &metadata)
}

fn copy_data(from: &Path, to: &Path, metadata: &Metadata) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut target = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    if metadata.blocks() * 512 >= metadata.len() {
        return io::copy(&mut source, &mut target).map(drop);
    }
    // Holes stay holes: only what SEEK_DATA finds is written.
    let length = i64::try_from(metadata.len()).unwrap_or(i64::MAX);
    let mut at = 0;
    while at < length {
        let start = match lseek64(&source, at, Whence::SeekData) {
            Ok(start) => start,
            Err(nix::Error::ENXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = lseek64(&source, start, Whence::SeekHole)?;
        let (Ok(offset), Ok(span)) = (u64::try_from(start), u64::try_from(end - start)) else {
            break;
        };
        source.seek(SeekFrom::Start(offset))?;
        target.seek(SeekFrom::Start(offset))?;
        io::copy(&mut io::Read::take(&mut source, span), &mut target)?;
        at = end;
    }
    target.set_len(metadata.len())
}

fn copy_metadata(from: &Path, to: &Path, metadata: &Metadata) -> io::Result<()> {
    lchown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    copy_attributes(from, to)?;
    if !metadata.is_symlink() {
        fs::set_permissions(to, Permissions::from_mode(metadata.mode() & 0o7777))?;
    }
    utimensat(
        nix::fcntl::AT_FDCWD,
        to,
        &TimeSpec::new(metadata.atime(), metadata.atime_nsec()),
        &TimeSpec::new(metadata.mtime(), metadata.mtime_nsec()),
        UtimensatFlags::NoFollowSymlink,
    )?;
    Ok(())
}

fn copy_attributes(from: &Path, to: &Path) -> io::Result<()> {
    let open = |path: &Path| {
        File::options()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
            .open(path)
    };
    let source = open(from)?;
    let names = sys::xattr::list(&source)?;
    if names.is_empty() {
        return Ok(());
    }
    let target = open(to)?;
    for name in names {
        if let Some(value) = sys::xattr::get(&source, &name)? {
            sys::xattr::set(&target, &name, &value)?;
        }
    }
    Ok(())
}
