//! All that was measured: per metric and subject the values of every round.

use std::collections::BTreeMap;

/// Values by metric, then by subject.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    values: BTreeMap<String, BTreeMap<String, Vec<f64>>>,
}

impl Samples {
    /// One value more.
    pub fn push(&mut self, metric: &str, subject: &str, value: f64) {
        self.values
            .entry(metric.to_owned())
            .or_default()
            .entry(subject.to_owned())
            .or_default()
            .push(value);
    }

    /// All values of one metric and subject.
    pub fn values(&self, metric: &str, subject: &str) -> &[f64] {
        let found = self.values.get(metric).and_then(|by| by.get(subject));
        found.map_or(&[], Vec::as_slice)
    }

    /// The value that half of them do not exceed; none when nothing was measured.
    pub fn median(&self, metric: &str, subject: &str) -> Option<f64> {
        quantile(self.values(metric, subject), 50)
    }

    /// The value that 95 of a hundred do not exceed.
    pub fn p95(&self, metric: &str, subject: &str) -> Option<f64> {
        quantile(self.values(metric, subject), 95)
    }

    /// The value that five of a hundred do not exceed: the bad end of a rate.
    pub fn p5(&self, metric: &str, subject: &str) -> Option<f64> {
        quantile(self.values(metric, subject), 5)
    }

    /// The metrics in the order of their names, with the subjects of each.
    pub fn metrics(&self) -> impl Iterator<Item = (&str, &BTreeMap<String, Vec<f64>>)> {
        self.values.iter().map(|(name, by)| (name.as_str(), by))
    }
}

/// The value at `percent` of the sorted values; the median of an even number is the mean of two.
fn quantile(values: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let low = sorted[last * percent / 100];
    let high = sorted[(last * percent).div_ceil(100)];
    Some(f64::midpoint(low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_tails() {
        let mut samples = Samples::default();
        assert_eq!(samples.median("m", "s"), None);
        for value in [4.0, 1.0, 3.0, 2.0] {
            samples.push("m", "s", value);
        }
        assert_eq!(samples.median("m", "s"), Some(2.5));
        samples.push("m", "s", 9.0);
        assert_eq!(samples.median("m", "s"), Some(3.0));
        assert_eq!(samples.p95("m", "s"), Some(6.5));
        assert_eq!(samples.p5("m", "s"), Some(1.5));
    }
}
