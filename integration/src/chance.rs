//! Chance that can be repeated: numbers from a seed that is printed.

use std::time::SystemTime;

/// A source of numbers; the same seed gives the same ones.
#[derive(Debug)]
pub struct Chance {
    /// What it began with.
    pub seed: u64,
    state: u64,
}

impl Chance {
    /// From `WHERRY_SEED` where it is set, else from the clock; the seed is printed.
    pub fn new() -> Self {
        let clock = || {
            SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(1, |t| u64::from(t.subsec_nanos()))
        };
        let told = std::env::var("WHERRY_SEED").ok();
        let seed = told.and_then(|s| s.parse().ok()).unwrap_or_else(clock);
        println!("WHERRY_SEED={seed}");
        Self::of(seed)
    }

    /// From a seed that is always the same.
    pub fn of(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        // The SplitMix64 generator.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

impl Default for Chance {
    fn default() -> Self {
        Self::new()
    }
}
