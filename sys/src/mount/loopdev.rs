//! Loop devices (loop(4)): a file as a block device, for the `loop` option. The device is marked
//! autoclear: the kernel gives it back when the last user, in the end the mount, is gone.
#![allow(unsafe_code, reason = "the loop ioctls have no safe wrapper")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::{PollTimeout, poll};

// Values and structures of linux/loop.h.
const LOOP_SET_FD: libc::c_ulong = 0x4C00;
const LOOP_CLR_FD: libc::c_ulong = 0x4C01;
const LOOP_SET_STATUS64: libc::c_ulong = 0x4C04;
const LOOP_SET_DIRECT_IO: libc::c_ulong = 0x4C08;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const FLAG_READ_ONLY: u32 = 1;
const FLAG_AUTOCLEAR: u32 = 4;
const FLAG_DIRECT_IO: u32 = 16;

/// Another process may take the free device between our asking for it and binding it.
const ATTEMPTS: usize = 100;
/// The pause before asking again, in milliseconds.
const PAUSE_MS: u8 = 5;

#[repr(C)]
struct Info64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info64,
    reserved: [u64; 8],
}

/// A bound loop device. Must stay open until mount(2) has taken its own reference; after that the
/// mount alone keeps the device.
pub(super) struct LoopDevice {
    path: PathBuf,
    _device: File,
}

impl LoopDevice {
    /// Puts `file` behind a free loop device.
    pub(super) fn bind(file: &Path, read_only: bool, direct_io: bool) -> io::Result<Self> {
        // `modern`: with LOOP_CONFIGURE, in one step.
        Self::bind_by(file, read_only, direct_io, true)
    }

    pub(super) fn bind_by(
        file: &Path,
        read_only: bool,
        direct_io: bool,
        modern: bool,
    ) -> io::Result<Self> {
        let backing = OpenOptions::new().read(true).write(!read_only).open(file)?;
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/loop-control")?;
        for _ in 0..ATTEMPTS {
            // SAFETY: this ioctl takes no argument.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
            let number = Errno::result(number)?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = OpenOptions::new()
                .read(true)
                .write(!read_only)
                .open(&path)?;
            let mut flags = FLAG_AUTOCLEAR;
            if read_only {
                flags |= FLAG_READ_ONLY;
            }
            let mut bound = Err(Errno::ENOSYS);
            if modern {
                let flags = if direct_io {
                    flags | FLAG_DIRECT_IO
                } else {
                    flags
                };
                bound = configure(&device, &backing, info(file, flags));
            }
            // What kernels before 5.8 say of LOOP_CONFIGURE.
            if matches!(
                bound,
                Err(Errno::ENOSYS | Errno::EINVAL | Errno::ENOTTY | Errno::ENXIO)
            ) {
                bound = configure_in_steps(&device, &backing, info(file, flags), direct_io);
            }
            match bound {
                Ok(()) => {
                    return Ok(Self {
                        path,
                        _device: device,
                    });
                }
                Err(Errno::EBUSY | Errno::EAGAIN) => {
                    let _ = poll(&mut [], PollTimeout::from(PAUSE_MS));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::EBUSY.into())
    }

    /// The device node.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn info(file: &Path, flags: u32) -> Info64 {
    let mut info = Info64 {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
    // Shown by `losetup`; the last byte stays NUL.
    let name = file.as_os_str().as_encoded_bytes();
    for (to, from) in info.file_name[..63].iter_mut().zip(name) {
        *to = *from;
    }
    info
}

fn configure(device: &File, backing: &File, info: Info64) -> nix::Result<()> {
    let config = Config {
        fd: number(backing)?,
        block_size: 0,
        info,
        reserved: [0; 8],
    };
    // SAFETY: `config` is the structure the ioctl reads and outlives the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const config) };
    Errno::result(result).map(drop)
}

fn configure_in_steps(
    device: &File,
    backing: &File,
    info: Info64,
    direct_io: bool,
) -> nix::Result<()> {
    let raw: RawFd = device.as_raw_fd();
    // SAFETY: the argument is a descriptor number, no pointer.
    Errno::result(unsafe { libc::ioctl(raw, LOOP_SET_FD as _, backing.as_raw_fd()) })?;
    // SAFETY: `info` is the structure the ioctl reads and outlives the call.
    let mut result =
        Errno::result(unsafe { libc::ioctl(raw, LOOP_SET_STATUS64 as _, &raw const info) });
    if result.is_ok() && direct_io {
        // SAFETY: the argument is a number.
        result = Errno::result(unsafe { libc::ioctl(raw, LOOP_SET_DIRECT_IO as _, 1_usize) });
    }
    if result.is_err() {
        // SAFETY: this ioctl takes no argument. Not yet autoclear, the device has to be freed.
        unsafe { libc::ioctl(raw, LOOP_CLR_FD as _, 0_usize) };
    }
    result.map(drop)
}

fn number(file: &File) -> nix::Result<u32> {
    u32::try_from(file.as_raw_fd()).map_err(|_| Errno::EBADF)
}
