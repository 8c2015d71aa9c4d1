//! What a shim holds: private memory, descriptors, threads.

use std::fmt;
use std::time::Duration;

use crate::host;
use crate::wait::holds;

/// Of one shim, or the sum of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Private dirty memory in kB.
    pub private: u64,
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
}

impl Held {
    /// What these processes hold now.
    pub fn by(pids: &[i32]) -> Self {
        pids.iter().fold(Self::default(), |sum, pid| Self {
            private: sum.private + private_dirty(*pid),
            descriptors: sum.descriptors + host::descriptors(*pid).len(),
            threads: sum.threads + host::threads(*pid),
        })
    }

    /// What these processes hold once they are back at the descriptors and threads of `before`,
    /// or ten seconds later: closing and ending follow the last reply.
    pub fn settled(pids: &[i32], before: Self) -> Self {
        let mut now = Self::default();
        holds(Duration::from_secs(10), || {
            now = Self::by(pids);
            now.descriptors <= before.descriptors && now.threads <= before.threads
        });
        now
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kb, fds, threads) = (self.private, self.descriptors, self.threads);
        write!(f, "{kb} kB, {fds} descriptors, {threads} threads")
    }
}

/// Private dirty memory of a process in kB; nothing for one that is gone.
fn private_dirty(pid: i32) -> u64 {
    std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .unwrap_or_default()
        .lines()
        .find_map(|l| l.strip_prefix("Private_Dirty:"))
        .and_then(|v| v.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
