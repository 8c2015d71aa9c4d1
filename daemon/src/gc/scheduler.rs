//! When to collect: after enough changes, not all the time.
//!
//! The thresholds are those of containerd's `io.containerd.gc.v1.scheduler`.

use std::time::Duration;

use crate::config::{Config, Gc};

impl Gc {
    /// Whether so many changes and deletions are a reason to collect.
    pub fn reached(&self, mutations: u64, deletions: u64) -> bool {
        let over = |threshold: u32, count| threshold > 0 && count >= u64::from(threshold);
        over(self.deletion_threshold, deletions) || over(self.mutation_threshold, mutations)
    }

    /// How long to wait before the next collection after one that took `took`, so that collecting
    /// takes no more than its part of the time.
    pub fn pause_after(&self, took: Duration) -> Duration {
        let part = if self.pause_threshold > 0.0 && self.pause_threshold <= 0.5 {
            self.pause_threshold
        } else {
            Config::default().gc.pause_threshold
        };
        took.mul_f64((1.0 - part) / part).max(self.schedule_delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_count_and_pauses_are_in_proportion() {
        let thresholds = Config::default().gc;
        assert!(!thresholds.reached(99, 99) && thresholds.reached(100, 0));
        let eager = Gc {
            deletion_threshold: 1,
            mutation_threshold: 0,
            ..thresholds
        };
        assert!(eager.reached(0, 1) && !eager.reached(1000, 0));
        let second = Duration::from_secs(1);
        assert_eq!(thresholds.pause_after(second), 49 * second);
        let nonsense = Gc {
            pause_threshold: -1.0,
            schedule_delay: 60 * second,
            ..thresholds
        };
        assert_eq!(nonsense.pause_after(second), 60 * second);
    }
}
