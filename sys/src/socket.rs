//! Unix sockets: the shim's listening socket, who is on the other side, and the one descriptor
//! that runc sends for a terminal.

#![expect(
    unsafe_code,
    reason = "control messages are parsed from a buffer, with C macros"
)]

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::ptr;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect,
    getsockopt, listen, sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::stat::{Mode, fchmod};
use nix::sys::time::TimeVal;

use crate::errno::{context, retry};

/// Who made a connection (SO_PEERCRED, unix(7)), at the time of the connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCred {
    /// The pid, in our PID namespace; 0 when it has none there.
    pub pid: i32,
    /// The effective user id.
    pub uid: u32,
    /// The effective group id.
    pub gid: u32,
}

/// A nonblocking, close-on-exec stream socket that listens at `path`, whose file has `mode`
/// (less the umask) from its first moment on. `AddrInUse` when something exists there, a dead
/// socket included: probing and unlinking are the caller's. `InvalidInput` past 107 bytes of path.
pub fn listen_unix(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let told =
        |errno: nix::Error| context(&errno.into(), format_args!("listen on {}", path.display()));
    let address = address(path)?;
    let fd = stream(SockFlag::SOCK_NONBLOCK).map_err(told)?;
    // Before bind, this is the mode that the file will be made with; chmod by path afterwards
    // would leave a moment in which it is open to others.
    fchmod(&fd, Mode::from_bits_truncate(mode)).map_err(told)?;
    bind(fd.as_raw_fd(), &address).map_err(told)?;
    listen(&fd, Backlog::MAXCONN).map_err(told)?;
    Ok(fd)
}

/// A blocking, close-on-exec connection to the socket at `path`. `ConnectionRefused` when nobody
/// listens there, `NotFound` when there is no file, `TimedOut` when the listener's queue was
/// full for `timeout`.
pub fn connect_unix_timeout(path: &Path, timeout: Duration) -> io::Result<OwnedFd> {
    let told =
        |errno: nix::Error| context(&errno.into(), format_args!("connect to {}", path.display()));
    let address = address(path)?;
    let fd = stream(SockFlag::empty()).map_err(told)?;
    let start = Instant::now();
    loop {
        let left = timeout.saturating_sub(start.elapsed());
        // 0 would mean to wait for ever.
        let micros = i64::try_from(left.as_micros()).unwrap_or(i64::MAX).max(1);
        let limit = TimeVal::new(micros / 1_000_000, micros % 1_000_000);
        setsockopt(&fd, sockopt::SendTimeout, &limit).map_err(told)?;
        match connect(fd.as_raw_fd(), &address) {
            Ok(()) => break,
            // A wait with a timeout is not restarted after a signal, and an interrupted connect
            // leaves a unix socket as it was.
            Err(nix::Error::EINTR) if !left.is_zero() => {}
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => {
                return Err(told(nix::Error::ETIMEDOUT));
            }
            Err(errno) => return Err(told(errno)),
        }
    }
    setsockopt(&fd, sockopt::SendTimeout, &TimeVal::new(0, 0)).map_err(told)?;
    Ok(fd)
}

fn stream(flags: SockFlag) -> nix::Result<OwnedFd> {
    socket(
        AddressFamily::Unix,
        SockType::Stream,
        flags | SockFlag::SOCK_CLOEXEC,
        None,
    )
}

fn address(path: &Path) -> io::Result<UnixAddr> {
    UnixAddr::new(path).map_err(|errno| {
        let length = path.as_os_str().len();
        let what = format!(
            "socket path of {length} bytes (at most 107) {}: {errno}",
            path.display()
        );
        io::Error::new(io::ErrorKind::InvalidInput, what)
    })
}

/// Who is on the other side of a connected stream socket.
pub fn peer_credentials(fd: impl AsFd) -> io::Result<PeerCred> {
    let peer = getsockopt(&fd, sockopt::PeerCredentials)?;
    Ok(PeerCred {
        pid: peer.pid(),
        uid: peer.uid(),
        gid: peer.gid(),
    })
}

/// Bytes for control messages: room for four descriptors; runc sends one.
const CONTROL_SIZE: usize = 32;

/// Memory with the alignment that control message headers want.
#[repr(C, align(8))]
struct Control([u8; CONTROL_SIZE]);

