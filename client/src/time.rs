//! Times as the API tells them, for people and for programs.

use std::time::{Duration, SystemTime};

use core_api::Timestamp;

/// The time as RFC 3339 in UTC, with as many decimals as it has; empty when it was never set.
pub(crate) fn rfc3339(time: Option<&Timestamp>) -> String {
    time.filter(|time| is_set(time))
        .map(ToString::to_string)
        .unwrap_or_default()
}

/// Go's zero time, which older daemons send for "never", lies before the epoch.
pub(crate) fn is_set(time: &Timestamp) -> bool {
    time.seconds > 0
}

/// How long ago it was, in one unit.
pub(crate) fn age(time: Option<&Timestamp>, now: SystemTime) -> String {
    let Some(time) = time.filter(|time| is_set(time)) else {
        return "-".to_owned();
    };
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH);
    let then = u64::try_from(time.seconds).unwrap_or_default();
    let seconds = since_epoch
        .unwrap_or(Duration::ZERO)
        .as_secs()
        .saturating_sub(then);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told() {
        let time = Timestamp {
            seconds: 1_700_000_000,
            nanos: 500_000_000,
        };
        assert_eq!(rfc3339(Some(&time)), "2023-11-14T22:13:20.500Z");
        let zero = Timestamp {
            seconds: -62_135_596_800,
            nanos: 0,
        };
        assert_eq!(rfc3339(Some(&zero)), "");
        let after = |seconds: u64| {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds);
            age(Some(&time), now)
        };
        assert_eq!(
            [
                after(0),
                after(119),
                after(120),
                after(7200),
                after(200_000)
            ],
            ["0s", "119s", "2m", "2h", "2d"]
        );
        assert_eq!(age(Some(&zero), SystemTime::now()), "-");
    }
}
