//! How far the long parts are, for who looks at a terminal.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the line changes.
const PACE: Duration = Duration::from_millis(200);

/// A line on stderr that says what is being done; nothing where stderr is no terminal.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
    state: Mutex<State>,
    done: AtomicU64,
}

#[derive(Debug)]
struct State {
    what: &'static str,
    total: u64,
    last: Instant,
}

impl Progress {
    /// One for this process's stderr.
    pub fn stderr() -> Self {
        Self {
            shown: std::io::stderr().is_terminal(),
            state: Mutex::new(State {
                what: "",
                total: 0,
                last: Instant::now(),
            }),
            done: AtomicU64::new(0),
        }
    }

    /// A new part begins, of `total` bytes.
    pub(super) fn begin(&self, what: &'static str, total: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.what = what;
        state.total = total;
        self.done.store(0, Ordering::Relaxed);
    }

    /// So many more bytes are done.
    pub(super) fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if !self.shown {
            return;
        }
        let Ok(mut state) = self.state.try_lock() else {
            return;
        };
        if state.last.elapsed() < PACE {
            return;
        }
        state.last = Instant::now();
        let (what, total) = (state.what, state.total >> 20);
        let text = format!("\r\x1b[K{what}: {} of {total} MiB", done >> 20);
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    /// Takes the line away.
    pub(super) fn clear(&self) {
        if self.shown {
            let _ = std::io::stderr().write_all(b"\r\x1b[K");
        }
    }
}
