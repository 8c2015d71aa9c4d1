//! Signals: their names on the command line, and those that reach us while a container runs.

use std::str::FromStr;

use nix::sys::signal::Signal;
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::mpsc;

use crate::error::{Context, Error, Result};

/// Highest number of a signal on Linux, real-time ones included.
const LAST: u32 = 64;

/// Reads a signal's name, with or without `SIG`, or its number.
///
/// # Errors
/// A text that names it.
pub(crate) fn parse(text: &str) -> std::result::Result<u32, String> {
    if let Ok(number) = text.parse::<u32>() {
        return if (1..=LAST).contains(&number) {
            Ok(number)
        } else {
            Err(format!("signals are numbered from 1 to {LAST}"))
        };
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    match Signal::from_str(&format!("SIG{name}")) {
        Ok(signal) => Ok(number(signal)),
        Err(_) => Err("no such signal (TERM, SIGKILL and 9 are signals)".to_owned()),
    }
}

/// The signal's number as the API wants it.
pub(crate) fn number(signal: Signal) -> u32 {
    (signal as i32).unsigned_abs()
}

/// Those that are passed on to the container's process.
const FORWARDED: [Signal; 8] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGCONT,
    Signal::SIGWINCH,
];

/// Signals that were sent to us from the time of [`listen`] on.
pub(crate) struct Signals {
    came: mpsc::UnboundedReceiver<Signal>,
    /// One that was taken and is to be taken again.
    kept: Option<Signal>,
}

/// Takes over the signals that would end us.
///
/// # Errors
/// The system's.
pub(crate) fn listen() -> Result<Signals> {
    let (sender, receiver) = mpsc::unbounded_channel();
    for signal in FORWARDED {
        let mut stream =
            unix::signal(SignalKind::from_raw(signal as i32)).about(format!("{signal}"))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() && sender.send(signal).is_ok() {}
        });
    }
    Ok(Signals {
        came: receiver,
        kept: None,
    })
}

/// Carries out work that an interrupt breaks off at once; what it began is undone by whoever called
/// it, as after any failure.
///
/// # Errors
/// Those of the work, or that it was interrupted.
pub(crate) async fn unless_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut signals = listen()?;
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            signal = signals.next() => if is_an_end(signal?) {
                return Err(Error::said("interrupted"));
            },
        }
    }
}

impl Signals {
    /// The next signal.
    ///
    /// # Errors
    /// None while the listeners live, which is as long as we do.
    pub(crate) async fn next(&mut self) -> Result<Signal> {
        if let Some(signal) = self.kept.take() {
            return Ok(signal);
        }
        let next = self.came.recv().await;
        next.ok_or_else(|| Error::said("signals cannot be received any more"))
    }

    /// Has a signal come next that was taken too early.
    pub(crate) fn put_back(&mut self, signal: Signal) {
        self.kept = Some(signal);
    }
}

/// Whether it asks for an end.
pub(crate) fn is_an_end(signal: Signal) -> bool {
    use Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    matches!(signal, SIGHUP | SIGINT | SIGQUIT | SIGTERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read() {
        for (text, number) in [
            ("TERM", 15),
            ("sigkill", 9),
            ("9", 9),
            ("64", 64),
            ("hup", 1),
        ] {
            assert_eq!(parse(text), Ok(number));
        }
        for text in ["", "SIG", "0", "65", "-9", "TERMINATE", "99999999999"] {
            parse(text).unwrap_err();
        }
    }
}
