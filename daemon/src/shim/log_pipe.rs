//! What shims log: each bundle has a FIFO `log` that its shim writes to. The daemon reads it to
//! its own stderr; without a reader a full FIFO would stop a shim that blocks.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use crate::bundle::Bundle;

/// A reader of a bundle's log; it ends when dropped.
#[derive(Debug)]
pub struct LogPipe(JoinHandle<()>);

impl LogPipe {
    /// Makes the FIFO if it is not there, and reads it from now on.
    ///
    /// # Errors
    /// Those of mkfifo(3) and open(2), with the path.
    pub fn open(bundle: &Bundle) -> io::Result<Self> {
        let path = bundle.path.join(task_api::bundle::LOG);
        make_fifo(&path)?;
        // Read and write, so that it neither waits for a writer nor ends with the last one.
        let receiver = pipe::OpenOptions::new()
            .read_write(true)
            .open_receiver(&path)
            .map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })?;
        Ok(Self(tokio::spawn(drain(receiver))))
    }
}

impl Drop for LogPipe {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn make_fifo(path: &Path) -> io::Result<()> {
    let told =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let name = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    match nix::unistd::mkfifo(
        name.as_c_str(),
        nix::sys::stat::Mode::from_bits_truncate(0o700),
    ) {
        Ok(()) | Err(nix::Error::EEXIST) => Ok(()),
        Err(errno) => Err(told(errno.into())),
    }
}

async fn drain(receiver: pipe::Receiver) {
    // No buffer is held between lines: most shims have nothing to say for hours.
    while receiver.readable().await.is_ok() {
        let mut buffer = [0; 2048];
        match receiver.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                let _ = io::stderr().write_all(&buffer[..length]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                log::warn!("log of a shim: {error}");
                return;
            }
        }
    }
}
