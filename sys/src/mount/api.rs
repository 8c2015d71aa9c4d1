//! The descriptor-based mount calls (open_tree(2), move_mount(2), mount_setattr(2), fsopen(2) and
//! its family) as safe functions. Kernels before 5.2 answer `ENOSYS` (mount_setattr: before 5.12).
#![allow(
    unsafe_code,
    reason = "no wrapper in libc or nix covers these system calls"
)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::ptr::null;

use nix::mount::MsFlags;

/// fsconfig(2) reads strings of at most this many bytes, the closing NUL included.
pub(super) const STRING_LIMIT: usize = 256;

// Values of linux/mount.h; libc carries them for a part of the targets only.
const OPEN_TREE_CLONE: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_SET_FD: libc::c_uint = 5;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const ATTR_RDONLY: u64 = 0x1;
const ATTR_NOSUID: u64 = 0x2;
const ATTR_NODEV: u64 = 0x4;
const ATTR_NOEXEC: u64 = 0x8;
const ATTR_ATIME_MASK: u64 = 0x70;
const ATTR_NOATIME: u64 = 0x10;
const ATTR_STRICTATIME: u64 = 0x20;
const ATTR_NODIRATIME: u64 = 0x80;
const ATTR_IDMAP: u64 = 0x0010_0000;

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn own(result: libc::c_long) -> io::Result<OwnedFd> {
    check(result)?;
    let raw = RawFd::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the system call has just returned this descriptor and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn c_string(text: &[u8]) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a NUL byte"))
}

/// A detached copy of the mount at `path` (of the whole tree of mounts below, if `recursive`).
/// It vanishes with its descriptor unless attached.
pub(super) fn clone_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let path = c_string(path.as_os_str().as_encoded_bytes())?;
    let mut flags = OPEN_TREE_CLONE | libc::O_CLOEXEC.cast_unsigned();
    if recursive {
        flags |= libc::AT_RECURSIVE.cast_unsigned();
    }
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    own(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

/// Attaches the detached mount `tree` on top of `target`.
pub(super) fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are the static empty string, both descriptors are borrowed and open.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    })
}

fn set_attributes(mount: BorrowedFd<'_>, recursive: bool, attr: &MountAttr) -> io::Result<()> {
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: `attr` is a `struct mount_attr` of the size passed and outlives the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    })
}

/// The attributes that `flags` switch on, and the mask of what has to be cleared for them.
fn attributes(flags: MsFlags) -> (u64, u64) {
    let (mut set, mut clear) = (0, 0);
    for (flag, attribute) in [
        (MsFlags::MS_RDONLY, ATTR_RDONLY),
        (MsFlags::MS_NOSUID, ATTR_NOSUID),
        (MsFlags::MS_NODEV, ATTR_NODEV),
        (MsFlags::MS_NOEXEC, ATTR_NOEXEC),
        (MsFlags::MS_NODIRATIME, ATTR_NODIRATIME),
    ] {
        if flags.contains(flag) {
            set |= attribute;
        }
    }
    // The three kinds of access times are one field: the strictest word wins as in mount(2).
    if flags.contains(MsFlags::MS_STRICTATIME) {
        set |= ATTR_STRICTATIME;
        clear |= ATTR_ATIME_MASK;
    } else if flags.contains(MsFlags::MS_NOATIME) {
        set |= ATTR_NOATIME;
        clear |= ATTR_ATIME_MASK;
    } else if flags.contains(MsFlags::MS_RELATIME) {
        clear |= ATTR_ATIME_MASK;
    }
    (set, clear)
}

/// Adds the restrictions of `flags` to a mount. Nothing is taken away: a bind mount keeps what
/// its source is restricted to, which in a user namespace may be locked anyhow.
pub(super) fn restrict(mount: BorrowedFd<'_>, flags: MsFlags) -> io::Result<()> {
    let (set, clear) = attributes(flags);
    if set == 0 && clear == 0 {
        return Ok(());
    }
    set_attributes(
        mount,
        false,
        &MountAttr {
            set,
            clear,
            ..MountAttr::default()
        },
    )
}

/// Maps the owners of a detached mount by the user namespace `userns`.
pub(super) fn map_ids(
    mount: BorrowedFd<'_>,
    userns: BorrowedFd<'_>,
    recursive: bool,
) -> io::Result<()> {
    let userns_fd = u64::from(userns.as_raw_fd().cast_unsigned());
    set_attributes(
        mount,
        recursive,
        &MountAttr {
            set: ATTR_IDMAP,
            userns_fd,
            ..MountAttr::default()
        },
    )
}

/// A file system being configured before it is mounted; remembers what the kernel says about it.
pub(super) struct Context {
    fd: OwnedFd,
}

impl Context {
    pub(super) fn open(fstype: &str) -> io::Result<Self> {
        let name = c_string(fstype.as_bytes())?;
        // SAFETY: `name` is a NUL-terminated string that outlives the call.
        let fd = own(unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC) })?;
        Ok(Self { fd })
    }

    pub(super) fn set_flag(&self, key: &str) -> io::Result<()> {
        let key = c_string(key.as_bytes())?;
        self.configure(FSCONFIG_SET_FLAG, Some(&key), None, 0)
    }

    pub(super) fn set_string(&self, key: &str, value: &str) -> io::Result<()> {
        let (key, value) = (c_string(key.as_bytes())?, c_string(value.as_bytes())?);
        self.configure(FSCONFIG_SET_STRING, Some(&key), Some(&value), 0)
    }

    pub(super) fn set_fd(&self, key: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        let key = c_string(key.as_bytes())?;
        self.configure(FSCONFIG_SET_FD, Some(&key), None, fd.as_raw_fd())
    }

    /// Makes the superblock.
    pub(super) fn create(&self) -> io::Result<()> {
        self.configure(FSCONFIG_CMD_CREATE, None, None, 0)
    }

    /// A detached mount of the created superblock.
    pub(super) fn mount(&self, flags: MsFlags) -> io::Result<OwnedFd> {
        let (set, _) = attributes(flags);
        // SAFETY: no pointers are passed; the descriptor is open.
        own(unsafe { libc::syscall(libc::SYS_fsmount, self.fd.as_raw_fd(), FSMOUNT_CLOEXEC, set) })
    }

    /// What the kernel had to say so far: its errors, or else its warnings.
    pub(super) fn messages(&self) -> Option<String> {
        let (mut errors, mut others) = (Vec::new(), Vec::new());
        let mut buffer = [0_u8; 1024];
        // The kernel keeps a ring of eight messages; the bound only guards against a surprise.
        for _ in 0..16 {
            let Ok(length) = nix::unistd::read(&self.fd, &mut buffer) else {
                break;
            };
            let message = String::from_utf8_lossy(&buffer[..length]);
            match message.trim().split_once(' ') {
                Some(("e", text)) => errors.push(text.to_owned()),
                Some((_, text)) => others.push(text.to_owned()),
                None => break,
            }
        }
        let said = if errors.is_empty() { others } else { errors };
        (!said.is_empty()).then(|| said.join("; "))
    }

    fn configure(
        &self,
        command: libc::c_uint,
        key: Option<&CString>,
        value: Option<&CString>,
        aux: libc::c_int,
    ) -> io::Result<()> {
        let pointer = |text: Option<&CString>| text.map_or(null(), |text| text.as_ptr());
        // SAFETY: key and value are null or NUL-terminated strings that outlive the call.
        check(unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.fd.as_raw_fd(),
                command,
                pointer(key),
                pointer(value),
                aux,
            )
        })
    }
}
