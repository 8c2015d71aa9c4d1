//! Durations as Go writes them: `1h30m`, `100ms`, `2.5s`.

use std::time::Duration;

/// The units, in nanoseconds.
const UNITS: [(&str, f64); 8] = [
    // Before those that are their beginnings.
    ("ms", 1e6),
    ("us", 1e3),
    ("\u{b5}s", 1e3),
    ("\u{3bc}s", 1e3),
    ("ns", 1.0),
    ("h", 3.6e12),
    ("m", 6e10),
    ("s", 1e9),
];
/// The longest duration that Go has, in nanoseconds.
const LONGEST: f64 = 9.2e18;

/// Reads a duration that is not negative; `None` for what is none.
pub(super) fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut nanos = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(end);
        let (unit, factor) = UNITS.iter().find(|(unit, _)| behind.starts_with(unit))?;
        nanos += number.parse::<f64>().ok()? * factor;
        rest = &behind[unit.len()..];
    }
    let fits = !text.is_empty() && nanos <= LONGEST;
    fits.then(|| Duration::from_secs_f64(nanos / 1e9))
}

/// Writes a duration so that [`parse`] and Go read it, in the largest unit that leaves no rest.
pub(super) fn render(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos {
        0 => "0s".to_owned(),
        _ if nanos.is_multiple_of(1_000_000_000) => format!("{}s", nanos / 1_000_000_000),
        _ if nanos.is_multiple_of(1_000_000) => format!("{}ms", nanos / 1_000_000),
        _ => format!("{nanos}ns"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("100ms", 100),
            ("1h2m3s", 3_723_000),
            ("1.5s", 1500),
            ("2000us", 2),
        ] {
            let duration = parse(text).unwrap();
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
            assert_eq!(parse(&render(duration)), Some(duration), "{text}");
        }
        for text in ["", "5", "s", "-1s", "1d", "1 s", "1.2.3s", "9999999h"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