/// Receives one message of at most 4096 bytes (the terminal's name, which nobody needs), and the
/// descriptor that comes with it, close-on-exec.
///
/// `None` at the end of the stream. `WouldBlock` when nothing has come on a nonblocking socket.
/// `InvalidData` when a message brings no descriptor or more than can be received, none of which
/// stay open; of up to four, the first is returned and the others are closed.
pub fn receive_fd(socket: impl AsFd) -> io::Result<Option<OwnedFd>> {
    let mut data = [0_u8; 4096];
    let mut control = Control([0; CONTROL_SIZE]);
    let mut part = libc::iovec {
        iov_base: data.as_mut_ptr().cast(),
        iov_len: data.len(),
    };
    // SAFETY: all fields are integers or pointers, for which zero is a value.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = CONTROL_SIZE as _;
    let number = socket.as_fd().as_raw_fd();
    // SAFETY: the header describes buffers that outlive the call, with their true sizes.
    let length =
        retry(|| unsafe { libc::recvmsg(number, &raw mut header, libc::MSG_CMSG_CLOEXEC) })?;
    // SAFETY: recvmsg has just filled the header and the control buffer that it points to.
    let mut received = unsafe { received_fds(&header) };
    if header.msg_flags & libc::MSG_CTRUNC != 0 {
        let what = "more descriptors than expected, or no room for them";
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    if received.is_empty() {
        if length == 0 {
            return Ok(None);
        }
        let what = "a message without a descriptor";
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(Some(received.swap_remove(0)))
}

/// Takes ownership of all descriptors of a received message.
///
/// # Safety
///
/// `header` must have been filled by recvmsg and its control buffer be alive, and this may be
/// called once per message: it makes owners of the numbers it finds.
unsafe fn received_fds(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut received = Vec::new();
    // SAFETY: by this function's contract the buffer holds `msg_controllen` bytes of messages
    // that the kernel wrote; the macros stay within them. SCM_RIGHTS carries descriptors that
    // the kernel has just installed for us.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while let Some(head) = message.as_ref() {
            if head.cmsg_level == libc::SOL_SOCKET && head.cmsg_type == libc::SCM_RIGHTS {
                let bytes = head.cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
                let first: *const RawFd = libc::CMSG_DATA(message).cast();
                for index in 0..bytes / size_of::<RawFd>() {
                    let number = ptr::read_unaligned(first.add(index));
                    received.push(OwnedFd::from_raw_fd(number));
                }
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    received
}

/// Sends `bytes` (at least one) and with them a duplicate of each of `fds`.
pub fn send_fds(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control: &[ControlMessage<'_>] = if numbers.is_empty() { &[] } else { &rights };
    let number = socket.as_fd().as_raw_fd();
    sendmsg::<()>(
        number,
        &[IoSlice::new(bytes)],
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_listener_has_its_mode_and_knows_its_peer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = listen_unix(&path, 0o600).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(crate::process::is_cloexec(&listener).unwrap());
        let listener = UnixListener::from(listener);
        assert_eq!(
            listener.accept().unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        let client = connect_unix_timeout(&path, Duration::from_secs(5)).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let own = PeerCred {
            pid: crate::process::pid(),
            uid: crate::process::euid(),
            gid: crate::process::egid(),
        };
        assert_eq!(peer_credentials(&server).unwrap(), own);
        File::from(client).write_all(b"hi").unwrap();
        let mut text = String::new();
        server.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hi");
        assert_eq!(
            listen_unix(&path, 0o600).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(listener);
        let error = connect_unix_timeout(&path, Duration::from_secs(5)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let error = connect_unix_timeout(&folder.path().join("none"), Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let long = folder.path().join("x".repeat(108));
        let error = listen_unix(&long, 0o600).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("xxx"), "{error}");
    }

    /// A shim that hangs with a full queue must not hang whoever probes its socket.
    #[test]
    fn connecting_to_a_full_queue_times_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = stream(SockFlag::empty()).unwrap();
        bind(listener.as_raw_fd(), &address(&path).unwrap()).unwrap();
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let _first = connect_unix_timeout(&path, Duration::from_secs(5)).unwrap();
        let error = connect_unix_timeout(&path, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }

    #[test]
    fn one_descriptor_is_received() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (reader, writer) = crate::pipe::pipe().unwrap();
        send_fds(&theirs, b"/dev/pts/0", &[writer.as_fd()]).unwrap();
        drop(writer);
        let received = receive_fd(&ours).unwrap().unwrap();
        assert!(crate::process::is_cloexec(&received).unwrap());
        File::from(received).write_all(b"through").unwrap();
        assert_eq!(io::read_to_string(File::from(reader)).unwrap(), "through");
        ours.set_nonblocking(true).unwrap();
        assert_eq!(
            receive_fd(&ours).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        drop(theirs);
        assert!(receive_fd(&ours).unwrap().is_none());
    }

    /// Too many descriptors: those that were installed are closed again. Shown by the end of
    /// file of a pipe, whose writers they are, since other tests open descriptors meanwhile.
    #[test]
    fn surplus_descriptors_are_closed() {
        for count in [3_usize, 4, 5, 20] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let (reader, writer) = crate::pipe::pipe().unwrap();
            send_fds(&theirs, b"x", &vec![writer.as_fd(); count]).unwrap();
            drop(writer);
            let result = receive_fd(&ours);
            if count > 12 {
                assert_eq!(
                    result.as_ref().unwrap_err().kind(),
                    io::ErrorKind::InvalidData
                );
            }
            if let Ok(first) = result {
                crate::pipe::set_nonblocking(&reader, true).unwrap();
                let mut byte = [0];
                let error = File::from(reader.try_clone().unwrap())
                    .read(&mut byte)
                    .unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                drop(first);
            }
            assert_ne!(
                crate::pipe::poll_fd(&reader, libc::POLLIN, 10_000).unwrap() & libc::POLLHUP,
                0
            );
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        send_fds(&theirs, b"nothing", &[]).unwrap();
        assert_eq!(
            receive_fd(&ours).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }
}
