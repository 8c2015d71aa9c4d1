//! Waiting on conditions with a deadline: the only place of the harness that lets time pass.

use std::time::{Duration, Instant};

/// Deadline for what a healthy machine does in a blink; it is generous since the tests share it.
pub const SHORT: Duration = Duration::from_secs(10);

/// Deadline for what includes several runs of the runtime or a bounded wait of the shim.
pub const LONG: Duration = Duration::from_secs(30);

/// Waits until `condition` holds and panics with `what` when it does not within `deadline`.
#[track_caller]
pub fn eventually(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    assert!(
        holds(deadline, &mut condition),
        "not within {deadline:?}: {what}"
    );
}

/// Waits until `probe` yields a value and returns it; panics with `what` after `deadline`.
#[track_caller]
pub fn eventually_some<T>(
    deadline: Duration,
    what: &str,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    let mut found = None;
    eventually(deadline, what, || {
        found = probe();
        found.is_some()
    });
    found.expect("eventually returns only once the probe has found something")
}

/// True as soon as `condition` holds, false when it never did until `deadline`.
///
/// Also the way to show that something does not happen: `assert!(!holds(d, || …))`.
pub fn holds(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        nap();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the pause between two looks at a condition; every test waits through here"
)]
fn nap() {
    std::thread::sleep(Duration::from_millis(4));
}
