//! Telling systemd how far the daemon is (sd_notify(3)), where it listens.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `state` to the socket that `NOTIFY_SOCKET` names, if there is one.
pub fn systemd(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = send(&name, state) {
        log::warn!("systemd at {}: {error}", name.display());
    }
}

fn send(name: &OsString, state: &str) -> std::io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}
