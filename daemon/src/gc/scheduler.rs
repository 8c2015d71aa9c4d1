//! When to collect: after enough changes, not all the time.
//!
//! The thresholds are those of containerd's `io.containerd.gc.v1.scheduler`.

use std::time::Duration;

/// What the configuration says about when to collect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// The largest part of the time that collecting may take, between 0 and 0.5.
    pub pause: f64,
    /// After so many deletions; 0 for never.
    pub deletions: u64,
    /// After so many changes; 0 for never.
    pub mutations: u64,
    /// How long to wait when there is a reason.
    pub delay: Duration,
    /// How long after the start.
    pub startup: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            pause: 0.02,
            deletions: 0,
            mutations: 100,
            delay: Duration::ZERO,
            startup: Duration::from_millis(100),
        }
    }
}

impl Thresholds {
    /// Whether so many changes and deletions are a reason to collect.
    pub fn reached(&self, mutations: u64, deletions: u64) -> bool {
        let over = |threshold, count| threshold > 0 && count >= threshold;
        over(self.deletions, deletions) || over(self.mutations, mutations)
    }

    /// How long to wait before the next collection after one that took `took`, so that collecting
    /// takes no more than its part of the time.
    pub fn pause_after(&self, took: Duration) -> Duration {
        let part = if self.pause > 0.0 && self.pause <= 0.5 {
            self.pause
        } else {
            Self::default().pause
        };
        took.mul_f64((1.0 - part) / part).max(self.delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_count_and_pauses_are_in_proportion() {
        let thresholds = Thresholds::default();
        assert!(!thresholds.reached(99, 99) && thresholds.reached(100, 0));
        let eager = Thresholds {
            deletions: 1,
            mutations: 0,
            ..thresholds
        };
        assert!(eager.reached(0, 1) && !eager.reached(1000, 0));
        let second = Duration::from_secs(1);
        assert_eq!(thresholds.pause_after(second), 49 * second);
        let nonsense = Thresholds {
            pause: -1.0,
            delay: 60 * second,
            ..thresholds
        };
        assert_eq!(nonsense.pause_after(second), 60 * second);
    }
}
