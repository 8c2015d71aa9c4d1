//! Our own terminal, while it stands for that of a container's process.

use std::io::{self, IsTerminal, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::error::{Context, Error, Result};
use crate::stdio::Streams;

/// The terminal on stdin in raw mode: keys go to the container as they come. Dropping it sets the
/// terminal back.
#[derive(Debug)]
pub(crate) struct RawMode(Termios);

impl RawMode {
    /// Sets the mode, where our terminal is to stand for the process's.
    ///
    /// # Errors
    /// Stdin is no terminal.
    pub(crate) fn for_streams(streams: Streams) -> Result<Option<Self>> {
        if !(streams.input && streams.terminal) {
            return Ok(None);
        }
        let stdin = io::stdin();
        let before = tcgetattr(&stdin).map_err(io::Error::from).about("stdin")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Drain, &raw)
            .map_err(io::Error::from)
            .about("stdin")?;
        Ok(Some(Self(before)))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that hung up meanwhile needs no mode.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}

/// Asks the person at the terminal for a line that is not shown as it is typed.
///
/// # Errors
/// Stdin is no terminal, or ends.
pub(crate) fn ask_secretly(question: &str) -> Result<String> {
    let stdin = io::stdin();
    let before = tcgetattr(&stdin).map_err(io::Error::from).about("stdin")?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    eprint(question)?;
    tcsetattr(&stdin, OptionalActions::Flush, &silent)
        .map_err(io::Error::from)
        .about("stdin")?;
    let mode = RawMode(before);
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    drop(mode);
    eprint("\n")?;
    if read.about("stdin")? == 0 {
        return Err(Error::said("stdin ended before the password"));
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn eprint(text: &str) -> Result<()> {
    let mut stderr = io::stderr().lock();
    stderr
        .write_all(text.as_bytes())
        .and_then(|()| stderr.flush())
        .about("stderr")
}

/// Columns and rows of the terminal that we write to, or else read from.
pub(crate) fn size() -> Option<(u32, u32)> {
    let size = tcgetwinsize(io::stdout())
        .or_else(|_| tcgetwinsize(io::stdin()))
        .ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}

/// Whether a person types.
pub(crate) fn is_interactive() -> bool {
    io::stdin().is_terminal()
}
