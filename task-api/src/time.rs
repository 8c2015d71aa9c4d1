//! Exit times on the wire: `SystemTime` to protobuf's `Timestamp` and back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protobuf::well_known_types::timestamp::Timestamp;

/// Seconds of the "unset" exit time: the first moment of year 1, Go's zero time.
pub const UNSET_SECONDS: i64 = -62_135_596_800;

/// The exit time of a process that has not exited.
pub fn unset() -> Timestamp {
    Timestamp {
        seconds: UNSET_SECONDS,
        ..Timestamp::default()
    }
}

/// `time` as protobuf has it: seconds since 1970, rounded down, and 0 to 999,999,999 ns.
/// A time out of range becomes the end of the range.
pub fn to_timestamp(time: SystemTime) -> Timestamp {
    let (seconds, nanos) = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (
            i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            after.subsec_nanos(),
        ),
        Err(before) => {
            let before = before.duration();
            let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => (-seconds, 0),
                nanos => (-seconds - 1, 1_000_000_000 - nanos),
            }
        }
    };
    // Below 10^9, so it fits.
    let nanos = i32::try_from(nanos).unwrap_or(0);
    Timestamp {
        seconds,
        nanos,
        ..Timestamp::default()
    }
}

/// The moment a timestamp names; `None` for the unset time and for anything else that is not
/// representable.
pub fn from_timestamp(timestamp: &Timestamp) -> Option<SystemTime> {
    if timestamp.seconds == UNSET_SECONDS && timestamp.nanos == 0 {
        return None;
    }
    let nanos = u32::try_from(timestamp.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)?;
    let seconds = Duration::from_secs(timestamp.seconds.unsigned_abs());
    let second = if timestamp.seconds < 0 {
        UNIX_EPOCH.checked_sub(seconds)
    } else {
        UNIX_EPOCH.checked_add(seconds)
    };
    second?.checked_add(Duration::from_nanos(u64::from(nanos)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_round_trip() {
        for (seconds, nanos) in [(0, 0), (1_700_000_000, 999_999_999), (-1, 1), (-5, 0)] {
            let timestamp = Timestamp {
                seconds,
                nanos,
                ..Timestamp::default()
            };
            let time = from_timestamp(&timestamp).unwrap();
            assert_eq!(to_timestamp(time), timestamp);
        }
    }

    #[test]
    fn the_unset_time_is_no_time() {
        assert_eq!(from_timestamp(&unset()), None);
        // 719,162 days lie between the first day of year 1 and that of 1970.
        assert_eq!(unset().seconds, -719_162 * 86_400);
    }

    #[test]
    fn nonsense_is_no_time() {
        for (seconds, nanos) in [(0, -1), (0, 1_000_000_000), (i64::MAX, 999_999_999)] {
            let timestamp = Timestamp {
                seconds,
                nanos,
                ..Timestamp::default()
            };
            let _ = from_timestamp(&timestamp).map(to_timestamp);
            assert!(nanos == 999_999_999 || from_timestamp(&timestamp).is_none());
        }
    }
}
