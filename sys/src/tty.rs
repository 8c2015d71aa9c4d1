//! Terminals: window size, and whether something is one.

#![expect(unsafe_code, reason = "the window size ioctls take a pointer")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::termios::{OutputFlags, SetArg, tcgetattr, tcsetattr};

use crate::errno::{check, retry};

/// Sets the size in columns and rows; the foreground process group gets SIGWINCH when it
/// changed. ENOTTY (`ErrorKind::Uncategorized`) when `fd` is no terminal.
pub fn set_window_size(fd: impl AsFd, width: u16, height: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_col: width,
        ws_row: height,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads a winsize, which outlives the call.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })?;
    Ok(())
}

/// The size as (columns, rows).
pub fn window_size(fd: impl AsFd) -> io::Result<(u16, u16)> {
    let mut size = libc::winsize {
        ws_col: 0,
        ws_row: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes a winsize, which outlives the call.
    retry(|| unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok((size.ws_col, size.ws_row))
}

/// Whether `fd` is a terminal.
pub fn is_tty(fd: impl AsFd) -> bool {
    io::IsTerminal::is_terminal(&fd.as_fd())
}

/// Stops the terminal from making CR LF of a written LF: the client's terminal does that, and
/// twice would be once too often.
pub fn clear_onlcr(fd: impl AsFd) -> io::Result<()> {
    let mut settings = tcgetattr(&fd)?;
    settings.output_flags.remove(OutputFlags::ONLCR);
    tcsetattr(&fd, SetArg::TCSANOW, &settings)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};

    #[test]
    fn sizes_go_to_the_other_side() {
        let pair = nix::pty::openpty(None, None).unwrap();
        set_window_size(&pair.master, 132, 43).unwrap();
        assert_eq!(window_size(&pair.slave).unwrap(), (132, 43));
        assert!(is_tty(&pair.slave));
        let (reader, _writer) = crate::pipe::pipe().unwrap();
        assert!(!is_tty(&reader));
        assert_eq!(
            set_window_size(&reader, 1, 1).unwrap_err().raw_os_error(),
            Some(libc::ENOTTY)
        );
    }

    #[test]
    fn line_feeds_stay_alone_once_cleared() {
        let pair = nix::pty::openpty(None, None).unwrap();
        let (mut master, mut slave) = (File::from(pair.master), File::from(pair.slave));
        let mut read = |count: usize| {
            let mut bytes = vec![0; count];
            master.read_exact(&mut bytes).unwrap();
            bytes
        };
        slave.write_all(b"a\n").unwrap();
        assert_eq!(read(3), b"a\r\n");
        clear_onlcr(&slave).unwrap();
        slave.write_all(b"b\nc").unwrap();
        assert_eq!(read(3), b"b\nc");
    }
}
