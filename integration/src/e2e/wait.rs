//! Waiting on conditions: a deadline for each, no blind sleep anywhere.

use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};

/// How long a condition may take that normally holds within a moment.
pub const SHORT: Duration = Duration::from_secs(20);

/// How long a condition may take that waits for an engine or a whole container, on a loaded
/// two-core machine.
pub const LONG: Duration = Duration::from_secs(90);

/// The pause between two looks at a condition that nothing announces, in milliseconds.
const LOOK_EVERY_MS: u16 = 20;

/// Looks at `condition` until it gives a value, and returns that value.
///
/// # Panics
///
/// When `within` has passed; the message says `what` was waited for.
pub fn until<T>(what: &str, within: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    until_ok(what, within, || condition().ok_or("not yet"))
}

/// As [`until`], for a condition that says why it does not hold yet; the last reason is part of
/// the panic message.
///
/// # Panics
///
/// When `within` has passed.
pub fn until_ok<T, E: std::fmt::Display>(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> Result<T, E>,
) -> T {
    let started = Instant::now();
    loop {
        match condition() {
            Ok(value) => return value,
            Err(reason) if started.elapsed() >= within => {
                panic!("after {within:?} still waiting for {what}: {reason}")
            }
            Err(_) => pause(),
        }
    }
}

/// Gives the processor away for one look interval. An interrupted poll only shortens it.
fn pause() {
    let _ = poll(&mut [], PollTimeout::from(LOOK_EVERY_MS));
}
